"""The words of every error id, as users and the scrapers of their logs see them."""

from __future__ import annotations

import json
import re

import pytest

from recast_proto import error_pb2
from tests.golden import errors

GOLDEN = json.loads(errors.FILE.read_text(encoding="utf-8"))
IDS = [value.name for value in error_pb2.RecastErrorId.DESCRIPTOR.values if value.number]


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    """What is said of the ids now."""
    return errors.texts()


@pytest.mark.parametrize("id", IDS)
def test_an_id_is_told_as_it_was(id: str, said: dict[str, object]) -> None:
    assert said[id] == GOLDEN[id]


def test_no_id_lacks_a_golden_text_and_none_has_one_that_there_is_not() -> None:
    assert list(GOLDEN) == IDS


@pytest.mark.parametrize("prefix", errors.PREFIXES)
def test_every_golden_text_has_the_form_that_scrapers_look_for(prefix: str) -> None:
    owner = f"  Responsible: {prefix}ErrorOwner\\.(USAGE|LIBRARY)"
    last = f"2025-08-25T17:49:10UTC - {prefix.lower()}_lib - (INFO|ERROR) - .+"
    for id, entry in GOLDEN.items():
        lines = entry[prefix]
        assert lines.count(f"  Id: {prefix}ErrorId.{id}") == 1
        assert sum(re.fullmatch(owner, line) is not None for line in lines) == 1, id
        assert sum(line.startswith("  Suggestion: ") and len(line) > 20 for line in lines) == 1, id
        status = re.fullmatch(last, lines[-1])
        assert status is not None, id
        assert (status[1] == "INFO") == (entry["exit code"] == 0), id
