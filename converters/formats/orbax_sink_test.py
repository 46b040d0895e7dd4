import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from converters.formats import orbax_sink
from converters.formats.base import AnyArray, Declared, Region, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype
from converters.formats.orbax_metadata import DICT_KEY, SEQUENCE_KEY, Leaf
from converters.formats.orbax_sink import OrbaxSink
from reporting.diagnostics import RecastError

A = np.arange(96, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(8, 12)
N = np.arange(5, dtype=np.float32)
ARRAYS = [
    Declared(TensorInfo("params.params.a", (8, 12), "bfloat16"), (4, 12)),
    Declared(TensorInfo("params.params.n", (5,), "float32"), (5,)),
]


def opened(directory: Path, **options: Any) -> OrbaxSink:
    sink = OrbaxSink(directory, **options)
    sink.declare(ARRAYS)
    return sink


def fill(sink: OrbaxSink) -> None:
    sink.write("params.params.a", ((4, 8), (0, 12)), A[4:])
    sink.write("params.params.n", ((0, 5),), N)
    sink.write("params.params.a", ((0, 4), (0, 12)), A[:4])


def database(items: Path) -> Any:
    base = {"driver": "file", "path": f"{items}/"}
    return ts.KvStore.open({"driver": "ocdbt", "base": base}, context=ts.Context()).result()


def stored(items: Path, key: str) -> bytes | None:
    """The value of a key, by a reader of this test's own."""
    result = database(items).read(key).result()
    return bytes(result.value) if result.state == "value" else None


def id_of(error: pytest.ExceptionInfo[RecastError]) -> str:
    return error.value.diagnostics[0].id


def test_chunks_are_stored_as_their_plain_bytes(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    fill(sink)
    sink.commit()
    assert stored(sink.items, "params.params.a/c/0/0") == A[:4].tobytes()
    assert stored(sink.items, "params.params.a/c/1/0") == A[4:].tobytes()
    assert stored(sink.items, "params.params.n/c/0") == N.tobytes()
    assert stored(sink.items, "step/c") == bytes(8)
    keys = sorted(key.decode() for key in database(sink.items).list().result())
    assert keys == [
        "params.params.a/c/0/0",
        "params.params.a/c/1/0",
        "params.params.a/zarr.json",
        "params.params.n/c/0",
        "params.params.n/zarr.json",
        "step/c",
        "step/zarr.json",
    ]


def test_the_metadata_of_an_array_is_that_of_orbax_without_the_sharding_codec(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    metadata = stored(sink.items, "params.params.a/zarr.json")
    assert metadata is not None
    assert json.loads(metadata) == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, 12],
        "data_type": "bfloat16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 12]}},
        "chunk_key_encoding": {"name": "default"},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0.0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_element_type_is_stored(tmp_path: Path, name: str) -> None:
    values = np.arange(4).astype(np.float32).astype(numpy_dtype(name))
    sink = OrbaxSink(tmp_path)
    sink.declare([Declared(TensorInfo("x", (4,), name), (4,))])
    sink.write("x", ((0, 4),), values)
    sink.commit()
    assert stored(sink.items, "x/c/0") == values.tobytes()


def test_chunks_of_zeros_are_stored(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write("params.params.a", ((0, 4), (0, 12)), np.zeros_like(A[:4]))
    assert stored(sink.items, "params.params.a/c/0/0") == bytes(96)
    assert stored(sink.items, "params.params.a/c/1/0") is None


def test_values_may_be_reused_as_soon_as_a_write_returns(tmp_path: Path) -> None:
    shape = (8, 1 << 20)
    sink = OrbaxSink(tmp_path)
    sink.declare(
        [Declared(TensorInfo("big", shape, "uint8"), (1, 1 << 20)), Declared(TensorInfo("small", (8,), "uint8"), (1,))]
    )
    big, small = np.empty((1, 1 << 20), np.uint8), np.empty(1, np.uint8)
    for i in range(8):
        big[:] = small[:] = i + 1
        sink.write("big", ((i, i + 1), (0, 1 << 20)), big)
        sink.write("small", ((i, i + 1),), small)
        big[:] = small[:] = 0
    sink.commit()
    for i in range(8):
        assert stored(sink.items, f"big/c/{i}/0") == bytes([i + 1]) * (1 << 20)
        assert stored(sink.items, f"small/c/{i}") == bytes([i + 1])


def test_a_chunk_at_the_edge_is_padded(tmp_path: Path) -> None:
    sink = OrbaxSink(tmp_path)
    sink.declare([Declared(TensorInfo("x", (5,), "uint8"), (4,))])
    sink.write("x", ((0, 5),), np.arange(1, 6, dtype=np.uint8))
    assert stored(sink.items, "x/c/0") == bytes([1, 2, 3, 4])
    assert stored(sink.items, "x/c/1") == bytes([5, 0, 0, 0])


def test_zstd_compresses_chunks(tmp_path: Path) -> None:
    sink = OrbaxSink(tmp_path, compression="zstd:3")
    sink.declare([Declared(TensorInfo("x", (100_000,), "uint8"), (100_000,))])
    sink.write("x", ((0, 100_000),), np.ones(100_000, np.uint8))
    compressed = stored(sink.items, "x/c/0")
    assert compressed is not None
    assert compressed[:4] == b"\x28\xb5\x2f\xfd"
    assert len(compressed) < 1000


def test_metadata_appears_only_at_the_end_and_only_once_data_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path, custom_metadata={"scan_layers": True})
    fill(sink)
    assert not (sink.items / "_METADATA").exists()
    synced: list[tuple[str, bool, bool]] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        tree, step = sink.items / "_METADATA", sink.step_directory / "_CHECKPOINT_METADATA"
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), tree.exists(), step.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    sink.commit()
    before = {name for name, tree, _ in synced if not tree}
    data = {str(path) for path in (sink.items / "d").iterdir()}
    assert data | {str(sink.items / "manifest.ocdbt"), str(sink.items / "d"), str(sink.items)} <= before
    assert str(sink.items / "_METADATA.part") in {name for name, _, step in synced if not step}
    assert {str(sink.step_directory), str(tmp_path)} <= {name for name, _, step in synced if step}
    step = json.loads((sink.step_directory / "_CHECKPOINT_METADATA").read_text())
    assert step["custom_metadata"] == {"scan_layers": True}
    assert 0 < step["init_timestamp_nsecs"] < step["commit_timestamp_nsecs"]
    tree = json.loads((sink.items / "_METADATA").read_text())["tree_metadata"]
    assert {name: leaf["value_metadata"]["value_type"] for name, leaf in tree.items()} == {
        "('params', 'params', 'a')": "np.ndarray",
        "('params', 'params', 'n')": "np.ndarray",
        "('step',)": "scalar",
        "('opt_state',)": "Dict",
    }


def test_sync_makes_each_data_file_durable_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = opened(tmp_path)
    sink.sync()
    before = set(os.listdir(sink.items / "d"))
    sink.write("params.params.n", ((0, 5),), N)
    (sink.items / "d" / "0123.__lock").write_bytes(b"")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    sink.sync()
    new = set(os.listdir(sink.items / "d")) - before - {"0123.__lock"}
    assert new
    assert sorted(synced) == sorted([*new, "d", "manifest.ocdbt", "items"])


def test_the_step_and_other_scalars_are_stored_and_named(tmp_path: Path) -> None:
    sink = OrbaxSink(tmp_path, step=40, empty=())
    sink.declare(ARRAYS)
    sink.commit()
    assert sink.items == tmp_path / "40" / "items"
    assert stored(sink.items, "step/c") == (40).to_bytes(8, "little")
    assert "opt_state" not in (sink.items / "_METADATA").read_text()


def test_a_step_beyond_64_bits_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit into 64 bits"):
        OrbaxSink(tmp_path, step=2**63)


def test_a_step_that_exists_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    with pytest.raises(RecastError) as caught:
        opened(tmp_path)
    assert id_of(caught) == "DESTINATION_EXISTS"
    assert os.listdir(tmp_path / "0") == []


def test_a_resumed_sink_keeps_what_was_written(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write("params.params.a", ((0, 4), (0, 12)), A[:4])
    first.abort()
    second = opened(tmp_path, resume=True)
    second.write("params.params.a", ((4, 8), (0, 12)), A[4:])
    second.write("params.params.n", ((0, 5),), N)
    second.commit()
    assert stored(second.items, "params.params.a/c/0/0") == A[:4].tobytes()
    assert stored(second.items, "params.params.a/c/1/0") == A[4:].tobytes()
    third = opened(tmp_path, resume=True)
    third.commit()
    assert stored(third.items, "params.params.n/c/0") == N.tobytes()


def test_a_resumed_sink_removes_unfinished_files_of_a_killed_one(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    left = [sink.items / "manifest.ocdbt.__lock", sink.items / "d" / "0123.__lock"]
    for path in left:
        path.write_bytes(b"part")
    fill(opened(tmp_path, resume=True))
    assert [path for path in left if path.exists()] == []


KILLED = """
import sys
import numpy as np
from pathlib import Path
from converters.formats.base import Declared, TensorInfo
from converters.formats.orbax_sink import OrbaxSink
sink = OrbaxSink(Path(sys.argv[1]), use_ocdbt=sys.argv[2] == "True")
sink.declare([Declared(TensorInfo("x", (4096, 65536), "uint8"), (1, 65536))])
for row in range(4096):
    sink.write("x", ((row, row + 1), (0, 65536)), np.full((1, 65536), row % 251, np.uint8))
    print(row, flush=True)
"""


@pytest.mark.parametrize("ocdbt", [True, False])
def test_what_was_written_before_a_kill_is_still_there(tmp_path: Path, ocdbt: bool) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(ocdbt)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout is not None
    rows = 0
    while rows < 50:
        assert run.stdout.readline()
        rows += 1
    run.send_signal(signal.SIGKILL)
    run.wait()
    sink = OrbaxSink(tmp_path, use_ocdbt=ocdbt, resume=True)
    sink.declare([Declared(TensorInfo("x", (4096, 65536), "uint8"), (1, 65536))])
    sink.commit()
    for row in range(50):
        file = sink.items / "x" / "c" / str(row) / "0"
        found = stored(sink.items, f"x/c/{row}/0") if ocdbt else file.read_bytes()
        assert found == bytes([row % 251]) * 65536
    if ocdbt:
        assert_no_orphans(sink.items)


def assert_no_orphans(items: Path) -> None:
    """Each file that is taken away is missed by a reader."""
    keys = [key.decode() for key in database(items).list().result()]
    expected = {key: stored(items, key) for key in keys}
    for file in (items / "d").iterdir():
        file.rename(items / "away")
        try:
            assert {key: stored(items, key) for key in keys} != expected, file
        except ValueError as error:
            assert "NOT_FOUND" in str(error) or file.name in str(error)  # noqa: PT017
        (items / "away").rename(file)


def test_what_nothing_refers_to_is_removed_before_the_checkpoint_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path)
    fill(first)
    first.abort()
    orphan = first.items / "d" / "0123456789abcdef0123456789abcdef"
    orphan.write_bytes(b"what a killed writer left")
    second = opened(tmp_path, resume=True)
    second.write("params.params.a", ((0, 4), (0, 12)), A[4:])
    gone_before_metadata = []
    real = orbax_sink.write_file

    def write_file(path: Path, data: bytes) -> None:
        gone_before_metadata.append(not orphan.exists())
        real(path, data)

    monkeypatch.setattr(orbax_sink, "write_file", write_file)
    second.commit()
    assert gone_before_metadata[0]
    assert stored(second.items, "params.params.a/c/0/0") == A[4:].tobytes()
    assert_no_orphans(second.items)


def test_a_database_that_lost_what_it_refers_to_is_not_resumed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    fill(first)
    first.abort()
    newest = max((first.items / "d").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"")
    with pytest.raises(RecastError) as caught:
        opened(tmp_path, resume=True)
    assert id_of(caught) == "UNFINISHED_RUN"
    assert "starts from the beginning" in caught.value.diagnostics[0].suggestion


def test_other_arrays_than_those_written_are_not_resumed(tmp_path: Path) -> None:
    opened(tmp_path).abort()
    sink = OrbaxSink(tmp_path, resume=True)
    with pytest.raises(RecastError) as caught:
        sink.declare([Declared(TensorInfo("params.params.a", (8, 12), "float32"), (4, 12))])
    assert id_of(caught) == "DESTINATION_EXISTS"


@pytest.mark.parametrize("region", [((0, 2), (0, 12)), ((2, 6), (0, 12)), ((0, 4), (0, 6)), ((0, 9), (0, 12))])
def test_a_region_that_is_not_made_of_whole_chunks_is_refused(tmp_path: Path, region: Region) -> None:
    values = np.zeros([stop - start for start, stop in region], ml_dtypes.bfloat16)
    with pytest.raises(ValueError, match=r"whole chunks|not a region"):
        opened(tmp_path).write("params.params.a", region, values)


@pytest.mark.parametrize("values", [A.astype(np.float32), A[:7], A.T.copy().T, A.view(np.uint16)])
def test_values_of_another_type_shape_or_order_are_refused(tmp_path: Path, values: AnyArray) -> None:
    with pytest.raises(ValueError, match="is not a C-contiguous"):
        opened(tmp_path).write("params.params.a", ((0, 8), (0, 12)), values)


@pytest.mark.parametrize(
    "declared",
    [
        Declared(TensorInfo("x", (4,), "complex64"), (4,)),
        Declared(TensorInfo("x", (4,), "float32"), (2, 2)),
        Declared(TensorInfo("x", (4,), "float32"), (0,)),
        Declared(TensorInfo("x", (0,), "float32"), (1,)),
        Declared(TensorInfo("", (4,), "float32"), (4,)),
        Declared(TensorInfo("a..b", (4,), "float32"), (4,)),
        Declared(TensorInfo("../x", (4,), "float32"), (4,)),
        Declared(TensorInfo("step", (4,), "float32"), (4,)),
        Declared(TensorInfo("opt_state", (4,), "float32"), (4,)),
        Declared(TensorInfo("params.params.a", (4,), "float32"), (4,)),
    ],
)
def test_what_orbax_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path, declared: Declared) -> None:
    with pytest.raises(ValueError, match=r"cannot be stored|dotted path|distinct"):
        OrbaxSink(tmp_path).declare([*ARRAYS, declared])
    assert os.listdir(tmp_path) == []


LISTED = {
    "opt.0.count": Leaf(("opt", "0", "count"), (DICT_KEY, SEQUENCE_KEY, DICT_KEY), "jax.Array"),
    "opt.1": Leaf(("opt", "1"), (DICT_KEY, SEQUENCE_KEY), "None", skip=True),
    "w": Leaf(("w", "value"), (DICT_KEY, DICT_KEY), "jax.Array"),
    "step": Leaf(("step",), (DICT_KEY,), "scalar"),
}
COUNTS = [Declared(TensorInfo(name, (), "uint32"), ()) for name in ("step", "w", "opt.0.count", "more.x")]


def test_leaves_lie_where_they_are_said_to_and_others_below_dictionaries(tmp_path: Path) -> None:
    sink = OrbaxSink(tmp_path, leaves=LISTED)
    sink.declare(COUNTS)
    for number, declared in enumerate(COUNTS):
        sink.write(declared.info.name, (), np.asarray(number, np.uint32))
    sink.commit()
    tree = json.loads((sink.items / "_METADATA").read_text())["tree_metadata"]
    found = [
        (label, [key["key_type"] for key in leaf["key_metadata"]], leaf["value_metadata"]["value_type"])
        for label, leaf in tree.items()
    ]
    assert found == [
        ("('opt', '0', 'count')", [2, 1, 2], "np.ndarray"),
        ("('opt', '1')", [2, 1], "None"),
        ("('w', 'value')", [2, 2], "np.ndarray"),
        ("('step',)", [2], "scalar"),
        ("('more', 'x')", [2, 2], "np.ndarray"),
    ]
    assert stored(sink.items, "w.value/c") == (1).to_bytes(4, "little")
    assert stored(sink.items, "opt.0.count/c") == (2).to_bytes(4, "little")


@pytest.mark.parametrize(
    "leaves",
    [
        {"gone": Leaf(("gone",), (DICT_KEY,), "np.ndarray")},
        {"step": Leaf(("step",), (DICT_KEY,), "None", skip=True)},
        {"text": Leaf(("text",), (DICT_KEY,), "string")},
        {"below": Leaf(("step", "0"), (DICT_KEY, SEQUENCE_KEY), "None", skip=True)},
        {"twice": Leaf(("step",), (DICT_KEY,), "None", skip=True)},
    ],
)
def test_leaves_that_do_not_fit_the_arrays_are_refused(tmp_path: Path, leaves: dict[str, Leaf]) -> None:
    with pytest.raises(ValueError, match=r"cannot be|distinct"):
        OrbaxSink(tmp_path, leaves=leaves).declare(COUNTS)
    assert os.listdir(tmp_path) == []


def test_a_sink_that_was_aborted_takes_no_more(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.abort()
    with pytest.raises(ValueError, match="not open"):
        fill(sink)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecastError) as caught:
        opened(tmp_path / "none")
    assert id_of(caught) == "INPUT_OUTPUT"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_not_writable(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    (sink.items / "d").chmod(0o500)
    with pytest.raises(RecastError) as caught:
        fill(sink)
    (sink.items / "d").chmod(0o700)
    assert id_of(caught) == "DESTINATION_NOT_WRITABLE"


def test_a_write_that_fails_in_the_database_is_an_error_with_the_arrays_name(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limit[1]))
    try:
        with pytest.raises(RecastError) as caught:
            fill(sink)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    (found,) = caught.value.diagnostics
    assert (found.id, found.subject) == ("INPUT_OUTPUT", "params.params.a")
    assert os.strerror(errno.EFBIG) in found.reason
    assert "tensorstore_spec" not in found.reason


def test_memory_does_not_grow_with_what_is_written(tmp_path: Path) -> None:
    def anonymous() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) >> 10

    sink = OrbaxSink(tmp_path)
    # The first rows fill what the allocator and TensorStore keep for later. On a busy machine some of their six threads
    # have their first turn, and their first row to keep, only afterwards.
    rows, width, first = 56, 4 << 20, 8
    sink.declare([Declared(TensorInfo("x", (rows, width), "uint8"), (1, width))])
    values = np.ones((1, width), np.uint8)
    for row in range(first):
        sink.write("x", ((row, row + 1), (0, width)), values)
    before = anonymous()
    for row in range(first, rows):
        sink.write("x", ((row, row + 1), (0, width)), values)
    written = (rows - first) * width >> 20
    assert anonymous() - before < written // 4


def test_threads_write_at_once(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (64, 3000), dtype=np.uint8)
    sink = OrbaxSink(tmp_path)
    sink.declare([Declared(TensorInfo("x", values.shape, "uint8"), (1, 3000))])

    def work(first: int) -> None:
        for row in range(first, 64, 4):
            sink.write("x", ((row, row + 1), (0, 3000)), values[row : row + 1])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.commit()
    assert [stored(sink.items, f"x/c/{row}/0") for row in range(64)] == [row.tobytes() for row in values]
