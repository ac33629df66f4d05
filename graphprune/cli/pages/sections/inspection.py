"""What can be pruned and what cannot; which weights follow a pattern of zeros, and which became so."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from graphprune.cli.options import number
from graphprune.cli.overview import OWNED, reason
from graphprune.cli.pages.documents import Data
from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.sections.proofs import shapes
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import Cell, code, folded, make, table
from graphprune.cli.words import plural, share


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """Sparsity of results, then inspections."""
    for result in subject.results:
        if result.get("sparse"):
            yield _sparse(result["sparse"], limit)
    for data in subject.all("inspection"):
        yield _inspection(data, limit)
    for data in subject.all("sparsity"):
        yield _sparsity(data, limit)


def _sparse(found: Data, limit: int) -> Section:
    weights, dense = found["weights"], found["dense"]
    lead = make("p", f"{plural(len(weights), 'weight follows', 'weights follow')} the pattern {found['pattern']}; "
                     f"{plural(len(dense), 'product stays', 'products stay')} dense.")  # fmt: skip
    rows: list[list[Cell]] = [
        [code(one["name"]), code(", ".join(one["nodes"])), one["method"], share(one["kept_magnitude"])]
        for one in weights[:limit]
    ]
    head = ["weight", "read by", "method", "magnitude kept"]
    sparse = table("Sparse weights", head, rows, words=(1, 2), more=len(weights) - len(rows))
    lines: list[list[Cell]] = [[code(one["node"]), one["reason"]] for one in dense[:limit]]
    stay = table("Products that stay dense", ["node", "why"], lines, words=(1,), more=len(dense) - len(lines))
    parts: tuple[Element, ...] = (lead, sparse, *([folded("What stays dense, and why", stay)] if lines else []))
    return Section("sparsity", "Sparsity", parts)


def _inspection(data: Data, limit: int) -> Section:
    total = max(data["parameters"], 1)
    owned = ", ".join(f"{share(data['owned'].get(key, 0) / total)} {told}" for key, told in OWNED.items())
    lead = make(
        "p",
        f"{number(data['parameters'])} parameters, {number(data['macs'])} MACs at {shapes(data['witness'])}, "
        f"{number(data['bytes'])}B. Parameters by the groups that own a dim of their tensor: {owned}.",
    )
    groups = sorted(data["groups"], key=lambda one: -one["parameters"])
    rows: list[list[Cell]] = [
        [code(one["id"]), one["kind"], f"{one['size']:,}", number(one["parameters"]), number(one["macs"]),
         "statistical" if one["statistical"] else "exact"]
        for one in groups[:limit]
    ]  # fmt: skip
    head = ["group", "kind", "classes", "parameters", "MACs", "removal is"]
    parts = [lead, table("What can be pruned", head, rows, words=(1, 5), more=len(groups) - len(rows))]
    parts += [*_fixed(data, limit), *_blocks(data, limit)]
    return Section("inspection", "What can be pruned", tuple(parts))


def _fixed(data: Data, limit: int) -> Iterator[Element]:
    fixed = sorted(data.get("fixed", ()), key=lambda one: -one["parameters"])
    if fixed:
        rows: list[list[Cell]] = [
            [code(one["id"]), f"{one['size']:,}", number(one["parameters"]),
             reason(one)["reason"]]
            for one in fixed[:limit]
        ]  # fmt: skip
        head = ["group", "classes", "parameters", "why"]
        own = table("What cannot be pruned", head, rows, (3,), len(fixed) - len(rows))
        yield folded("What cannot be pruned, and why", own)


def _blocks(data: Data, limit: int) -> Iterator[Element]:
    blocks = data.get("blocks", ())
    if blocks:
        rows: list[list[Cell]] = [
            [code(one["id"]), f"{len(one['nodes'])}", number(one["parameters"]), number(one["macs"]), code(one["by"])]
            for one in blocks[:limit]
        ]
        head = ["block", "nodes", "parameters", "MACs", "is replaced by"]
        yield folded("Blocks that can go", table("Removable blocks", head, rows, (4,), len(blocks) - len(rows)))


def _sparsity(data: Data, limit: int) -> Section:
    layers = data["layers"]
    follow = sum(bool(one["follows"]) for one in layers)
    lead = make("p", f"{follow} of {plural(len(layers), 'weight follows', 'weights follow')} {data['pattern']}.")
    rows: list[list[Cell]] = [
        [code(one["node"]), "follows" if one["follows"] else "dense", share(one["kept_magnitude"]),
         "; ".join(one["reasons"]) or "sparse kernels could read it"]
        for one in layers[:limit]
    ]  # fmt: skip
    head = ["node", data["pattern"], "magnitude kept", "sparse kernels"]
    own = table(f"Weights and {data['pattern']}", head, rows, words=(1, 3), more=len(layers) - len(rows))
    return Section("sparsity", "Sparsity", (lead, own))
