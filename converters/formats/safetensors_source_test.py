import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.formats import fingerprints
from converters.formats.base import TensorInfo
from converters.formats.safetensors_source import SafetensorsSource
from reporting.diagnostics import RecastError

INDEX = "model.safetensors.index.json"


def write(path: Path, tensors: dict[str, bytes], *, pad: int = 0) -> None:
    """A file of one-dimensional U8 tensors."""
    header: dict[str, Any] = {}
    position = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode() + b" " * pad
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors.values()))


def write_index(directory: Path, weight_map: object) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def violations(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(RecastError) as caught:
        SafetensorsSource(path)
    return [(d.id, d.subject) for d in caught.value.diagnostics]


@pytest.fixture(name="sharded")
def _sharded(tmp_path: Path) -> Path:
    write(tmp_path / "one.safetensors", {"a": b"aaaa", "b": b"bb"})
    write(tmp_path / "two.safetensors", {"c": b"ccc"})
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    return tmp_path


def read(source: SafetensorsSource, name: str) -> bytes:
    return source.read(name, tuple((0, n) for n in source.tensors[name].shape)).tobytes()


def test_a_sharded_directory_lists_and_reads_all_tensors(sharded: Path) -> None:
    source = SafetensorsSource(sharded)
    assert source.tensors["c"] == TensorInfo("c", (3,), "uint8", "two.safetensors")
    assert {name: read(source, name) for name in source.tensors} == {"a": b"aaaa", "b": b"bb", "c": b"ccc"}
    assert source.files == ("one.safetensors", "two.safetensors")
    assert source.chunk("a") is None


def test_the_index_itself_can_be_given(sharded: Path) -> None:
    assert set(SafetensorsSource(sharded / INDEX).tensors) == {"a", "b", "c"}


def test_one_file_can_be_given(sharded: Path) -> None:
    assert set(SafetensorsSource(sharded / "one.safetensors").tensors) == {"a", "b"}


def test_files_that_the_index_does_not_name_are_listed_as_unused(sharded: Path) -> None:
    write(sharded / "consolidated.safetensors", {"a": b"aaaa"})
    assert SafetensorsSource(sharded).unused == ("consolidated.safetensors",)


def test_a_single_file_is_taken_and_others_are_listed_as_unused(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": b"a"})
    write(tmp_path / "adapter_model.safetensors", {"a": b"b"})
    source = SafetensorsSource(tmp_path)
    assert read(source, "a") == b"a"
    assert source.unused == ("adapter_model.safetensors",)


def test_a_set_without_an_index_is_read_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "x-00001-of-00002.safetensors", {"a": b"a"})
    write(tmp_path / "x-00002-of-00002.safetensors", {"b": b"b"})
    assert set(SafetensorsSource(tmp_path).tensors) == {"a", "b"}


def test_a_number_missing_from_a_set_without_an_index_is_a_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "x-00001-of-00003.safetensors", {"a": b"a"})
    write(tmp_path / "x-00003-of-00003.safetensors", {"b": b"b"})
    assert violations(tmp_path) == [("MISSING_SHARD", "x-00002-of-00003.safetensors")]


def test_a_set_that_claims_very_many_files_is_one_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "x-00001-of-99999.safetensors", {"a": b"a"})
    assert violations(tmp_path) == [("MISSING_SHARD", "x-00002-of-99999.safetensors")]


def test_a_tensor_in_two_files_of_a_set_is_a_duplicate(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {"a": b"a"})
    write(tmp_path / "y.safetensors", {"a": b"a"})
    assert violations(tmp_path) == [("DUPLICATE_TENSOR", "a")]


def test_a_path_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert violations(tmp_path / "none")[0][0] == "SOURCE_NOT_FOUND"


def test_a_directory_without_safetensors_is_not_recognized(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert violations(tmp_path)[0][0] == "SOURCE_NOT_RECOGNIZED"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": []}', '{"weight_map": {}}', "{}", '{"a":1,"a":2}'])
def test_an_index_that_is_no_index_is_invalid(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    assert violations(sharded) == [("INDEX_INVALID", INDEX)]


def test_a_weight_map_to_something_else_than_names_is_invalid(sharded: Path) -> None:
    write_index(sharded, {"a": "one.safetensors", "b": ["one.safetensors"], "c": 2})
    assert [v for v in violations(sharded) if v[0] == "INDEX_INVALID"] == [
        ("INDEX_INVALID", "b"),
        ("INDEX_INVALID", "c"),
    ]


@pytest.mark.parametrize(
    "name", ["../one.safetensors", "/etc/passwd", "sub/../../one.safetensors", "..", ".", "", "a\\b", "x\0y"]
)
def test_an_index_that_points_outside_of_its_directory_is_refused(sharded: Path, name: str) -> None:
    write_index(sharded, {"a": name})
    assert [v[0] for v in violations(sharded)] == ["PATH_ESCAPES"]


def test_an_index_that_names_a_file_in_a_subfolder_is_invalid(sharded: Path) -> None:
    write_index(sharded, {"a": "sub/one.safetensors"})
    assert violations(sharded) == [("INDEX_INVALID", "sub/one.safetensors")]


def test_a_file_that_is_a_link_into_a_cache_is_read(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    snapshot = tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    write(blobs / "0123", {"a": b"aaaa"})
    (snapshot / "model.safetensors").symlink_to("../blobs/0123")
    assert read(SafetensorsSource(snapshot), "a") == b"aaaa"


def test_a_link_whose_target_is_gone_is_a_missing_shard(sharded: Path) -> None:
    (sharded / "two.safetensors").unlink()
    (sharded / "two.safetensors").symlink_to("nowhere")
    assert violations(sharded) == [("MISSING_SHARD", "two.safetensors")]


def test_a_missing_shard_is_named_once(sharded: Path) -> None:
    (sharded / "one.safetensors").unlink()
    assert violations(sharded) == [("MISSING_SHARD", "one.safetensors")]


def test_a_tensor_that_only_the_index_names_is_missing(sharded: Path) -> None:
    write(sharded / "one.safetensors", {"a": b"aaaa"})
    assert violations(sharded) == [("MISSING_INDEXED_TENSOR", "b")]


def test_a_tensor_in_another_file_than_the_index_says_is_missing_there(sharded: Path) -> None:
    write_index(sharded, {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})
    with pytest.raises(RecastError, match=r"places b in two.safetensors, which lacks it; one.safetensors has it"):
        SafetensorsSource(sharded)


def test_a_tensor_that_only_a_file_has_is_unindexed(sharded: Path) -> None:
    write(sharded / "two.safetensors", {"c": b"ccc", "d": b"d"})
    assert violations(sharded) == [("UNINDEXED_TENSOR", "d")]


def test_a_tensor_in_two_indexed_files_is_a_duplicate(sharded: Path) -> None:
    write(sharded / "two.safetensors", {"c": b"ccc", "a": b"aaaa"})
    assert violations(sharded) == [("DUPLICATE_TENSOR", "a")]


def test_an_index_beside_a_single_file_that_it_does_not_name_is_ambiguous(sharded: Path) -> None:
    write(sharded / "model.safetensors", {"a": b"a"})
    assert violations(sharded) == [("INDEX_INVALID", INDEX)]
    assert set(SafetensorsSource(sharded / "model.safetensors").tensors) == {"a"}


def test_violations_of_the_index_and_of_all_files_come_at_once(sharded: Path) -> None:
    one = sharded / "one.safetensors"
    one.write_bytes(one.read_bytes()[:-1])
    (sharded / "bad.safetensors").write_bytes(b"junk")
    write_index(
        sharded,
        {
            "a": "one.safetensors",
            "b": "one.safetensors",
            "x": "bad.safetensors",
            "y": "gone.safetensors",
            "z": "../z.safetensors",
            "w": "two.safetensors",
        },
    )
    assert sorted(violations(sharded)) == [
        ("FILE_TRUNCATED", "bad.safetensors"),
        ("FILE_TRUNCATED", "one.safetensors"),
        ("MISSING_INDEXED_TENSOR", "w"),
        ("MISSING_SHARD", "gone.safetensors"),
        ("PATH_ESCAPES", "../z.safetensors"),
        ("UNINDEXED_TENSOR", "c"),
    ]


def test_a_directory_in_place_of_a_shard_is_an_error_and_not_a_crash(sharded: Path) -> None:
    (sharded / "two.safetensors").unlink()
    (sharded / "two.safetensors").mkdir()
    assert violations(sharded) == [("HEADER_INVALID", "two.safetensors")]


def test_a_region_is_a_read_only_view_without_a_copy(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).astype(ml_dtypes.bfloat16)
    text = b'{"x":{"dtype":"BF16","shape":[4,6],"data_offsets":[0,48]}}'
    text += b" " * (-len(text) % 8)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())
    source = SafetensorsSource(tmp_path)
    part = source.read("x", ((1, 3), (2, 5)))
    assert part.dtype == ml_dtypes.bfloat16
    assert part.tobytes() == values.reshape(4, 6)[1:3, 2:5].tobytes()
    assert np.shares_memory(part, source.read("x", ((0, 4), (0, 6))))
    assert not part.flags.writeable
    with pytest.raises(ValueError, match="not a region"):
        source.read("x", ((0, 5), (0, 6)))


@pytest.mark.parametrize("pad", [0, 1, 2, 3])
def test_elements_that_a_file_does_not_align_are_read_aligned(tmp_path: Path, pad: int) -> None:
    values = np.arange(5, dtype=np.float64)
    text = b'{"x":{"dtype":"F64","shape":[5],"data_offsets":[0,40]}}' + b" " * pad
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values.tobytes())
    part = SafetensorsSource(tmp_path).read("x", ((1, 4),))
    assert part.flags.aligned
    assert not part.flags.writeable
    assert part.tolist() == [1.0, 2.0, 3.0]


def test_a_scalar_and_a_tensor_without_elements_are_read(tmp_path: Path) -> None:
    text = (
        b'{"s":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]}}'
    )
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<i", -7))
    source = SafetensorsSource(tmp_path)
    assert source.read("s", ()) == -7
    assert source.read("e", ((0, 0), (0, 3))).shape == (0, 3)


def resident(path: Path) -> int:
    """Bytes of a file that are mapped into this process and present."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return next(int(line.split()[1]) * 1024 for line in lines[start:] if line.startswith("Rss:"))


def test_released_pages_are_unmapped_and_read_again_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    data = os.urandom(1 << 20)
    write(path, {"a": data, "b": b"tail"})
    source = SafetensorsSource(tmp_path)
    assert read(source, "a") == data
    before = resident(path)
    source.release("a", ((0, 1 << 20),))
    assert before - resident(path) >= (1 << 20) - 2 * os.sysconf("SC_PAGESIZE")
    assert read(source, "a") == data


def test_releasing_less_than_a_page_or_an_unread_file_does_nothing(sharded: Path) -> None:
    source = SafetensorsSource(sharded)
    source.release("a", ((0, 4),))
    assert read(source, "a") == b"aaaa"
    source.release("a", ((0, 4),))
    source.release("a", ((2, 2),))


def test_a_file_that_became_shorter_after_opening_is_a_changed_source(sharded: Path) -> None:
    source = SafetensorsSource(sharded)
    path = sharded / "two.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecastError) as caught:
        read(source, "c")
    assert caught.value.diagnostics[0].id == "SOURCE_CHANGED"


def test_fingerprints_notice_a_new_header_of_the_same_size(sharded: Path) -> None:
    source = SafetensorsSource(sharded)
    taken = source.fingerprints()
    assert fingerprints.changes(sharded, taken) == []
    path = sharded / "two.safetensors"
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"c"', b'"d"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [d.subject for d in fingerprints.changes(sharded, taken)] == ["two.safetensors"]


def test_a_view_outlives_the_source_and_a_closed_source_refuses_to_read(sharded: Path) -> None:
    source = SafetensorsSource(sharded)
    view = source.read("a", ((0, 4),))
    source.close()
    assert view.tobytes() == b"aaaa"
    with pytest.raises(ValueError, match="closed"):
        source.read("a", ((0, 4),))


def test_threads_read_the_same_file_at_once(tmp_path: Path) -> None:
    contents = {f"t{i}": bytes([i]) * 5000 for i in range(40)}
    write(tmp_path / "model.safetensors", contents)
    source = SafetensorsSource(tmp_path)
    wrong: list[str] = []

    def work() -> None:
        for name, expected in contents.items():
            if read(source, name) != expected:
                wrong.append(name)
            source.release(name, ((0, 5000),))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
