"""--hf_layout: of every family that transformers 5 holds under other names, both spellings, and what reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mappings.language import loader
from tests import checkpoints
from tests.end_to_end.running import converted, restored
from tests.families import harness
from tests.families.discovered import FAMILIES
from tests.families.harness import Family, Saved
from tests.oracles.arrays import Variant

# Bazel shows a test no other test's module.
pytestmark = pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs all modules of the folder")

OLDER = """
import json, sys
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM

assert transformers.__version__.startswith("4.45."), transformers.__version__
transformers.logging.set_verbosity_error()
for folder in sys.argv[1:]:
    model, said = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, torch_dtype=torch.float32)
    left = [*said["missing_keys"], *said["unexpected_keys"], *said["mismatched_keys"], *said["error_msgs"]]
    with torch.no_grad():
        logits = model.eval()(torch.arange(12)[None] % model.config.vocab_size).logits
    torch.save(logits, f"{folder}/older.pt")
    print(json.dumps({"left": left, "dtype": str(AutoConfig.from_pretrained(folder).torch_dtype)}))
"""
OLDER_FAMILIES = {"gemma": 0, "gemma2": 0, "llama": 0, "mistral": 0, "mixtral": 1}
"""Those whose models transformers 4.45 has, and which of their configs it takes."""


def _has_spellings(folder: str) -> bool:
    return any(option.name == "hf_layout" for option in loader.load_layout(folder, "hf").node.option)


def _known(family: Family, config: Mapping[str, Any]) -> bool:
    import transformers

    return config["model_type"] in transformers.CONFIG_MAPPING


SPELT_TWICE = [
    (family, name)
    for folder in sorted(FAMILIES)
    if _has_spellings(folder)
    for family in FAMILIES[folder]
    for name in list(family.configs)[:1]
    if _known(family, family.configs[name])
]
"""A small model of each family with the option; those that transformers has no class of its own for are another's."""


@pytest.fixture(scope="module", params=SPELT_TWICE, ids=lambda case: f"{case[0].folder}-{case[1]}")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Saved, Path]:
    """A family, a tiny checkpoint as transformers saves it, and what MaxText's format makes of it."""
    family, name = request.param
    root = tmp_path_factory.mktemp(family.folder)
    saved = harness.save(family, name, root / "hf")
    converted("hf-to-maxtext", hf_model_path=saved.directory, base_output_directory=root / "mt")
    return family, saved, root


def _back(root: Path, name: str, **asked: str) -> Path:
    out = root / name
    if not out.exists():
        flags = {"load_parameters_path": root / "mt", "base_output_directory": out, "weight_dtype": "auto", **asked}
        converted("maxtext-to-hf", **flags)
    return out


def test_the_spelling_of_the_original_is_the_default(model: tuple[Family, Saved, Path]) -> None:
    _, saved, root = model
    assert checkpoints.differing(checkpoints.read_safetensors(_back(root, "default")), saved.tensors) == []


def test_the_hubs_spelling_may_be_asked_for(model: tuple[Family, Saved, Path]) -> None:
    family, saved, root = model
    found = checkpoints.read_safetensors(_back(root, "hub", hf_layout="hub"))
    layout = harness.layout_of(family.folder, "hf", saved.config)
    assert {name: values.shape for name, values in found.items()} == harness.header_of(layout)
    if harness.header_of(layout) == {name: values.shape for name, values in saved.tensors.items()}:
        assert checkpoints.differing(found, saved.tensors) == []


def test_the_spelling_of_transformers_5_has_the_names_and_shapes_of_its_model_in_memory(
    model: tuple[Family, Saved, Path],
) -> None:
    family, saved, root = model
    found = checkpoints.read_safetensors(_back(root, "packed", hf_layout="transformers5"))
    expected = harness.header_in_memory(saved.config, family.auto_class)
    ends = family.not_in_model
    assert {name: values.shape for name, values in found.items() if not (ends and name.endswith(ends))} == expected


def test_the_spelling_of_transformers_5_comes_to_the_same_leaves_and_back(model: tuple[Family, Saved, Path]) -> None:
    _, _, root = model
    packed = _back(root, "packed", hf_layout="transformers5")
    harness.to_maxtext(packed, root / "again", Variant())
    assert checkpoints.differing(restored(root / "again"), restored(root / "mt")) == []


@pytest.mark.parametrize("spelling", ["hub", "transformers5"])
def test_transformers_5_loads_either_spelling_whole(model: tuple[Family, Saved, Path], spelling: str) -> None:
    import transformers

    family, _, root = model
    out = _back(root, "hub" if spelling == "hub" else "packed", hf_layout=spelling)
    _, said = getattr(transformers, family.auto_class).from_pretrained(out, output_loading_info=True)
    assert {kind: list(left) for kind, left in said.items() if left} == {}


def test_a_family_with_one_spelling_takes_the_flag_as_nothing_to_do(tmp_path: Path) -> None:
    saved = harness.save(FAMILIES["llama"][0], "tied", tmp_path / "hf")
    converted("hf-to-maxtext", hf_model_path=saved.directory, base_output_directory=tmp_path / "mt")
    back = _back(tmp_path, "back", hf_layout="transformers5")
    assert checkpoints.differing(checkpoints.read_safetensors(back), saved.tensors) == []


def test_transformers_4_reads_what_was_written_from_a_checkpoint_of_transformers_5(
    tmp_path: Path, transformers4: dict[str, str]
) -> None:
    import torch
    import transformers

    outputs = []
    for folder, number in OLDER_FAMILIES.items():
        family = FAMILIES[folder][0]
        saved = harness.save(family, list(family.configs)[number], tmp_path / folder / "hf")
        assert "torch_dtype" not in json.loads((saved.directory / "config.json").read_text(encoding="utf-8"))
        _initialise(saved.directory, family)
        converted("hf-to-maxtext", hf_model_path=saved.directory, base_output_directory=tmp_path / folder / "mt")
        outputs.append(_back(tmp_path / folder, "back"))
    ran = subprocess.run(
        [sys.executable, "-c", OLDER, *map(str, outputs)],
        env=transformers4,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [{"left": [], "dtype": "torch.bfloat16"}] * len(
        outputs
    )
    for output in outputs:
        newer = transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
        with torch.no_grad():
            expected = newer(torch.arange(12)[None] % newer.config.vocab_size).logits.numpy()
        found = torch.load(output / "older.pt", weights_only=True).numpy()
        assert np.isfinite(expected).all()
        assert expected.std() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4, err_msg=str(output))


def _initialise(directory: Path, family: Family) -> None:
    """Weights of the size that a model has, in the place of the random bits."""
    import torch

    torch.manual_seed(0)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    for file in directory.iterdir():
        file.unlink()
    checkpoints.transformers_model(config, family.auto_class).to(torch.bfloat16).save_pretrained(directory)
