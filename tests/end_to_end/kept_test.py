"""What MaxText has no place for is kept beside the output, travels with it, and comes back byte for byte."""

from __future__ import annotations

import errno
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from converters.engine import execute, journal
from converters.engine.journal import UnitRecord
from tests import checkpoints, kept_checkpoints
from tests.end_to_end.running import Arrays, Outcome, converted, recast
from tests.kept_checkpoints import LAYER

# Of the layer's 32 tensors: the four experts are one array for each of three matrices, attention is cut in its parts.
_ARRAYS = 26
FILE = "recast/kept/model.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf`, `mt` (stacked), `un` (unstacked) and `dropped`, which keeps nothing."""
    folder = tmp_path_factory.mktemp("kept")
    kept_checkpoints.write(folder / "hf")
    given: dict[str, dict[str, object]] = {"mt": {}, "un": {"scan_layers": False}, "dropped": {"residue": "drop"}}
    for name, flags in given.items():
        converted("hf-to-maxtext", hf_model_path=folder / "hf", base_output_directory=folder / name, **flags)
    return folder


@pytest.fixture(scope="module")
def tensors(root: Path) -> Arrays:
    return checkpoints.read_safetensors(root / "hf")


def _back(source: Path, out: Path, **flags: object) -> Arrays:
    converted("maxtext-to-hf", load_parameters_path=source, weight_dtype="auto", base_output_directory=out, **flags)
    return checkpoints.read_safetensors(out)


def _without_layer(tensors: Arrays) -> Arrays:
    return {name: values for name, values in tensors.items() if not name.startswith(LAYER)}


def _layer(tensors: Arrays) -> Arrays:
    return {name: values for name, values in tensors.items() if name.startswith(LAYER)}


def _copy(root: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / name, tmp_path / name))


@pytest.mark.parametrize("name", ["mt", "un"])
def test_all_comes_back(name: str, root: Path, tensors: Arrays, tmp_path: Path) -> None:
    assert checkpoints.differing(_back(root / name, tmp_path / "back"), tensors) == []


def test_it_comes_back_in_the_dtype_that_is_asked_for(root: Path, tensors: Arrays, tmp_path: Path) -> None:
    out = tmp_path / "back"
    converted("maxtext-to-hf", load_parameters_path=root / "mt", weight_dtype="float32", base_output_directory=out)
    expected = {name: values.astype("float32") for name, values in tensors.items()}
    assert checkpoints.differing(checkpoints.read_safetensors(out), expected) == []


def test_it_is_stored_as_it_was_whatever_dtype_is_saved(root: Path, tensors: Arrays, tmp_path: Path) -> None:
    flags: dict[str, object] = {"save_dtype": "float16", "exactness": "as_requested", "residue": "keep"}
    converted("hf-to-maxtext", hf_model_path=root / "hf", base_output_directory=tmp_path / "mt", **flags)
    kept = checkpoints.read_safetensors(tmp_path / "mt" / "recast" / "kept")
    assert {values.dtype.name for name, values in kept.items() if "router_bias" not in name} == {"bfloat16"}
    back = _back(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(_layer(back), _layer(tensors)) == []


def test_the_report_names_what_is_kept_and_where(root: Path, tensors: Arrays) -> None:
    report = json.loads((root / "mt" / "report.json").read_text(encoding="utf-8"))
    notes = {note["tensor"]: note["reason"] for note in report["note"] if note["kind"] == "KEPT"}
    assert notes.keys() == _layer(tensors).keys()
    assert "recast/kept" in notes[f"{LAYER}enorm.weight"]
    exact = {tensor["name"]: tensor["exactness"] for tensor in report["tensor"] if tensor["name"].startswith("kept/")}
    assert len(exact) == _ARRAYS
    assert set(exact.values()) == {"EXACT"}


def test_the_manifest_lists_kept_arrays_as_all_others(root: Path) -> None:
    listed = json.loads((root / "mt" / "checkpoint-manifest.json").read_text(encoding="utf-8"))
    kept = {name: entry for name, entry in listed["tensors"].items() if name.startswith("kept/")}
    assert len(kept) == _ARRAYS
    assert all(entry["units"] for entry in kept.values())
    assert FILE in listed["files"]


def test_with_residue_drop_nothing_is_kept_and_the_report_says_so(root: Path, tensors: Arrays, tmp_path: Path) -> None:
    assert not (root / "dropped" / "recast" / "kept").exists()
    report = json.loads((root / "dropped" / "report.json").read_text(encoding="utf-8"))
    dropped = {note["tensor"] for note in report["note"] if note["kind"] == "DROPPED"}
    assert dropped == _layer(tensors).keys()
    text = (root / "dropped" / "report.txt").read_text(encoding="utf-8")
    assert f"{_ARRAYS} tensors that the format maxtext has no place for are not kept" in text
    assert checkpoints.differing(_back(root / "dropped", tmp_path / "back"), _without_layer(tensors)) == []


def test_with_residue_refuse_the_run_is_refused_and_names_them(root: Path, tmp_path: Path) -> None:
    flags: dict[str, object] = {"hf_model_path": root / "hf", "base_output_directory": tmp_path / "mt"}
    outcome = recast("hf-to-maxtext", residue="refuse", **flags)
    assert outcome.code == 2
    named = set(re.findall(r"(\S+) would have to be kept beside the output", outcome.text))
    assert len(named) == _ARRAYS
    assert "mtp.project/3" in named
    assert not (tmp_path / "mt").exists()


def test_restacking_takes_it_along(root: Path, tensors: Arrays, tmp_path: Path) -> None:
    out = tmp_path / "un"
    converted("maxtext-to-maxtext", load_parameters_path=root / "mt", scan_layers=False, base_output_directory=out)
    assert (out / FILE).read_bytes() == (root / "mt" / FILE).read_bytes()
    assert checkpoints.differing(_back(out, tmp_path / "back"), tensors) == []
    converted("diff", str(root / "un"), str(out))


def test_a_new_training_state_is_made_for_weights_and_not_for_what_is_kept(
    root: Path, tensors: Arrays, tmp_path: Path
) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    source = {"load_parameters_path": root / "mt", "init_train_state": "adam"}
    converted("maxtext-to-maxtext", base_output_directory=state, **source)
    said = json.loads(recast("inspect", str(state), json="true").text)
    assert {piece["name"]: piece["arrays"] for piece in said["training_state"]}["opt_state.0.mu"] == len(
        [tensor for tensor in said["tensors"] if tensor["name"].startswith("params.params.")]
    )
    assert len(said["kept"]) == _ARRAYS
    converted("maxtext-to-maxtext", load_full_state_path=state, scan_layers=False, base_output_directory=other)
    assert checkpoints.differing(_back(other, tmp_path / "back"), tensors) == []


def test_a_target_that_has_a_place_for_it_gets_it(root: Path, tensors: Arrays, tmp_path: Path) -> None:
    out = tmp_path / "mt"
    converted("hf-to-maxtext", hf_model_path=root / "hf", base_output_directory=out, enable_mtp=True)
    kept = checkpoints.read_safetensors(out / "recast" / "kept")
    assert set(kept) == {"mtp.embed/3", "mtp.head/3"}
    assert checkpoints.differing(_back(out, tmp_path / "back"), tensors) == []


@pytest.mark.parametrize("level", ["headers", "sample", "full"])
def test_verify_holds_it_against_the_source(level: str, root: Path) -> None:
    assert recast("verify", str(root / "hf"), str(root / "mt"), level=level).code == 0


def test_verify_says_what_an_output_does_not_keep(root: Path) -> None:
    outcome = recast("verify", str(root / "hf"), str(root / "dropped"))
    assert outcome.code == 0
    assert f"{_ARRAYS} tensors that the format maxtext has no place for are not kept" in outcome.text


def test_verify_holds_what_comes_back_against_it(root: Path, tmp_path: Path) -> None:
    _back(root / "un", tmp_path / "back")
    converted("verify", str(root / "un"), str(tmp_path / "back"), level="full")


def test_verify_finds_a_kept_element_that_is_another(root: Path, tmp_path: Path) -> None:
    copy = _copy(root, "mt", tmp_path)
    _flip(copy / FILE)
    outcome = recast("verify", str(root / "hf"), str(copy), level="full")
    assert outcome.code == 3
    assert "kept/" in outcome.text


def test_verify_of_the_manifest_names_the_kept_tensor_and_the_file(root: Path, tmp_path: Path) -> None:
    copy = _copy(root, "mt", tmp_path)
    converted("verify", manifest=copy)
    _flip(copy / FILE)
    outcome = recast("verify", manifest=copy)
    assert outcome.code == 2
    assert f"{FILE} has the right size, but other bytes" in outcome.text
    assert "does not hold the values that were written" in outcome.text


def test_diff_compares_it_across_formats(root: Path) -> None:
    assert recast("diff", str(root / "hf"), str(root / "mt")).code == 0
    assert recast("diff", str(root / "mt"), str(root / "un")).code == 0


@pytest.mark.parametrize("turned", [False, True])
def test_diff_names_what_only_one_side_keeps(turned: bool, root: Path) -> None:
    sides = [str(root / "mt"), str(root / "dropped")]
    outcome = recast("diff", *(reversed(sides) if turned else sides))
    assert outcome.code == 1
    assert f"kept/mtp.project/3 is only in {root / 'mt'}" in outcome.text


def test_inspect_lists_it_apart(root: Path) -> None:
    assert f"{_ARRAYS} arrays" in recast("inspect", str(root / "mt")).text
    assert "mtp.project/3" in recast("inspect", "--all", str(root / "mt")).text
    said: dict[str, Any] = json.loads(recast("inspect", str(root / "mt"), json="true").text)
    kept = {entry["name"]: entry for entry in said["kept"]}
    assert kept["kept/mtp.project/3"]["shape"] == [40, 80]
    assert kept["kept/mtp.project/3"]["file"] == FILE
    assert not [entry for entry in said["tensors"] if entry["name"] in kept]


def test_a_run_that_is_stopped_among_kept_arrays_goes_on_there(
    root: Path, tensors: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_GROUP_BYTES", 1)
    flags: dict[str, object] = {"hf_model_path": root / "hf", "base_output_directory": tmp_path / "mt"}
    stopped = _stopped_at_kept(3, monkeypatch, **flags)
    assert stopped.code == 5, stopped.text
    assert "continued: " in converted("hf-to-maxtext", **flags).text
    assert (tmp_path / "mt" / FILE).read_bytes() == (root / "mt" / FILE).read_bytes()
    converted("verify", manifest=tmp_path / "mt")
    assert checkpoints.differing(_back(tmp_path / "mt", tmp_path / "back"), tensors) == []


def _stopped_at_kept(number: int, monkeypatch: pytest.MonkeyPatch, **flags: object) -> Outcome:
    """Runs a conversion that meets an input/output error at its n-th unit of a kept array."""
    record = execute.Executor._record
    numbers = itertools.count(1)

    def failing(self: execute.Executor, written: UnitRecord) -> None:
        if written.array.startswith("kept/") and next(numbers) == number:
            raise OSError(errno.EIO, "Input/output error")
        record(self, written)

    with monkeypatch.context() as patches:
        patches.setattr(execute.Executor, "_record", failing)
        return recast("hf-to-maxtext", **flags)


def _flip(path: Path) -> None:
    """Changes the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
