"""docs/serving.md names every check of a pair, and the error of each."""

from __future__ import annotations

from recast_proto import error_pb2
from tests.docs.pages import table_of, text_of
from tests.speculative.cases import ALL_CHECKS, CASES
from validators.speculative import pair

PAGE = "serving.md"


def test_every_row_of_the_table_is_in_the_page() -> None:
    checks = [name for row in table_of(PAGE, "| check | refused |") for name in row[0].split(", ")]
    assert {*checks} == {*ALL_CHECKS}


def test_every_refused_row_has_the_id_that_the_tests_see() -> None:
    named = {name: row[2].strip("`") for row in table_of(PAGE, "| check | refused |") for name in row[0].split(", ")}
    named |= {row[0]: "DRAFT_HEAD" for row in table_of(PAGE, "| check | what must hold |")}
    seen = {(check, id) for case in CASES for check, id, _ in case.refused}
    assert seen
    assert seen <= {*named.items()}


def test_every_error_id_of_a_pair_is_named() -> None:
    names = [name for name in error_pb2.RecastErrorId.keys() if name.startswith("DRAFT_")]
    assert all(f"`{name}`" in text_of(PAGE) for name in names)


def test_the_ratio_that_warns_is_stated() -> None:
    assert f"less than {pair.POOR_RATIO} times the draft's" in text_of(PAGE)
