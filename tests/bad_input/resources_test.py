"""No room, no memory, no permission, and storage that fails half way."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.engine import values
from converters.formats import safetensors_sink
from tests.bad_input import checkpoints as cp
from tests.bad_input.continuing import (
    assert_same_output,
    continued,
    only_staging_left,
    units_kept,
    without_staging,
)
from tests.bad_input.judging import Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.moments import Usage
from tests.bad_input.running import Convert, Run, hf_to_maxtext, maxtext_to_hf, process
from validators import memory

_PAGE = 4096


# ---- memory


@triggers("MEMORY_PLAN")
def test_a_budget_that_no_unit_fits_is_refused_with_one_that_does(
    convert: Convert, destination: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = convert(destination, "--memory_budget=1KB")
    refused(run, Fault("MEMORY_PLAN", "1000 bytes", "needs"))
    advised = re.search(r"--memory_budget=\S+", run.failures[0].suggestion)
    assert advised
    completed(convert(destination, advised[0]))


def cgroup(root: Path, limit: int, used: int) -> Path:
    """What a process sees of itself in a container of cgroup version 2."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "sys" / "fs" / "cgroup").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable: 88888888 kB\n", "utf-8")
    (root / "proc" / "self" / "cgroup").write_text("0::/\n", "utf-8")
    (root / "proc" / "self" / "status").write_text("RssAnon: 0 kB\nRssShmem: 0 kB\n", "utf-8")
    (root / "sys" / "fs" / "cgroup" / "memory.max").write_text(f"{limit}\n", "utf-8")
    (root / "sys" / "fs" / "cgroup" / "memory.current").write_text(f"{used}\n", "utf-8")
    (root / "sys" / "fs" / "cgroup" / "memory.stat").write_text("inactive_file 0\n", "utf-8")
    return root


@triggers("MEMORY_PLAN")
def test_a_container_that_is_too_small_is_refused_before_the_first_byte(
    convert: Convert, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cgroup(tmp_path / "root", limit=200 << 20, used=60 << 20)
    real = memory.available
    monkeypatch.setattr(memory, "available", lambda *_: real(root))
    with unchanged(tmp_path):
        run = convert(destination)
    refused(run, Fault("MEMORY_PLAN", f"{140 << 20} can be had", f"cgroup limit of {200 << 20} bytes"))
    assert run.steps["preflight"] == "Failed"


@triggers("OUT_OF_MEMORY")
def test_an_allocation_that_fails_half_way_costs_no_finished_unit(
    convert: Convert, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(convert(tmp_path / "whole"))
    calls = []
    real = values.encode

    def encode(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError("Unable to allocate 7.45 GiB")
        return real(*arguments)

    monkeypatch.setattr(values, "encode", encode)
    before = without_staging(tmp_path, destination)
    run = convert(destination)
    refused(run, Fault("OUT_OF_MEMORY", "7.45 GiB"))
    assert only_staging_left(tmp_path, destination, before) > 0
    continued(convert, destination, tmp_path / "whole")


# ---- disk


@triggers("DISK_SPACE")
def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(
    convert: Convert, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 12_345, 12_345))
    with unchanged(tmp_path):
        run = convert(destination)
    refused(run, Fault("DISK_SPACE", "12345 free", "needs", str(destination)))
    assert run.steps["preflight"] == "Failed"


@triggers("DESTINATION_EXISTS", "DISK_SPACE", "MEMORY_PLAN")
def test_all_that_preflight_finds_is_listed(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    root = cgroup(tmp_path / "root", limit=100 << 20, used=0)
    real = memory.available
    monkeypatch.setattr(memory, "available", lambda *_: real(root))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6, 0))
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", "not empty"), Fault("DISK_SPACE", "0 free"), Fault("MEMORY_PLAN"))


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real file system of 512 KiB; preflight is told that it is large."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a file system")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 10**12))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def leave_free(disk: Path, pages: int) -> None:
    """Fills a disk with something else, but for so many pages."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    room = os.statvfs(disk).f_bavail * _PAGE
    filler.write_bytes(bytes(max(0, room - pages * _PAGE)))


@triggers("DISK_FULL")
def test_a_disk_that_fills_up_at_any_point_costs_no_finished_unit(
    convert: Convert, small_disk: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", small_disk / "new" / "out"
    completed(convert(whole))
    codes, kept = [], []
    for pages in (0, 1, 2, 3, *range(4, 80, 4)):
        # The file system itself takes some of it.
        leave_free(small_disk, pages)
        before = without_staging(small_disk, out)
        run = convert(out)
        codes.append(run.code)
        if run.code == 0:
            break
        refused(run, Fault("DISK_FULL"))
        kept.append(only_staging_left(small_disk, out, before))
        (small_disk / "filler").write_bytes(b"")
        continued(convert, out, whole)
        shutil.rmtree(out.parent)
    assert codes[-1] == 0
    assert codes.count(5) > 3
    assert any(kept)
    assert not all(kept)
    completed(run)


@triggers("DISK_FULL")
def test_a_disk_that_gets_a_little_freer_each_time_is_enough_in_the_end(
    convert: Convert, small_disk: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", small_disk / "out"
    completed(convert(whole))
    kept = [0]
    for pages in range(2, 60):
        leave_free(small_disk, pages)
        units = units_kept(out)
        run = convert(out)
        if run.code == 0:
            assert f"continued: {units} units were already written" in run.output
            break
        refused(run, Fault("DISK_FULL"))
        kept.append(units_kept(out))
        assert kept[-1] >= kept[-2]
    completed(run)
    assert kept[-1] > 0
    assert_same_output(out, whole)


@triggers("DISK_FULL")
def test_a_full_disk_does_not_cost_the_checkpoint_that_is_replaced(
    convert: Convert, small_disk: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", small_disk / "out"
    completed(convert(whole))
    completed(convert(out))
    codes = []
    for pages in (0, 1, 2, 3, *range(4, 80, 5)):
        old = snapshot(out)
        leave_free(small_disk, pages)
        run = convert(out, "--overwrite")
        codes.append(run.code)
        if run.code == 0:
            break
        refused(run, Fault("DISK_FULL"))
        only_staging_left(out, out, old)
        (small_disk / "filler").write_bytes(b"")
        continued(convert, out, whole, "--overwrite")
    assert codes[-1] == 0
    assert codes.count(5) > 2


@pytest.mark.parametrize(
    ("number", "id", "retry"),
    [
        (errno.ENOSPC, "DISK_FULL", True),
        (errno.EDQUOT, "DISK_FULL", True),
        (errno.EIO, "INPUT_OUTPUT", True),
        (errno.ENOMEM, "OUT_OF_MEMORY", True),
        (errno.EROFS, "DESTINATION_NOT_WRITABLE", False),
    ],
)
@triggers()
def test_a_write_that_fails_half_way_keeps_finished_units_where_a_retry_may_cure_it(
    number: int, id: str, retry: bool, maxtext: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(maxtext_to_hf(maxtext, tmp_path / "whole"))
    real, calls = os.pwrite, []

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        calls.append(1)
        if len(calls) == 9:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data, offset)

    monkeypatch.setattr(safetensors_sink.os, "pwrite", pwrite)
    before = without_staging(tmp_path, destination)
    run = maxtext_to_hf(maxtext, destination)
    refused(run, Fault(id, os.strerror(number), "model.safetensors"))
    if not retry:
        assert_same(snapshot(tmp_path), before)
    assert (only_staging_left(tmp_path, destination, before) > 0) == retry
    continued(lambda out: maxtext_to_hf(maxtext, out), destination, tmp_path / "whole")


def test_short_writes_are_continued(maxtext: Path, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(
        safetensors_sink.os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:7], offset)
    )
    completed(maxtext_to_hf(maxtext, destination))


@pytest.mark.parametrize("name", ["hf-to-maxtext", "maxtext-to-hf"])
@triggers("INPUT_OUTPUT")
def test_files_that_may_not_grow_are_an_error_that_a_retry_may_cure(
    name: str, hf: Path, maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    source = f"--hf_model_path={hf}" if name == "hf-to-maxtext" else f"--load_parameters_path={maxtext}"

    def convert(out: Path) -> Run:
        return process(name, source, f"--base_output_directory={out}")

    completed(convert(tmp_path / "whole"))
    before, limit = without_staging(tmp_path, destination), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        run = convert(destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    refused(run, Fault("INPUT_OUTPUT", "File too large"))
    only_staging_left(tmp_path, destination, before)
    continued(convert, destination, tmp_path / "whole")


# ---- permission


def powerless(name: str, source: Path, destination: Path, *flags: str) -> Run:
    """A run by a user whom file modes bind."""
    path_flag = "hf_model_path" if name == "hf-to-maxtext" else "load_parameters_path"
    return process(name, f"--{path_flag}={source}", f"--base_output_directory={destination}", *flags, powerless=True)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Takes the right to write from directories for the time of the test."""
    changed: list[tuple[Path, int]] = []

    def lock(path: Path) -> None:
        changed.append((path, path.stat().st_mode))
        path.chmod(0o555 if path.is_dir() else 0o000)

    yield lock
    for path, mode in reversed(changed):
        path.chmod(mode)


@triggers("DESTINATION_NOT_WRITABLE")
def test_a_user_who_may_not_write_there(
    hf: Path, maxtext: Path, tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    (tmp_path / "shelf" / "out").mkdir(parents=True)
    locked(tmp_path / "shelf" / "out")
    locked(tmp_path / "shelf")
    with unchanged(tmp_path):
        runs = [
            powerless("hf-to-maxtext", hf, tmp_path / "shelf" / "out"),
            powerless("hf-to-maxtext", hf, tmp_path / "shelf" / "new" / "out"),
            powerless("maxtext-to-hf", maxtext, tmp_path / "shelf" / "out"),
        ]
    for run in runs:
        refused(run, Fault("DESTINATION_NOT_WRITABLE", "may not write", str(tmp_path / "shelf")))


@triggers("SOURCE_NOT_READABLE")
@triggers("SOURCE_NOT_READABLE")
def test_a_user_who_may_not_read_the_weights(
    sharded: Path, destination: Path, tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    for number in (2, 3):
        locked(sharded / cp.shard(number))
    with unchanged(tmp_path):
        run = powerless("hf-to-maxtext", sharded, destination)
    refused(
        run,
        Fault("SOURCE_NOT_READABLE", cp.shard(2), "Permission denied"),
        Fault("SOURCE_NOT_READABLE", cp.shard(3), "Permission denied"),
    )


def test_a_user_who_may_not_read_the_arrays(
    maxtext: Path, destination: Path, tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    for path in (maxtext / "0" / "items" / "d").iterdir():
        locked(path)
    with unchanged(tmp_path):
        run = powerless("maxtext-to-hf", maxtext, destination)
    run.check_form()
    assert run.code == 2, run.summary
    assert all("denied" in entry.reason.lower() for entry in run.failures), run.summary


@triggers("CONFIG_INVALID")
def test_a_user_who_may_not_read_the_config(
    hf: Path, destination: Path, tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    locked(hf / "config.json")
    with unchanged(tmp_path):
        run = powerless("hf-to-maxtext", hf, destination)
    refused(run, Fault("CONFIG_INVALID", "config.json", "Permission denied"))


@triggers("DESTINATION_NOT_WRITABLE")
def test_an_old_checkpoint_with_locked_folders_is_replaced_whole_or_not_at_all(
    hf: Path, tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    out, flags = tmp_path / "out", ("--overwrite", "--scan_layers=false")
    completed(hf_to_maxtext(hf, tmp_path / "whole", "--scan_layers=false"))
    completed(hf_to_maxtext(hf, out))
    locked(out / "0")
    before = without_staging(tmp_path, out)
    refused(powerless("hf-to-maxtext", hf, out, *flags), Fault("DESTINATION_NOT_WRITABLE", str(out)))
    assert only_staging_left(tmp_path, out, before) > 0
    # All of the work was done but for the last step, and the same command does that once it may.
    (out / "0").chmod(0o755)
    continued(lambda out, *flags: hf_to_maxtext(hf, out, *flags), out, tmp_path / "whole", *flags)


def test_a_source_that_nobody_may_write_to_is_enough(hf: Path, maxtext: Path, tmp_path: Path) -> None:
    for name in (hf, maxtext):
        for path in name.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
    with unchanged(hf, maxtext):
        completed(powerless("hf-to-maxtext", hf, tmp_path / "a"))
        completed(powerless("maxtext-to-hf", maxtext, tmp_path / "b"))
    for path in maxtext.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


# ---- a source that changes or fails


@triggers("SOURCE_CHANGED")
def test_weights_that_change_during_the_run_are_noticed(
    hf: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.engine import convert as convert_lib

    real = convert_lib._verify

    def verify(*arguments: Any) -> Any:
        cp.with_bytes("model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))(hf)
        return real(*arguments)

    monkeypatch.setattr(convert_lib, "_verify", verify)
    with unchanged(tmp_path / "new"):
        run = hf_to_maxtext(hf, destination)
    refused(run, Fault("SOURCE_CHANGED", str(hf)))
