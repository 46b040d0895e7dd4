from __future__ import annotations

import re

import pytest

from converters import about
from reporting.version import REVISION, VERSION


@pytest.mark.parametrize(("revision", "said"), [("0123abc", "0123abc"), ("", "unknown"), (None, "unknown")])
def test_version_revision_and_mappings_are_said(
    revision: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REVISION, raising=False)
    if revision is not None:
        monkeypatch.setenv(REVISION, revision)
    assert re.fullmatch(rf"recast {VERSION}\nrevision {said}\nmappings sha256:[0-9a-f]{{64}}\n", about.text())
