"""The words of every rule, as users see them."""

from __future__ import annotations

import json

import pytest

from mappings.serving import catalog as serving
from tests.golden import serving_rules

GOLDEN = json.loads(serving_rules.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    """What the rules say now."""
    return serving_rules.texts()


@pytest.mark.parametrize("rule", [rule.id for rule in serving.embedded().rule])
def test_a_rule_says_what_it_said(rule: str, said: dict[str, object]) -> None:
    assert said[rule] == GOLDEN[rule]


def test_every_rule_but_the_one_that_cannot_be_broken_finds_a_fault_in_what_was_changed() -> None:
    silent = [rule for rule, entry in GOLDEN.items() if not isinstance(entry["changed"][0], list)]
    assert silent == ["static.optimizer_type"]


def test_no_rule_is_golden_that_there_is_not() -> None:
    assert set(GOLDEN) == {rule.id for rule in serving.embedded().rule}
