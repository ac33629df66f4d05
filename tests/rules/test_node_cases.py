"""ONNX's own cases of operators end in a proof, or in a line that says what stands against it; nothing else.

By default one case of each operator and some written out in parts, chosen by a fixed seed. All of them, in all forms,
take some minutes: ``GRAPHPRUNE_NODE_CASES=whole pytest tests/rules/test_node_cases.py``.
"""

import os

import pytest

from tests import node_cases

WHOLE = os.environ.get("GRAPHPRUNE_NODE_CASES") == "whole"
CHUNKS = 2


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_cases_are_proven_or_refused(chunk: int) -> None:
    outcomes = list(node_cases.survey(chunk, CHUNKS, WHOLE))
    wrong = [o for o in outcomes if o.status not in ("proven", "refused")]
    assert not wrong, "\n".join(f"{o.case} ({o.form}) {o.status}: {o.message}" for o in wrong)
    assert all(o.message and "\n" not in o.message for o in outcomes if o.status == "refused")
    surrounded = [o for o in outcomes if o.form in ("weights", "activations")]
    proven = [o for o in surrounded if o.status == "proven" and o.removed]
    assert len(surrounded) > 100 and len(proven) > len(surrounded) / 2


def test_a_crash_is_the_outcome_of_its_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is a stand-in that dies in the second of three runs."""
    stand_in = (
        "import os, sys; start = int(sys.argv[5])\n"
        "for k in range(start, 3):\n"
        '    print(\'["case%d", "alone"]\' % k, flush=True)\n'
        "    os.abort() if k == 1 else None\n"
        '    print(\'{"case": "case%d", "form": "alone", "status": "proven"}\' % k, flush=True)\n'
    )
    run = node_cases.subprocess.run
    monkeypatch.setattr(
        node_cases.subprocess, "run", lambda given, **options: run([given[0], "-c", stand_in, *given[1:]], **options)
    )
    found = [(o.case, o.status) for o in node_cases.survey(0, 1, whole=False)]
    assert found == [("case0", "proven"), ("case1", "crashed"), ("case2", "proven")]
