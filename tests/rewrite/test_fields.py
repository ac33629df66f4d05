"""Fields of a configuration, from sizes before and after alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphprune.rewrite import configuration
from graphprune.rewrite.configuration import changed
from graphprune.rewrite.settings import Count, Number
from graphprune.rewrite.statedict import Narrowed

Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def narrowed(shapes: Shapes) -> Narrowed:
    tensors = {name: np.zeros(after, np.float32) for name, (_, after) in shapes.items()}
    return Narrowed(tensors, shapes={n: s for n, s in shapes.items() if s[0] != s[1]})


GROUPED = {
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
}
JOINED: Shapes = {
    "qkv.weight": ((192, 64), (96, 64)), "out.weight": ((64, 128), (64, 64)), "norm.weight": ((64,), (64,)),
    "up.weight": ((192, 64), (96, 64)), "down.weight": ((64, 96), (64, 48)),
}  # fmt: skip
"""Queries, keys and values joined, 8 and 2 and 2 heads of 16; and the two halves of a gated layer."""


@pytest.mark.parametrize(
    ("config", "shapes", "counts", "values"),
    [
        (GROUPED, JOINED, [Count("head", 2, 1, ()), Count("head", 4, 4, ()), Count("head_dim", 16, 16, ())],
         {"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 48}),
        ({"n_embd": 64, "n_head": 4, "n_inner": 256, "n_positions": 64},
         {"attn.weight": ((64, 192), (48, 144)), "fc.weight": ((64, 256), (48, 128)), "wpe": ((64, 64), (64, 48))},
         [Count("head", 4, 3, ())], {"n_embd": 48, "n_inner": 128, "n_head": 3}),
        ({"hidden_sizes": [32, 64], "depths": [2, 2], "patch_size": 4},
         {"a": ((32, 3, 4, 4), (24, 3, 4, 4)), "b": ((64, 32, 2, 2), (40, 24, 2, 2))}, [], {"hidden_sizes": [24, 40]}),
        ({"d_model": 32, "d_kv": 8, "num_heads": 6, "d_ff": 64, "text": {"d_model": 32}},
         {"q.weight": ((48, 32), (24, 32)), "wi.weight": ((64, 32), (64, 32))}, [Count("head_dim", 8, 4, ())],
         {"d_kv": 4}),
    ],
)  # fmt: skip
def test_fields_that_say_the_new_sizes(
    config: dict[str, Any], shapes: Shapes, counts: list[Count], values: dict[str, Any]
) -> None:
    found = changed(config, narrowed(shapes), counts, [])
    assert found.values == values and not found.unexplained


def test_what_no_field_says_is_listed() -> None:
    """Heads that are hidden elements over their number cannot go alone; layers of two widths have no field."""
    config = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 80, "eps": 1e-5, "depth": 2}
    shapes: Shapes = {
        "q.weight": ((32, 32), (24, 32)), "norm.weight": ((32,), (32,)),
        "0.up.weight": ((80, 32), (72, 32)), "1.up.weight": ((80, 32), (56, 32)),
    }  # fmt: skip
    numbers = [Number(float(np.float32(1e-5)), 2e-5, ("a",))]
    found = changed(config, narrowed(shapes), [Count("head", 4, 3, ())], numbers)
    assert found.fields["eps"] == (1e-5, 2e-5) and len(found.unexplained) == 2
    assert [line.split()[3].split(".", 1)[-1] for line in found.unexplained] == ["up.weight", "weight"]
    assert found.unexplained[1] in ("axis 0 of norm.weight stays 32", "axis 1 of q.weight stays 32")
    numbers.append(Number(float(np.float32(1e-5)), 3e-5, ("b",)))
    assert "eps is 2e-05 or 3e-05 now, was 1e-05" in changed(config, narrowed(shapes), [], numbers).unexplained


def test_fields_that_sizes_do_not_tell_apart_change_together_and_it_is_said() -> None:
    config = {"d_model": 64, "embed_dim": 64, "proj_dim": 64, "d_ff": 96}
    shapes: Shapes = {"a": ((64, 96), (48, 80)), "b": ((64,), (48,))}
    found = changed(config, narrowed(shapes), [], [])
    assert found.values == {"d_model": 48, "embed_dim": 48, "proj_dim": 48, "d_ff": 80} and not found.notes
    found = changed(config, narrowed({**shapes, "c": ((64,), (40,)), "d": ((64,), (64,))}), [], [])
    assert len({found.values[name] for name in ("d_model", "embed_dim", "proj_dim")}) == 1
    (line,) = found.notes
    assert line.startswith("d_model, embed_dim, proj_dim were all 64 and get 48; some of that size are 40, 64 now")


def test_a_search_that_was_cut_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one field after the other comes to is right all the same, where each is said by an axis."""
    config, shapes, counts = GROUPED, JOINED, [Count("head", 2, 1, ()), Count("head", 4, 4, ())]
    monkeypatch.setattr(configuration, "_TRIES", 1)
    found = changed(config, narrowed(shapes), counts, [])
    assert found.values["intermediate_size"] == 48 and "of which not all were tried" in found.notes[0]
    uneven: Shapes = {
        f"{k}.{name}": ((size, 4096), (size - 64 * k - 64, 4096 - 32 * k - 32))
        for k in range(12) for name, size in (("q", 4096), ("kv", 1024), ("up", 11008))
    }  # fmt: skip
    monkeypatch.undo()
    sizes = {"d_model": 4096, "embed_dim": 4096, "num_heads": 32, "kv_heads": 8, "head_dim": 128, "mlp_dim": 11008}
    tried: list[object] = []
    cost = configuration._Problem._cost
    monkeypatch.setattr(configuration._Problem, "_cost", lambda self, values: tried.append(0) or cost(self, values))
    light = Narrowed({n: np.broadcast_to(np.float32(0), after) for n, (_, after) in uneven.items()}, shapes=uneven)
    found = changed(sizes, light, [Count("head", 32, 20, ()), Count("head_dim", 128, 96, ())], [])
    assert len(tried) <= 2 * configuration._TRIES and found.notes
