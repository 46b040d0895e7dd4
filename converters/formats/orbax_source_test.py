"""The checkpoints here are made with TensorStore and hand-written metadata, not by this project's writer."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from converters.formats import fingerprints
from converters.formats.base import AnyArray, TensorInfo
from converters.formats.orbax_description import describe
from converters.formats.orbax_second_reader import OrbaxElements
from converters.formats.orbax_source import OrbaxSource
from reporting.diagnostics import RecastError

A = np.arange(96, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(8, 12)
N = np.array([1.5, -2.0, 3.25], np.float32)
STEP = np.array(7, np.int64)
ARRAYS = {"params.a": A, "params.n": N, "step": STEP}


def store_array(
    items: Path, name: str, array: AnyArray, *, ocdbt: bool = True, zarr3: bool = True, **options: Any
) -> Any:
    base = {"driver": "file", "path": f"{items}/"}
    file = {"driver": "file", "path": f"{items}/{name}/"}
    spec: dict[str, Any] = {
        "driver": "zarr3" if zarr3 else "zarr",
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"} if ocdbt else file,
        "store_data_equal_to_fill_value": True,
        **options,
    }
    store = ts.open(spec, create=True, dtype=array.dtype, shape=array.shape).result()
    store.write(array).result()
    return store


def write_metadata(
    items: Path, names: list[str], *, ocdbt: bool | None = True, zarr3: bool = True, **fields: Any
) -> None:
    def leaf(name: str) -> dict[str, Any]:
        keys = [{"key": key, "key_type": 1 if key.isdigit() else 2} for key in name.split(".")]
        return {"key_metadata": keys, "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False}}

    tree: dict[str, Any] = {"tree_metadata": {name: leaf(name) for name in names}}
    tree |= {"use_ocdbt": ocdbt, "use_zarr3": zarr3, "store_array_data_equal_to_fill_value": True, **fields}
    (items / "_METADATA").write_text(json.dumps(tree))


@pytest.fixture(name="items")
def _items(tmp_path: Path) -> Path:
    items = tmp_path / "a #1?%20" / "items"
    items.mkdir(parents=True)
    for name, array in ARRAYS.items():
        store_array(items, name, array)
    write_metadata(items, list(ARRAYS))
    return items


def violations(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(RecastError) as caught:
        OrbaxSource(path)
    return [(d.id, d.subject) for d in caught.value.diagnostics]


def whole(source: OrbaxSource, name: str) -> AnyArray:
    return source.read(name, tuple((0, n) for n in source.tensors[name].shape))


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_every_layout_of_orbax_is_read(tmp_path: Path, ocdbt: bool, zarr3: bool) -> None:
    for name, array in ARRAYS.items():
        store_array(tmp_path, name, array, ocdbt=ocdbt, zarr3=zarr3)
    write_metadata(tmp_path, list(ARRAYS), ocdbt=ocdbt, zarr3=zarr3)
    source = OrbaxSource(tmp_path)
    for name, array in ARRAYS.items():
        values = whole(source, name)
        assert values.dtype == array.dtype
        assert values.tobytes() == array.tobytes()


def test_metadata_that_does_not_say_is_understood_by_what_is_there(items: Path, tmp_path: Path) -> None:
    write_metadata(items, list(ARRAYS), ocdbt=None)
    assert whole(OrbaxSource(items), "step") == 7
    plain = tmp_path / "plain"
    store_array(plain, "x", N, ocdbt=False)
    write_metadata(plain, ["x"], ocdbt=None)
    assert whole(OrbaxSource(plain), "x").tolist() == N.tolist()


def test_arrays_are_listed_with_shape_and_type_and_without_reading_data(items: Path) -> None:
    for file in (items / "d").iterdir():
        if file.stat().st_size > 1000:
            file.write_bytes(b"")
    assert OrbaxSource(items).tensors["params.a"] == TensorInfo("params.a", (8, 12), "bfloat16", "items/params.a")


def test_a_region_is_read_in_the_stored_type(items: Path) -> None:
    source = OrbaxSource(items)
    assert source.read("params.a", ((2, 5), (3, 4))).tobytes() == A[2:5, 3:4].tobytes()
    assert source.read("step", ()).shape == ()
    with pytest.raises(ValueError, match="not a region"):
        source.read("params.n", ((0, 4),))


def test_a_region_can_be_read_into_a_part_of_an_array(items: Path) -> None:
    source = OrbaxSource(items)
    out = np.zeros((3, 4), ml_dtypes.bfloat16)
    source.read_into("params.a", ((2, 5), (3, 5)), out[:, 1:3])
    expected = np.zeros((3, 4), ml_dtypes.bfloat16)
    expected[:, 1:3] = A[2:5, 3:5]
    assert out.tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="cannot take"):
        source.read_into("params.a", ((2, 5), (3, 5)), out)
    with pytest.raises(ValueError, match="cannot take"):
        source.read_into("params.a", ((0, 3), (0, 4)), out.view(np.uint16))


def grid(shape: list[int], codecs: list[Any]) -> dict[str, Any]:
    return {"metadata": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}, "codecs": codecs}}


def test_the_chunk_is_the_inner_one_where_chunks_are_sharded(tmp_path: Path) -> None:
    codec = {"name": "bytes", "configuration": {"endian": "little"}}
    sharded = {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": [2, 3], "codecs": [codec, {"name": "zstd", "configuration": {"level": 3}}]},
    }
    store_array(tmp_path, "sharded", A, **grid([4, 12], [sharded]))
    store_array(tmp_path, "plain", A, **grid([4, 6], [codec]))
    store_array(tmp_path, "scalar", STEP)
    write_metadata(tmp_path, ["sharded", "plain", "scalar"])
    source = OrbaxSource(tmp_path)
    assert [source.chunk(name) for name in source.tensors] == [(2, 3), (4, 6), ()]
    assert whole(source, "sharded").tobytes() == whole(source, "plain").tobytes() == A.tobytes()


def test_many_arrays_are_opened(tmp_path: Path) -> None:
    names = [f"layers.{i}.w" for i in range(600)]
    transaction = ts.Transaction()
    context = ts.Context()
    for name in names:
        kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/"}, "path": f"{name}/"}
        spec = {"driver": "zarr3", "kvstore": kvstore}
        ts.open(spec, create=True, dtype=ts.int8, shape=[1], transaction=transaction, context=context).result()
    transaction.commit_sync()
    write_metadata(tmp_path, names)
    assert list(OrbaxSource(tmp_path).tensors) == names


def test_a_sole_leaf_named_value_takes_its_parents_name(tmp_path: Path) -> None:
    names = ["decoder.kernel.value", "attention.value", "attention.query", "value"]
    for name in names:
        store_array(tmp_path, name, N)
    write_metadata(tmp_path, names)
    source = OrbaxSource(tmp_path)
    assert list(source.tensors) == ["decoder.kernel", "attention.value", "attention.query", "value"]
    assert source.tensors["decoder.kernel"].location == f"{tmp_path.name}/decoder.kernel.value"
    assert whole(source, "decoder.kernel").tolist() == N.tolist()


def test_leaves_that_share_a_name_without_their_value_key_are_invalid(tmp_path: Path) -> None:
    for name in ("a.b", "a.b.value"):
        store_array(tmp_path, name, N)
    write_metadata(tmp_path, ["a.b", "a.b.value"])
    tree = json.loads((tmp_path / "_METADATA").read_text())
    tree["tree_metadata"]["a.b"]["key_metadata"] = [{"key": "a.b", "key_type": 2}]
    (tmp_path / "_METADATA").write_text(json.dumps(tree))
    assert violations(tmp_path) == [("ORBAX_METADATA_INVALID", "a.b")]


def test_leaves_without_arrays_are_listed_apart(items: Path) -> None:
    tree = json.loads((items / "_METADATA").read_text())
    empty = {"value_type": "Dict", "skip_deserialize": True}
    tree["tree_metadata"]["e"] = {"key_metadata": [{"key": "opt_state", "key_type": 2}], "value_metadata": empty}
    (items / "_METADATA").write_text(json.dumps(tree))
    source = OrbaxSource(items)
    assert dict(source.without_data) == {"opt_state": "Dict"}
    assert "opt_state" not in source.tensors


def test_custom_metadata_of_the_step_counts_before_that_of_the_item(items: Path) -> None:
    write_metadata(items, list(ARRAYS), custom_metadata={"scan_layers": False})
    assert OrbaxSource(items).custom_metadata == {"scan_layers": False}
    (items.parent / "_CHECKPOINT_METADATA").write_text(json.dumps({"custom_metadata": {"scan_layers": True}}))
    assert OrbaxSource(items.parent).custom_metadata == {"scan_layers": True}


def test_each_array_that_is_not_in_the_database_is_unreadable(items: Path) -> None:
    write_metadata(items, [*ARRAYS, "params.x", "params.y"])
    assert violations(items) == [("ORBAX_ARRAY_UNREADABLE", "params.x"), ("ORBAX_ARRAY_UNREADABLE", "params.y")]


def test_a_database_without_its_manifest_is_unreadable(items: Path) -> None:
    (items / "manifest.ocdbt").unlink()
    assert violations(items) == [("ORBAX_ARRAY_UNREADABLE", "manifest.ocdbt")]


@pytest.mark.parametrize("read", [OrbaxElements, describe])
def test_no_reader_waits_for_a_pipe_among_the_files(items: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(items / "beside")
    with pytest.raises(RecastError, match="beside is not a regular file"):
        read(items)


@pytest.mark.parametrize("file", ["manifest.ocdbt", "beside"])
def test_a_pipe_among_the_files_is_refused_and_not_waited_for(items: Path, file: str) -> None:
    (items / file).unlink(missing_ok=True)
    os.mkfifo(items / file)
    assert violations(items.parent) == [("ORBAX_ARRAY_UNREADABLE", file)]


def test_a_database_that_was_never_merged_is_unfinished(items: Path) -> None:
    (items / "manifest.ocdbt").unlink()
    (items / "ocdbt.process_0").mkdir()
    assert [v[0] for v in violations(items)] == ["CHECKPOINT_UNFINISHED"]


@pytest.mark.parametrize("content", [b"", b"junk", bytes(100)])
def test_a_damaged_manifest_makes_every_array_unreadable(items: Path, content: bytes) -> None:
    (items / "manifest.ocdbt").write_bytes(content)
    assert violations(items) == [("ORBAX_ARRAY_UNREADABLE", name) for name in ARRAYS]


def test_damaged_data_is_unreadable_with_the_arrays_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    store_array(tmp_path, "x", random)
    write_metadata(tmp_path, ["x"])
    source = OrbaxSource(tmp_path)
    for file in (tmp_path / "d").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecastError) as caught:
        whole(source, "x")
    assert [(d.id, d.subject) for d in caught.value.diagnostics] == [("ORBAX_ARRAY_UNREADABLE", "x")]
    with pytest.raises(RecastError) as caught:
        OrbaxElements(tmp_path).read("x", np.array([[0, 0]]))
    assert [(d.id, d.subject) for d in caught.value.diagnostics] == [("ORBAX_ARRAY_UNREADABLE", "x")]


def test_a_chunk_that_was_never_written_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    spec = {"store_data_equal_to_fill_value": True, **grid([2], codecs)}
    kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/"}, "path": "x/"}
    store = ts.open({"driver": "zarr3", "kvstore": kvstore, **spec}, create=True, dtype=ts.int32, shape=[4]).result()
    store[:2].write(np.zeros(2, np.int32)).result()
    write_metadata(tmp_path, ["x"])
    source = OrbaxSource(tmp_path)
    assert source.read("x", ((0, 2),)).tolist() == [0, 0]
    with pytest.raises(RecastError) as caught:
        source.read("x", ((0, 4),))
    assert caught.value.diagnostics[0].id == "ORBAX_ARRAY_UNREADABLE"
    write_metadata(tmp_path, ["x"], store_array_data_equal_to_fill_value=False)
    assert OrbaxSource(tmp_path).read("x", ((0, 4),)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("inner", [1, 1 << 40])
def test_a_chunk_far_larger_than_its_array_is_refused_before_it_is_read(tmp_path: Path, inner: int) -> None:
    codec: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
    if inner == 1:
        codec = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": [codec]}}
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 40]}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": [codec],
        "fill_value": 0,
    }
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_text(json.dumps(metadata))
    write_metadata(tmp_path, ["x"], ocdbt=False)
    assert violations(tmp_path) == [("ORBAX_ARRAY_UNREADABLE", "x")]


def test_a_small_chunk_that_is_larger_than_its_array_is_read(tmp_path: Path) -> None:
    store_array(tmp_path, "x", N, **grid([8], [{"name": "bytes", "configuration": {"endian": "little"}}]))
    write_metadata(tmp_path, ["x"])
    assert whole(OrbaxSource(tmp_path), "x").tolist() == N.tolist()


def test_an_element_type_that_no_target_holds_is_listed_and_refused_when_read(tmp_path: Path) -> None:
    store_array(tmp_path, "x", np.zeros(2, np.complex64))
    store_array(tmp_path, "y", np.zeros(2, ml_dtypes.int4))
    store_array(tmp_path, "z", N)
    write_metadata(tmp_path, ["x", "y", "z"])
    source = OrbaxSource(tmp_path)
    assert [info.dtype for info in source.tensors.values()] == ["complex64", "int4", "float32"]
    assert whole(source, "z").tolist() == N.tolist()
    for name in ("x", "y"):
        with pytest.raises(RecastError) as caught:
            whole(source, name)
        assert [(d.id, d.subject) for d in caught.value.diagnostics] == [("DTYPE_NOT_SUPPORTED", name)]


def test_elements_that_are_no_numbers_are_refused_at_once(tmp_path: Path) -> None:
    store_array(tmp_path, "x", N, ocdbt=False, zarr3=False)
    stored = tmp_path / "x" / ".zarray"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"dtype": "|S4", "fill_value": None}))
    write_metadata(tmp_path, ["x"], ocdbt=False, use_zarr3=False)
    assert violations(tmp_path) == [("DTYPE_NOT_SUPPORTED", "x")]


def test_a_key_outside_of_the_database_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    store_array(secret, "x", N, ocdbt=False)
    items = tmp_path / "items"
    items.mkdir()
    for name in ("/../secret/x", f"{secret}/x"):
        tree = {"t": {"key_metadata": [{"key": name, "key_type": 2}], "value_metadata": {"value_type": "np.ndarray"}}}
        (items / "_METADATA").write_text(json.dumps({"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": True}))
        assert [v[0] for v in violations(items)] == ["PATH_ESCAPES"]


def crc32c(data: bytes) -> bytes:
    """Castagnoli's checksum, which ends every node of a database."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return (value ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize("place", ["../bbb/q", "aa/bbb/q"])
def test_a_database_that_points_outside_of_its_directory_is_unreadable(tmp_path: Path, place: str) -> None:
    """The second, unchanged place shows that the forged nodes are sound but for their path."""
    items = tmp_path / "items"
    base = {"driver": "file", "path": f"{items}/"}
    config = {"compression": None, "max_inline_value_bytes": 0}
    kvstore = {"driver": "ocdbt", "base": base, "path": "x/", "value_data_prefix": "aa/bbb/q", "config": config}
    ts.open({"driver": "zarr3", "kvstore": kvstore}, create=True, dtype=ts.int32, shape=[3]).result().write(
        np.arange(3, dtype=np.int32)
    ).result()
    write_metadata(items, ["x"])
    for node in (items / "d").iterdir():
        content = node.read_bytes()[:-4].replace(b"aa/bbb/q", place.encode())
        node.write_bytes(content + crc32c(content))
    if place.startswith(".."):
        os.rename(items / "aa" / "bbb", tmp_path / "bbb")
        assert violations(items) == [("ORBAX_ARRAY_UNREADABLE", "x")]
    else:
        assert whole(OrbaxSource(items), "x").tolist() == [0, 1, 2]


def test_elements_are_those_at_their_coordinates(items: Path) -> None:
    reader = OrbaxElements(items)
    assert reader.shapes == {"params.a": (8, 12), "params.n": (3,), "step": ()}
    points = np.array([[0, 0], [7, 11], [3, 4], [3, 4]])
    values = reader.read("params.a", points)
    assert values.dtype == ml_dtypes.bfloat16
    assert values.astype(np.float32).tolist() == [0.0, 95.0, 40.0, 40.0]
    assert reader.read("step", np.empty((2, 0), np.int64)).tolist() == [7, 7]
    assert reader.read("params.a", np.empty((0, 2), np.int64)).shape == (0,)


@pytest.mark.parametrize("points", [[[8, 0]], [[0, -1]], [[0]], [0, 0]])
def test_coordinates_that_are_none_of_the_array_are_refused(items: Path, points: list[Any]) -> None:
    with pytest.raises(ValueError, match="coordinates"):
        OrbaxElements(items).read("params.a", np.array(points))


def test_elements_come_from_the_right_chunks(tmp_path: Path) -> None:
    array = np.arange(7 * 5 * 9, dtype=np.int32).reshape(7, 5, 9)
    store_array(tmp_path, "x", array, **grid([2, 3, 4], [{"name": "bytes", "configuration": {"endian": "little"}}]))
    write_metadata(tmp_path, ["x"])
    points = np.random.default_rng(0).integers(0, array.shape, (200, 3))
    assert OrbaxElements(tmp_path).read("x", points).tolist() == array[tuple(points.T)].tolist()


def test_fingerprints_notice_a_replaced_data_file(items: Path) -> None:
    taken = OrbaxSource(items).fingerprints()
    assert {"_METADATA", "manifest.ocdbt"} <= {f.path for f in taken}
    assert fingerprints.changes(items, taken) == []
    file = next((items / "d").iterdir())
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [d.id for d in fingerprints.changes(items, taken)] == ["SOURCE_CHANGED"]


def test_threads_read_at_once(items: Path) -> None:
    source = OrbaxSource(items)
    wrong: list[int] = []

    def work() -> None:
        for row in range(8):
            if source.read("params.a", ((row, row + 1), (0, 12))).tobytes() != A[row].tobytes():
                wrong.append(row)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
