"""Staging folders that no run of ours would leave: torn, edited, or full of traps for the run that finds them."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import NoReturn

import pytest

from converters.engine import convert, destination, journal, residue
from converters.engine.destination import PUBLISHING, STAGING
from converters.engine.resume import RESIDUE
from converters.engine.run_files import IDENTITY
from tests import checkpoints
from tests.end_to_end.running import Outcome, converted, recast

_CONFIG = checkpoints.CONFIGS["grouped"]
_DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = checkpoints.element_coded_llama(_CONFIG, "bfloat16", seed=0)
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("hostile") / "hf", tensors, _CONFIG)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf` in float32, which leaves a residue, and `whole`, what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("hostile")
    tensors = checkpoints.element_coded_llama(_CONFIG, "float32", seed=0)
    checkpoints.write_safetensors(folder / "hf", tensors, _CONFIG)
    outcome = _run(folder / "hf", folder / "whole", save_dtype="float32")
    assert outcome.code == 0, outcome.text
    return folder


def _run(hf: Path, out: Path, **flags: object) -> Outcome:
    return recast("hf-to-maxtext", hf_model_path=hf, base_output_directory=out, **flags)


def _broken_disk(*_: object) -> NoReturn:
    raise OSError(errno.EIO, "Input/output error")


def _stop_before_verification(hf: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **flags: object) -> None:
    """Leaves a staging folder in which all units are written and recorded."""
    with monkeypatch.context() as patches:
        patches.setattr(convert, "_verify", _broken_disk)
        outcome = _run(hf, out, **flags)
    assert outcome.code == 5, outcome.text


def _residue_file(out: Path) -> Path:
    return out / "recast" / "residue.safetensors"


@pytest.mark.parametrize(("sizes", "code"), [([0, 4], 0), ([-1, 4], 0), ([], 0), (["x", 4], 2)], ids=str)
def test_a_grid_that_cannot_be_is_no_internal_error(
    sizes: list[object], code: int, hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _stop_before_verification(hf, out, monkeypatch)
    path = out / STAGING / IDENTITY
    said = json.loads(path.read_text("utf-8"))
    name = next(name for name, grid in said["grid"].items() if len(grid) == 2)
    said["grid"][name] = sizes
    path.write_text(json.dumps(said), "utf-8")
    outcome = _run(hf, out)
    assert outcome.code == code, outcome.text
    if code == 0:
        converted("verify", manifest=out)
    else:
        assert "UNFINISHED_RUN" in outcome.text


@pytest.mark.parametrize(
    "line",
    ['{"array":"a","box":[],"digest":"","largest":{},"residue":1e999,"bytes":1}', _DEEP],
    ids=["infinite count", "deep"],
)
def test_a_record_that_cannot_be_is_left_out(line: str, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(line + "\n")
    assert journal.read(tmp_path / "journal") == []


def test_a_list_of_names_that_is_nested_too_deeply_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / STAGING).mkdir()
    (tmp_path / STAGING / PUBLISHING).write_text(_DEEP)
    assert destination.being_published(tmp_path / STAGING) == []


def test_zeros_at_the_end_of_the_residue_change_nothing(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _stop_before_verification(wide / "hf", out, monkeypatch, save_dtype="float32")
    with open(out / STAGING / RESIDUE, "ab") as file:
        file.write(bytes(64))
    outcome = _run(wide / "hf", out, save_dtype="float32")
    assert outcome.code == 0, outcome.text
    assert _residue_file(out).read_bytes() == _residue_file(wide / "whole").read_bytes()


def test_a_torn_record_in_the_middle_of_the_residue_loses_nothing(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _stop_before_verification(wide / "hf", out, monkeypatch, save_dtype="float32")
    path = out / STAGING / RESIDUE
    content = path.read_bytes()
    (head,) = struct.unpack("<Q", content[:8])
    # The first record torn in its columns, then everything again.
    path.write_bytes(content[: 8 + head + 40] + content)
    outcome = _run(wide / "hf", out, save_dtype="float32")
    assert outcome.code == 0, outcome.text
    found, expected = residue.read(_residue_file(out)), residue.read(_residue_file(wide / "whole"))
    assert found.elements == expected.elements > 0
    assert _residue_file(out).read_bytes() == _residue_file(wide / "whole").read_bytes()


def test_a_link_in_the_staging_folder_is_not_followed(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    _stop_before_verification(hf, out, monkeypatch)
    os.rename(out / STAGING / "output" / "0", elsewhere)
    (elsewhere / "items" / "d" / "thesis").write_text("years of work")
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    (out / STAGING / "output" / "0").symlink_to(elsewhere)
    outcome = _run(hf, out)
    assert outcome.code == 0, outcome.text
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before
    assert not (out / "0").is_symlink()
    converted("verify", manifest=out)
