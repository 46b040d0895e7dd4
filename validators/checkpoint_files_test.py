from __future__ import annotations

import os
from pathlib import Path

import pytest

from validators import checkpoint_files


def test_files_are_listed_with_their_sizes_one_folder_deep(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "templates" / "deeper").mkdir(parents=True)
    (tmp_path / "templates" / "a.jinja").write_bytes(b"abc")
    (tmp_path / "templates" / "deeper" / "b").write_bytes(b"")
    (tmp_path / "link.json").symlink_to(tmp_path / "config.json")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    found = checkpoint_files.look(tmp_path)
    assert found.sizes == {"config.json": 2, "link.json": 2, "templates/a.jinja": 3}
    assert found.closed == ()


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "lost+found").mkdir()
    listing = os.scandir

    def refusing(path: str | Path) -> object:
        if os.path.basename(path) == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = checkpoint_files.look(tmp_path)
    assert (found.sizes, found.closed) == ({"config.json": 2}, ("lost+found",))


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"abc")
    (tmp_path / "sub" / "b").symlink_to("b")
    (tmp_path / "c").symlink_to("c")
    found = checkpoint_files.look(tmp_path)
    assert (found.sizes, found.closed) == ({"sub/a": 3}, ("c", "sub/b"))


def test_a_folder_of_files_that_are_what_they_say_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08" + bytes(15))
    assert checkpoint_files.check_place(tmp_path) == []


def test_a_path_to_nothing_is_not_found(tmp_path: Path) -> None:
    assert [d.id for d in checkpoint_files.check_place(tmp_path / "a")] == ["SOURCE_NOT_FOUND"]


def test_a_file_is_no_checkpoint_and_a_gguf_file_is_named_as_one(tmp_path: Path) -> None:
    for name, content, said in (("a.gguf", b"GGUF\x03", "a GGUF file"), ("a.bin", b"PK", "is a file")):
        (tmp_path / name).write_bytes(content)
        (found,) = checkpoint_files.check_place(tmp_path / name)
        assert found.id == "SOURCE_NOT_RECOGNIZED"
        assert said in found.reason


def test_gguf_files_that_are_named_as_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"GGUF\x03")
    (found,) = checkpoint_files.check_place(tmp_path)
    assert found.subject == "model.safetensors"
