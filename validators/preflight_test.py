"""Tests of the checks before a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from reporting.diagnostics import Diagnostic
from validators import preflight


def _ids(found: list[Diagnostic]) -> list[str]:
    return [diagnostic.id for diagnostic in found]


def _source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    return source


@pytest.mark.parametrize("scheme", ["gs", "hf", "s3", "http", "https", "GS", "file"])
def test_a_path_with_a_scheme_is_refused(scheme: str) -> None:
    (diagnostic,) = preflight.remote_path(f"{scheme}://bucket/checkpoint", "--hf_model_path")
    assert (diagnostic.id, diagnostic.subject) == ("REMOTE_NOT_SUPPORTED", "--hf_model_path")
    assert f"{scheme}://" in diagnostic.reason


def test_what_follows_the_scheme_is_not_shown() -> None:
    (diagnostic,) = preflight.remote_path("https://user:word@host/x?Signature=secret", "--hf_model_path")
    assert "word" not in str(diagnostic)
    assert "secret" not in str(diagnostic)


@pytest.mark.parametrize(
    "path", ["/data/model", "model", "./a:b/c", "meta-llama/Llama-3.1-8B", "C:/x", "a b://c", "://"]
)
def test_a_path_without_a_scheme_is_local(path: str) -> None:
    assert preflight.remote_path(path, "--hf_model_path") == []


def test_a_destination_that_does_not_exist_is_fine(tmp_path: Path) -> None:
    assert preflight.check_destination(tmp_path / "a" / "b", _source(tmp_path)) == []


def test_an_empty_destination_is_fine(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert preflight.check_destination(tmp_path / "out", _source(tmp_path)) == []


def test_a_destination_with_a_name_that_begins_like_the_sources_is_fine(tmp_path: Path) -> None:
    assert preflight.check_destination(tmp_path / "source-converted", _source(tmp_path)) == []


def test_a_file_in_the_place_of_the_destination_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    assert _ids(preflight.check_destination(tmp_path / "out", _source(tmp_path))) == ["DESTINATION_EXISTS"]


def test_a_link_to_nothing_in_the_place_of_the_destination_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    assert _ids(preflight.check_destination(tmp_path / "out", _source(tmp_path))) == ["DESTINATION_EXISTS"]


@pytest.mark.parametrize("below", [".", "out", "out/deep", "../source/out", "../other/../source"])
def test_a_destination_in_the_source_is_refused(tmp_path: Path, below: str) -> None:
    source = _source(tmp_path)
    assert _ids(preflight.check_destination(source / below, source)) == ["DESTINATION_INSIDE_SOURCE"]


def test_a_destination_in_the_source_is_seen_through_links(tmp_path: Path) -> None:
    source = _source(tmp_path)
    (tmp_path / "link").symlink_to("source")
    assert _ids(preflight.check_destination(tmp_path / "link" / "out", source)) == ["DESTINATION_INSIDE_SOURCE"]
    assert _ids(preflight.check_destination(source / "out", tmp_path / "link")) == ["DESTINATION_INSIDE_SOURCE"]


def test_a_destination_in_a_relative_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _source(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = preflight.check_destination(tmp_path / "source" / "out", Path("source"))
    assert _ids(found) == ["DESTINATION_INSIDE_SOURCE"]


def test_a_destination_that_holds_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "0" / "items").mkdir(parents=True)
    (diagnostic,) = preflight.check_destination(tmp_path / "out", tmp_path / "out" / "0" / "items")
    assert diagnostic.id == "DESTINATION_INSIDE_SOURCE"
    assert "holds the input directory" in diagnostic.reason


def test_a_destination_that_holds_what_a_link_in_the_source_leads_to_is_refused(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    store.mkdir()
    (store / "shard").touch()
    (source / "shard").symlink_to(store / "shard")
    (found,) = preflight.check_destination(store, source)
    assert found.id == "DESTINATION_INSIDE_SOURCE"
    assert str(source / "shard") in found.reason


def test_a_destination_in_a_folder_that_a_link_in_the_source_leads_to_is_refused(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    store.mkdir()
    (source / "items").symlink_to(store)
    assert _ids(preflight.check_destination(store / "out", source)) == ["DESTINATION_INSIDE_SOURCE"]


def test_links_to_elsewhere_and_to_nothing_do_not_bar_a_destination(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    store.mkdir()
    (source / "items").symlink_to(store)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    assert _ids(preflight.check_destination(tmp_path / "out", source)) == []


def test_a_destination_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = preflight.check_destination(tmp_path / "file" / "out", _source(tmp_path))
    assert _ids(found) == ["DESTINATION_NOT_WRITABLE"]
    assert str(tmp_path / "file") in found[0].reason


def test_a_destination_behind_links_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert _ids(preflight.check_destination(tmp_path / "a", _source(tmp_path))) == ["DESTINATION_EXISTS"]
    assert _ids(preflight.check_destination(tmp_path / "a" / "out", tmp_path / "source")) == [
        "DESTINATION_NOT_WRITABLE"
    ]


def test_a_destination_that_this_user_may_not_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    asked: list[tuple[object, int]] = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    # Root may write everywhere, so the answer is made up.
    monkeypatch.setattr(os, "access", access)
    found = preflight.check_destination(tmp_path / "closed" / "a" / "b", _source(tmp_path))
    assert _ids(found) == ["DESTINATION_NOT_WRITABLE"]
    assert asked == [(tmp_path / "closed", os.W_OK | os.X_OK)]


def test_all_that_is_wrong_with_a_destination_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = preflight.check_destination(source / "out", source)
    assert _ids(found) == ["DESTINATION_INSIDE_SOURCE", "DESTINATION_NOT_WRITABLE"]


def test_a_disk_with_room_is_fine(tmp_path: Path) -> None:
    assert preflight.check_disk(tmp_path / "not" / "yet", 1) == []


def test_a_full_disk_is_told_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))(1_000_000, 876_544, 123_456)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert preflight.check_disk(tmp_path, 123_456) == []
    (diagnostic,) = preflight.check_disk(tmp_path, 123_457)
    assert diagnostic.id == "DISK_SPACE"
    assert "needs 123457 bytes" in diagnostic.reason
    assert "123456 free" in diagnostic.reason


def test_a_disk_that_does_not_know_its_size_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))(0, 0, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert preflight.check_disk(tmp_path, 1 << 60) == []


def _machine(root: Path, free_kib: int) -> Path:
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text(f"MemAvailable: {free_kib} kB\n")
    return root


def test_memory_that_suffices_is_fine(tmp_path: Path) -> None:
    assert preflight.check_memory(1 << 20, _machine(tmp_path, 1024)) == []


def test_memory_that_does_not_suffice_is_told_with_both_numbers(tmp_path: Path) -> None:
    (diagnostic,) = preflight.check_memory((1 << 20) + 1, _machine(tmp_path, 1024))
    assert diagnostic.id == "MEMORY_PLAN"
    assert "1048577 bytes" in diagnostic.reason
    assert "1048576 can be had" in diagnostic.reason
    assert "the machine" in diagnostic.reason


def test_memory_is_not_judged_where_nothing_tells(tmp_path: Path) -> None:
    assert preflight.check_memory(1 << 60, tmp_path) == []
