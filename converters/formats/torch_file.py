"""One file that `torch.save` wrote: where each tensor lies in it, found without running what its pickle asks for.

Format: a zip archive with stored (never compressed) members; `*/data.pkl` is a pickle of a dictionary of tensors whose
storages are the members `*/data/KEY` (https://docs.pytorch.org/docs/stable/notes/serialization.html). What it says of
itself is believed only as far as the file bears it out.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path

from converters.formats.dtypes import element_size
from converters.formats.json_files import printable
from converters.formats.regular_files import open_regular
from converters.formats.safetensors_header import LFS_CURE, LFS_POINTER
from converters.formats.torch_pickle import Described, PickleFault, tensors
from converters.formats.zip_members import Archive, Member, ZipFault
from reporting.diagnostics import RecastError

_LARGEST_PICKLE = 16 << 20
_LARGEST_WORD = 64
_LARGEST_ARRAY = (1 << 63) - 1
_PICKLE = "data.pkl"
_ARCHIVE = b"PK\x03\x04"
# The magic number that PyTorch pickled in front.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_GET_AGAIN = "Download or copy the file again"
_SAVE_AGAIN = "Save the model again with save_pretrained(..., safe_serialization=True), which writes safetensors files."


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A tensor in a file.

    Attributes:
        dtype: NumPy's name of its element type.
        shape: sizes of its axes.
        strides: distance of neighbours along each axis, in elements; 0 where there are none.
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


class _Fault(Exception):
    """What is wrong with a file, as a clause."""


def scan(path: Path) -> dict[str, Placed]:
    """The tensors of a file by name, in its order.

    Raises:
        RecastError: HEADER_INVALID if it is damaged, of another form, or asks for anything but tensors.
        OSError: it cannot be read.
    """
    file = open_regular(path)
    if file is None:
        raise _invalid(path, "it is not a regular file")
    with file:
        try:
            archive = Archive(file, os.fstat(file.fileno()).st_size)
        except ZipFault as fault:
            file.seek(0)
            raise _no_archive(path, file.read(len(LFS_POINTER)), fault) from None
        try:
            return _placed(archive)
        except (ZipFault, PickleFault, _Fault) as fault:
            raise _invalid(path, str(fault)) from None


def _placed(archive: Archive) -> dict[str, Placed]:
    pickles = [name for name in archive.members if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    if len(pickles) != 1:
        raise _Fault("it has no data.pkl, or several")
    folder = pickles[0].removesuffix(_PICKLE)
    order = archive.members.get(f"{folder}byteorder")
    if order is not None and archive.read(order, _LARGEST_WORD).strip() != b"little":
        raise _Fault("its numbers are not little-endian")
    described = tensors(archive.read(archive.members[pickles[0]], _LARGEST_PICKLE))
    starts: dict[str, int] = {}
    placed = {}
    for name, tensor in described.items():
        member = archive.members.get(f"{folder}data/{tensor.storage.key}")
        if member is None:
            raise _Fault(f"the elements of {printable(name)} are not in it")
        if member.name not in starts:
            starts[member.name] = archive.start_of(member)
        placed[name] = _place(name, tensor, member, starts)
    return placed


def _place(name: str, tensor: Described, member: Member, starts: Mapping[str, int]) -> Placed:
    """Where a tensor lies, if all of it lies in its storage, and its storage in the archive."""
    storage = tensor.storage
    size = element_size(storage.dtype)
    if member.size < storage.elements * size:
        raise _Fault(f"{printable(member.name)} has {member.size} bytes, too few for {storage.elements} elements")
    # An array with a zero size holds nothing, yet NumPy refuses it where its other sizes are too large.
    if math.prod(length for length in tensor.shape if length) * size > _LARGEST_ARRAY:
        raise _Fault(f"{printable(name)} is larger than any array")
    strides = tuple(stride if length > 1 else 0 for length, stride in zip(tensor.shape, tensor.strides, strict=True))
    found = Placed(storage.dtype, tensor.shape, strides, starts[member.name] + tensor.within * size)
    if tensor.within + found.reach > storage.elements:
        raise _Fault(f"{printable(name)} reaches beyond its elements")
    return found


def _no_archive(path: Path, head: bytes, fault: ZipFault) -> RecastError:
    """What a file is whose directory, at its end, cannot be read, by how it begins."""
    if head == LFS_POINTER:
        return _invalid(path, "it is a Git LFS pointer, not the file itself", LFS_CURE)
    if head.startswith(_LEGACY):
        return _invalid(path, "it is of the form that torch.save wrote before PyTorch 1.6")
    if head.startswith(_ARCHIVE):
        return _invalid(path, f"it is incomplete or damaged ({fault})", f"{_GET_AGAIN}.")
    reason = f"it is incomplete, or not an archive as torch.save writes it since PyTorch 1.6 ({fault})"
    return _invalid(path, reason, f"{_GET_AGAIN}; if it is as it should be, load it with PyTorch. {_SAVE_AGAIN}")


def _invalid(path: Path, reason: str, suggestion: str = _SAVE_AGAIN) -> RecastError:
    return RecastError.of(
        "HEADER_INVALID", f"{path.name} cannot be read: {reason}.", suggestion=suggestion, subject=path.name
    )
