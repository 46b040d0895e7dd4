"""Holds signals back while something must not be interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator

_HELD: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass
class Held:
    """Signals that came meanwhile, which are delivered when the block ends.

    Attributes:
        came: their numbers; what is removed is not delivered.
    """

    came: list[int] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def uninterrupted() -> Iterator[Held]:
    """Holds SIGTERM and SIGINT back until a block has ended.

    By handlers, not by masks: a signal to the process goes to any thread that does not block it.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {number: signal.signal(number, lambda number, _: held.came.append(number)) for number in _HELD}
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        for number in held.came[:1]:
            signal.raise_signal(number)
