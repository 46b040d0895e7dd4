import os
from pathlib import Path

import pytest
from blake3 import blake3

from converters.formats.fingerprints import Fingerprint, changes, take


@pytest.fixture(name="taken")
def _taken(tmp_path: Path) -> tuple[Path, Fingerprint]:
    (tmp_path / "file").write_bytes(b"header" + b"d" * 100)
    return tmp_path, take(tmp_path, "file", 6)


def test_a_fingerprint_holds_size_time_and_the_digest_of_the_head(taken: tuple[Path, Fingerprint]) -> None:
    root, fingerprint = taken
    time = (root / "file").stat().st_mtime_ns
    assert fingerprint == Fingerprint("file", 106, time, 6, blake3(b"header").hexdigest())


def test_an_unchanged_file_has_no_changes(taken: tuple[Path, Fingerprint]) -> None:
    root, fingerprint = taken
    assert changes(root, [fingerprint]) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"header" + b"d" * 99, "now has 105"), (b"HEADER" + b"d" * 100, "other content in its first 6 bytes")],
)
def test_a_changed_file_is_named_with_what_changed(
    taken: tuple[Path, Fingerprint], content: bytes, reason: str
) -> None:
    root, fingerprint = taken
    (root / "file").write_bytes(content)
    (found,) = changes(root, [fingerprint])
    assert (found.id, found.subject) == ("SOURCE_CHANGED", "file")
    assert reason in found.reason


def test_a_later_modification_time_is_a_change(taken: tuple[Path, Fingerprint]) -> None:
    root, fingerprint = taken
    os.utime(root / "file", ns=(1, fingerprint.mtime_ns + 1))
    assert "was modified" in changes(root, [fingerprint])[0].reason


def test_a_file_that_is_gone_is_a_change(taken: tuple[Path, Fingerprint]) -> None:
    root, fingerprint = taken
    (root / "file").unlink()
    assert "can no longer be read" in changes(root, [fingerprint])[0].reason


def test_a_pipe_in_the_place_of_a_file_is_a_change_and_not_waited_for(taken: tuple[Path, Fingerprint]) -> None:
    root, fingerprint = taken
    (root / "file").unlink()
    os.mkfifo(root / "file")
    assert "can no longer be read: not a regular file" in changes(root, [fingerprint])[0].reason


def test_a_head_longer_than_the_file_is_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    fingerprint = take(tmp_path, "file", 1000)
    assert (fingerprint.head, fingerprint.digest) == (3, blake3(b"abc").hexdigest())
