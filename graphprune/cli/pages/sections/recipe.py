"""How to do it again: the recipe as text, or the command that replays a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from graphprune.cli.pages.figures import Section
from graphprune.cli.pages.subjects import Subject
from graphprune.cli.pages.tree import code, folded, make, table


def sections(subject: Subject, limit: int) -> Iterator[Section]:
    """The recipe, the replay, and where the time of the run went."""
    parts = []
    for result in subject.results:
        if result.get("recipe"):
            parts += [
                make("p", "Save this as ", code("recipe.toml"), ", and put the inputs that it names beside it; then:"),
                _lines(f"graphprune run recipe.toml {subject.model} -o small.onnx", "The command"),
                _lines(result["recipe"], "The recipe"),
            ]
    for one in subject.documents:
        if one.kind == "plan":
            values = one.data.get("compensated") or one.data.get("distilled")
            lost = " What was fitted or trained on inputs is not in it: the result is less accurate." if values else ""
            parts += [
                make("p", f"The plan removes the same classes again, without looking at inputs.{lost}"),
                _lines(f"graphprune apply {Path(one.where).name} {subject.model} -o again.onnx", "The replay"),
            ]
    for result in subject.results:
        spent = result.get("seconds")
        if spent:
            rows = [[step, f"{seconds:.2f}"] for step, seconds in spent.items()]
            rows.append(["in all", f"{sum(spent.values()):.2f}"])
            own = table("Seconds by step", ["step", "seconds"], rows)
            parts.append(folded(f"Where the {sum(spent.values()):.3g} s of this run went", own))
    if parts:
        yield Section("recipe", "How to do it again", tuple(parts))


def _lines(text: str, label: str) -> Element:
    return make("pre", make("code", text.rstrip("\n")), tabindex="0", role="group", aria_label=label)
