"""Words that terminals and pages share."""

from __future__ import annotations

from graphprune.cli.overview import reason
from graphprune.cli.report import kinds
from graphprune.cli.words import change, plural, set_change


def test_changes_are_the_same_set_otherwise() -> None:
    assert [change(200, after) for after in (124, 200, 300)] == ["-38.0 %", "+0.0 %", "+50.0 %"]
    assert [set_change(200, after) for after in (124, 200, 300)] == ["\u221238.0 %", "\u00b10 %", "+50.0 %"]
    assert change(0, 5) == set_change(0, 5) == ""


def test_counts_reasons_and_kinds() -> None:
    assert plural(1, "group", "groups") == "1 group" and plural(2000, "group", "groups") == "2,000 groups"
    assert reason({"reasons": []})["reason"] == "it has one class"
    groups = [{"kind": "head", "size": 8, "removed": gone} for gone in ([1, 2], [0], [])]
    assert kinds(groups) == [{"kind": "head", "groups": 2, "classes": 16, "kept": 13}]
