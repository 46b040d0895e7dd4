"""One file that `torch.save` wrote: where each tensor lies in it, found without running what its pickle asks for.

Format: a zip archive with stored (never compressed) members; `*/data.pkl` is a pickle of a dictionary of tensors whose
storages are the members `*/data/KEY` (https://docs.pytorch.org/docs/stable/notes/serialization.html). Of everything
that a pickle may call, only what rebuilds tensors is known here, so that a file can do nothing but describe them.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from converters.formats.dtypes import element_size
from converters.formats.json_files import printable
from reporting.diagnostics import RecastError

_LARGEST_PICKLE = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_PICKLE = "data.pkl"
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_SAVE_AGAIN = "Save the model again with save_pretrained(..., safe_serialization=True), which writes safetensors files."


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in a file.

    Attributes:
        dtype: NumPy's name of its element type.
        shape: sizes of its axes.
        strides: distance of neighbours along each axis, in elements.
        offset: position of its first element in the file, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def reach(self) -> int:
        """Elements from the first one to the end of the last one."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    elements: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Rebuilt:
    storage: _Storage
    within: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Fault(Exception):
    """What is wrong with a file, as a clause."""


def scan(path: Path) -> dict[str, Placed]:
    """The tensors of a file by name, in its order.

    Raises:
        RecastError: HEADER_INVALID if it is damaged, of another form, or asks for anything but tensors.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            return _scan(archive, file)
    except _Fault as fault:
        raise _invalid(path, str(fault)) from None
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError) as error:
        raise _invalid(path, f"it is no archive as torch.save writes it since PyTorch 1.6 ({error})") from None


def _scan(archive: zipfile.ZipFile, file: io.BufferedReader) -> dict[str, Placed]:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    if len(pickles) != 1:
        raise _Fault("it has no data.pkl, or several")
    folder = pickles[0].removesuffix(_PICKLE)
    order = members.get(f"{folder}byteorder")
    if order is not None and archive.read(order)[:16].strip() != b"little":
        raise _Fault("its numbers are not little-endian")
    if members[pickles[0]].file_size > _LARGEST_PICKLE:
        raise _Fault(f"its data.pkl has more than {_LARGEST_PICKLE} bytes")
    tensors = _unpickled(archive.read(pickles[0]))
    starts: dict[str, int] = {}
    placed = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        member = f"{folder}data/{storage.key}"
        if member not in members:
            raise _Fault(f"the elements of {printable(name)} are not in it")
        if member not in starts:
            starts[member] = _start(file, members[member], storage)
        size = element_size(storage.dtype)
        found = Placed(storage.dtype, tensor.shape, tensor.strides, starts[member] + tensor.within * size)
        if (tensor.within + found.reach) * size > members[member].file_size:
            raise _Fault(f"{printable(name)} reaches beyond its elements")
        placed[name] = found
    return placed


def _start(file: io.BufferedReader, info: zipfile.ZipInfo, storage: _Storage) -> int:
    """Where the data of a member begin."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise _Fault("its tensors are compressed")
    if info.file_size < storage.elements * element_size(storage.dtype):
        raise _Fault(f"{info.filename} has {info.file_size} bytes, too few for {storage.elements} elements")
    file.seek(info.header_offset)
    magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if magic != _LOCAL_MAGIC:
        raise _Fault(f"{info.filename} is not where the archive says")
    return info.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)


def _unpickled(content: bytes) -> dict[str, _Rebuilt]:
    try:
        held = _Unpickler(io.BytesIO(content)).load()
    except _Fault:
        raise
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise _Fault(f"its data.pkl is damaged ({type(error).__name__})") from None
    if not isinstance(held, dict) or not held:
        raise _Fault("it holds no dictionary of tensors")
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, _Rebuilt):
            raise _Fault(f"{printable(name)} is no tensor: it is the state of a training, or of another program")
    return dict(held)


class _Unpickler(pickle.Unpickler):
    """Knows what rebuilds tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise _Fault(f"its data.pkl asks for {printable(module)}.{printable(name)}, which is not called")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage by its key."""
        kind, type_, key, _, elements = pid
        if kind != "storage" or not isinstance(type_, _StorageType) or not isinstance(key, str):
            raise _Fault("a storage is of an unknown kind")
        return _Storage(type_.dtype, key, _count(elements))


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


def _rebuild(storage: Any, within: Any, shape: Any, strides: Any, *_: Any) -> _Rebuilt:
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise _Fault("a tensor is described in an unknown way")
    return _Rebuilt(storage, _count(within), tuple(map(_count, shape)), tuple(map(_count, strides)))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise _Fault("a size is no possible number")
    return value


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


def _invalid(path: Path, reason: str) -> RecastError:
    return RecastError.of(
        "HEADER_INVALID", f"{path.name} cannot be read: {reason}.", suggestion=_SAVE_AGAIN, subject=path.name
    )
