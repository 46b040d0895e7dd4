"""The grid that MaxText writes by default, against what is known of its checkpoints, with Orbax as witness."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from converters.benchmarking import default_grid, synthetic
from tests.end_to_end.running import converted, restored

_WI = "params.params.decoder.layers.mlp.wi_0.kernel"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ours` and, rewritten from it, `theirs`."""
    folder = tmp_path_factory.mktemp("grid")
    synthetic.make(folder / "hf", synthetic.Size(layers=3, heads=4, vocabulary=96))
    converted(
        "hf-to-maxtext", hf_model_path=folder / "hf", base_output_directory=folder / "ours", model_name="llama3.1"
    )
    default_grid.rewrite(folder / "ours", folder / "theirs")
    return folder


def _metadata(checkpoint: Path, name: str) -> dict[str, Any]:
    base = {"driver": "file", "path": f"{checkpoint}/0/items/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    found: dict[str, Any] = json.loads(store.read(f"{name}/zarr.json").result().value)
    return found


def test_a_leaf_is_16_chunks_that_each_span_all_layers(checkpoints: Path) -> None:
    found = _metadata(checkpoints / "theirs", _WI)
    assert found["shape"] == [256, 3, 1024]
    assert found["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [16, 3, 1024]}}


def test_chunks_are_shards_of_one_inner_chunk_compressed_by_zstd_3(checkpoints: Path) -> None:
    (codec,) = _metadata(checkpoints / "theirs", _WI)["codecs"]
    assert codec["name"] == "sharding_indexed"
    assert codec["configuration"]["chunk_shape"] == [16, 3, 1024]
    assert [inner["name"] for inner in codec["configuration"]["codecs"]] == ["bytes", "zstd"]
    assert codec["configuration"]["codecs"][1]["configuration"]["level"] == 3


def test_orbax_restores_the_same_values(checkpoints: Path) -> None:
    ours, theirs = restored(checkpoints / "ours"), restored(checkpoints / "theirs")
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        assert np.array_equal(array.view(np.uint16), theirs[name].view(np.uint16)), name


def test_nothing_that_only_recast_writes_is_there(checkpoints: Path) -> None:
    assert {path.name for path in (checkpoints / "theirs").iterdir()} == {"0"}


@pytest.mark.parametrize(
    ("shape", "chunk"),
    [
        ((2048, 16, 8192), (128, 16, 8192)),
        ((100, 32, 7), (100, 2, 7)),
        ((100, 3, 64), (100, 3, 4)),
        ((5, 7), (5, 7)),
        ((), ()),
    ],
)
def test_the_first_axis_that_16_divides_is_cut(shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    assert default_grid.chunk_of(shape) == chunk
