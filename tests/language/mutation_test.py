"""Every single edit of Llama's mapping is found by a test, or leaves its meaning as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import text_format

from recast_proto import mapping_pb2
from tests.language import mutation
from tests.language.edits import Edit

EVERY = 12
"""Of how many edits the default run tries one."""


@pytest.fixture(scope="module")
def edits() -> list[Edit]:
    """All edits, in the order of the table."""
    return mutation.all_edits()


@pytest.fixture(scope="module")
def cases() -> list[mutation.Case]:
    """The cases that every edit is tried on."""
    return mutation.cases()


def test_the_mappings_as_they_are_pass_every_stage(cases: list[mutation.Case]) -> None:
    assert mutation.examine(mutation.MAPPINGS, cases) == ("none", "")


def test_edits_are_many_and_have_names_of_their_own(edits: list[Edit]) -> None:
    assert len(edits) > 500
    assert len({edit.key for edit in edits}) == len(edits)


def test_a_sample_of_the_edits_is_found_or_explained(edits: list[Edit], cases: list[mutation.Case]) -> None:
    sample = edits[::EVERY]
    stages = {edit.key: mutation.stage_of(edit, cases)[0] for edit in sample}
    assert "crash" not in stages.values()
    assert {key for key, stage in stages.items() if stage == "none"} <= mutation.explained().keys()


@pytest.mark.campaign
def test_every_edit_is_found_or_explained(edits: list[Edit], cases: list[mutation.Case]) -> None:
    stages = {edit.key: mutation.stage_of(edit, cases)[0] for edit in edits}
    assert [key for key, stage in stages.items() if stage == "crash"] == []
    assert {key for key, stage in stages.items() if stage == "none"} == mutation.explained().keys()
    misspelt = {stage for key, stage in stages.items() if key.startswith("misspell: name |")}
    assert misspelt == {"headers"}


def test_every_explanation_is_true(edits: list[Edit]) -> None:
    by_key = {edit.key: edit for edit in edits}
    for key, explanation in mutation.explained().items():
        assert _IS_TRUE[explanation](by_key[key]), f"{key} => {explanation}"


def _families(edit: Edit) -> tuple[Any, Any]:
    """The file before and after an edit."""
    before = (mutation.MAPPINGS / edit.file).read_text(encoding="utf-8")
    return (
        text_format.Parse(before, mapping_pb2.Family()),
        text_format.Parse(edit.text, mapping_pb2.Family()),
    )


def _has_the_same_tensors(edit: Edit) -> bool:
    before, after = _families(edit)
    return bool(_without_order(before) == _without_order(after))


def _without_order(family: Any) -> Any:
    ordered = copy.deepcopy(family)
    for holder in (ordered, *ordered.group):
        for tensor in holder.tensor:
            tensor.ClearField("doc")
            tensor.axes = " ".join(sorted(tensor.axes.split()))
        tensors = sorted(holder.tensor, key=lambda tensor: str(tensor.id))
        del holder.tensor[:]
        holder.tensor.extend(tensors)
    return ordered


def _edited_atom(edit: Edit) -> Any:
    return next(atom for atom in _families(edit)[0].atom if atom.name == edit.subject)


def _is_of_fixed_size(edit: Edit) -> bool:
    return _edited_atom(edit).size.isdigit() and int(_edited_atom(edit).size) > 0


def _is_a_product(edit: Edit) -> bool:
    return bool(getattr(_edited_atom(edit), "is"))


def _is_a_divisor_in_a_requirement(edit: Edit) -> bool:
    return any(f"% size({edit.subject})" in require.that for require in _families(edit)[0].require)


def _has_the_size_of_another_atom(edit: Edit) -> bool:
    """With one of the pair empty the other one is, and is not allowed to."""
    others = [atom for atom in _families(edit)[0].atom if atom.name != edit.subject and not atom.may_be_empty]
    base = _edited_atom(edit).size.split(" // ")[0]
    return any(base == atom.size.split(" // ")[0] for atom in others)


_IS_TRUE: dict[str, Callable[[Edit], bool]] = {
    "axes of a tensor are a set, and tensors may stand in any order": _has_the_same_tensors,
    "a product is as its factors are": _is_a_product,
    "the size is a number above 0": _is_of_fixed_size,
    "a requirement that divides by it refuses size 0": _is_a_divisor_in_a_requirement,
    "another atom of this size refuses size 0": _has_the_size_of_another_atom,
}
