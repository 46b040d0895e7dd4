from __future__ import annotations

import collections
import io
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters.formats import torch_file
from converters.formats.regions import whole
from converters.formats.torch_source import SINGLE_FILE, TorchSource
from reporting.diagnostics import RecastError


class _Model(torch.nn.Module):
    """Shared and normalised weights, as models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 5)
        self.head.weight = self.embedding.weight


def _module() -> Any:
    return _Model().to(torch.bfloat16).state_dict()


def _attributes() -> Any:
    parameter = torch.nn.Parameter(torch.arange(4.0))
    parameter.is_initialized = True
    return {"parameter": parameter}


def _views() -> Any:
    base = torch.arange(24.0, dtype=torch.float16).reshape(4, 6)
    return {"whole": base, "turned": base.t(), "part": base[1:3, ::2], "spread": base[:, :1].expand(4, 3)}


KINDS: Mapping[str, Callable[[], Any]] = {
    "the state of a module": _module,
    "parameters with attributes": _attributes,
    "views of one storage": _views,
}


def _save(held: Any, directory: Path, **settings: Any) -> Path:
    torch.save(held, directory / SINGLE_FILE, **settings)
    return directory / SINGLE_FILE


def _bits(values: Any) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _torch_bits(path: Path) -> dict[str, bytes]:
    loaded = torch.load(path, weights_only=True)
    return {name: _bits(held.detach().contiguous().reshape(-1).view(torch.uint8)) for name, held in loaded.items()}


def _our_bits(path: Path) -> dict[str, bytes]:
    source = TorchSource(path.parent)
    try:
        return {name: _bits(source.read(name, whole(info.shape))) for name, info in source.tensors.items()}
    finally:
        source.close()


@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_saves_of_a_model_is_read_as_torch_reads_it(kind: str, tmp_path: Path) -> None:
    path = _save(KINDS[kind](), tmp_path)
    expected = _torch_bits(path)
    assert expected
    assert _our_bits(path) == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    expected = {name: _bits(held) for name, held in _views().items()}
    assert _our_bits(_save(_views(), tmp_path, pickle_protocol=protocol)) == expected


def _repacked(path: Path, changes: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Writes an archive again with other members, whose checksums are right."""
    held = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(held, "w") as new:
        names = {name.partition("/")[2]: name for name in old.namelist()}
        for name in names.keys() | changes.keys():
            content = changes[name] if name in changes else old.read(names[name])
            new.writestr(f"pytorch_model/{name}", content, method if name in changes else zipfile.ZIP_STORED)
    path.write_bytes(held.getvalue())
    return path


def _pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("pytorch_model/data.pkl")


def _refusal(path: Path) -> str:
    with pytest.raises(RecastError) as caught:
        torch_file.scan(path)
    (found,) = caught.value.diagnostics
    assert (found.id, found.subject) == ("HEADER_INVALID", SINGLE_FILE)
    return found.reason


def _told(path: Path, content: bytes) -> tuple[str, str]:
    path.write_bytes(content)
    with pytest.raises(RecastError) as caught:
        torch_file.scan(path)
    (found,) = caught.value.diagnostics
    return found.reason, found.suggestion


def test_a_file_that_is_cut_short_is_to_be_fetched_again(tmp_path: Path) -> None:
    path = _save(_views(), tmp_path)
    reason, suggestion = _told(path, path.read_bytes()[: path.stat().st_size // 2])
    assert "it is incomplete or damaged" in reason
    assert suggestion == "Download or copy the file again."
    reason, suggestion = _told(path, bytes(100))
    assert "it is incomplete, or not an archive as torch.save writes it since PyTorch 1.6" in reason
    assert suggestion.startswith("Download or copy the file again; ")


def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    reason, suggestion = _told(tmp_path / SINGLE_FILE, pointer)
    assert "it is a Git LFS pointer" in reason
    assert suggestion == "Run `git lfs pull`."


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SINGLE_FILE)
    assert "not a regular file" in _refusal(tmp_path / SINGLE_FILE)


def test_numbers_of_the_other_byte_order_are_refused(tmp_path: Path) -> None:
    assert "not little-endian" in _refusal(_repacked(_save(_views(), tmp_path), {"byteorder": b"big"}))


def test_a_word_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    path = _save(_views(), tmp_path)
    _repacked(path, {"byteorder": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        assert "compressed" in _refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_word_longer_than_any_word_is_not_read(tmp_path: Path) -> None:
    path = _repacked(_save(_views(), tmp_path), {"byteorder": bytes(65)})
    assert "more than the 64 that are read" in _refusal(path)


def test_a_pickle_larger_than_a_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "_LARGEST_PICKLE", 10)
    assert "more than the 10 that are read" in _refusal(_save(_views(), tmp_path))


def test_a_storage_shorter_than_its_elements_is_refused(tmp_path: Path) -> None:
    assert "too few for 24 elements" in _refusal(_repacked(_save(_views(), tmp_path), {"data/0": bytes(47)}))


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = _save({"a": torch.arange(100)}, tmp_path)
    # The shape stands in a tuple of its own, b"\x85"; the storage's elements do not.
    content = _pickle_of(path).replace(b"K\x64\x85", b"K\x65\x85")
    assert "a reaches beyond its elements" in _refusal(_repacked(path, {"data.pkl": content, "data/0": bytes(8000)}))


def test_a_distance_that_is_not_used_may_be_any(tmp_path: Path) -> None:
    held = torch.arange(3.0).as_strided((1, 3), ((1 << 61), 1))
    assert _our_bits(_save({"a": held}, tmp_path)) == {"a": _bits(held)}


def test_a_tensor_without_elements_larger_than_any_array_is_refused(tmp_path: Path) -> None:
    path = _save({"a": torch.zeros(0, 7)}, tmp_path)
    huge = b"\x8a\x08" + (1 << 61).to_bytes(8, "little")
    content = _pickle_of(path).replace(b"K\x00K\x07\x86", b"K\x00" + huge + b"\x86")
    assert "a is larger than any array" in _refusal(_repacked(path, {"data.pkl": content}))


def test_whatever_bytes_of_an_archive_change_tensors_are_as_saved_or_refused(tmp_path: Path) -> None:
    path = _save(_views(), tmp_path)
    whole_file, expected = path.read_bytes(), _our_bits(path)
    start = torch_file.scan(path)["whole"].offset
    choose, refused, tries = random.Random(6), 0, 400
    for _ in range(tries):
        content = bytearray(whole_file)
        for position in choose.sample(range(len(content)), choose.choice((1, 1, 3))):
            # Elements may have any values.
            if not start <= position < start + 48:
                content[position] = choose.randrange(256)
        path.write_bytes(content)
        found = _read(path)
        refused += found is None
        assert found in (None, expected)
    assert tries // 4 < refused < tries


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = _save(_views(), tmp_path)
    content = path.read_bytes()
    for length in range(0, len(content), 29):
        path.write_bytes(content[:length])
        assert _refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_whatever_bytes_of_a_pickle_change_tensors_are_as_torch_reads_them_or_refused(tmp_path: Path) -> None:
    path = _save(collections.OrderedDict(_views()), tmp_path)
    original = _pickle_of(path)
    choose, compared, refused = random.Random(7), 0, 0
    tracemalloc.start()
    try:
        for _ in range(400):
            path = _repacked(path, {"data.pkl": _changed(original, choose)})
            found = _read(path)
            expected = None if found is None else _loaded(path)
            refused += found is None
            compared += expected is not None
            assert expected is None or found == expected
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert compared > 20
    assert refused > 200


def _read(path: Path) -> dict[str, bytes] | None:
    """What is read, None where that is refused with one error about the file."""
    try:
        return _our_bits(path)
    except RecastError as error:
        subjects = [each.subject for each in error.diagnostics]
    assert subjects == [SINGLE_FILE]
    return None


def _changed(content: bytes, choose: random.Random) -> bytes:
    """With one byte changed, taken out or doubled, or cut off."""
    at = choose.randrange(len(content))
    kind = choose.randrange(8)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at + 1 :]
    if kind == 2:
        return content[: at + 1] + content[at:]
    return content[:at] + bytes([choose.randrange(256)]) + content[at + 1 :]


def _loaded(path: Path) -> dict[str, bytes] | None:
    """What torch reads, None where it refuses."""
    try:
        return _torch_bits(path)
    except Exception:
        return None
