"""What lies in the files is judged by reading them with the standard library and NumPy alone."""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from converters.formats.base import Declared, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype
from converters.formats.orbax_sink import OrbaxSink
from converters.formats.orbax_storage import form_of
from reporting.diagnostics import RecastError

A = np.arange(60, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(5, 12)
A[0] = 0
ARRAYS = [
    Declared(TensorInfo("params.a", (5, 12), "bfloat16"), (2, 12)),
    Declared(TensorInfo("count", (), "int32"), ()),
]
REGIONS = [((0, 2), (0, 12)), ((2, 5), (0, 12))]


def opened(directory: Path, *, zarr3: bool, compression: str = "none", resume: bool = False) -> OrbaxSink:
    sink = OrbaxSink(directory, use_zarr3=zarr3, use_ocdbt=False, compression=compression, resume=resume)
    sink.declare(ARRAYS)
    return sink


def fill(sink: OrbaxSink) -> None:
    for region in REGIONS:
        sink.write("params.a", region, A[slice(*region[0])])
    sink.write("count", (), np.asarray(7, np.int32))


def files(items: Path) -> dict[str, bytes]:
    paths = (Path(place, name) for place, _, names in os.walk(items) for name in names)
    return {str(path.relative_to(items)): path.read_bytes() for path in paths}


def test_zarr3_directories_hold_a_plain_file_for_each_chunk(tmp_path: Path) -> None:
    sink = opened(tmp_path, zarr3=True)
    fill(sink)
    sink.commit()
    found = files(sink.items)
    assert sorted(found) == [
        "_METADATA",
        "commit_success.txt",
        "count/c",
        "count/zarr.json",
        "params.a/c/0/0",
        "params.a/c/1/0",
        "params.a/c/2/0",
        "params.a/zarr.json",
        "step/c",
        "step/zarr.json",
    ]
    assert found["params.a/c/0/0"] == A[:2].tobytes()
    assert found["params.a/c/2/0"] == A[4:].tobytes() + bytes(24)
    assert found["count/c"] == (7).to_bytes(4, "little")
    tree = json.loads(found["_METADATA"])
    assert (tree["use_zarr3"], tree["use_ocdbt"]) == (True, False)


def test_zarr2_directories_are_described_as_the_format_says(tmp_path: Path) -> None:
    sink = opened(tmp_path, zarr3=False)
    fill(sink)
    sink.commit()
    found = files(sink.items)
    assert {"params.a/0.0", "params.a/1.0", "params.a/2.0", "params.a/.zarray", "count/0", "step/0"} < set(found)
    assert found["params.a/1.0"] == A[2:4].tobytes()
    assert found["params.a/2.0"] == A[4:].tobytes() + bytes(24)
    assert found["count/0"] == (7).to_bytes(4, "little")
    assert json.loads(found["params.a/.zarray"]) == {
        "zarr_format": 2,
        "shape": [5, 12],
        "chunks": [2, 12],
        "dtype": "bfloat16",
        "compressor": None,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }
    assert json.loads(found["count/.zarray"])["dtype"] == "<i4"


@pytest.mark.parametrize("zarr3", [True, False])
def test_zstd_compresses_chunks_and_its_level_is_recorded(tmp_path: Path, zarr3: bool) -> None:
    sink = OrbaxSink(tmp_path, use_zarr3=zarr3, use_ocdbt=False, compression="zstd:19")
    sink.declare([Declared(TensorInfo("x", (100_000,), "uint8"), (100_000,))])
    sink.write("x", ((0, 100_000),), np.ones(100_000, np.uint8))
    found = files(sink.items)
    chunk = found["x/c/0" if zarr3 else "x/0"]
    assert chunk[:4] == b"\x28\xb5\x2f\xfd"
    assert len(chunk) < 1000
    said = json.loads(found["x/zarr.json" if zarr3 else "x/.zarray"])
    zstd = said["codecs"][-1]["configuration"] if zarr3 else said["compressor"]
    assert zstd["level"] == 19


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_zarr2_stores_each_element_type(tmp_path: Path, name: str, ocdbt: bool) -> None:
    values = np.arange(4).astype(np.float32).astype(numpy_dtype(name))
    sink = OrbaxSink(tmp_path, use_zarr3=False, use_ocdbt=ocdbt)
    sink.declare([Declared(TensorInfo("x", (4,), name), (4,))])
    sink.write("x", ((0, 4),), values)
    sink.commit()
    base = {"driver": "file", "path": f"{sink.items}/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base} if ocdbt else base, context=ts.Context()).result()
    assert bytes(store.read("x/0").result().value) == values.tobytes()


@pytest.mark.parametrize("compression", ["", "zstd", "zstd:", "zstd:0", "zstd:23", "zstd:x", "zstd:³", "gzip:1"])
def test_another_compression_is_refused(compression: str) -> None:
    with pytest.raises(ValueError, match="zstd:N"):
        form_of(use_zarr3=True, use_ocdbt=True, compression=compression)


def test_sync_makes_new_files_and_the_directories_that_name_them_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path, zarr3=True)
    seen: list[str] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        seen.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), sink.items))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    sink.sync()
    described = {f"{name}/zarr.json" for name in ("params.a", "count", "step")}
    assert set(seen) == described | {"params.a", "count", "step", "."}
    seen.clear()
    sink.write("params.a", REGIONS[1], A[2:])
    sink.sync()
    assert set(seen) == {
        *("params.a/c/1/0", "params.a/c/2/0"),
        *("params.a/c/1", "params.a/c/2", "params.a/c", "params.a", "."),
    }
    seen.clear()
    sink.sync()
    assert seen == []
    sink.write("params.a", REGIONS[1], A[2:])
    sink.sync()
    assert {"params.a/c/1/0", "params.a/c/2/0"} < set(seen)


def test_what_could_not_be_made_durable_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path, zarr3=False)
    sink.sync()
    fill(sink)

    def fail(_: int) -> None:
        raise OSError(5, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RecastError) as caught:
            sink.sync()
    assert caught.value.diagnostics[0].id == "INPUT_OUTPUT"
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    sink.sync()
    assert {"0.0", "1.0", "2.0", "0"} < set(seen)


@pytest.mark.parametrize("zarr3", [True, False])
def test_a_resumed_directory_keeps_what_was_written_and_drops_unfinished_files(tmp_path: Path, zarr3: bool) -> None:
    first = opened(tmp_path, zarr3=zarr3)
    first.write("params.a", REGIONS[0], A[:2])
    first.abort()
    left = [first.items / "params.a" / "9.0.__lock", first.items / "manifest.__lock"]
    for path in left:
        path.write_bytes(b"part")
    second = opened(tmp_path, zarr3=zarr3, resume=True)
    second.write("params.a", REGIONS[1], A[2:])
    second.commit()
    assert [path for path in left if path.exists()] == []
    found = files(second.items)
    assert found["params.a/c/0/0" if zarr3 else "params.a/0.0"] == A[:2].tobytes()
    assert found["params.a/c/1/0" if zarr3 else "params.a/1.0"] == A[2:4].tobytes()


def test_an_array_with_the_name_of_a_file_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    sink = OrbaxSink(tmp_path, use_ocdbt=False)
    with pytest.raises(ValueError, match="name of a file"):
        sink.declare([Declared(TensorInfo("_METADATA", (2,), "int8"), (2,))])
