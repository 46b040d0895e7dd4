"""Training goes on from a converted checkpoint with `recast/` beside it: what was trained is what comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests import checkpoints, training_states
from tests.end_to_end.running import Arrays, converted, recast

CONFIG = {**checkpoints.CONFIGS["grouped"], "num_hidden_layers": 2, "head_dim": 24}
Q0, Q1 = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
TRAINED_ROWS = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf` in bfloat16, `mt` made of it with a later step 100 in float32, `back` and `bare` made of that.

    The later step differs in rows of layer 1's query kernel alone; `bare` was made without `recast/`.
    """
    root = tmp_path_factory.mktemp("trained")
    tensors = checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=91)
    checkpoints.write_safetensors(root / "hf", tensors, CONFIG)
    converted("hf-to-maxtext", hf_model_path=root / "hf", base_output_directory=root / "mt")
    tree = training_states.restore(root / "mt" / "0" / "items")
    query = _attention(tree)["query"]["kernel"].copy()
    assert query.dtype == np.float32
    for row in range(TRAINED_ROWS):
        for place in np.ndindex(query.shape[2:]):
            at = (row, 1, *place)
            # The least that training can change, and more.
            query[at] = np.nextafter(query[at], np.float32(1)) if row % 2 else query[at] * np.float32(1.001)
    _attention(tree)["query"]["kernel"] = query
    training_states.save_v0(tree, root / "saved" / "100", scan=True)
    shutil.move(root / "saved" / "100", root / "mt" / "100")
    converted("maxtext-to-hf", load_parameters_path=root / "mt", base_output_directory=root / "back")
    shutil.copytree(root / "mt" / "100", root / "alone" / "100")
    return root


def _attention(tree: training_states.Tree) -> training_states.Tree:
    return tree["params"]["params"]["decoder"]["layers"]["self_attention"]


def _query(step: Path) -> np.ndarray[Any, np.dtype[Any]]:
    query: np.ndarray[Any, np.dtype[Any]] = _attention(training_states.restore(step / "items"))["query"]["kernel"]
    return query


def _expected(made: Path) -> Arrays:
    """In float32: the original where the stored bits are those of step 0, and the quotient everywhere else."""
    before, after = _query(made / "mt" / "0"), _query(made / "mt" / "100")
    original = load_file(made / "hf" / "model.safetensors")
    wanted = {name: values.astype(np.float32) for name, values in original.items()}
    factor = np.float32(CONFIG["head_dim"] ** -0.5)
    for column, layer, head, row in np.ndindex(after.shape):
        at = (column, layer, head, row)
        if before[at].tobytes() != after[at].tobytes():
            place = (head * CONFIG["head_dim"] + row, column)
            wanted[(Q0, Q1)[layer]][place] = after[at] / factor
    return wanted


def _classes(output: Path) -> dict[str, str]:
    report = json.loads((output / "report.json").read_text("utf-8"))
    return {tensor["name"]: tensor["exactness"] for tensor in report["tensor"]}


def test_what_was_trained_comes_back_as_trained_and_the_rest_as_it_was(made: Path) -> None:
    found, expected = load_file(made / "back" / "model.safetensors"), _expected(made)
    assert checkpoints.differing(found, expected) == []
    changed = found[Q1].astype(ml_dtypes.bfloat16).astype(np.float32) != found[Q1]
    assert changed.any()


def test_the_report_calls_the_undone_arrays_rounding_and_says_why(made: Path) -> None:
    classes = _classes(made / "back")
    assert {name for name, exactness in classes.items() if exactness == "ROUNDING"} == {Q0, Q1}
    assert set(classes.values()) == {"ROUNDING", "EXACT"}
    text = (made / "back" / "report.txt").read_text("utf-8")
    assert "not among the files that checkpoint-manifest.json lists" in text


def test_require_exact_takes_the_step_that_was_written_and_refuses_the_later_one(made: Path, tmp_path: Path) -> None:
    flags = {"base_output_directory": tmp_path / "out", "require_exact": True}
    later = recast("maxtext-to-hf", load_parameters_path=made / "mt" / "100", **flags)
    assert later.code == 2
    assert later.text.count("Id: RecastErrorId.EXACTNESS_NOT_MET") == 2
    assert not (tmp_path / "out").exists()
    converted("maxtext-to-hf", load_parameters_path=made / "mt" / "0", **flags)
    original = load_file(made / "hf" / "model.safetensors")
    wide = {name: values.astype(np.float32) for name, values in original.items()}
    assert checkpoints.differing(load_file(tmp_path / "out" / "model.safetensors"), wide) == []


def test_a_later_step_that_was_restacked_is_still_no_exact_source(made: Path, tmp_path: Path) -> None:
    flags = {"load_parameters_path": made / "mt", "base_output_directory": tmp_path / "mt", "scan_layers": False}
    converted("maxtext-to-maxtext", **flags)
    record = json.loads((tmp_path / "mt" / "recast" / "conversion.json").read_text("utf-8"))
    assert set(record["logical_dtypes"].values()) == {"bfloat16"}
    assert record["invertible"] is False
    back = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    assert recast("maxtext-to-hf", require_exact=True, **back).code == 2
    converted("maxtext-to-hf", **back)
    assert checkpoints.differing(load_file(tmp_path / "back" / "model.safetensors"), _expected(made)) == []


def test_the_written_step_with_a_new_training_state_is_still_an_exact_source(made: Path, tmp_path: Path) -> None:
    new = {"load_parameters_path": made / "mt" / "0", "base_output_directory": tmp_path / "mt"}
    converted("maxtext-to-maxtext", init_train_state="adam", **new)
    back = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    converted("maxtext-to-hf", require_exact=True, weight_dtype="auto", **back)
    original = load_file(made / "hf" / "model.safetensors")
    assert checkpoints.differing(load_file(tmp_path / "back" / "model.safetensors"), original) == []


@pytest.mark.parametrize("level", ["sample", "full"])
def test_verify_takes_trained_values_and_finds_rounded_ones(made: Path, level: str, tmp_path: Path) -> None:
    trained, seed = str(made / "mt" / "100"), {"seed": 1} if level == "sample" else {}
    right = recast("verify", trained, str(made / "back"), level=level, **seed)
    assert right.code == 0, right.text
    shutil.copytree(made / "back", tmp_path / "rounded")
    tensors = load_file(made / "back" / "model.safetensors")
    tensors[Q1] = tensors[Q1].astype(ml_dtypes.bfloat16).astype(np.float32)
    save_file(tensors, tmp_path / "rounded" / "model.safetensors", metadata={"format": "pt"})
    wrong = recast("verify", trained, str(tmp_path / "rounded"), level=level, **seed)
    assert wrong.code == 3
    assert wrong.text.count("Id: RecastErrorId.VERIFICATION_FAILED") == 1
    assert f"Subject: {Q1}" in wrong.text


@pytest.mark.parametrize("recorded", [True, False], ids=["with_a_record", "without"])
@pytest.mark.parametrize("turned", [False, True], ids=["from_maxtext", "to_maxtext"])
def test_diff_counts_each_trained_element(made: Path, recorded: bool, turned: bool) -> None:
    trained = made / "mt" / "100" if recorded else made / "alone"
    sides = [str(trained), str(made / "hf")]
    outcome = recast("diff", *(reversed(sides) if turned else sides))
    assert outcome.code == 1
    assert outcome.text.count("Id: RecastErrorId.CHECKPOINTS_DIFFER") == 1
    before, after = _query(made / "mt" / "0"), _query(made / "mt" / "100")
    changed = sum(before[at].tobytes() != after[at].tobytes() for at in np.ndindex(after.shape))
    assert f"Reason: {changed} of " in outcome.text


def test_diff_finds_no_difference_between_a_trained_step_and_what_was_made_of_it(made: Path) -> None:
    outcome = recast("diff", str(made / "mt" / "100"), str(made / "back"), "--ignore_dtype")
    assert outcome.code == 0, outcome.text
