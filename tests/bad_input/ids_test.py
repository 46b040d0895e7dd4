"""Which error ids the tests of this folder bring about; every other one has a reason."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

from recast_proto import error_pb2
from tests.bad_input.judging import Case

NOT_TRIGGERED = {
    "COPIES_DIFFER": "no layout of these families stores a tensor in more than one place",
    "COPIES_DIFFER_FIRST_TAKEN": "as COPIES_DIFFER",
    "NOT_SUPPORTED_YET": "no layout of these families has codecs or values that are means",
}


@pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs all tests of the folder, and Bazel shows it this one")
def test_every_id_is_triggered_by_a_test_or_has_a_reason() -> None:
    known = {value.name for value in error_pb2.RecastErrorId.DESCRIPTOR.values if value.number}
    found = triggered()
    assert set(NOT_TRIGGERED) == known - set(found)
    assert set(found) <= known


def test_the_documents_name_every_id_and_every_exit_code() -> None:
    root = Path(__file__).resolve().parents[2]
    readme, table = ((root / name).read_text("utf-8") for name in ("README.md", "docs/errors.md"))
    assert "docs/errors.md" in readme
    for code in error_pb2.ExitCode.values():
        assert f"\n| {code} | " in readme
    for value in error_pb2.RecastErrorId.DESCRIPTOR.values[1:]:
        assert f"| `{value.name}` |" in table


def triggered() -> dict[str, str]:
    """A test or case for each id that one says it triggers; each of them checks that it does."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*_test.py")):
        module = importlib.import_module(f"tests.bad_input.{path.stem}")
        for case in _cases(module):
            found |= {fault.id: case.name for fault in case.faults}
        for name, test in vars(module).items():
            found |= dict.fromkeys(getattr(test, "triggered", ()), name)
    return found


def _cases(module: ModuleType) -> list[Case]:
    """The cases of a module's tables, which its tests run one by one."""
    tables = [value for value in vars(module).values() if isinstance(value, tuple)]
    return [case for table in tables for case in table if isinstance(case, Case)]
