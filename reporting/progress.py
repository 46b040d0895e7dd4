"""How far a run is: a bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

MODES = ("auto", "bar", "plain", "none")
"""auto is a bar where the stream is a terminal, else plain lines; none shows nothing."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} [{elapsed}, {remaining} left, {rate_fmt}{postfix}]"
_BAR_INTERVAL = 0.2
# Terminals of containers may say that they have none.
_COLUMNS, _ROWS = 80, 24
# Rates are of the last so many lines: the first GB, which caches take, must not promise the speed of the others.
_WINDOW = 12


class Progress:
    """Shows the progress of one step while a block runs; `advance` may be called from any thread."""

    def __init__(
        self,
        total_bytes: int,
        *,
        stream: TextIO,
        interval: float = 5.0,
        memory: Callable[[], int],
        initial: int = 0,
        mode: str = "auto",
        name: str = "convert",
    ):
        """Shows nothing until the block begins.

        Args:
            total_bytes: what there is to do.
            stream: standard error.
            interval: seconds between plain lines; a run that is shorter has none.
            memory: tells the bytes that the process holds.
            initial: bytes that an earlier run did.
            mode: one of MODES.
            name: of the step.
        """
        self._total = max(0, total_bytes)
        self._stream = stream
        self._memory = memory
        self._initial = initial
        self._done = initial
        self._name = name
        self._lock = threading.Lock()
        self._looks: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._stop = threading.Event()
        self._mode = mode if mode != "auto" else "bar" if _is_terminal(stream) else "plain"
        self._interval = _BAR_INTERVAL if self._mode == "bar" else interval
        self._bar: Any = None
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._looks.append((time.monotonic(), self._initial))
        if self._mode == "bar":
            try:
                self._bar = _bar(self._total, self._initial, self._stream, self._name)
            except (OSError, ValueError):
                self._mode = "none"
        if self._mode != "none":
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._mode != "none":
            self._thread.join()
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._show()
                self._bar.close()

    def advance(self, nbytes: int) -> None:
        """Notes that so many bytes more are done."""
        with self._lock:
            self._done += nbytes

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._show()
            except (OSError, ValueError):
                # Nobody reads any more; the work goes on.
                return

    def _show(self) -> None:
        with self._lock:
            done = self._done
        if self._bar is not None:
            self._bar.set_postfix_str(f"{_size(self._memory())} held", refresh=False)
            if not self._bar.update(done - self._bar.n):
                self._bar.refresh()
            return
        now = time.monotonic()
        then, before = self._looks[0]
        self._looks.append((now, done))
        line = plain_line(self._name, done, self._total, (done - before) / max(now - then, 1e-9), self._memory())
        self._stream.write(line + "\n")
        self._stream.flush()


def plain_line(name: str, done: int, total: int, rate: float, held: int) -> str:
    """One line: `convert: 1.2 of 3.0 GB (40 %), 0.61 GB/s, 3 s left, 512 MB held`."""
    unit, digits, symbol = _unit(total)
    share = f"{100 * min(done, total) // total} %" if total else "100 %"
    left = _duration((total - done) / rate) if rate > 0 else "unknown time"
    if done >= total:
        left = "0 s"
    speed, speed_digits, speed_symbol = _unit(rate * 10)
    return (
        f"{name}: {done / unit:.{digits}f} of {total / unit:.{digits}f} {symbol} ({share}), "
        f"{rate / speed:.{speed_digits + 1}f} {speed_symbol}/s, {left} left, {_size(held)} held"
    )


def _bar(total: int, initial: int, stream: TextIO, name: str) -> Any:
    # Here, not above: most runs have no terminal, and --help must not wait for it.
    from tqdm import tqdm

    # Threads of this process only: the lock that tqdm takes by default is one for several processes.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    columns = os.get_terminal_size(stream.fileno()).columns if _is_terminal(stream) else 0
    return tqdm(
        total=total,
        initial=initial,
        file=stream,
        desc=name,
        unit="B",
        unit_scale=True,
        ncols=None if columns else _COLUMNS,
        nrows=None if columns else _ROWS,
        dynamic_ncols=bool(columns),
        bar_format=_BAR,
        mininterval=0,
        miniters=1,
    )


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _unit(amount: float) -> tuple[float, int, str]:
    """A unit that suits an amount, and digits after its point."""
    for size, digits, symbol in ((1e12, 2, "TB"), (1e9, 1, "GB"), (1e6, 0, "MB")):
        if amount >= size:
            return size, digits, symbol
    return 1e3, 0, "kB"


def _size(amount: int) -> str:
    unit, digits, symbol = _unit(amount)
    return f"{amount / unit:.{digits}f} {symbol}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
