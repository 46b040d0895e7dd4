"""Files of torch.save that cannot be trusted: one error that names the file, and nothing is written or run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, recast

WEIGHTS = "model.safetensors"
FILE = "pytorch_model.bin"


class _Calls:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path):
        self._place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._place),)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _call(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"lm_head.weight": _Calls(path.with_name("ran"))}, 2))


def _large_word(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/byteorder", bytes(8 << 20), zipfile.ZIP_DEFLATED)


def _large_number(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}r" + (1 << 26).to_bytes(4, "little") + b".")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_pipe, "not a regular file"),
        (_call, "posix.mkdir, which is not called"),
        (_large_word, "byteorder is compressed"),
        (_large_number, "no dictionary of tensors"),
    ],
    ids=["a_pipe", "a_call", "a_word_that_unpacks_to_much", "a_number_that_takes_memory"],
)
@triggers("HEADER_INVALID")
def test_a_file_that_cannot_be_trusted_is_one_error(make: Any, says: str, hf: Path, destination: Path) -> None:
    (hf / WEIGHTS).unlink()
    make(hf / FILE)
    with unchanged(hf):
        runs = hf_to_maxtext(hf, destination), recast("inspect", hf)
    for run in runs:
        refused(run, Fault("HEADER_INVALID", FILE, says))
    assert not destination.exists()
