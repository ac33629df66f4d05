"use strict";
/* Draws each figure again by Observable Plot, as wide as the screen: what stands there without scripts stays where a
   drawing fails. Names are given to Plot as values of channels, and by it to the page as text. */
(() => {
  const colour = (number) => (number < 0 ? "var(--alone)" : `var(--g${number})`);
  const tail = (name, most) => (name.length <= most ? name : `…${name.slice(1 - most)}`);
  const amount = (value) => (value == null ? "–" : d3.format(Math.abs(value) >= 1e4 ? ".3s" : Math.abs(value) >= 1e3 ? ",.0f" : ".3~g")(value).replace("−", "-"));
  const percent = (value) => d3.format(".1%")(value).replace("%", " %");
  const same = (a, b) => (a === b ? `${a}` : `${a} → ${b}`);
  const narrow = (width) => width < 520;
  const look = { background: "none", fontSize: "12px", color: "var(--letters)" };
  const tip = { fill: "var(--card)", stroke: "var(--faint)", fontSize: 13, textPadding: 8 };

  const drawings = {
    strip({ rows }, width) {
      const wide = Math.max(width, rows.length * 5 + 60);
      const keys = rows.map((_, k) => k);
      const step = Math.max(1, Math.ceil(rows.length / (wide / 60)));
      const x = { domain: keys, label: null, padding: 0.16, ticks: keys.filter((k) => k % step === 0), tickSize: 3, tickFormat: (k) => `${k + 1}` };
      const title = (k) => {
        const r = rows[k];
        return [
          r[0] === r[11] ? r[0] : `${r[0]}  (${r[1]})`,
          `width ${same(r[2], r[3])}` + (r[4] ? `,  reads ${same(r[4], r[5])}` : ""),
          r[4] ? `weights ${same(amount(r[6]), amount(r[7]))}` : null,
          r[9] || r[8] ? `MACs ${same(amount(r[8]), amount(r[9]))}` : null,
          r[0] === r[11] ? null : `group ${r[11] || "none"}`,
        ].filter(Boolean).join("\n");
      };
      const common = { width: wide, marginLeft: 46, marginRight: 8, style: look };
      const above = Plot.plot({
        ...common, height: 240, marginBottom: 4, marginTop: 24, x: { ...x, axis: null },
        y: { type: "sqrt", label: "width (root scale)", labelArrow: "none", ticks: 5, grid: true, nice: true },
        marks: [
          Plot.barY(keys, { x: Plot.identity, y: (k) => rows[k][2], fill: "var(--was)" }),
          Plot.barY(keys, { x: Plot.identity, y: (k) => rows[k][3], fill: (k) => colour(rows[k][10]) }),
          Plot.ruleY([0], { stroke: "var(--letters)" }),
          Plot.tip(keys, Plot.pointerX({ x: Plot.identity, y: (k) => rows[k][2], title, ...tip })),
        ],
        color: { type: "identity" },
      });
      const below = Plot.plot({
        ...common, height: 118, marginTop: 4, marginBottom: 42, x: { ...x, label: "layer, in the order of the graph", labelAnchor: "center", labelArrow: "none" },
        y: { domain: [1, 0], label: null, tickFormat: "%", ticks: [0, 0.5, 1], grid: true },
        marks: [
          Plot.barY(keys, { x: Plot.identity, y: (k) => (rows[k][6] ? 1 - rows[k][7] / rows[k][6] : 0), fill: "var(--went)" }),
          Plot.tip(keys, Plot.pointerX({ x: Plot.identity, y: 0, title, anchor: "top", ...tip })),
        ],
      });
      const keyed = [["--was", "before"], ["--alone", "after, alone in its group or in none"]];
      if (rows.some((r) => r[10] >= 0)) keyed.push(["--g0", "after, one colour a shared group"]);
      return [legend([...keyed, ["--went", "share of weights that went"]]), above, below];
    },

    pairs({ rows, unit, factor = 1, log = false, was = "before", now = "after" }, width) {
      const keys = rows.map((_, k) => k);
      const values = rows.flatMap((r) => [r[1], r[2]]).filter((v) => v != null).map((v) => factor * v);
      const scale = log && d3.min(values) > 0 && d3.max(values) / d3.min(values) > 50 ? "log" : "linear";
      const small = narrow(width);
      const left = small ? 12 : Math.min(330, 14 + 7 * d3.max(rows, (r) => Math.min(r[0].length, 44)));
      const row = small ? 40 : 24;
      const told = (k) => [1, 2].map((p) => (rows[k][p] == null ? "–" : amount(factor * rows[k][p]))).join(" → ");
      const first = d3.min(values), x1 = scale === "log" ? first * 0.6 : 0;
      const has = (place) => (k) => rows[k][place] != null && (scale !== "log" || rows[k][place] > 0);
      const middle = (k) => k + (small ? 0.66 : 0.5);
      const bar = (place, fill, dy) => Plot.rectX(keys.filter(has(place)), {
        x1, x2: (k) => factor * rows[k][place], y1: (k) => k + dy, y2: (k) => k + dy + 0.3, fill, rx2: 2,
      });
      // a bar has no start on such a scale: two dots and what lies between
      const dot = (place, fill) => Plot.dot(keys.filter(has(place)), { x: (k) => factor * rows[k][place], y: middle, fill, r: 5 });
      const both = keys.filter((k) => has(1)(k) && has(2)(k));
      const drawn = scale === "log"
        ? [Plot.link(both, { x1: (k) => factor * rows[k][1], x2: (k) => factor * rows[k][2], y1: middle, y2: middle, stroke: "var(--was)", strokeWidth: 3 }), dot(1, "var(--alone)"), dot(2, "var(--now)")]
        : [bar(1, "var(--was)", small ? 0.38 : 0.18), bar(2, "var(--now)", small ? 0.66 : 0.5)];
      return [
        legend([[scale === "log" ? "--alone" : "--was", was], ["--now", now]]),
        Plot.plot({
          width, height: row * rows.length + 46, marginLeft: left, marginRight: small ? 12 : 130, marginTop: 8, marginBottom: 38, style: look,
          x: { type: scale, label: unit, labelAnchor: "center", labelArrow: "none", grid: true, ticks: Math.max(2, Math.floor((width - left) / (scale === "log" ? 160 : 90))), tickFormat: scale === "log" ? "~r" : d3.max(values) >= 1e5 ? "~s" : undefined },
          y: { domain: [rows.length, -0.02], axis: null },
          marks: [
            ...drawn,
            small
              ? Plot.text(keys, { frameAnchor: "left", y: (k) => k + 0.18, text: (k) => `${tail(rows[k][0], Math.floor(width / 6.6) - told(k).length - 4)}   ${told(k)}`, textAnchor: "start" })
              : [
                  Plot.text(keys, { frameAnchor: "left", dx: -8, y: (k) => k + 0.5, text: (k) => tail(rows[k][0], 44), textAnchor: "end" }),
                  Plot.text(keys, { frameAnchor: "right", dx: 12, y: (k) => k + 0.5, text: told, textAnchor: "start", fontVariant: "tabular-nums" }),
                ],
            Plot.tip(keys, Plot.pointerY({ x: (k) => Math.max(factor * (rows[k][1] ?? 0), factor * (rows[k][2] ?? 0)) || x1, y: (k) => k + 0.5, title: (k) => `${rows[k][0]}\n${told(k)} ${unit}`, ...tip })),
          ],
        }),
      ];
    },

    course({ points, best }, width) {
      const kept = points.filter((p) => p[0] === best);
      return [
        Plot.plot({
          width, height: narrow(width) ? 240 : 300, marginLeft: 56, marginBottom: 40, marginTop: 26, style: look,
          x: { label: "step", labelAnchor: "center", labelArrow: "none", ticks: Math.floor(width / 80) },
          y: { label: "held-out loss", labelArrow: "none", grid: true, zero: d3.min(points, (p) => p[1]) < 0.3 * d3.max(points, (p) => p[1]), nice: true },
          marks: [
            Plot.lineY(points, { x: "0", y: "1", stroke: "var(--now)", strokeWidth: 2 }),
            Plot.dot(points, { x: "0", y: "1", fill: "var(--now)", r: 2.5 }),
            Plot.dot(kept, { x: "0", y: "1", fill: "var(--now)", stroke: "var(--card)", strokeWidth: 2, r: 7 }),
            Plot.text(kept, { x: "0", y: "1", text: () => "kept", dy: -18, fontWeight: 600, stroke: "var(--card)", fill: "var(--letters)", strokeWidth: 4 }),
            Plot.tip(points, Plot.pointerX({ x: "0", y: "1", title: (p) => `step ${p[0]}\nheld-out loss ${amount(p[1])}`, ...tip })),
          ],
        }),
      ];
    },

    heat({ levels, rows }, width) {
      const keys = rows.map((_, k) => k), small = narrow(width);
      const cells = keys.flatMap((k) => rows[k][3].map((cell, level) => cell && { k, level, heat: cell[0], drop: cell[1], gone: cell[2], macs: cell[3] }).filter(Boolean));
      const left = small ? 8 : Math.min(340, 14 + 7 * d3.max(rows, (r) => Math.min(r[0].length, 44)));
      const row = small ? 46 : 26;
      const told = (c) => (c.drop == null ? (c.gone ? "broken" : "") : Math.abs(c.drop) < 5e-4 ? "0" : d3.format(".3~f")(c.drop));
      const shift = small ? 0.42 : 0;
      return [
        Plot.plot({
          width: small ? width : Math.min(width, left + levels.length * 170 + 20), height: row * rows.length + 40, marginLeft: left, marginRight: 8, marginTop: 34, marginBottom: 4, style: look,
          x: { axis: null, domain: [0, levels.length] }, y: { domain: [rows.length, 0], axis: null }, color: { type: "identity" },
          marks: [
            Plot.text(levels, { x: (_, k) => k + 0.5, frameAnchor: "top", dy: -18, text: (v) => `${+(100 * v).toFixed(1)} % gone`, fill: "var(--faint)" }),
            Plot.rect(cells, { x1: (c) => c.level, x2: (c) => c.level + 1, y1: (c) => c.k + shift, y2: (c) => c.k + 1, inset: 1, rx: 3, fill: (c) => `var(--h${c.heat})`, stroke: "var(--line)" }),
            Plot.text(cells.filter((c) => c.heat < 5), { x: (c) => c.level + 0.5, y: (c) => c.k + 0.5 + shift / 2, text: told, fill: "var(--on-low)" }),
            Plot.text(cells.filter((c) => c.heat >= 5), { x: (c) => c.level + 0.5, y: (c) => c.k + 0.5 + shift / 2, text: told, fill: "var(--on-high)" }),
            small
              ? Plot.text(keys, { frameAnchor: "left", y: (k) => k + 0.22, text: (k) => tail(rows[k][0], Math.floor(width / 7.4)), textAnchor: "start" })
              : Plot.text(keys, { frameAnchor: "left", dx: -8, y: (k) => k + 0.5, text: (k) => tail(rows[k][0], 44), textAnchor: "end" }),
            Plot.tip(cells, Plot.pointer({ x: (c) => c.level + 0.5, y: (c) => c.k + 0.5, title: (c) => `${rows[c.k][0]}\n${c.gone} of ${rows[c.k][2]} ${rows[c.k][1]} classes gone\ndrop ${told(c)}\nMACs saved ${amount(c.macs)}`, ...tip })),
          ],
        }),
      ];
    },

    front({ metric, original, recipes, panels }, width) {
      const hues = recipes.map((_, k) => colour(k % 10));
      const symbols = ["circle", "square", "diamond", "triangle", "star"];
      const drawn = panels.map(({ axis, rows, whole }) => {
        const line = rows.filter((r) => r[4]).map((r) => [r[2], r[3]]);
        if (whole && original != null) line.push([1, original]);
        line.sort((a, b) => a[0] - b[0]);
        const number = (r) => recipes.indexOf(r[0]);
        return Plot.plot({
          width, height: narrow(width) ? 280 : 360, marginLeft: 58, marginRight: 30, marginBottom: 42, marginTop: 28, style: look,
          x: { label: axis, labelAnchor: "center", labelArrow: "none", tickFormat: (v) => `${Math.round(100 * v)}`, grid: true, zero: true, nice: true, ticks: Math.floor(width / 90) },
          y: { label: `score by ${metric}`, labelArrow: "none", grid: true, nice: true, insetBottom: 24 },
          color: { type: "identity" }, symbol: { domain: recipes, range: recipes.map((_, k) => symbols[k % symbols.length]) },
          marks: [
            Plot.line(line, { x: "0", y: "1", stroke: "var(--faint)", strokeWidth: 1.5 }),
            Plot.dot(rows, { x: "2", y: "3", r: 6, symbol: "0", stroke: (r) => hues[number(r)], fill: (r) => (r[4] ? hues[number(r)] : "var(--card)"), strokeWidth: 2 }),
            Plot.text(rows.filter((r) => r[4]), { x: "2", y: "3", text: "1", dy: 18, stroke: "var(--card)", fill: "var(--letters)", strokeWidth: 4 }),
            original == null ? null : Plot.dot([0], { x: [1], y: [original], symbol: "times", stroke: "var(--letters)", strokeWidth: 2.5, r: 6 }),
            original == null ? null : Plot.text([0], { x: [1], y: [original], text: ["original"], textAnchor: "end", dy: -14, dx: 8 }),
            Plot.tip(rows, Plot.pointer({ x: "2", y: "3", title: (r) => `${recipes.length > 1 ? `${r[0]}, ` : ""}${r[1]}\n${percent(r[2])} left\nscore ${amount(r[3])}`, ...tip })),
          ],
        });
      });
      return recipes.length > 1 ? [legend(recipes.map((name, k) => [`--g${k % 10}`, name])), ...drawn] : drawn;
    },
  };

  function legend(entries) {
    const list = document.createElement("ul");
    list.className = "key";
    for (const [name, words] of entries) {
      const item = document.createElement("li"), mark = document.createElement("i");
      mark.style.background = `var(${name})`;
      item.append(mark, words);
      list.append(item);
    }
    return list;
  }

  function draw(figure, width) {
    const place = figure.querySelector(".picture");
    const data = JSON.parse(figure.querySelector("script").textContent);
    const made = drawings[figure.dataset.picture](data, width);
    for (const one of made) {
      const svg = one.tagName === "svg" ? one : null;
      if (svg) {
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", figure.dataset.label);
        svg.classList.add("plot");
        // a picture is one thing with one label; its numbers stand in the table
        for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
      }
    }
    const box = document.createElement("div");
    box.append(...made);
    place.replaceChildren(box);
  }

  function all() {
    for (const figure of document.querySelectorAll("figure[data-picture]")) {
      const place = figure.querySelector(".picture"), width = Math.floor(place.clientWidth);
      if (!width || figure.dataset.width === `${width}`) continue;
      try {
        draw(figure, width);
        figure.dataset.width = width;
      } catch (error) {
        console.error(error); // the picture without scripts stays
      }
    }
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
    all();
  });
  addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
  addEventListener("resize", () => requestAnimationFrame(all));
  all();
})();
