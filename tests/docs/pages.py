"""The pages in docs/: their text, the files that they show, and a copy of mappings/ with these in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from mappings.language import loader

_DOCS = Path(__file__).parents[2] / "docs"
_MAPPINGS = Path(__file__).parents[2] / "mappings"
_FILE = re.compile(r"^`([\w/.-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Edit = tuple[str, str, str]
"""(file of the family Heron, what stands there, what replaces it)."""


def text_of(page: str) -> str:
    """A page's text."""
    return (_DOCS / page).read_text(encoding="utf-8")


def files_of(page: str) -> Mapping[str, str]:
    """The files that a page shows whole: their path stands before the block."""
    return dict(_FILE.findall(text_of(page)))


def blocks_of(page: str, language: str) -> list[str]:
    """The blocks of a page in a language; "" for those that say none."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def table_of(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table from a line on that begins with `heading`, without the table's head."""
    _, found, after = text_of(page).partition(f"\n{heading}")
    assert found, f"{page} has no line that begins with {heading}"
    lines = (heading + after).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def names_in(text: str) -> list[str]:
    """What a text writes as code, blocks not included."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", plain)


def install_heron(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of mappings/ with the files of adding_a_family.md, which stands for the installed one from now on."""
    root = folder / "mappings"
    for file in _MAPPINGS.glob("*/*.textproto"):
        place = root / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    for name, text in files_of("adding_a_family.md").items():
        if name.endswith(".textproto"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(loader, "mappings_root", lambda: root)
    return root


def edit(root: Path, edits: Iterable[Edit]) -> None:
    """Changes files of Heron; each change must apply."""
    for file, old, new in edits:
        path = root / "heron" / f"{file}.textproto"
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
