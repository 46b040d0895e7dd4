"""Random damage to every metadata file: never a fault of the library, never anything left behind."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.bad_input.judging import assert_same, snapshot
from tests.bad_input.running import Run, hf_to_maxtext, maxtext_to_hf

# Weights begin after the header: a bit flipped in them is another weight.
_HEADER = 3000
_BYTES = b'\x00\xff{}[]",:0123456789-e.\\n'


def damaged(content: bytes, chooser: random.Random) -> bytes:
    """One to three small changes: bytes replaced, removed, repeated or moved."""
    out = bytearray(content)
    for _ in range(chooser.randint(1, 3)):
        if not out:
            break
        at = chooser.randrange(min(len(out), _HEADER))
        length = chooser.choice((1, 1, 2, 8, 40))
        kind = chooser.randrange(5)
        if kind == 0:
            out[at] = chooser.choice(_BYTES)
        elif kind == 1:
            out[at] ^= 1 << chooser.randrange(8)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        else:
            out[at:at] = bytes(chooser.choices(_BYTES, k=length))
    return bytes(out)


def check(run: Run, before: object, room: Path) -> None:
    run.check_form()
    assert run.code in (0, 2), run.summary
    if run.code == 0:
        shutil.rmtree(room / "out")
    assert_same(snapshot(room), before)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=pytest.mark.campaign)])
def test_a_damaged_hugging_face_checkpoint(count: int, file: str, hf: Path, tmp_path: Path) -> None:
    good = (hf / file).read_bytes()
    for seed in range(count):
        (hf / file).write_bytes(damaged(good, random.Random(seed)))
        before = snapshot(tmp_path)
        check(hf_to_maxtext(hf, tmp_path / "out"), before, tmp_path)


@pytest.mark.parametrize("count", [15, pytest.param(2000, marks=pytest.mark.campaign)])
def test_a_damaged_index(count: int, sharded: Path, tmp_path: Path) -> None:
    file = sharded / "model.safetensors.index.json"
    good = file.read_bytes()
    for seed in range(count):
        file.write_bytes(damaged(good, random.Random(seed)))
        before = snapshot(tmp_path)
        check(hf_to_maxtext(sharded, tmp_path / "out"), before, tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "0/items/_METADATA",
        "0/items/manifest.ocdbt",
        "0/_CHECKPOINT_METADATA",
        "recast/conversion.json",
        "recast/hf/config.json",
        "checkpoint-manifest.json",
    ],
)
@pytest.mark.parametrize("count", [10, pytest.param(2000, marks=pytest.mark.campaign)])
def test_a_damaged_maxtext_checkpoint(count: int, file: str, maxtext: Path, tmp_path: Path) -> None:
    good = (maxtext / file).read_bytes()
    for seed in range(count):
        (maxtext / file).write_bytes(damaged(good, random.Random(seed)))
        before = snapshot(tmp_path)
        check(maxtext_to_hf(maxtext, tmp_path / "out", "--weight_dtype=auto"), before, tmp_path)


@pytest.mark.parametrize("count", [1, pytest.param(200, marks=pytest.mark.campaign)])
def test_a_damaged_database(count: int, maxtext: Path, tmp_path: Path) -> None:
    for file in sorted((maxtext / "0" / "items" / "d").iterdir()):
        good = file.read_bytes()
        for seed in range(count):
            file.write_bytes(damaged(good, random.Random(seed)))
            before = snapshot(tmp_path)
            check(maxtext_to_hf(maxtext, tmp_path / "out"), before, tmp_path)
        file.write_bytes(good)
