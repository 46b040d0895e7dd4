from __future__ import annotations

import re
from pathlib import Path

import pytest

from converters import about
from reporting import version


@pytest.mark.parametrize(("revision", "said"), [("0123abc\n", "0123abc"), ("\n", "unknown"), (None, "unknown")])
def test_version_revision_and_mappings_are_said(
    revision: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(version, "REVISION_FILE", tmp_path / "revision.txt")
    if revision is not None:
        (tmp_path / "revision.txt").write_text(revision)
    assert re.fullmatch(rf"recast {version.VERSION}\nrevision {said}\nmappings sha256:[0-9a-f]{{64}}\n", about.text())
