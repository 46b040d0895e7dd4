"""Interrupts a run in this process at the n-th call that the code which writes makes in the main thread."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_WRITING = (
    "/converters/engine/convert.py",
    "/converters/engine/journal.py",
    "/converters/engine/manifest.py",
    "/converters/engine/model.py",
    "/converters/engine/open_run.py",
    "/converters/engine/publication.py",
    "/converters/engine/residue.py",
    "/converters/engine/resume.py",
    "/converters/engine/run_files.py",
    "/converters/engine/running.py",
    "/converters/engine/staging.py",
    "/converters/formats/durable.py",
    "/converters/formats/orbax_sink.py",
    "/converters/formats/safetensors_sink.py",
)
# Of what is written in C, only what asks the system for something.
_SYSTEM = frozenset(("access", "flock", "fsync", "ftruncate", "mkdir", "open", "pwrite", "rename", "replace", "write"))


class Calls:
    """Counts calls from and to the code that writes, and acts at chosen ones.

    Attributes:
        places: each distinct call in the order in which it came first, with its number.
    """

    def __init__(self, act: Callable[[], object] | None = None, at: tuple[int, ...] = ()):
        self.places: dict[str, int] = {}
        self._act = act
        self._at = set(at)
        self._count = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Calls]:
        """Counts while a block runs."""
        sys.setprofile(self._event)
        try:
            yield self
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "call" and not (event == "c_call" and called.__name__ in _SYSTEM):
            return
        if frame.f_code.co_name == "<genexpr>" or frame.f_code.co_filename.endswith(("/weakref.py", "/_weakrefset.py")):
            # Collected garbage calls these at moments of its own, and nothing that they raise is heard.
            return
        caller = frame if event == "c_call" or _writes(frame) else frame.f_back
        if caller is None or not _writes(caller):
            return
        name = called.__name__ if event == "c_call" else frame.f_code.co_name
        code = caller.f_code
        self.places.setdefault(f"{code.co_filename.rpartition('/')[2]}:{caller.f_lineno} {name}", self._count)
        self._count += 1
        if self._count - 1 in self._at and self._act is not None:
            # An exception that this raises continues in the code that makes the call, and ends the watch.
            self._at.discard(self._count - 1)
            if not self._at:
                sys.setprofile(None)
            self._act()


def _writes(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith(_WRITING)
