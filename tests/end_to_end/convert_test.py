"""`convert`: any recognised source to any format, as the pairs' own commands do it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import checkpoints
from tests.end_to_end.running import Arrays, converted, recast, restored

CONFIG = {**checkpoints.CONFIGS["grouped"], "num_hidden_layers": 2, "head_dim": 24}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face checkpoint whose norms are in float32, though its config says bfloat16."""
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("convert") / "hf", _tensors(), CONFIG)


def _tensors() -> Arrays:
    narrow = checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=41)
    wide = checkpoints.element_coded_llama(CONFIG, "float32", seed=42)
    return {name: wide[name] if name.endswith("norm.weight") else array for name, array in narrow.items()}


def _convert(source: Path, target: Path, **flags: object) -> Path:
    converted("convert", str(source), str(target), **flags)
    return target


def _files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.glob("*.safetensors*")}


def test_it_writes_what_the_command_of_the_pair_writes(source: Path, tmp_path: Path) -> None:
    ours = _convert(source, tmp_path / "a", to="maxtext", dtype="bfloat16", scan_layers=False)
    converted("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "b", scan_layers=False)
    assert checkpoints.differing(restored(ours), restored(tmp_path / "b")) == []
    back = _convert(ours, tmp_path / "c", to="hf", dtype="float32", max_shard_size="50KB")
    converted("maxtext-to-hf", load_parameters_path=ours, base_output_directory=tmp_path / "d", max_shard_size="50KB")
    assert len(_files(back)) > 2
    assert _files(back) == _files(tmp_path / "d")


def test_by_default_every_tensor_keeps_its_dtype_there_and_back(source: Path, tmp_path: Path) -> None:
    middle = _convert(source, tmp_path / "mt", to="maxtext")
    assert str(restored(middle)["params.params.decoder.decoder_norm.scale"].dtype) == "float32"
    back = _convert(middle, tmp_path / "back", to="hf")
    assert checkpoints.differing(checkpoints.read_safetensors(back), _tensors()) == []


def test_maxtext_is_restacked(source: Path, tmp_path: Path) -> None:
    stacked = _convert(source, tmp_path / "stacked", to="maxtext")
    unstacked = _convert(stacked, tmp_path / "unstacked", to="maxtext", scan_layers=False)
    directly = _convert(source, tmp_path / "directly", to="maxtext", scan_layers=False)
    assert checkpoints.differing(restored(unstacked), restored(directly)) == []


def test_hugging_face_is_cut_anew_or_cast(source: Path, tmp_path: Path) -> None:
    cut = _convert(source, tmp_path / "cut", to="hf", max_shard_size="50KB")
    assert len(list(cut.glob("*.safetensors"))) > 2
    assert checkpoints.differing(checkpoints.read_safetensors(cut), _tensors()) == []
    wide = _convert(cut, tmp_path / "wide", to="hf", dtype="float32")
    widened = {name: array.astype(np.float32) for name, array in _tensors().items()}
    assert checkpoints.differing(checkpoints.read_safetensors(wide), widened) == []
    assert json.loads((wide / "config.json").read_text())["hidden_size"] == CONFIG["hidden_size"]


def test_between_hugging_face_checkpoints_the_variant_of_maxtext_does_not_matter(tmp_path: Path) -> None:
    config = checkpoints.CONFIGS["llama3_rope"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=43)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    assert "MODEL_NAME_AMBIGUOUS" in recast("convert", str(source), str(tmp_path / "mt"), to="maxtext").text
    cut = _convert(source, tmp_path / "cut", to="hf", max_shard_size="60KB")
    assert checkpoints.differing(checkpoints.read_safetensors(cut), tensors) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"to": "maxtext", "max_shard_size": "1GB"}, "--max_shard_size has no meaning on the way from hf to maxtext"),
        ({"to": "hf", "scan_layers": True}, "--scan_layers has no meaning on the way from hf to hf"),
        ({"to": "hf", "compression": "zstd:1"}, "--compression has no meaning on the way from hf to hf"),
        ({"to": "maxtext", "save_dtype": "float32"}, "There is no flag --save_dtype"),
        ({}, "--to was not given; it takes hf or maxtext"),
    ],
)
def test_flags_that_mean_nothing_are_errors(source: Path, tmp_path: Path, flags: dict[str, object], said: str) -> None:
    outcome = recast("convert", str(source), str(tmp_path / "out"), **flags)
    assert outcome.code == 2
    assert said in outcome.text
    assert not (tmp_path / "out").exists()


def test_a_destination_in_the_source_and_no_source_at_all_are_refused(source: Path, tmp_path: Path) -> None:
    assert "DESTINATION_INSIDE_SOURCE" in recast("convert", str(source), str(source / "out"), to="hf").text
    assert "SOURCE_NOT_FOUND" in recast("convert", str(tmp_path / "none"), str(tmp_path / "out"), to="hf").text
    assert "SOURCE_NOT_RECOGNIZED" in recast("convert", str(tmp_path), str(tmp_path / "out"), to="hf").text
