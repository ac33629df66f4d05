"""What ``prune``, ``sparsify`` and ``apply`` print."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphprune.cli import report
from graphprune.cli.bases import print_bases
from graphprune.cli.choosing import print_choices
from graphprune.cli.options import number, show
from graphprune.cli.pages.asking import asked
from graphprune.cli.tables import Column, listing
from graphprune.cli.targets import print_targets
from graphprune.cli.validate import print_verdict
from graphprune.cli.words import change
from graphprune.cli.writing import told
from graphprune.errors import InputError
from graphprune.model import AnyModel
from graphprune.passes.results import Result
from graphprune.proof.proof import Rounded
from graphprune.verdict.timing import bench

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""A name within a reason: what differs by it alone is of one kind."""
_REASONS = 6
_WEIGHTS = 3
_LEAST, _ROUNDS, _SECONDS = 5, 20, 5.0
"""Rounds of the benchmark of a report, and about how long it may take where fewer are enough."""


def show_result(
    result: Result,
    model: AnyModel | None,
    json_to: str | None,
    quiet: bool,
    verbose: bool,
    more: Callable[[Console], None] = lambda _: None,
) -> None:
    """Print what was done, write its JSON, and its page, for which it is timed beside the model.

    Args:
        result: what was done.
        model: what it was done to; None where that changes no time.
        json_to, quiet, verbose: as for all commands.
        more: prints what else there is to say.
    """
    data = report.result_data(result)
    beside = [] if model is None or asked() is None else list(_timed(result, model, data))

    def printed(out: Console) -> None:
        print_result(out, result, verbose)
        more(out)

    show(data, json_to, quiet, printed, beside)


def _timed(result: Result, model: AnyModel, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A short benchmark, where both run on the same inputs."""
    shapes = result.analysis.witness.inputs
    try:
        tried = bench(model, result.model, input_shapes=shapes, rounds=2, warmup=1, footprints=False)
        rounds = int(_SECONDS / max(sum(one.median for one in tried.timings), 1e-9))
        rounds = min(max(rounds, _LEAST), _ROUNDS)
        found = bench(model, result.model, input_shapes=shapes, rounds=rounds, warmup=2, footprints=False, layers=True)
    except InputError as error:
        data["notes"] = [*data["notes"], f"not timed for the report: {error}"]
    else:
        made = found.to_json()
        for one in (made["timings"][-1], made["ratios"][-1]):
            one["model"] = "the result" if result.output is None else result.output.name
        yield made


def print_result(out: Console, result: Result, verbose: bool) -> None:
    """What was done, as a table."""
    before, after = result.before, result.after
    table = Table(box=None, pad_edge=False)
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row(
        "parameters", number(before.parameters), number(after.parameters), change(before.parameters, after.parameters)
    )
    table.add_row("MACs", number(before.macs), number(after.macs), change(before.macs, after.macs))
    table.add_row("bytes", number(before.bytes), number(after.bytes), change(before.bytes, after.bytes))
    for kind in report.kinds(map(vars, result.plan.groups)):
        label = f"{kind['kind']} classes in {kind['groups']} {'group' if kind['groups'] == 1 else 'groups'}"
        table.add_row(label, str(kind["classes"]), str(kind["kept"]), change(kind["classes"], kind["kept"]))
    sizes = ", ".join(f"{n}={'x'.join(map(str, s))}" for n, s in result.analysis.witness.inputs.items())
    out.print(Text(f"{result.analysis.model.name}, MACs at {sizes}"))
    out.print(table)
    for entry in result.plan.interface:
        old, new = ("x".join(map(str, entry[k])) for k in ("from", "to"))
        out.print(Text(f"interface: {entry['name']} was {old}, is {new or 'gone'}"))
    print_targets(out, result.met, verbose)
    _print_blocks(out, result)
    print_bases(out, result, verbose)
    _print_rounds(out, result)
    if verbose:
        print_choices(out, result.choices)
    _print_untouched(out, result, verbose)
    _print_proof(out, result)
    _print_folded(out, result)
    _print_sparse(out, result, verbose)
    _print_stored(out, result, verbose)
    _print_fits(out, result, verbose)
    _print_distilled(out, result, verbose)
    for note in result.notes:
        out.print(Text(f"note: {note}"))
    if result.verdict is not None:
        print_verdict(out, result.verdict, verbose)
    times = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result.seconds.items())
    out.print(Text(f"time: {sum(result.seconds.values()):.2f} s ({times})"))
    if result.output is None:
        out.print(Text("no model written (--dry-run)"))
    if written := told():
        out.print(Text(written), soft_wrap=True)


def _print_untouched(out: Console, result: Result, verbose: bool) -> None:
    if verbose:
        for entry in result.untouched:
            out.print(Text(f"untouched: {entry.group}: {entry}"))
        return
    alike: dict[str, list[str]] = {}
    for reason in map(str, result.untouched):
        alike.setdefault(_QUOTED.sub("", reason), []).append(reason)
    for own in alike.values():
        more = "" if len(set(own)) == 1 else "; others alike (-v lists all)"
        out.print(Text(f"untouched: {len(own)} {'group' if len(own) == 1 else 'groups'}: {own[0]}{more}"))


def _print_rounds(out: Console, result: Result) -> None:
    for place, one in enumerate(report.rounds(result), 1):
        groups = "1 group" if one["groups"] == 1 else f"{one['groups']} groups"
        proof = "" if one["proof"] is None else f"; proof: worst {one['proof']:.1e}"
        left = f"{number(one['macs'])} MACs ({change(result.before.macs, one['macs'])}) left"
        out.print(Text(f"round {place}: {one['classes']} classes of {groups} went, {left}{proof}"))


def _print_blocks(out: Console, result: Result) -> None:
    if result.without is None:
        return
    for entry, score in zip(result.without.entries, result.without.scores, strict=True):
        scored = "" if score is None else f" (score {score:.3g})"
        out.print(Text(f"block {entry.id} went: {entry.output} is {entry.by} now{scored}"))
    if result.without.proof is not None:
        worst = result.without.proof.worst
        out.print(
            Text(f"proof of blocks: holds, worst relative error {worst:.1e} beside the original with them cut off")
        )


def _print_folded(out: Console, result: Result) -> None:
    count = sum(map(len, result.plan.folded.values()))
    if count:
        proven = (result.plan.proof or {}).get("folded")
        worst = max((o["max_rel"] for o in proven["outputs"]), default=0.0) if proven else None
        shown = "not proven" if worst is None else f"proof beside the original with them: worst {worst:.1e}"
        out.print(Text(f"folded into biases: {count} removed classes that no input changes ({shown})"))


def _print_sparse(out: Console, result: Result, verbose: bool) -> None:
    data = report.sparse_data(result)
    if data is None:
        return
    for kind in data["kinds"]:
        weights = "1 weight" if kind["weights"] == 1 else f"{kind['weights']} weights"
        out.print(
            Text(
                f"{data['pattern']} by {kind['method']}: {weights}, {number(kind['elements'])} of "
                f"{number(result.after.parameters)} parameters; {100 * kind['kept']:.1f} % of them and "
                f"{100 * kind['kept_magnitude']:.1f} % of their magnitude stay"
            )
        )
    if data["rounds"]:
        shares = ", ".join(f"{100 * share:.1f}" for share in data["rounds"])
        out.print(Text(f"rounds: {shares} % of them zero, each fitted before the next"))
    if result.compressed is not None:
        before, after = result.compressed
        out.print(Text(f"deflated: {number(before)}B before, {number(after)}B now ({change(before, after)})"))
        out.print(Text("runtimes compute these zeros like any number: the model is smaller to ship, and not faster"))
    if data["ordered"]:
        before, after = (100 * share for share in data["scores"])
        groups = "1 group" if len(data["ordered"]) == 1 else f"{len(data['ordered'])} groups"
        out.print(
            Text(f"permuted: {groups}; of what sums over them the pattern keeps {after:.1f} %, not {before:.1f} %")
        )
    if verbose:
        for entry in result.plan.sparsity:
            kept = f"{100 * entry['kept_magnitude']:.1f} % of its magnitude stays"
            out.print(Text(f"sparse: {entry['name']} at {', '.join(entry['nodes'])}: {kept}"))
        for skipped in data["dense"]:
            out.print(Text(f"dense: {skipped['node']}: {skipped['reason']}"))
        return
    reasons = Counter(s["reason"] for s in data["dense"]).most_common()
    for reason, count in reasons[:_REASONS]:
        out.print(Text(f"dense: {count} {'product' if count == 1 else 'products'}: {reason}"))
    if len(reasons) > _REASONS:
        out.print(Text(f"... and {sum(c for _, c in reasons[_REASONS:])} more (-v lists all)"))


def _print_stored(out: Console, result: Result, verbose: bool) -> None:
    found = result.stored
    if found is None:
        return
    if found.beside is not None:
        weights = "1 weight" if len(found.weights) == 1 else f"{len(found.weights)} weights"
        dense, sparse = found.beside.bytes
        own = f"{number(sparse)}B, dense {number(dense)}B ({change(dense, sparse)})"
        same = "" if not found.beside.compared else "; outputs are the same bit for bit"
        out.print(Text(f"stored sparse: {weights}; the file has {own}{same}"))
        if found.beside.loads is not None:
            before, after = found.beside.loads
            peaks = [number(one.peak_bytes) for one in (after, before) if one.peak_bytes is not None]
            held = "" if len(peaks) < 2 else f"; peak {peaks[0]}B, dense {peaks[1]}B"
            text = f"  ONNX Runtime loads it in {1e3 * after.seconds:.3g} ms, dense {1e3 * before.seconds:.3g} ms{held}"
            out.print(Text(text))
    if verbose:
        for entry in found.weights:
            out.print(Text(f"stored sparse: {entry.name}: {number(entry.sparse)}B, dense {number(entry.dense)}B"))
        for one in found.dense:
            out.print(Text(f"stored dense: {one.weight}: {one}"))
        return
    for reason, count in Counter(map(str, found.dense)).most_common():
        out.print(Text(f"stored dense: {count} {'weight' if count == 1 else 'weights'}: {reason}"))


def _print_fits(out: Console, result: Result, verbose: bool) -> None:
    if not result.fits:
        return
    kept = [f for f in result.fits if f.kept]
    text = f"fit: {len(kept) or 'none'} of {len(result.fits)} linear operators"
    if kept:
        before, after = (median(getattr(f, key) for f in kept) for key in ("before", "after"))
        out.print(Text(f"{text}; their held-out relative error was {before:.3g}, is {after:.3g} (medians)"))
    else:
        out.print(Text(f"{text}: no fit made it better on what was held out"))
    for place in result.abroad if verbose else ():
        out.print(Text(f"  outputs on {place.inputs} inputs: relative error {place.before:.3g}, now {place.after:.3g}"))
    if verbose:
        rows = [[f.node, f"{f.before:.3g}", f"{f.after:.3g}", "" if f.kept else "left as it was"] for f in result.fits]
        listing(out, "operator", (Column("error"), Column("now"), Column("", text=True)), rows)


def _print_distilled(out: Console, result: Result, verbose: bool) -> None:
    found = result.distilled
    if found is None:
        return
    course = found.course
    if course.steps:
        best = f"now {course.after:.3g} (step {course.best})" if found.kept else "and never less"
        weights = "1 weight" if len(found.weights) == 1 else f"{len(found.weights)} weights"
        out.print(
            Text(
                f"distilled: {weights}, {course.steps} steps in {course.seconds:.1f} s at rate {course.rate:.2g}; "
                f"held-out loss {course.before:.3g}, {best}"
            )
        )
    ways = Counter(found.losses.values())
    out.print(Text(f"  compared: {', '.join(f'{count} by {loss}' for loss, count in ways.items())}"))
    for name, why in found.skipped.items():
        out.print(Text(f"  not compared: output {name!r}: {why}"))
    for one in found.untrained if verbose else found.untrained[:_WEIGHTS]:
        out.print(Text(f"  not trained: {one}"))
    if len(found.untrained) > _WEIGHTS and not verbose:
        out.print(Text(f"  ... and {len(found.untrained) - _WEIGHTS} more (-v lists all)"))
    if verbose:
        for name, way in found.losses.items():
            out.print(Text(f"  {name}: by {way}"))
        for step, held in course.looks:
            out.print(Text(f"  step {step}: held-out loss {held:.4g}"))


def _rounded(found: Rounded) -> str:
    """What rounding does to what the proof left it out of."""
    worst = max((o.max_rel for o in found.outputs), default=0.0)
    steps = f"{found.steps} {'step' if found.steps == 1 else 'steps'}"
    apart = f"up to {steps} apart inside and {worst:.1e} at the outputs" if found.steps or worst else "the same"
    which = "" if found.whole else "most "
    return f"{which}activations were not rounded for it; rounded, both models are {apart} on these inputs"


_BESIDE = {
    "factored": "weights as products of two, at full rank, give the same",
    "vocabulary": "the original gives the same on the old ids",
}
"""What else is proven, by its entry in the plan."""


def _at(run: Mapping[str, Any]) -> str:
    """The inputs of one run of a proof: sizes, those of inputs of one shape together."""
    alike: dict[str, list[str]] = {}
    for name, sizes in run["shapes"].items():
        alike.setdefault("x".join(map(str, sizes)), []).append(name)
    told = [f"{own[0]}{f' and {len(own) - 1} more' if len(own) > 1 else ''}={sizes}" for sizes, own in alike.items()]
    return ", ".join([*told, *(f"{name} false" for name in run.get("off", ()))])


def _print_proof(out: Console, result: Result) -> None:
    told = result.plan.proof or {}
    beside = {text: told[key] for key, text in _BESIDE.items() if key in told}
    for text, found in beside.items():
        worst = max((one["max_rel"] for one in found["outputs"]), default=0.0)
        out.print(Text(f"proof: {text}, worst relative error {worst:.1e}"))
    if result.proof is None:
        if not beside and (result.without is None or result.without.proof is None):
            moved = result.plan.groups or result.without is not None
            out.print(Text("proof: not asked for" if moved else "proof: nothing was cut or moved"))
        return
    shapes = "; ".join(map(_at, result.proof.inputs))
    out.print(Text(f"proof: holds, worst relative error {result.proof.worst:.1e} (run at {shapes})"))
    if result.proof.rounded is not None:
        out.print(Text(f"  {_rounded(result.proof.rounded)}"))
    if result.proof.drawn:
        count, name = len(result.proof.drawn), result.proof.drawn[0]
        nodes = f"{name!r} draws" if count == 1 else f"{name!r} and {count - 1} more draw"
        out.print(Text(f"  {nodes} at random: a fixed noise, or nothing, stood there in both models"))
    if result.proof.statistical:
        worst = max(o.max_rel for o in result.proof.plain)
        count = len(result.proof.statistical)
        groups = f"{count} statistical {'group' if count == 1 else 'groups'}"
        out.print(
            Text(f"  {groups}, proven too; that means now run over fewer elements costs up to {worst:.1e} relative")
        )
    for output in result.proof.outputs:
        if output.constant:
            out.print(
                Text(f"  output {output.name!r} is one value everywhere on these inputs: shapes are proven, not values")
            )
        elif output.compared_at:
            out.print(
                Text(
                    f"  output {output.name!r} is lost in rounding on these inputs, so it was compared at "
                    f"{output.compared_at!r}"
                )
            )
