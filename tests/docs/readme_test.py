"""README.md names what there is: every subcommand, every page of docs/, and nothing that is gone."""

from __future__ import annotations

import re
from pathlib import Path

from container import entrypoint

_ROOT = Path(__file__).parents[2]
_PAGES = {f"docs/{page.name}" for page in (_ROOT / "docs").glob("*.md")}


def _text() -> str:
    return (_ROOT / "README.md").read_text("utf-8")


def test_the_table_of_commands_has_every_subcommand_and_no_other() -> None:
    commands = _text().partition("\n## Commands\n")[2].partition("\n\n`--flag=value`")[0]
    named = set(re.findall(r"^\| `([a-z-]+)", commands, re.MULTILINE))
    assert named == {*entrypoint.SUBCOMMANDS, "version", "test"}


def test_the_table_of_documents_has_every_page() -> None:
    documents = _text().partition("\n## Documents\n")[2]
    assert _PAGES
    assert set(re.findall(r"`(docs/[a-z_]+\.md)`", documents)) == _PAGES


def test_every_page_that_is_named_is_there() -> None:
    named = set(re.findall(r"`(docs/[\w.-]+)`", _text()))
    assert named == _PAGES
