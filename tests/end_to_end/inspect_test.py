"""`inspect` on checkpoints of every kind that it describes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import checkpoints
from tests.end_to_end.running import converted, recast

CONFIG = {**checkpoints.CONFIGS["grouped"], "num_hidden_layers": 2, "head_dim": 24}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=51)
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("inspect") / "hf", tensors, CONFIG, shard_bytes=60_000)


@pytest.fixture(scope="module")
def stacked(source: Path) -> Path:
    converted("convert", str(source), str(source.parent / "mt"), to="maxtext")
    return source.parent / "mt"


def _said(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(converted("inspect", str(path), json=True).text)
    assert said["schema"] == 1
    assert said["bytes"] == sum(tensor["bytes"] for tensor in said["tensors"])
    assert sum(said["dtypes"].values()) == len(said["tensors"])
    return said


def test_files_of_hugging_face_are_listed_with_their_sizes(source: Path) -> None:
    said = _said(source)
    assert said["format"] == "hf"
    assert {entry["name"]: entry["bytes"] for entry in said["files"]} == {
        path.name: path.stat().st_size for path in source.glob("*.safetensors")
    }
    assert sum(entry["tensors"] for entry in said["files"]) == len(said["tensors"])
    assert said["made_by_recast"] is None


def test_an_orbax_checkpoint_shows_step_grid_storage_and_its_origin(stacked: Path) -> None:
    said = _said(stacked)
    assert (said["format"], said["step"], said["item"], said["scan_layers"]) == ("maxtext", 0, "items", True)
    assert said["storage"]["zarr"] == 3
    assert said["storage"]["ocdbt"] is True
    assert said["storage"]["compression"] == ["none"]
    files = [path for path in (stacked / "0" / "items").rglob("*") if path.is_file()]
    assert said["storage"]["files"] == len(files)
    assert said["storage"]["bytes"] == sum(path.stat().st_size for path in files)
    assert said["made_by_recast"]["done"] is True
    assert said["made_by_recast"]["options"]["scan"] in (True, "true")
    for tensor in said["tensors"]:
        assert len(tensor["chunk"]) == len(tensor["shape"])
        assert tensor["compression"] == "none"


def test_other_storage_is_told_apart(source: Path, tmp_path: Path) -> None:
    converted(
        "convert",
        str(source),
        str(tmp_path / "mt"),
        to="maxtext",
        scan_layers=False,
        compression="zstd:3",
        checkpoint_storage_use_zarr3=False,
        checkpoint_storage_use_ocdbt=False,
    )
    said = _said(tmp_path / "mt")
    assert (said["storage"]["zarr"], said["storage"]["ocdbt"], said["scan_layers"]) == (2, False, False)
    assert said["storage"]["compression"] == ["zstd:3"]
    text = converted("inspect", str(tmp_path / "mt")).text
    assert "zarr 2, a directory for each array, compression zstd:3" in text


def test_other_and_unfinished_steps_are_shown(stacked: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    for step in (0, 4, 9):
        shutil.copytree(stacked / "0", root / str(step))
    for name in ("commit_success.txt", "_CHECKPOINT_METADATA"):
        (root / "9" / name).unlink()
    (root / "9" / "items" / "_METADATA").unlink()
    said = _said(root)
    assert (said["step"], said["other_steps"], said["unfinished_steps"]) == (4, [0], ["9"])
    text = converted("inspect", str(root)).text
    assert "step 4, item items" in text
    assert "step 9 was passed over: its save was interrupted" in text
    assert "steps not taken: 0" in text


def test_an_unfinished_checkpoint_is_one_clear_error(stacked: Path, tmp_path: Path) -> None:
    shutil.copytree(stacked / "0", tmp_path / "run" / "0")
    (tmp_path / "run" / "0" / "items" / "_METADATA").unlink()
    outcome = recast("inspect", str(tmp_path / "run"), json=True)
    assert outcome.code == 2
    assert outcome.text.count("Id: RecastErrorId.") == 1
    assert "CHECKPOINT_UNFINISHED" in outcome.text


def test_the_pieces_of_an_optimizer_are_named(tmp_path: Path) -> None:
    import jax.numpy as jnp
    import optax
    import orbax.checkpoint as ocp

    params = {"params": {"decoder": {"layers_0": {"kernel": jnp.ones((4, 6))}, "norm": {"scale": jnp.ones(6)}}}}
    state = optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params)
    tree = {"params": params, "opt_state": state, "step": np.int32(3)}
    ocp.PyTreeCheckpointer().save(tmp_path / "state", tree)
    said = _said(tmp_path / "state")
    pieces = {piece["name"]: (piece["arrays"], piece["bytes"]) for piece in said["training_state"]}
    assert pieces["step"] == (1, 4)
    moments = {name: size for name, size in pieces.items() if name.endswith((".mu", ".nu"))}
    assert set(moments.values()) == {(2, 4 * (24 + 6))}
    assert len(moments) == 2
    assert any(name.endswith(".count") for name in pieces)
    assert said["empty_nodes"]
    assert (said["scan_layers"], said["scan_layers_known_from"]) == (False, "names")
    assert "mu (2 arrays, 120 B)" in converted("inspect", str(tmp_path / "state")).text
