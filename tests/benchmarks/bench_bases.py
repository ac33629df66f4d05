"""Changes of basis: ``python tests/benchmarks/bench_bases.py exports [NAMES]`` and ``... score TASK SHARES [SAMPLES]``.

``exports`` says which apply to which export, each proven. For each export one line of a table: how many norms lost
their mean, how many groups were turned of each kind, the worst relative errors of both proofs, the parameters that
``--ratio 0.3`` leaves with the bases as they were and turned, and the first reason why a hidden size stays as it is.

``score`` prunes a real model to shares of its MACs with the bases as they were, with heads turned, and with hidden
sizes turned too, and gives its score, how near its outputs are where the task says so, and the parameters left.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import graphprune
import models
from graphprune.errors import GraphpruneError
from graphprune.passes.basis.centre import Centre
from graphprune.passes.basis.rotate import Rotate
from graphprune.passes.choose.select import Select
from graphprune.passes.cut import Cut
from graphprune.passes.recipe import Recipe
from graphprune.passes.recipes import Wish, pruning
from graphprune.passes.results import Result
from graphprune.passes.running import run_recipe
from graphprune.passes.state import Job
from tests.benchmarks.tasks import TASKS

NAMES = (
    "albert-dynamo18", "albert-ts14", "bart-dynamo18", "bert-dynamo23", "bert-sdpa-dynamo23", "bert-ts11",
    "bloom-dynamo18", "clip-text-dynamo18", "clip-vision-ts14", "deberta-dynamo18", "deberta-ts17", "deit-dynamo18",
    "deit-ts13", "detr-dynamo18", "distilbert-dynamo18", "distilbert-ts12", "falcon-dynamo18", "gemma-dynamo18",
    "gpt2-dynamo18", "gpt2-dynamo23", "llama-dynamo18", "llama-dynamo23", "mistral-dynamo18", "opt-dynamo18",
    "phi-dynamo18", "qwen2-dynamo18", "segformer-dynamo18", "segformer-ts14", "swin-ts14", "t5-decoder-ts14",
    "t5-encoder-ts14", "vit-dynamo23", "vit-ts16", "wav2vec2-dynamo18", "wav2vec2-ts14", "whisper-encoder-dynamo18",
    "whisper-encoder-ts14",
)  # fmt: skip
RATIO = 0.3


def rows(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A row for each export."""
    for name in names:
        path = models.export(name)
        select = Select(RATIO)
        try:
            plain = run_recipe(Recipe((select, Cut()), Job()), path)
            found = run_recipe(Recipe((Centre(), Rotate(), select, Cut()), Job()), path)
        except GraphpruneError as error:
            yield name, str(error)[:90]
            continue
        proofs = found.plan.proof or {}
        worst = [_worst(proofs.get(key)) for key in ("centred", "bases")]
        bases = found.plan.bases
        kinds = Counter(group.kind for group in found.analysis.groups if group.id in bases.get("rotated", {}))
        yield (
            name,
            str(sum(bases.get("centred", {}).values()) or ""),
            ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
            *worst,
            *(f"{one.after.parameters / one.before.parameters:.3f}" for one in (plain, found)),
            _stays(found),
        )


def _worst(proof: dict[str, list[dict[str, float]]] | None) -> str:
    return "" if proof is None else f"{max((one['max_rel'] for one in proof['outputs']), default=0.0):.1e}"


def _stays(found: Result) -> str:
    """Why hidden sizes stay as they were."""
    told = [*(found.centred.stayed.values() if found.centred else ())]
    told += [why for id, why in (found.rotated.stayed.items() if found.rotated else ()) if _kind(found, id) == "hidden"]
    told += [g.reasons[0] for g in found.analysis.fixed if g.kind == "hidden" and g.size > 8 and g.reasons]
    return "; ".join(dict.fromkeys(map(str, told)))[:160]


def _kind(found: Result, id: str) -> str:
    group = found.analysis.group(id)
    return "" if group is None else group.kind


def score(name: str, shares: Sequence[str], samples: int) -> None:
    """Print a line for each share and each way."""
    task = TASKS[name]
    for share in shares:
        job = Job(input_shapes=dict(task.shapes or {}), prove=False, calibration=task.inputs(samples))
        wish = Wish(target=graphprune.Meet((f"macs={share}",), blocks=False), rotate=True)
        whole = pruning(wish, job).passes
        for what, passes in (("as they were", whole[2:]), ("heads", whole[1:]), ("heads and hidden sizes", whole)):
            made = run_recipe(Recipe(passes, job), task.path)
            near = "" if task.near is None else f", near {task.near(made.proto):.4f}"
            left = made.after.parameters / made.before.parameters
            print(f"{name} {share} {what}: {100 * task.score(made.proto):.1f}{near}, parameters {left:.3f}", flush=True)


def main(what: str, *arguments: str) -> None:
    """Do what is asked for."""
    if what == "score":
        score(arguments[0], arguments[1].split(","), int(arguments[2]) if len(arguments) > 2 else 64)
        return
    print("| export | norms | turned | centred | turned by | parameters left | with bases turned | stays |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(arguments or NAMES):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
