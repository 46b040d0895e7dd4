from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable

import pytest

from converters.formats import zip_members
from converters.formats.zip_members import Archive, ZipFault

_CONTENT = {"a/data.pkl": b"first", "a/data/0": bytes(range(200)), "a/ü": b"", "a/data/1": b"last"}


def _written(method: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, content in _CONTENT.items():
            archive.writestr(name, content)
    return held.getvalue()


def _opened(content: bytes) -> Archive:
    return Archive(io.BytesIO(content), len(content))


def _read_all(content: bytes) -> dict[str, bytes]:
    archive = _opened(content)
    return {name: archive.read(member, 1 << 20) for name, member in archive.members.items()}


def test_the_members_are_those_that_were_written() -> None:
    assert _read_all(_written()) == _CONTENT


def test_sizes_and_positions_of_64_bits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    content = _written()
    assert b"PK\x06\x06" in content
    assert _read_all(content) == _CONTENT


def test_a_member_is_not_read_beyond_a_limit() -> None:
    archive = _opened(_written())
    with pytest.raises(ZipFault, match="200 bytes, more than the 199"):
        archive.read(archive.members["a/data/0"], 199)


def test_a_directory_beyond_a_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "_LARGEST_DIRECTORY", 100)
    with pytest.raises(ZipFault, match="more than the 100 that are read"):
        _opened(_written())


def test_a_name_that_is_twice_in_an_archive_is_refused() -> None:
    with pytest.raises(ZipFault, match="a/data/1 is twice in it"):
        _opened(_written().replace(b"a/data/0", b"a/data/1"))


def _entry(content: bytes, name: bytes) -> int:
    """Position of a member's entry in the directory."""
    return content.rindex(name) - 46


def _with(content: bytes, position: int, put: bytes) -> bytes:
    return content[:position] + put + content[position + len(put) :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "compressed": (lambda _: _written(zipfile.ZIP_DEFLATED), "compressed or encrypted"),
    "encrypted": (lambda c: _with(c, _entry(c, b"a/data/0") + 8, b"\x01"), "compressed or encrypted"),
    "an unknown method": (lambda c: _with(c, _entry(c, b"a/data/0") + 10, b"\x63"), "compressed or encrypted"),
    "other bytes": (lambda c: _with(c, c.index(b"first"), b"F"), "checksum differs"),
    "a header elsewhere": (lambda c: _with(c, _entry(c, b"a/data/0") + 42, b"\x01"), "not where its directory says"),
    "a header with another name": (lambda c: _with(c, c.index(b"a/data/1"), b"b"), "not where its directory says"),
    "a header with longer fields": (lambda c: _with(c, c.index(b"a/data/1") - 2, b"\x02"), "header in it is damaged"),
    "more bytes than the file": (
        lambda c: _with(c, _entry(c, b"a/data/1") + 20, struct.pack("<2I", 1 << 30, 1 << 30)),
        "beyond the end of the file",
    ),
    "64 bits that lack": (lambda c: _with(c, _entry(c, b"a/data/1") + 42, b"\xff" * 4), "directory is damaged"),
    "a name that is not UTF-8": (lambda c: c.replace("ü".encode(), b"\xff\xff"), "not UTF-8"),
    "another count": (lambda c: _with(c, len(c) - 12, b"\x05"), "has 4 members and announces 5"),
    "a longer directory": (lambda c: _with(c, len(c) - 10, b"\xff"), "not where it says"),
    "a comment": (lambda c: _with(c, len(c) - 2, b"\x01") + b"!", "does not end as an archive does"),
    "nothing": (lambda _: b"", "ends early"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_an_archive_that_contradicts_itself_is_refused(kind: str) -> None:
    change, said = DAMAGE[kind]
    with pytest.raises(ZipFault, match=said):
        _read_all(change(_written()))


def test_whatever_bytes_change_members_are_as_written_or_refused() -> None:
    choose = random.Random(20)
    refused = 0
    for _ in range(2000):
        content = bytearray(_written())
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        try:
            # Whether a name is UTF-8 or of a code page is a single bit, and both are names.
            found = {name: held for name, held in _read_all(bytes(content)).items() if name.isascii()}
            assert found == {name: held for name, held in _CONTENT.items() if name.isascii()}
        except ZipFault:
            refused += 1
    assert 1000 < refused < 2000
