"""Where the members of a zip archive lie, for archives of strangers: nothing is unpacked, and every claim is checked.

Format: the directory stands at the end, with an entry for each member; sizes and positions that do not fit into 32 bits
stand in zip64 fields (PKWARE's APPNOTE.TXT, section 4.3). Python's own reader takes memory for whatever a directory
claims, and knows forms that nobody uses who stores members only to map them.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from converters.formats.json_files import printable

_LARGEST_DIRECTORY = 16 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_EXTRA = struct.Struct("<2H")
_ZIP64 = 1
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED = 1
_UTF8 = 1 << 11


class ZipFault(Exception):
    """What is wrong with an archive, as a clause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """What the directory says of a member.

    Attributes:
        name: with its folders.
        size: bytes, `packed` as they lie in the archive.
        header: position of its own header.
        stored: whether it is neither compressed nor encrypted.
        checksum: CRC-32 of its bytes.
        raw_name: the name as it is spelled.
    """

    name: str
    size: int
    packed: int
    header: int
    stored: bool
    checksum: int
    raw_name: bytes


class Archive:
    """An archive that is open for reading.

    Attributes:
        members: what is in it, by name.
    """

    def __init__(self, file: BinaryIO, size: int):
        """Reads the directory.

        Args:
            file: what is read, open as long as this is used.
            size: its bytes.

        Raises:
            ZipFault: it is no archive, or a damaged one.
        """
        self._file = file
        self._size = size
        position, length, count = self._directory()
        if length > _LARGEST_DIRECTORY:
            raise ZipFault(f"its directory has {length} bytes, more than the {_LARGEST_DIRECTORY} that are read")
        members: dict[str, Member] = {}
        for member in _entries(self._bytes(position, length)):
            if member.name in members:
                raise ZipFault(f"{printable(member.name)} is twice in it")
            members[member.name] = member
        if len(members) != count:
            raise ZipFault(f"its directory has {len(members)} members and announces {count}")
        self.members: Mapping[str, Member] = members

    def start_of(self, member: Member) -> int:
        """Where the bytes of a member begin, all of which lie in the file.

        Raises:
            ZipFault: it is compressed, or is not where the directory says.
        """
        name = printable(member.name)
        if not member.stored or member.size != member.packed:
            raise ZipFault(f"{name} is compressed or encrypted")
        magic, *_, name_length, extra_length = _LOCAL.unpack(self._bytes(member.header, _LOCAL.size))
        if magic != b"PK\x03\x04" or name_length != len(member.raw_name):
            raise ZipFault(f"{name} is not where its directory says")
        raw = self._bytes(member.header + _LOCAL.size, name_length + extra_length)
        if raw[:name_length] != member.raw_name:
            raise ZipFault(f"{name} is not where its directory says")
        # A damaged length would move the bytes: that its fields fill it exactly shows that it is not.
        list(_fields(raw[name_length:]))
        start = member.header + _LOCAL.size + len(raw)
        if start + member.size > self._size:
            raise ZipFault(f"{name} reaches beyond the end of the file")
        return start

    def read(self, member: Member, limit: int) -> bytes:
        """The bytes of a member, if they are at most `limit`; raises ZipFault, also where their checksum differs."""
        start = self.start_of(member)
        if member.size > limit:
            raise ZipFault(f"{printable(member.name)} has {member.size} bytes, more than the {limit} that are read")
        content = self._bytes(start, member.size)
        if zlib.crc32(content) != member.checksum:
            raise ZipFault(f"{printable(member.name)} is damaged: its checksum differs")
        return content

    def _directory(self) -> tuple[int, int, int]:
        """Position and bytes of the directory, and how many members it has."""
        end = self._size - _END.size
        magic, disk, first, _, count, length, position, comment = _END.unpack(self._bytes(end, _END.size))
        if magic != b"PK\x05\x06" or disk or first or comment:
            raise ZipFault("it does not end as an archive does")
        if end >= _LOCATOR.size:
            magic, _, position64, _ = _LOCATOR.unpack(self._bytes(end - _LOCATOR.size, _LOCATOR.size))
            if magic == b"PK\x06\x07":
                end = position64
                magic, *_, count, length, position = _END64.unpack(self._bytes(end, _END64.size))
                if magic != b"PK\x06\x06":
                    raise ZipFault("its directory is not where it says")
        if position + length != end:
            raise ZipFault("its directory is not where it says")
        return position, length, count

    def _bytes(self, position: int, length: int) -> bytes:
        if not 0 <= position <= self._size - length:
            raise ZipFault("it ends early")
        self._file.seek(position)
        content = self._file.read(length)
        if len(content) < length:
            raise ZipFault("it ends early")
        return content


def _entries(directory: bytes) -> Iterator[Member]:
    position = 0
    while position < len(directory):
        fixed = directory[position : position + _CENTRAL.size]
        if len(fixed) < _CENTRAL.size or not fixed.startswith(b"PK\x01\x02"):
            raise ZipFault("its directory is damaged")
        _, _, _, flags, method, _, _, checksum, packed, size, name, extra, comment, disk, _, _, header = (
            _CENTRAL.unpack(fixed)
        )
        position += _CENTRAL.size
        raw_name, raw_extra = _cut(directory, position, name), _cut(directory, position + name, extra)
        position += name + extra + comment
        if position > len(directory) or disk:
            raise ZipFault("its directory is damaged")
        size, packed, header = _widened((size, packed, header), _fields(raw_extra))
        stored = method == 0 and not flags & _ENCRYPTED
        yield Member(_text(raw_name, flags), size, packed, header, stored, checksum, raw_name)


def _widened(values: tuple[int, int, int], fields: Iterator[tuple[int, bytes]]) -> tuple[int, ...]:
    """Sizes and position of a member, those that do not fit into 32 bits from its zip64 field."""
    wide = b""
    for kind, content in fields:
        if kind == _ZIP64:
            wide = content
    out = []
    for value in values:
        if value == _IN_ZIP64:
            if len(wide) < 8:
                raise ZipFault("its directory is damaged")
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        out.append(value)
    return tuple(out)


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the fields that fill the variable part of a header."""
    position = 0
    while position < len(extra):
        if position + _EXTRA.size > len(extra):
            raise ZipFault("a header in it is damaged")
        kind, length = _EXTRA.unpack_from(extra, position)
        position += _EXTRA.size
        yield kind, _cut(extra, position, length)
        position += length
        if position > len(extra):
            raise ZipFault("a header in it is damaged")


def _text(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise ZipFault("a name in it is not UTF-8") from None


def _cut(data: bytes, start: int, length: int) -> bytes:
    return data[start : start + length]
