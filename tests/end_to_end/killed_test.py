"""Runs that are killed with all of their processes at random moments, and continued by running them again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.benchmarking import synthetic
from converters.engine import manifest
from converters.engine.destination import STAGING
from converters.engine.run_files import JOURNAL
from converters.formats import ocdbt_files
from converters.formats.orbax_source import OrbaxSource
from tests.bad_input.running import environment

# Units are recorded every MiB here, so that a small model has something to continue.
_SCRIPT = """
import sys
from converters.engine import journal
journal._GROUP_BYTES = 1 << 20
from container import entrypoint
entrypoint.main(["recast", *sys.argv[1:]])
"""
_SCALE = 0.03
_LATEST = 1.1


def _start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *words],
        env=dict(environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(words: list[str]) -> tuple[str, float]:
    """Runs a command to its end; returns what it printed and how long it took."""
    started = time.monotonic()
    run = _start(words)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    return output, time.monotonic() - started


def _kill(words: list[str], seconds: float, journal: Path | None = None) -> None:
    """Starts a command and kills its whole process group after so many seconds, or so long after its first record."""
    run = _start(words)
    while journal is not None and not journal.exists() and run.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)


def _words(direction: str, source: Path, out: Path) -> list[str]:
    if direction == "hf-to-maxtext":
        return [direction, f"--hf_model_path={source}", f"--base_output_directory={out}", "--model_name=llama3.2"]
    return [direction, f"--load_parameters_path={source}", f"--base_output_directory={out}", "--weight_dtype=auto"]


def _files(out: Path) -> dict[str, bytes]:
    """Everything that two runs of one request must write alike."""
    told = ("report.txt", "report.json", "DONE", manifest.FILE)
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in told]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if "/items/" not in str(path)}


def _same(out: Path, expected: Path) -> None:
    found, whole = _files(out), _files(expected)
    assert found.keys() == whole.keys()
    for name in found:
        if name.endswith("_CHECKPOINT_METADATA"):
            first, second = json.loads(found[name]), json.loads(whole[name])
            assert {k: v for k, v in first.items() if "timestamp" not in k} == {
                k: v for k, v in second.items() if "timestamp" not in k
            }
        else:
            assert found[name] == whole[name], name
    listed = [json.loads((place / manifest.FILE).read_bytes())["tensors"] for place in (out, expected)]
    assert listed[0] == listed[1]


def _same_arrays(out: Path, expected: Path) -> None:
    items = out / "0" / "items"
    assert (items / "_METADATA").read_bytes() == (expected / "0" / "items" / "_METADATA").read_bytes()
    found, whole = OrbaxSource(out), OrbaxSource(expected)
    assert found.tensors == whole.tensors
    for name, info in found.tensors.items():
        box = tuple((0, size) for size in info.shape)
        assert found.chunk(name) == whole.chunk(name)
        bits = np.dtype(f"u{found.read(name, box).dtype.itemsize}")
        assert np.array_equal(found.read(name, box).view(bits), whole.read(name, box).view(bits)), name
    reached = {name for name in ocdbt_files.reachable_files(items) if name.startswith("d/")}
    assert {f"d/{path.name}" for path in (items / "d").iterdir()} == reached


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each direction: source, an uninterrupted run's output, and how long that run took."""
    folder = tmp_path_factory.mktemp("killed")
    synthetic.make(folder / "hf", synthetic.scaled(_SCALE))
    _, forward = _finish(_words("hf-to-maxtext", folder / "hf", folder / "maxtext"))
    _, back = _finish(_words("maxtext-to-hf", folder / "maxtext", folder / "back"))
    return {
        "hf-to-maxtext": (folder / "hf", folder / "maxtext", forward),
        "maxtext-to-hf": (folder / "maxtext", folder / "back", back),
    }


@pytest.mark.parametrize("direction", ["hf-to-maxtext", "maxtext-to-hf"])
@pytest.mark.parametrize("kills", [4, pytest.param(25, marks=pytest.mark.campaign)])
def test_runs_that_are_killed_end_as_if_nothing_had_happened(
    kills: int, direction: str, outputs: dict[str, Any], tmp_path: Path
) -> None:
    source, expected, seconds = outputs[direction]
    chooser = random.Random(kills)
    continued = left = 0
    while left < kills:
        out = tmp_path / f"out{left}"
        words = _words(direction, source, out)
        for _ in range(min(chooser.randint(1, 3), kills - left)):
            if chooser.random() < 0.5:
                _kill(words, chooser.uniform(0.2, _LATEST) * seconds)
            else:
                _kill(words, chooser.uniform(0, 0.3) * seconds, out / STAGING / JOURNAL)
            left += 1
            if (out / "DONE").exists():
                break
            assert not list(out.glob("*.index.json"))
            assert not (out / "0").exists()
        output, _ = _finish(words)
        continued += "continued: " in output
        _same(out, expected)
        if direction == "hf-to-maxtext":
            _same_arrays(out, expected)
        assert not (out / STAGING).exists()
        shutil.rmtree(out)
    print(f"{direction}: {kills} kills, {continued} runs continued finished units")
    assert continued or kills < 10
