"""Runs that stop at some unit, in every form in which arrays are stored, and continue with another memory budget."""

from __future__ import annotations

import errno
import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from converters.engine import execute, grids, journal, planning
from converters.engine.destination import STAGING
from converters.engine.journal import UnitRecord
from converters.engine.run_files import JOURNAL
from converters.formats.orbax_source import OrbaxSource
from tests import checkpoints
from tests.end_to_end.running import Outcome, converted, recast

_CONFIG = checkpoints.CONFIGS["grouped"]
# An output has 493 units here: few enough stops, and early enough, that each is met.
_STOPS = 3
_FIRST, _LAST = 30, 150
# By zarr3, OCDBT and compression; the two that differ in all of these are part of every test run.
_OFTEN = ((1, 1, "none"), (0, 0, "zstd:3"))
_FORMS = [
    pytest.param(*form, marks=() if form in _OFTEN else pytest.mark.campaign)
    for form in itertools.product((1, 0), (1, 0), ("none", "zstd:3"))
]


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts a small model into many units, which depend on the budget and are recorded a few at a time."""
    monkeypatch.setattr(planning, "_CHUNKS_IN_BUDGET", 1 << 14)
    monkeypatch.setattr(planning, "_CHUNK_LIMIT", 4096)
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 2048)
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 8192)
    monkeypatch.setattr(grids, "_SMALL_ARRAY", 4096)
    monkeypatch.setattr(grids, "_SLAB_LIMIT", 8192)
    monkeypatch.setattr(journal, "_GROUP_BYTES", 8192)


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In float32, so that there is a residue."""
    tensors = checkpoints.element_coded_llama(_CONFIG, "float32", seed=3)
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("forms") / "hf", tensors, _CONFIG)


def _stopped(monkeypatch: pytest.MonkeyPatch, unit: int, subcommand: str, **flags: object) -> Outcome:
    """Runs a subcommand that meets an input/output error at its n-th unit."""
    record = execute.Executor._record
    numbers = itertools.count(1)

    def failing(self: execute.Executor, written: UnitRecord) -> None:
        if next(numbers) == unit:
            raise OSError(errno.EIO, "Input/output error")
        record(self, written)

    with monkeypatch.context() as patches:
        patches.setattr(execute.Executor, "_record", failing)
        return recast(subcommand, **flags)


def _cut_journal(out: Path, length: int) -> None:
    """Takes what a crash may take of the last records."""
    path = out / STAGING / JOURNAL
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - length])


def _stored(out: Path) -> dict[str, Any]:
    """The chunk shape and the bytes of every array."""
    source = OrbaxSource(out)
    return {
        name: (source.chunk(name), source.read(name, tuple((0, size) for size in info.shape)).tobytes())
        for name, info in source.tensors.items()
    }


def _kept_beside(out: Path) -> dict[str, bytes]:
    """The record of the conversion, its residue, and whatever else is kept with them."""
    folder = out / "recast"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("zarr3", "ocdbt", "compression"), _FORMS)
def test_runs_that_stop_and_continue_end_as_if_nothing_had_happened(
    zarr3: int, ocdbt: int, compression: str, hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = random.Random(f"{zarr3} {ocdbt} {compression}")
    whole, out, back = tmp_path / "whole", tmp_path / "out", tmp_path / "back"
    flags: dict[str, object] = {
        "hf_model_path": hf,
        "save_dtype": "float32",
        "progress": "none",
        "checkpoint_storage_use_zarr3": zarr3,
        "checkpoint_storage_use_ocdbt": ocdbt,
        "compression": compression,
    }
    budget = "64MiB"
    converted("hf-to-maxtext", base_output_directory=whole, memory_budget=budget, **flags)
    for _ in range(_STOPS):
        unit = chooser.randint(_FIRST, _LAST)
        stopped = _stopped(monkeypatch, unit, "hf-to-maxtext", base_output_directory=out, memory_budget=budget, **flags)
        assert stopped.code == 5, stopped.text
        _cut_journal(out, chooser.choice([0, 0, 1, 300]))
        budget = chooser.choice(["64MiB", "1GiB"]) if budget == "32MiB" else "32MiB"
    outcome = converted("hf-to-maxtext", base_output_directory=out, memory_budget=budget, **flags)
    assert "continued: " in outcome.text
    assert _stored(out) == _stored(whole)
    kept = _kept_beside(out)
    assert {"conversion.json", "residue.safetensors"} <= kept.keys()
    assert kept == _kept_beside(whole)
    converted("verify", manifest=out)

    flags = {
        "load_parameters_path": out,
        "base_output_directory": back,
        "weight_dtype": "auto",
        "progress": "none",
    }
    stopped = _stopped(monkeypatch, 60, "maxtext-to-hf", memory_budget="64MiB", **flags)
    assert stopped.code == 5, stopped.text
    converted("maxtext-to-hf", memory_budget="32MiB", **flags)
    assert not checkpoints.differing(checkpoints.read_safetensors(back), checkpoints.read_safetensors(hf))
