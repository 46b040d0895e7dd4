"""`diff` on checkpoints whose differences are known."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests import checkpoints
from tests.end_to_end.running import Arrays, Outcome, converted, recast

CONFIG = {**checkpoints.CONFIGS["grouped"], "num_hidden_layers": 2, "head_dim": 24}
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf` in bfloat16 and both MaxText forms of it."""
    root = tmp_path_factory.mktemp("diff")
    checkpoints.write_safetensors(root / "hf", _tensors(), CONFIG)
    for name, scan in (("stacked", True), ("unstacked", False)):
        converted("convert", str(root / "hf"), str(root / name), to="maxtext", scan_layers=scan)
    return root


def _tensors() -> Arrays:
    return checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=31)


def _written(folder: Path, tensors: Arrays) -> Path:
    return checkpoints.write_safetensors(folder, tensors, CONFIG, shard_bytes=40_000)


def _diff(first: Path, second: Path, **flags: object) -> Outcome:
    return recast("diff", str(first), str(second), **flags)


def _reasons(outcome: Outcome) -> dict[str, str]:
    """Reason of each finding by its subject."""
    assert set(re.findall(r"Id: RecastErrorId\.(\w+)", outcome.text)) == {"CHECKPOINTS_DIFFER"}, outcome.text
    found = re.findall(r"^  Reason: (.+)\n  Subject: (.+)$", outcome.text, re.MULTILINE)
    return {subject: reason for reason, subject in found}


@pytest.mark.parametrize(
    ("first", "second"),
    [("hf", "stacked"), ("unstacked", "hf"), ("stacked", "unstacked"), ("unstacked", "stacked"), ("hf", "hf")],
)
def test_forms_of_one_model_are_equal_in_one_line(made: Path, first: str, second: str) -> None:
    outcome = _diff(made / first, made / second)
    assert outcome.code == 0, outcome.text
    assert re.fullmatch(r"equal: \d+ tensors, .+\n*", outcome.text)


def test_another_cut_into_files_makes_no_difference(made: Path, tmp_path: Path) -> None:
    assert _diff(made / "hf", _written(tmp_path / "cut", _tensors())).code == 0


@pytest.mark.parametrize("side", ["hf", "stacked", "unstacked"])
def test_changed_elements_are_counted_with_the_first_and_the_largest_difference(
    made: Path, tmp_path: Path, side: str
) -> None:
    tensors = _tensors()
    values = tensors[UP].copy()
    values[0:3, 0:4] = np.arange(12, dtype=np.float32).reshape(3, 4)
    changed = values.copy()
    changed[1, 2] += 0.25
    changed[2, 3] -= 2
    first = _written(tmp_path / "first", {**tensors, UP: values})
    second = _written(tmp_path / "second", {**tensors, UP: changed})
    if side != "hf":
        converted("convert", str(first), str(tmp_path / "mt"), to="maxtext", scan_layers=side == "stacked")
        first = tmp_path / "mt"
    outcome = _diff(first, second)
    assert outcome.code == 1
    reasons = _reasons(outcome)
    assert set(reasons) == {UP}
    assert f"2 of {values.size} elements of {UP}" in reasons[UP]
    assert "differ, by at most 2; the first is [1, 2]: 6 and 6.25." in reasons[UP]


def test_a_stacked_second_side_has_the_coordinates_of_the_stack(made: Path, tmp_path: Path) -> None:
    tensors = _tensors()
    changed = tensors[UP].copy()
    changed.view(np.uint16)[5, 7] ^= 1
    outcome = _diff(_written(tmp_path / "changed", {**tensors, UP: changed}), made / "stacked")
    name = "params.params.decoder.layers.mlp.wi_1.kernel"
    assert "the first is [7, 1, 5]" in _reasons(outcome)[name]


def test_tensors_of_one_side_shapes_and_dtypes_are_named(made: Path, tmp_path: Path) -> None:
    tensors = _tensors()
    norm, head = "model.norm.weight", "lm_head.weight"
    del tensors[UP]
    tensors["model.extra.weight"] = tensors[norm]
    tensors[head] = np.ascontiguousarray(tensors[head][:-1])
    (tmp_path / "other").mkdir()
    shutil.copy(made / "hf" / "config.json", tmp_path / "other")
    save_file({**tensors, norm: tensors[norm].astype(np.float32)}, tmp_path / "other" / "model.safetensors")
    for first, second in ((made / "hf", tmp_path / "other"), (tmp_path / "other", made / "hf")):
        outcome = _diff(first, second)
        assert outcome.code == 1
        reasons = _reasons(outcome)
        assert set(reasons) == {UP, "model.extra.weight", head, norm}
        assert "bfloat16" in reasons[norm]
        assert "float32" in reasons[norm]
    assert norm not in _reasons(_diff(made / "hf", tmp_path / "other", ignore_dtype=True))


def test_a_tensor_that_one_layout_lacks_is_named_across_formats(made: Path, tmp_path: Path) -> None:
    tensors = _tensors()
    del tensors[UP]
    outcome = _diff(_written(tmp_path / "less", tensors), made / "unstacked")
    assert set(_reasons(outcome)) == {"params.params.decoder.layers_1.mlp.wi_1.kernel"}
    assert UP in outcome.text


def test_wider_values_are_equal_only_where_nothing_was_rounded(made: Path, tmp_path: Path) -> None:
    wide = {name: array.astype(np.float32) for name, array in _tensors().items()}
    same = _written(tmp_path / "same", wide)
    assert set(_reasons(_diff(made / "hf", same))) == set(wide)
    assert _diff(made / "hf", same, ignore_dtype=True).code == 0
    assert _diff(made / "stacked", same, ignore_dtype=True).code == 0
    finer = {**wide, UP: wide[UP].copy()}
    finer[UP][0, 0] = np.float32(1 + 2**-10)
    assert ml_dtypes.bfloat16(finer[UP][0, 0]) == 1
    assert set(_reasons(_diff(made / "stacked", _written(tmp_path / "finer", finer), ignore_dtype=True))) == {UP}


def test_without_a_config_tensors_of_one_format_are_compared_by_name(made: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(made / "hf", tmp_path / name)
        (tmp_path / name / "config.json").unlink()
    assert _diff(tmp_path / "one", tmp_path / "two").code == 0


def test_other_formats_without_any_config_cannot_be_matched(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").unlink()
    shutil.copytree(made / "stacked", tmp_path / "mt")
    shutil.rmtree(tmp_path / "mt" / "recast")
    outcome = _diff(tmp_path / "hf", tmp_path / "mt")
    assert outcome.code == 2
    assert "CONFIG_MISSING" in outcome.text
    assert _diff(tmp_path / "hf", tmp_path / "mt", hf_config_path=made / "hf").code == 0
