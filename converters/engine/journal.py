"""The journal of a run: which units are durable, so that a run that is killed costs only those that were not yet."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from converters.engine.plan import Box
from converters.formats.durable import sync_directory

# At most this much is lost. Smaller groups than a GiB also leave less to wait for at the end.
_GROUP_BYTES = 1 << 28
_GROUP_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class UnitRecord:
    """What is known of a unit that was written.

    Attributes:
        array: name of its array.
        box: its region.
        digest: BLAKE3 of its bytes as stored.
        largest: for each source array that filled it: its largest magnitude as a bit pattern, and infinity's.
        residue: how many elements of it the residue holds.
        bytes: its size as stored.
        overflowed: for each source array of which a finite value became infinite in the unit: the largest finite
            magnitude, or infinity where decoding made it so.
    """

    array: str
    box: Box
    digest: str
    largest: Mapping[str, tuple[int, int]]
    residue: int
    bytes: int
    overflowed: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


def read(path: Path) -> list[UnitRecord]:
    """The records of a journal; a last line that was not finished is left out."""
    return _whole(path)[0]


def _whole(path: Path) -> tuple[list[UnitRecord], int]:
    """The records of a journal, and how many bytes they take."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], 0
    found, length = [], 0
    for line in lines:
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            break
        length += len(line) + 1
    return found, length


class Journal:
    """Records units once their bytes are durable; as a context manager, the rest at the end. Thread-safe."""

    def __init__(self, path: Path, make_durable: Callable[[], None]):
        """Args: makes all writes that have returned durable."""
        self._path = path
        self._make_durable = make_durable
        self._pending: list[UnitRecord] = []
        self._bytes = 0
        self._error: BaseException | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    def __enter__(self) -> Journal:
        if self._path.exists():
            # What follows a line that was not finished would be lost with it.
            os.truncate(self._path, _whole(self._path)[1])
        try:
            self._thread.start()
        except BaseException:
            # A signal came once it ran: nobody else would end it.
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def add(self, record: UnitRecord) -> None:
        """Takes the record of a unit whose write has returned.

        Raises:
            RecastError: what an earlier attempt to make units durable met.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._pending.append(record)
            self._bytes += record.bytes
            if self._bytes >= _GROUP_BYTES:
                self._changed.notify_all()

    def _close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=_GROUP_SECONDS)
                taken, self._pending, self._bytes = self._pending, [], 0
                closing = self._closing
            try:
                self._record(taken)
            except BaseException as error:
                self._error = error
                return
            if closing:
                return

    def _is_due(self) -> bool:
        return self._closing or self._bytes >= _GROUP_BYTES

    def _record(self, units: list[UnitRecord]) -> None:
        if not units:
            return
        self._make_durable()
        new = not self._path.exists()
        with open(self._path, "ab") as file:
            file.write(b"".join(unit.to_json().encode() + b"\n" for unit in units))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_directory(self._path.parent)


def _record(said: Mapping[str, Any]) -> UnitRecord:
    return UnitRecord(
        array=str(said["array"]),
        box=tuple((int(start), int(stop)) for start, stop in said["box"]),
        digest=str(said["digest"]),
        largest={str(name): (int(bits), int(infinity)) for name, (bits, infinity) in said["largest"].items()},
        residue=int(said["residue"]),
        bytes=int(said["bytes"]),
        overflowed={str(name): float(magnitude) for name, magnitude in said["overflowed"].items()},
    )
