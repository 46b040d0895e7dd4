from __future__ import annotations

import io

import pytest

from reporting import console


def test_what_the_output_cannot_encode_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    console.show("a \u00e9 \udcff")
    assert written.getvalue() == b"a \\xe9 \\udcff\n"
