from __future__ import annotations

from pathlib import Path

from container import stamp


def test_a_release_fills_in_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("STABLE_REVISION 0123abc\nBUILD_USER somebody\nSTABLE_SOURCE \n")
    lines = ["{created}", "a.revision={revision}", "a.source={source}", "plain", "user={build_user}"]
    for status, output in ((str(tmp_path / "status"), "stamped"), ("-", "unstamped")):
        stamp.main([status, str(tmp_path / output), *lines])
    assert (
        tmp_path / "stamped"
    ).read_text() == "1970-01-01T00:00:00Z\na.revision=0123abc\na.source=unknown\nplain\nuser=unknown"
    assert (
        tmp_path / "unstamped"
    ).read_text() == "1970-01-01T00:00:00Z\na.revision=unknown\na.source=unknown\nplain\nuser=unknown"
