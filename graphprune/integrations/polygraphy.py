"""What ``polygraphy run`` finds of this package: runners that a pruned model, or an engine made of it, is held against.

``--graphprune-masked`` runs the original with what the plan removed set to zero. Where nothing but removal was done it
must give what the pruned model gives in any runtime: that is this program's proof, on the device and by somebody else's
comparison. ``--graphprune-original`` runs the original as it is, to see what pruning costs.

Polygraphy finds them by the entry point ``polygraphy.run.plugins`` (see ``argument_groups``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polygraphy.backend.base import BaseLoader
from polygraphy.logger import G_LOGGER
from polygraphy.tools.args import ModelArgs, OnnxrtSessionArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs, BaseRunnerArgs
from polygraphy.tools.script import Script, make_invocable

from graphprune.errors import GraphpruneError

if TYPE_CHECKING:  # every run of Polygraphy imports this module, most without a need for the rest
    from graphprune.model import Model
    from graphprune.rewrite.plan import Plan
    from graphprune.run.calibration import Source
    from graphprune.run.runtime import Feeds


def argument_groups() -> list[BaseArgs]:
    """The groups of options that ``polygraphy run`` gets."""
    return [PlanArgs(), MaskedRunnerArgs(), OriginalRunnerArgs()]


def load_data(model: str | Path, source: Source, most: int | None = None) -> Iterator[Feeds]:
    """Calibration inputs in the form that Polygraphy wants of a ``--data-loader-script``.

    Args:
        model: whose inputs they are to be.
        source: as ``--calibration`` takes it (see ``graphprune.run.samples``).
        most: so many runs; by default all.

    Raises:
        InputError: no such source, or one that does not fit the model.
    """
    from graphprune.model import load
    from graphprune.run import samples

    return islice(samples.load(source, load(model)), most)


class PlanArgs(BaseArgs):  # type: ignore[misc]  # Polygraphy has no type information
    """Pruning by graphprune: what a pruned model is held against.

    Depends on:

        - ModelArgs
    """

    def add_parser_args_impl(self) -> None:
        """Where plan and original are."""
        self.group.add_argument(
            "--graphprune-plan",
            metavar="PLAN.json",
            default=None,
            help="The plan of the pruned model. By default <model>.plan.json beside it.",
        )
        self.group.add_argument(
            "--graphprune-model",
            metavar="ORIGINAL.onnx",
            default=None,
            help="The original. By default the file that the plan names, beside it or in the working directory.",
        )

    def parse_impl(self, args: Any) -> None:
        """Read the two."""
        self.plan = args_util.get(args, "graphprune_plan")
        self.model = args_util.get(args, "graphprune_model")

    def add_to_script_impl(self, script: Script, loader: str) -> str:
        """Make a loader of the original; returns its name in the script."""
        plan = self.plan
        if plan is None:
            plan = _plan_beside(self.arg_groups[ModelArgs].path)
        script.add_import(imports=[loader], frm=__name__)
        name: str = script.add_loader(make_invocable(loader, plan, self.model), f"load_{loader.lower()}")
        return name


def _plan_beside(model: str | None) -> str:
    """Where ``prune`` puts the plan of a model."""
    from graphprune.model import files

    place = None if model is None else files.plan_place(Path(model))
    if place is None:  # G_LOGGER.critical ends Polygraphy
        G_LOGGER.critical("graphprune: no file of a model whose plan could lie beside it; give it by --graphprune-plan")
    return str(place)


class _RunnerArgs(BaseRunnerArgs):  # type: ignore[misc]
    """A runner of the original in ONNX Runtime."""

    name, option, loader = "", "", ""

    def get_name_opt_impl(self) -> tuple[str, str]:
        """What it is called, and its option."""
        return self.name, self.option

    def add_to_script_impl(self, script: Script) -> None:
        """Make a session of the original, with the providers that are asked for."""
        model = self.arg_groups[PlanArgs].add_to_script(script, self.loader)
        session = self.arg_groups[OnnxrtSessionArgs].add_to_script(script, onnx_name=model)
        script.add_import(imports=["OnnxrtRunner"], frm="polygraphy.backend.onnxrt")
        script.add_runner(make_invocable("OnnxrtRunner", session, name=self.option))


class MaskedRunnerArgs(_RunnerArgs):
    """Masked original: running the original with what was pruned set to zero.

    Depends on:

        - PlanArgs
        - OnnxrtSessionArgs
    """

    name, option, loader = "the original with what was pruned set to zero", "graphprune-masked", "Masked"


class OriginalRunnerArgs(_RunnerArgs):
    """Original: running what a pruned model was made of.

    Depends on:

        - PlanArgs
        - OnnxrtSessionArgs
    """

    name, option, loader = "the original as it is", "graphprune-original", "Original"


class Original(BaseLoader):  # type: ignore[misc]
    """Finds the model that a plan was made for."""

    def __init__(self, plan: str | Path, model: str | Path | None = None) -> None:
        """Take a plan, and the original where it lies elsewhere than beside it."""
        self.plan, self.model = plan, model

    def call_impl(self) -> str | bytes:
        """The original as ONNX Runtime reads it, a path or bytes; what is wrong is told as Polygraphy does."""
        from graphprune.rewrite.plan import load

        try:
            return self._found(load(self.plan))
        except GraphpruneError as error:
            G_LOGGER.critical(str(error))
            raise

    def _found(self, plan: Plan) -> str | bytes:
        return str(_original(plan, self.model).path)


class Masked(Original):
    """Makes the original with what a plan removed set to zero; serialised, so that it must be below 2 GB."""

    def _found(self, plan: Plan) -> str | bytes:
        from graphprune.integrations.originals import masked

        return masked(plan, _original(plan, self.model))


def _original(plan: Plan, model: str | Path | None) -> Model:
    from graphprune.rewrite.original import original

    return original(plan, model, option="--graphprune-model")
