from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from converters.formats.orbax_mapped import MappedChunks

BF16 = np.dtype(ml_dtypes.bfloat16)
# Single bytes: between the chunks of a file may lie nodes of any length, and only what is aligned can be a view.
VALUES = (np.arange(43 * 12) % 251).astype(np.uint8).reshape(43, 12)
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def _store(folder: Path, codecs: list[dict[str, Any]] | None = None, node_bytes: int = 256) -> Any:
    values = VALUES if codecs is None else VALUES.astype(BF16)
    config = {"max_decoded_node_bytes": node_bytes, "max_inline_value_bytes": 16}
    kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, "config": config, "path": "a.b/"}
    metadata = {
        "shape": list(values.shape),
        "data_type": str(values.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 8]}},
        "codecs": codecs or [_BYTES],
    }
    store = ts.open({"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, create=True, open=True).result()
    store.write(values).result()
    return store


@pytest.mark.parametrize("node_bytes", [256, 1 << 20])
def test_every_chunk_is_what_tensorstore_reads(tmp_path: Path, node_bytes: int) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path, node_bytes=node_bytes)})
    for i in range(0, 43, 4):
        for j in (0, 8):
            box = ((i, min(i + 4, 43)), (j, min(j + 8, 12)))
            found = mapped.read("a.b", box)
            assert found is not None
            assert found.tobytes() == VALUES[i : i + 4, j : j + 8].tobytes()
            assert not found.flags.writeable


def test_a_part_of_a_chunk_is_a_part_of_its_view(tmp_path: Path) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path)})
    found = mapped.read("a.b", ((5, 7), (9, 12)))
    assert found is not None
    assert found.tobytes() == VALUES[5:7, 9:12].tobytes()


def test_what_spans_chunks_is_left_to_tensorstore(tmp_path: Path) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path)})
    assert mapped.read("a.b", ((3, 5), (0, 8))) is None
    assert mapped.read("a.b", ((2, 2), (0, 8))) is None
    assert mapped.read("other", ((0, 1), (0, 8))) is None


@pytest.mark.parametrize(
    "codecs",
    [
        [_BYTES, {"name": "zstd", "configuration": {"level": 1}}],
        [{"name": "bytes", "configuration": {"endian": "big"}}],
        [{"name": "transpose", "configuration": {"order": [1, 0]}}, _BYTES],
    ],
)
def test_what_is_coded_is_left_to_tensorstore(tmp_path: Path, codecs: list[dict[str, Any]]) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path, codecs)})
    assert mapped.read("a.b", ((0, 4), (0, 8))) is None


def test_the_newest_version_of_a_chunk_is_read(tmp_path: Path) -> None:
    store = _store(tmp_path)
    changed = VALUES[:4, :8] + np.uint8(1)
    store[:4, :8].write(changed).result()
    found = MappedChunks(tmp_path, {"a.b": store}).read("a.b", ((0, 4), (0, 8)))
    assert found is not None
    assert found.tobytes() == changed.tobytes()


def test_a_data_file_that_is_too_short_or_gone_is_left_to_tensorstore(tmp_path: Path) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path)})
    for path in (tmp_path / "d").iterdir():
        path.write_bytes(path.read_bytes()[:10])
    assert mapped.read("a.b", ((40, 43), (0, 8))) is None
    for path in (tmp_path / "d").iterdir():
        path.unlink()
    assert mapped.read("a.b", ((0, 4), (0, 8))) is None


def test_no_link_is_followed_out_of_the_database(tmp_path: Path) -> None:
    mapped = MappedChunks(tmp_path, {"a.b": _store(tmp_path)})
    for path in list((tmp_path / "d").iterdir()):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert mapped.read("a.b", ((0, 4), (0, 8))) is None
