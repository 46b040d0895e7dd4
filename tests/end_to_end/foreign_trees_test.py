"""Checkpoints of the same weights under the other trees that MaxText writes, back to Hugging Face."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests import checkpoints
from tests.end_to_end.running import Arrays, converted, flat, restored

CONFIG = checkpoints.CONFIGS["tied"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """A Hugging Face checkpoint, and the leaves of its conversion by their path below `params/params`."""
    folder = tmp_path_factory.mktemp("trees")
    hf = folder / "hf"
    hf.mkdir()
    generator = np.random.default_rng(5)
    # Ordinary values: a foreign checkpoint has no residue for single elements that folding the scale loses.
    weights = {
        name: generator.normal(0, 0.02, shape).astype(ml_dtypes.bfloat16)
        for name, shape in checkpoints.llama_shapes(CONFIG).items()
    }
    checkpoints.write_safetensors(hf, weights, CONFIG)
    converted("hf-to-maxtext", hf_model_path=hf, base_output_directory=folder / "maxtext", model_name="llama3")
    leaves = restored(folder / "maxtext")
    return hf, {
        name.removeprefix("params.params."): value
        for name, value in leaves.items()
        if "decoder" in name or "token" in name
    }


def _nested(leaves: Arrays, wrap: bool) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *parents, last = name.split(".")
        place = tree
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = {"value": value} if wrap else value
    return tree


TREES: dict[str, Any] = {
    "bare NNX": lambda leaves: _nested(leaves, True),
    "below base": lambda leaves: {"base": _nested(leaves, True)},
    "one params": lambda leaves: {"params": _nested(leaves, False)},
    "with the rest of a state": lambda leaves: {
        **_nested(leaves, True),
        "opt_state": {"0": {"count": np.int32(3)}},
        "step": np.int32(7),
    },
}


@pytest.mark.parametrize("item", ["items", "model_params"])
@pytest.mark.parametrize("tree", TREES)
def test_weights_are_found_whatever_tree_they_are_in(
    tree: str, item: str, written: tuple[Path, Arrays], tmp_path: Path
) -> None:
    import orbax.checkpoint as ocp

    hf, leaves = written
    assert len(leaves) > 8
    place = tmp_path / "ck" / "7" / item
    ocp.PyTreeCheckpointer().save(place, TREES[tree](leaves))
    converted(
        "maxtext-to-hf",
        load_parameters_path=place,
        base_output_directory=tmp_path / "back",
        hf_config_path=hf,
        model_name="llama3",
        weight_dtype="bfloat16",
    )
    found, source = checkpoints.read_safetensors(tmp_path / "back"), checkpoints.read_safetensors(hf)
    assert checkpoints.differing(found, source) == []


def test_a_bare_tree_becomes_a_usual_one_when_it_is_restacked(written: tuple[Path, Arrays], tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    hf, leaves = written
    ocp.PyTreeCheckpointer().save(tmp_path / "bare" / "7" / "items", _nested(leaves, True))
    flags = {"hf_config_path": hf, "model_name": "llama3"}
    converted(
        "maxtext-to-maxtext",
        load_parameters_path=tmp_path / "bare",
        base_output_directory=tmp_path / "single",
        scan_layers="false",
        **flags,
    )
    converted(
        "maxtext-to-maxtext",
        load_parameters_path=tmp_path / "single",
        base_output_directory=tmp_path / "again",
        scan_layers="true",
        **flags,
    )
    step = json.loads((tmp_path / "again" / "7" / "_CHECKPOINT_METADATA").read_text())
    assert step["custom_metadata"]["scan_layers"] is True
    again = ocp.PyTreeCheckpointer().restore(tmp_path / "again" / "7" / "items")
    found = flat(again)
    assert found.keys() == {f"params.params.{name}" for name in leaves}
    for name, value in leaves.items():
        assert np.asarray(found[f"params.params.{name}"]).tobytes() == np.asarray(value).tobytes(), name
