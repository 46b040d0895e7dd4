"""Tests of progress on terminals and in logs."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reporting.progress import Progress, plain_line

MB = 10**6
GB = 10**9
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("done", "total", "rate", "held", "line"),
    [
        (1200 * MB, 3 * GB, 610e6, 512 * MB, "1.2 of 3.0 GB (40 %), 0.61 GB/s, 3 s left, 512 MB held"),
        (0, 3 * GB, 0, 90 * MB, "0.0 of 3.0 GB (0 %), 0.0 kB/s, unknown time left, 90 MB held"),
        (5 * MB, 10 * MB, 250_000.0, 2 * GB, "5 of 10 MB (50 %), 0.2 MB/s, 20 s left, 2.0 GB held"),
        (0, 1340 * GB, 0.5e9, GB, "0.00 of 1.34 TB (0 %), 0.50 GB/s, 45 min left, 1.0 GB held"),
        (0, 1340 * GB, 61e6, GB, "0.00 of 1.34 TB (0 %), 61.0 MB/s, 6 h 6 min left, 1.0 GB held"),
        (7, 7, 1.0, 0, "0 of 0 kB (100 %), 0.0 kB/s, 0 s left, 0 kB held"),
        (0, 0, 0.0, 0, "0 of 0 kB (100 %), 0.0 kB/s, 0 s left, 0 kB held"),
        (8 * GB, 4 * GB, 1e9, 0, "8.0 of 4.0 GB (100 %), 1.00 GB/s, 0 s left, 0 kB held"),
    ],
)
def test_a_plain_line_has_share_rate_time_and_memory(done: int, total: int, rate: float, held: int, line: str) -> None:
    assert plain_line("convert", done, total, rate, held) == f"convert: {line}"


def test_a_log_gets_a_line_every_few_seconds_even_while_nothing_advances() -> None:
    stream = io.StringIO()
    with Progress(100 * MB, stream=stream, interval=0.05, memory=lambda: 7 * MB) as progress:
        _wait_for(stream, 2)
        progress.advance(25 * MB)
        _wait_for(stream, len(stream.getvalue().splitlines()) + 2)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("convert: 0 of 100 MB (0 %), ")
    assert lines[-1].startswith("convert: 25 of 100 MB (25 %), ")
    assert all(line.endswith(" held") for line in lines)


def test_a_run_that_is_shorter_than_the_interval_says_nothing() -> None:
    stream = io.StringIO()
    with Progress(100, stream=stream, interval=60, memory=lambda: 0) as progress:
        progress.advance(100)
    assert stream.getvalue() == ""


def test_what_an_earlier_run_did_counts_as_done_but_not_as_speed() -> None:
    stream = io.StringIO()
    with Progress(100 * GB, stream=stream, interval=0.05, memory=lambda: 0, initial=99 * GB):
        _wait_for(stream, 1)
    assert stream.getvalue().splitlines()[0] == (
        "convert: 99.0 of 100.0 GB (99 %), 0.0 kB/s, unknown time left, 0 kB held"
    )


def test_many_threads_advance_it_without_losing_a_byte() -> None:
    stream = io.StringIO()

    def work() -> None:
        for _ in range(2000):
            progress.advance(1000)

    with Progress(16 * MB, stream=stream, interval=0.05, memory=lambda: 0) as progress:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _wait_for(stream, len(stream.getvalue().splitlines()) + 2)
    assert "16 of 16 MB (100 %)" in stream.getvalue().splitlines()[-1]


@pytest.mark.parametrize("mode", ["auto", "bar"])
def test_a_terminal_gets_a_bar_with_bytes_rate_time_and_memory(mode: str) -> None:
    shown = _on_a_terminal(mode)
    last = re.split(r"[\r\n]+", shown.strip())[-1]
    found = re.fullmatch(r"convert:  75%\|.*\| 1\.50G of 2\.00G \[00:\d\d, \S+ left, .*B/s, 64 MB held\]", last)
    assert found, shown


def test_a_terminal_gets_lines_or_nothing_where_asked() -> None:
    assert _on_a_terminal("none") == ""
    assert re.match(r"convert: 1\.5 of 2\.0 GB \(75 %\), ", _on_a_terminal("plain"))


def test_a_bar_of_nothing_is_shown_without_a_fault() -> None:
    stream = io.StringIO()
    with Progress(0, stream=stream, memory=lambda: 0, mode="bar"):
        pass
    assert stream.getvalue().startswith("\rconvert:")


@pytest.mark.parametrize("mode", ["bar", "plain"])
def test_a_reader_that_goes_away_does_not_end_the_run(mode: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    with Progress(100, stream=stream, interval=0.01, memory=lambda: 0, mode=mode) as progress:
        time.sleep(0.3)
        progress.advance(1)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_the_library_of_the_bar_is_imported_for_bars_only() -> None:
    script = """
import io, sys
from reporting.progress import Progress
with Progress(1, stream=io.StringIO(), memory=lambda: 0):
    pass
assert "tqdm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def _wait_for(stream: io.StringIO, lines: int) -> None:
    deadline = time.monotonic() + 10
    while len(stream.getvalue().splitlines()) < lines and time.monotonic() < deadline:
        time.sleep(0.01)


def _on_a_terminal(mode: str) -> str:
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as stream:
        with Progress(2 * GB, stream=stream, interval=0.1, memory=lambda: 64 * MB, mode=mode, initial=GB) as progress:
            progress.advance(GB // 2)
            time.sleep(0.35)
        stream.flush()
        os.set_blocking(leader, False)
        try:
            return os.read(leader, 1 << 16).decode()
        except BlockingIOError:
            return ""
        finally:
            os.close(leader)
