"""The pass of Olive: its options, and the file by which Olive knows it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphprune
from graphprune.errors import BackendError, InputError
from graphprune.integrations.olive import options, package
from graphprune.integrations.olive.options import CHECKS, OPTIONS, PRUNE, SPARSE, run
from models.small import Net, chain

GIVEN = {name: one.default for name, one in OPTIONS.items()}
LACKS_OLIVE = find_spec("olive") is None


def test_options_are_those_of_prune() -> None:
    """By the same names, with the same defaults; what is left out needs values that JSON cannot hold."""
    own = inspect.signature(graphprune.prune).parameters
    assert set(PRUNE) <= set(own) and set(SPARSE) <= set(inspect.signature(graphprune.sparsify).parameters)
    assert set(CHECKS) <= set(graphprune.Checks.__dataclass_fields__)
    for name, one in PRUNE.items():
        wanted = own[name].default
        assert (one.default or None) == (wanted or None), name
    left = set(own) - set(OPTIONS)
    assert left == {
        "model", "output", "plan", "checks", "sparsity", "packed", "progress", "vocabulary", "keep_tokens",
    }  # fmt: skip


def test_options_reach_the_job(tmp_path: Path) -> None:
    """What a workflow says is done: a choice by inputs, a pattern, a gate."""
    model, output = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(chain(), model)
    inputs = {"x": np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    said = {**GIVEN, "ratio": 0.5, "align": 1, "input_shapes": {"x": [2, 3, 8, 8]}, "min_cosine": 0.1}
    result = run(said, str(model), str(output), inputs)
    assert output.is_file() and result.fits and result.verdict is not None
    assert result.plan.model["witness"] == {"x": [2, 3, 8, 8]}
    net = Net()
    x = net.conv(net.conv(net.input("x", ["batch", 3, 8, 8]), 3, 32), 32, 32)  # first and last layers stay dense
    onnx.save(net.model(net.conv(x, 32, 4)), model)
    sparse = run({**GIVEN, "pattern": "unstructured", "amount": 0.5}, str(model), str(output), None)
    assert sparse.sparse is not None and sparse.sparse.request.amount == 0.5


def test_a_recipe_says_all_but_the_inputs(tmp_path: Path) -> None:
    model, output, recipe = tmp_path / "model.onnx", tmp_path / "small.onnx", tmp_path / "recipe.toml"
    onnx.save(chain(), model)
    passes = '[[passes]]\nuse = "select"\nratio = 0.5\n[[passes]]\nuse = "cut"\n[[passes]]\nuse = "fit"\n'
    recipe.write_text(f'format = "graphprune-recipe/1"\n{passes}')
    inputs = {"x": np.ones((8, 3, 8, 8), np.float32)}
    assert run({**GIVEN, "recipe": str(recipe)}, str(model), str(output), inputs).fits
    with pytest.raises(InputError, match=r"^GraphPrune: ratio beside a recipe"):
        run({**GIVEN, "recipe": str(recipe), "ratio": 0.3}, str(model), str(output), None)
    with pytest.raises(InputError, match=r"^GraphPrune: amount is about a pattern"):
        run({**GIVEN, "amount": 0.3}, str(model), str(output), None)


def test_package_config_keeps_olives_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was there, and the pass beside it, which can be imported by the name that is told."""
    (tmp_path / "olive").mkdir()
    (tmp_path / "olive" / "__init__.py").write_text("raise ImportError('it was run')")
    own = {"passes": {"Quantise": {"module_path": "olive.q.Quantise"}}, "extra_dependencies": {"cpu": ["onnxruntime"]}}
    (tmp_path / "olive" / "olive_config.json").write_text(json.dumps(own))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "olive", raising=False)
    made = json.loads(package.write(tmp_path / "passes.json").read_text())
    assert made["passes"].pop("GraphPrune") == package.ENTRY and made == own
    module, _, name = package.ENTRY["module_path"].rpartition(".")
    source = Path(options.__file__).with_name("prune.py")
    assert module == "graphprune.integrations.olive.prune" and f"class {name}(Pass)" in source.read_text()


def test_without_olive_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'graphprune\[olive\]'"):
        package.package_config()


def test_nothing_is_imported_unasked() -> None:
    """Neither the package nor its commands bring other people's frameworks in."""
    code = (
        "import sys, graphprune, graphprune.cli.commands, graphprune.cli.prune, graphprune.integrations; "
        "graphprune.prune; print([n for n in ('olive', 'polygraphy.tools', 'onnx_ir', 'torch') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.olive
@pytest.mark.slow
@pytest.mark.skipif(LACKS_OLIVE, reason="Olive is not installed: pip install 'graphprune[olive]'")
def test_olive_searches_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of ratios is a space to search; a single one is none; defaults search nothing."""
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    from olive.hardware import DEFAULT_CPU_ACCELERATOR
    from olive.model import ONNXModelHandler
    from olive.package_config import OlivePackageConfig
    from olive.passes.olive_pass import create_pass_from_dict

    config = OlivePackageConfig.model_validate(package.package_config())
    kind = config.import_pass_module("GraphPrune")
    for ratio, points in (([0.25, 0.5], [0.25, 0.5]), (0.25, None)):
        _, _, space = kind.get_config_params(DEFAULT_CPU_ACCELERATOR, {"ratio": ratio})
        assert space.get("ratio") and space["ratio"].get_support() == points if points else not space
    assert not kind.get_config_params(DEFAULT_CPU_ACCELERATOR, {"target": "macs=0.5"})[2]

    onnx.save(chain(), tmp_path / "model.onnx")
    given = ONNXModelHandler(str(tmp_path / "model.onnx"))
    made = create_pass_from_dict(kind, {"ratio": 0.5, "align": 1}, disable_search=True).run(given, tmp_path / "out")
    assert made.model_attributes["graphprune"]["macs"][1] < made.model_attributes["graphprune"]["macs"][0]
    assert [Path(file).name for file in made.model_attributes["additional_files"]] == ["model.plan.json"]
    with pytest.raises(InputError, match="give one of them"):
        data = {"name": "d", "type": "DummyDataContainer", "load_dataset_config": {"input_shapes": [[1]]}}
        both = {"ratio": 0.5, "calibration": "x.npz", "data_config": data}
        create_pass_from_dict(kind, both, disable_search=True).run(given, tmp_path / "again")
