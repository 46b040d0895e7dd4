"""The databases here are made by TensorStore alone; what is reached is judged by taking the other files away."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorstore as ts

from converters.formats import ocdbt_files
from reporting.diagnostics import RecastError

KEYS = 40


def database(items: Path, **options: Any) -> Any:
    context = ts.Context({"file_io_sync": False})
    return ts.KvStore.open({**ocdbt(items), **options}, context=context).result()


def ocdbt(items: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{items}/"}}


def content(items: Path, **options: Any) -> dict[bytes, bytes]:
    store = database(items, **options)
    return {key: bytes(store.read(key).result().value) for key in store.list().result()}


def files(items: Path) -> set[str]:
    return {str(Path(place, name).relative_to(items)) for place, _, names in os.walk(items) for name in names}


@pytest.fixture(name="items")
def _items(tmp_path: Path) -> Path:
    """Many versions, small nodes, values in files of their own, some of them overwritten."""
    config = {"max_decoded_node_bytes": 300, "max_inline_value_bytes": 10}
    store = database(tmp_path, config=config, target_data_file_size=1)
    for number in (*range(KEYS), 3, 4):
        store.write(f"key{number:03}", bytes([number]) * 100).result()
    store.write("inline", b"x").result()
    return tmp_path


def keep_only(items: Path, kept: frozenset[str]) -> None:
    for name in files(items) - kept:
        (items / name).unlink()


def test_all_versions_can_be_read_from_the_files_that_are_reached_and_orphans_are_not(items: Path) -> None:
    versions = [content(items, version=number) for number in (2, 20, KEYS + 1)]
    (items / "d" / "0123456789abcdef").write_bytes(b"orphan")
    reached = ocdbt_files.reachable_files(items)
    assert reached < files(items)
    assert "d/0123456789abcdef" not in reached
    keep_only(items, reached)
    assert [content(items, version=number) for number in (2, 20, KEYS + 1)] == versions
    assert [len(version) for version in versions] == [1, 19, KEYS]


def test_values_are_never_read(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ts.ocdbt.dump
    asked = []

    def dump(base: Any, node: str = "", **options: Any) -> Any:
        asked.append(node)
        return real(base, node or None, **options)

    monkeypatch.setattr(ts.ocdbt, "dump", dump)
    ocdbt_files.reachable_files(items)
    assert not [node for node in asked if node.startswith("value")]
    assert len(asked) == len(set(asked)) > 3


def test_databases_of_other_processes_are_reached_through_the_merged_one(tmp_path: Path) -> None:
    context = ts.Context()
    merged = ts.KvStore.open(ocdbt(tmp_path), context=context).result()
    for process in (0, 1):
        spec = {**ocdbt(tmp_path / f"ocdbt.process_{process}"), "config": {"max_inline_value_bytes": 0}}
        part = ts.KvStore.open(spec, context=context).result()
        part.write(f"key{process}", b"v" * 50).result()
        part.experimental_copy_range_to(merged).result()
    expected = content(tmp_path)
    assert expected == {b"key0": b"v" * 50, b"key1": b"v" * 50}
    reached = ocdbt_files.reachable_files(tmp_path)
    assert {name.split("/")[0] for name in reached} == {"manifest.ocdbt", "d", "ocdbt.process_0", "ocdbt.process_1"}
    keep_only(tmp_path, reached)
    assert content(tmp_path) == expected


def test_a_compact_database_has_the_same_content_and_only_files_that_it_needs(items: Path) -> None:
    expected = content(items)
    (items / "d" / "0123456789abcdef").write_bytes(b"orphan")
    ocdbt_files.compact(items)
    assert content(items) == expected
    assert sorted(os.listdir(items)) == ["d", "manifest.ocdbt"]
    assert files(items) == ocdbt_files.reachable_files(items)
    for name in files(items):
        (items / name).rename(items / "away")
        assert not readable(items, expected), name
        (items / "away").rename(items / name)
    assert readable(items, expected)


def readable(items: Path, expected: dict[bytes, bytes]) -> bool:
    try:
        return content(items) == expected
    except ValueError:
        return False


def test_a_compact_database_can_be_written_to_and_compacted_again(items: Path) -> None:
    ocdbt_files.compact(items)
    database(items).write("key001", b"new" * 1000).result()
    expected = content(items)
    ocdbt_files.compact(items)
    assert content(items) == expected
    assert expected[b"key001"] == b"new" * 1000
    assert files(items) == ocdbt_files.reachable_files(items)


def test_what_a_killed_compaction_left_is_in_nobodys_way(items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = content(items)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            ocdbt_files.compact(items)
    assert content(items) == expected
    ocdbt_files.compact(items)
    assert content(items) == expected
    assert files(items) == ocdbt_files.reachable_files(items)


def test_a_new_manifest_takes_the_place_of_the_old_one_only_when_its_nodes_are_durable(
    items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(items)
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        events.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), items))
        real_sync(descriptor)

    def replace(old: Any, new: Any) -> None:
        written = files(items) - before
        assert written <= set(events)
        assert "d" in events
        assert len(written) > 1
        events.append("replaced")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    ocdbt_files.compact(items)
    after = events[events.index("replaced") + 1 :]
    assert (after[0], after[-1]) == (".", "d")


def test_many_keys_are_compacted_by_few_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = ts.Transaction(atomic=True)
    store = database(tmp_path, config={"max_inline_value_bytes": 10})
    for number in range(5000):
        store.with_transaction(transaction).write(f"params.layers.a/c/{number}/0", b"v" * 20).result()
    transaction.commit_sync()
    real = ts.ocdbt.dump
    asked = []

    def dump(*given: Any, **options: Any) -> Any:
        asked.append(given)
        return real(*given, **options)

    monkeypatch.setattr(ts.ocdbt, "dump", dump)
    ocdbt_files.compact(tmp_path)
    assert len(asked) < 50
    assert len(content(tmp_path)) == 5000


def test_without_history_the_files_of_the_current_version_are_enough(items: Path) -> None:
    expected = content(items)
    reached = ocdbt_files.reachable_files(items, history=False)
    assert reached < ocdbt_files.reachable_files(items)
    keep_only(items, reached)
    assert content(items) == expected


def test_a_node_that_lost_its_end_is_noticed(items: Path) -> None:
    newest = max((items / "d").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size - 1)
    with pytest.raises(RecastError) as caught:
        ocdbt_files.reachable_files(items, history=False)
    assert caught.value.diagnostics[0].id == "ORBAX_ARRAY_UNREADABLE"


def test_files_of_values_that_are_gone_or_lost_their_end_are_listed(items: Path) -> None:
    assert ocdbt_files.lost_files(items) == []
    values = [name for name in ocdbt_files.reachable_files(items, history=False) if name.startswith("d/")]
    found = set()
    for name in values:
        file = items / name
        content = file.read_bytes()
        for left in (None, content[:-1]):
            file.unlink() if left is None else file.write_bytes(left)
            # Where a node was lost, nothing can be listed.
            with contextlib.suppress(RecastError):
                assert ocdbt_files.lost_files(items) == [name]
                found.add((name, left is None))
        file.write_bytes(content)
    assert {gone for _, gone in found} == {True, False}


def test_a_database_that_cannot_be_read_is_an_error(items: Path, tmp_path: Path) -> None:
    shutil.rmtree(items / "d")
    with pytest.raises(RecastError) as caught:
        ocdbt_files.reachable_files(items)
    assert caught.value.diagnostics[0].id == "ORBAX_ARRAY_UNREADABLE"
    (tmp_path / "manifest.ocdbt").write_bytes(b"junk")
    with pytest.raises(RecastError):
        ocdbt_files.reachable_files(tmp_path)
