import errno
import json
import mmap
import os
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.formats.base import Declared, TensorInfo
from converters.formats.safetensors_sink import SafetensorsSink
from reporting.diagnostics import RecastError

A = np.arange(24, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(4, 6)
B = np.arange(5, dtype=np.int64)


def declared(name: str, array: np.ndarray) -> Declared:
    return Declared(TensorInfo(name, array.shape, array.dtype.name), array.shape)


def opened(directory: Path, **options: object) -> SafetensorsSink:
    sink = SafetensorsSink(directory, **options)  # type: ignore[arg-type]
    sink.declare([declared("a", A), declared("b", B)])
    return sink


def parse(path: Path) -> dict[str, bytes]:
    """Each tensor's bytes, by a reader of this test's own."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__")
    ends = {name: [start + o for o in entry["data_offsets"]] for name, entry in header.items()}
    return {name: raw[begin:end] for name, (begin, end) in ends.items()}


def id_of(error: pytest.ExceptionInfo[RecastError]) -> str:
    return error.value.diagnostics[0].id


def test_regions_written_in_any_order_make_the_whole(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write("a", ((2, 4), (0, 6)), A[2:4])
    sink.write("b", ((0, 5),), B)
    sink.write("a", ((1, 2), (3, 6)), A[1:2, 3:6])
    sink.write("a", ((0, 1), (0, 6)), A[0:1])
    sink.write("a", ((1, 2), (0, 3)), A[1:2, 0:3])
    sink.commit()
    assert parse(tmp_path / "model.safetensors") == {"a": A.tobytes(), "b": B.tobytes()}
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_mapped_or_read_only_array_can_be_written(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    values = A.copy()
    values.flags.writeable = False
    sink.write("a", ((0, 4), (0, 6)), values)
    sink.commit()
    assert parse(tmp_path / "model.safetensors")["a"] == A.tobytes()


def test_scalars_and_tensors_without_elements_can_be_written(tmp_path: Path) -> None:
    scalar, none = np.array(7, np.int32), np.empty((0, 3), np.float32)
    sink = SafetensorsSink(tmp_path)
    sink.declare([declared("s", scalar), declared("e", none)])
    sink.write("s", (), scalar)
    sink.write("e", ((0, 0), (0, 3)), none)
    sink.commit()
    assert parse(tmp_path / "model.safetensors") == {"s": scalar.tobytes(), "e": b""}


def test_the_space_of_all_files_is_taken_before_the_first_write(tmp_path: Path) -> None:
    sink = opened(tmp_path, max_shard_size=48)
    sizes = {shard.file: shard.size for shard in sink.shards}
    assert len(sizes) == 2
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == sizes


def test_the_index_appears_only_when_all_files_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path, max_shard_size=48)
    index = tmp_path / "model.safetensors.index.json"
    synced = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        synced.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), index.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    sink.commit()
    files = {shard.file for shard in sink.shards}
    first = [name for name, seen in synced if not seen]
    assert files | {tmp_path.name} <= set(first)
    assert synced[-1] == (tmp_path.name, True)
    assert set(json.loads(index.read_text())["weight_map"].values()) == files


def test_sync_makes_only_files_with_new_writes_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path, max_shard_size=48)
    sink.sync()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    sink.sync()
    assert synced == []
    sink.write("b", ((0, 5),), B)
    sink.sync()
    assert synced == ["model-00002-of-00002.safetensors"]


def test_a_failed_sync_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(RecastError) as caught:
            sink.sync()
    assert id_of(caught) == "INPUT_OUTPUT"
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sink.sync()
    assert len(synced) == 1


def test_regions_that_are_not_contiguous_are_written_run_by_run(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    for rows in ((0, 1), (1, 4)):
        for columns in ((4, 6), (0, 4)):
            sink.write("a", (rows, columns), np.ascontiguousarray(A[slice(*rows), slice(*columns)]))
    sink.commit()
    assert load_file(tmp_path / "model.safetensors")["a"].tobytes() == A.tobytes()


def test_a_box_inside_of_three_axes_goes_to_its_place(tmp_path: Path) -> None:
    whole = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    sink = SafetensorsSink(tmp_path)
    sink.declare([Declared(TensorInfo("b", whole.shape, "int32"), (2, 5, 3))])
    for i in (0, 2):
        for k in (0, 3):
            box = ((i, i + 2), (0, 5), (k, k + 3))
            sink.write("b", box, np.ascontiguousarray(whole[i : i + 2, :, k : k + 3]))
    sink.commit()
    assert load_file(tmp_path / "model.safetensors")["b"].tobytes() == whole.tobytes()


@pytest.mark.parametrize("values", [A.astype(np.float32), A[:3], A.T.copy().T, A.view(np.uint16)])
def test_values_of_another_type_shape_or_order_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="is not a C-contiguous"):
        opened(tmp_path).write("a", ((0, 4), (0, 6)), values)


def test_a_region_outside_of_the_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a region"):
        opened(tmp_path).write("a", ((3, 5), (0, 6)), A[:2])


def test_a_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(RecastError) as caught:
        opened(tmp_path)
    assert id_of(caught) == "DESTINATION_EXISTS"
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize("content", [b"precious", b""])
def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path, content: bytes) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(content)
    target = tmp_path / "target"
    target.mkdir()
    (target / "model.safetensors").symlink_to(outside)
    for resume in (False, True):
        with pytest.raises(RecastError):
            opened(target, resume=resume)
    assert outside.read_bytes() == content


def test_a_resumed_sink_keeps_what_was_written(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write("a", ((0, 4), (0, 6)), A)
    first.abort()
    second = opened(tmp_path, resume=True)
    second.write("b", ((0, 5),), B)
    second.commit()
    assert parse(tmp_path / "model.safetensors") == {"a": A.tobytes(), "b": B.tobytes()}


@pytest.mark.parametrize("left", [0, 5, 30])
def test_a_sink_resumes_where_a_run_was_killed_before_the_header_was_whole(tmp_path: Path, left: int) -> None:
    first = opened(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left] + bytes(10_000))
    second = opened(tmp_path, resume=True)
    second.commit()
    assert path.stat().st_size == first.shards[0].size
    assert path.read_bytes().startswith(first.shards[0].header)


def test_a_file_with_other_tensors_is_not_resumed(tmp_path: Path) -> None:
    other = SafetensorsSink(tmp_path)
    other.declare([declared("z", A)])
    content = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(RecastError) as caught:
        opened(tmp_path, resume=True)
    assert id_of(caught) == "DESTINATION_EXISTS"
    assert (tmp_path / "model.safetensors").read_bytes() == content


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecastError) as caught:
        opened(tmp_path / "none")
    assert id_of(caught) == "INPUT_OUTPUT"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RecastError) as caught:
        opened(tmp_path)
    tmp_path.chmod(0o700)
    assert id_of(caught) == "DESTINATION_NOT_WRITABLE"


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "DISK_FULL"), (errno.EACCES, "DESTINATION_NOT_WRITABLE"), (errno.EIO, "INPUT_OUTPUT")],
)
def test_what_the_system_refuses_has_the_id_of_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, expected: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RecastError) as caught:
        opened(tmp_path)
    assert id_of(caught) == expected
    assert caught.value.diagnostics[0].subject == str(tmp_path / "model.safetensors")


def test_a_disk_that_fills_up_during_a_write_is_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(RecastError) as caught:
        sink.write("b", ((0, 5),), B)
    assert id_of(caught) == "DISK_FULL"


@pytest.mark.parametrize("reserved", [True, False])
def test_columns_go_through_mapped_memory_only_where_space_was_reserved(
    reserved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if not reserved:
        monkeypatch.setattr(os, "posix_fallocate", fail)
    sink = opened(tmp_path)
    real, calls = os.pwrite, list[int]()

    def counted(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    for column in range(0, 6, 2):
        sink.write("a", ((0, 4), (column, column + 2)), np.ascontiguousarray(A[:, column : column + 2]))
    assert len(calls) == (0 if reserved else 12)
    sink.write("b", ((0, 5),), B)
    sink.commit()
    assert parse(tmp_path / "model.safetensors") == {"a": A.tobytes(), "b": B.tobytes()}


def test_columns_of_a_file_system_without_shared_mappings_are_written_run_by_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", fail)
    sink = opened(tmp_path)
    sink.write("a", ((0, 4), (2, 5)), np.ascontiguousarray(A[:, 2:5]))
    sink.commit()
    written = np.frombuffer(parse(tmp_path / "model.safetensors")["a"], A.dtype).reshape(A.shape)
    assert written[:, 2:5].tobytes() == A[:, 2:5].tobytes()


def test_a_system_that_writes_in_small_pieces_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    sink = opened(tmp_path)
    sink.write("a", ((0, 4), (0, 6)), A)
    sink.commit()
    assert parse(tmp_path / "model.safetensors")["a"] == A.tobytes()


def test_a_sink_that_was_committed_or_aborted_takes_no_more(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.abort()
    with pytest.raises(ValueError, match="not open"):
        sink.write("b", ((0, 5),), B)


@pytest.mark.parametrize("by_columns", [True, False])
def test_threads_write_one_tensor_at_once(by_columns: bool, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 1000), dtype=np.uint8)
    sink = SafetensorsSink(tmp_path)
    sink.declare([declared("x", values)])

    def work(first: int) -> None:
        for row in range(first, 64, 4):
            if by_columns:
                columns = (row * 1000 // 64, (row + 1) * 1000 // 64)
                sink.write("x", ((0, 64), columns), np.ascontiguousarray(values[:, slice(*columns)]))
            else:
                sink.write("x", ((row, row + 1), (0, 1000)), values[row : row + 1])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.commit()
    assert parse(tmp_path / "model.safetensors")["x"] == values.tobytes()
