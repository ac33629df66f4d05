"""What a sweep runs: each recipe with each target or ratio in its place.

A recipe says how; what it is to come to is put in. Where that is a target it goes to the recipe's pass ``meet``, or to
one behind all that changes weights, and every ``select`` leaves it to that how much goes. Where it is a ratio every
``select`` takes its part of it, and ``meet`` goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphprune.errors import InputError
from graphprune.model.model import digest
from graphprune.passes import toml
from graphprune.passes.aim import targets as aims
from graphprune.passes.aim.meet import LATENCY, Meet
from graphprune.passes.aim.onward import DROP
from graphprune.passes.choose.select import Select
from graphprune.passes.choose.steering import part
from graphprune.passes.contract import Pass
from graphprune.passes.depth.remove import RemoveBlocks, SelectBlocks
from graphprune.passes.kept import hashed
from graphprune.passes.metric import identity
from graphprune.passes.recipe import Recipe
from graphprune.passes.recipes import Wish, pruning
from graphprune.passes.state import Job
from graphprune.run import usercode

AnyRecipe = str | os.PathLike[str] | Recipe
FUNCTIONS = ("function", "inputs", "loss", "metric")
"""Options that may be ``module:function``; of others a colon means something else (``2:4``)."""
LAST = ("smaller", "store", "validate")
"""Passes that change no weight: ``meet`` comes before those at the end of a recipe."""


ANY = "macs=0.5"
"""A target that stands where that of each variant goes."""


@dataclass(frozen=True)
class Asked:
    """What one run is to come to.

    Attributes:
        text: as users read it: ``macs=0.5``, ``ratio=0.3``.
        ratio: where it is one; None where ``text`` is a target.
    """

    text: str
    ratio: float | None = None


@dataclass(frozen=True)
class Variant:
    """A recipe with what it is to come to.

    Attributes:
        recipe: its name.
        asked: what it is to come to.
        done: the recipe that is run; its job is that of the sweep's model.
    """

    recipe: str
    asked: Asked
    done: Recipe

    @property
    def content(self) -> str:
        """A hash of all that it says, files and functions that it names included."""
        job = self.done.job
        whole = job.allow_io, job.prove, job.time, sorted(job.input_shapes.items())
        return hashed(repr(whole), *(text for one in self.done.passes for text in (one.name, *_content(one))))


def asked(targets: Sequence[str], ratios: Sequence[float]) -> list[Asked]:
    """What runs are to come to, each once.

    Args:
        targets: ``KIND=VALUE,VALUE``: each value is a run.
        ratios: shares of classes.

    Raises:
        InputError: one is no target or no share, or there is nothing.
    """
    texts = [f"{kind.strip()}{equals}{value.strip()}" for kind, equals, values in
             (text.partition("=") for text in targets) for value in values.split(",")]  # fmt: skip
    found: dict[tuple[str, float, bool], Asked] = {}
    for one in map(aims.parse, texts):
        found.setdefault((one.kind, one.value, one.share), Asked(one.text))
    if wrong := next((ratio for ratio in ratios if not 0 < ratio < 1), None):
        raise InputError(f"--ratios: {wrong:g} is out of range: a ratio is the share to remove, above 0 and below 1")
    wanted = [*found.values(), *(Asked(f"ratio={ratio:g}", ratio) for ratio in dict.fromkeys(ratios))]
    if not wanted or 0 in ratios:
        raise InputError("a sweep needs something to sweep over: give --targets macs=0.3,0.5,0.7 or --ratios 0.1,0.3")
    return wanted


def named(recipes: Mapping[str, AnyRecipe] | Sequence[AnyRecipe]) -> dict[str, Recipe]:
    """Recipes by name; those of files are called as these are.

    Raises:
        InputError: one cannot be read, two have one name, or a recipe in memory has none.
    """
    if isinstance(recipes, Mapping):
        return {name: one if isinstance(one, Recipe) else toml.load(one) for name, one in recipes.items()}
    found: dict[str, Recipe] = {}
    for one in recipes:
        if isinstance(one, Recipe):
            raise InputError("recipes: one of them is in memory and has no name; give a dict of recipes by name")
        name = Path(one).stem
        if name in found:
            raise InputError(
                f"--recipes {one}: is the second that is called {name}; the rows of a sweep are told by it"
            )
        found[name] = toml.load(one)
    return found


def as_pruned(wish: Wish, job: Job, distill: str | int | bool = False) -> Recipe:
    """The recipe that ``prune`` would build for a target, which each variant puts in."""
    made = pruning(replace(wish, target=Meet((ANY,))), job, distill=distill)
    return replace(made, passes=tuple(own for own in made.passes if not isinstance(own, Meet)))


def variants(recipes: Mapping[str, Recipe], wanted: Sequence[Asked], meet: Meet) -> list[Variant]:
    """Each recipe with each of what is asked for; those of one recipe lie side by side, and share the most.

    Args:
        recipes: by name.
        wanted: what they are to come to.
        meet: what says how targets are met where a recipe does not.

    Raises:
        InputError: a recipe chooses no classes, so that there is nothing to say how much of.
    """
    return [_variant(name, recipe, one, meet) for name, recipe in recipes.items() for one in wanted]


def _variant(name: str, recipe: Recipe, one: Asked, meet: Meet) -> Variant:
    count = sum(isinstance(own, Select) for own in recipe.passes)
    if not count:
        raise InputError(f"recipe {name}: has no pass 'select', so that {one.text} would change nothing; add one")
    places = recipe.places or ("",) * len(recipe.passes)
    found: list[tuple[Pass, str]] = []
    chosen, aimed = 0, any(isinstance(own, SelectBlocks) and own.aimed for own in recipe.passes)
    for own, place in zip(recipe.passes, places, strict=True):
        if isinstance(own, Select):
            chosen += 1
            share = None if one.ratio is None else part(one.ratio, chosen / count)
            found.append((replace(own, ratio=share), place))
        elif isinstance(own, Meet):
            found += [] if one.ratio is not None else [(replace(own, targets=(one.text,)), place)]
        elif one.ratio is not None and aimed and isinstance(own, SelectBlocks | RemoveBlocks):
            continue  # these wait for a target
        else:
            found.append((own, place))
    if one.ratio is None and not any(isinstance(own, Meet) for own, _ in found):
        end = max(k for k, (own, _) in enumerate(found) if own.name not in LAST) + 1
        found.insert(end, (_meet(meet, one), found[end - 1][1]))
    passes, where = tuple(own for own, _ in found), tuple(place for _, place in found)
    return Variant(name, one, Recipe(passes, recipe.job, {}, where if recipe.places else ()))


def _meet(meet: Meet, one: Asked) -> Meet:
    """A pass for one target, with the options that matter to it: models say how they were made."""
    kind = aims.parse(one.text).kind
    plain = Meet((one.text,), meet.nearest, tries=meet.tries, blocks=meet.blocks)
    if kind == DROP:
        return replace(plain, metric=meet.metric)
    return replace(plain, table=meet.table, device=meet.device, threads=meet.threads) if kind == LATENCY else plain


def _content(one: Pass) -> list[str]:
    """Options of a pass, each with its name."""
    return [f"{name}={_told(name, value)}" for name, value in vars(one).items()]


def _told(name: str, value: Any) -> str:
    """An option by its content: of what lies in a file, or in a module, that too."""
    if callable(value) or (name in FUNCTIONS and isinstance(value, str) and usercode.names_one(value)):
        return identity(value)
    if toml.is_path(name, value) and Path(value).is_file():
        return digest(Path(value))
    return repr(value)
