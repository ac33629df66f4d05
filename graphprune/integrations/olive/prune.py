"""The pass that Olive runs: an ONNX model in, a smaller one out, with its plan beside it.

Olive is told of it by a package configuration (see ``graphprune.integrations.olive.package``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from graphprune.errors import BackendError, InputError
from graphprune.integrations.olive.options import OPTIONS, run
from graphprune.model import files
from graphprune.passes.results import Result
from graphprune.rewrite.plan import matrices_place
from graphprune.run.calibration import Source
from graphprune.run.runtime import Feeds

try:
    from olive.common.config_utils import validate_config
    from olive.data.config import DataConfig
    from olive.hardware import AcceleratorSpec
    from olive.model import ONNXModelHandler
    from olive.model.utils import resolve_onnx_path
    from olive.passes import Pass
    from olive.passes.pass_config import BasePassConfig, PassConfigParam
    from olive.resource_path import LocalFolder
    from olive.search.search_parameter import Categorical
except ImportError as missing:
    raise BackendError(f"Olive is not installed ({missing}): pip install 'graphprune[olive]'") from missing


class GraphPrune(Pass):  # type: ignore[misc]  # Olive has no type information
    """Remove the least important channels, heads, features and blocks, prove it, and make up for it.

    Options are those of :func:`graphprune.prune` (see ``graphprune.integrations.olive.options``) and ``data_config``.
    ``ratio`` may be searched. Decoders in several parts are pruned part by part, each for itself.
    """

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        """Options as Olive asks for them."""
        params = {
            name: PassConfigParam(type_=one.type, default_value=one.default, description=one.says)
            for name, one in OPTIONS.items()
        }
        # what has something to search may be a list in a workflow; with a single value nothing is searched by default
        params["ratio"].search_defaults = Categorical([OPTIONS["ratio"].default])
        params["data_config"] = PassConfigParam(
            type_=DataConfig | dict, description="Inputs as Olive has them, in place of calibration."
        )
        return params

    def _run_for_config(
        self, model: ONNXModelHandler, config: BasePassConfig, output_model_path: str
    ) -> ONNXModelHandler:
        """Prune, and say what came of it in the attributes of the model, under ``graphprune``.

        Raises:
            GraphpruneError: as :func:`graphprune.prune` does; Olive's search goes on, a plain workflow ends.
        """
        if not isinstance(model, ONNXModelHandler):
            raise InputError(f"GraphPrune: takes ONNX models, and not a {type(model).__name__}; convert it first")
        given = {name: getattr(config, name) for name in OPTIONS}
        output = Path(resolve_onnx_path(output_model_path))
        result = run(given, model.model_path, str(output), _inputs(config, model))
        attributes = {**(model.model_attributes or {}), "graphprune": _said(result)}
        # Olive carries these along to the end of the workflow
        attributes["additional_files"] = sorted({*attributes.get("additional_files", ()), *map(str, _beside(output))})
        return ONNXModelHandler(
            model_path=LocalFolder({"path": output.parent}), onnx_file_name=output.name, model_attributes=attributes
        )


def _inputs(config: BasePassConfig, model: ONNXModelHandler) -> Source | None:
    """Where calibration inputs come from."""
    if config.data_config is None:
        found: str | None = config.calibration
        return found
    if config.calibration is not None:
        raise InputError("GraphPrune: calibration and data_config both say which inputs to use: give one of them")
    return _reading(validate_config(config.data_config, DataConfig), model)


def _reading(data: DataConfig, model: ONNXModelHandler) -> Callable[[], Iterator[Feeds]]:
    """Inputs of Olive's calibration reader, gone through from the start each time."""

    def feeds() -> Iterator[Feeds]:
        reader = data.to_data_container().create_calibration_dataloader(
            model_path=model.model_path, io_config=model.io_config
        )
        while (one := reader.get_next()) is not None:
            yield one

    return feeds


def _said(result: Result) -> dict[str, Any]:
    """What came of it, as JSON can hold it."""
    before, after = result.before, result.after
    return {
        "parameters": [before.parameters, after.parameters],
        "macs": [before.macs, after.macs],
        "bytes": [before.bytes, after.bytes],
        "proof": None if result.proof is None else result.proof.worst,
        "notes": result.notes,
    }


def _beside(output: Path) -> list[Path]:
    """What was written beside the model: the plan, matrices of bases, the map of ids."""
    places = [files.beside(output, kind) for kind in ("plan", "vocabulary")]
    there = [place for place in places if place is not None and place.is_file()]
    return there + [m for m in map(matrices_place, there) if m.is_file()]
