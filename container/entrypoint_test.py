from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from container import entrypoint


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "container.entrypoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_version_says_the_revision_that_only_an_image_knows() -> None:
    ended = run("version")
    assert ended.returncode == 0
    assert re.fullmatch(r"recast \S+\nrevision unknown\nmappings sha256:[0-9a-f]{64}\n", ended.stdout)


def test_help_lists_all_subcommands() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for name in (*entrypoint.SUBCOMMANDS, "version"):
        assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize("there", [True, False])
def test_help_lists_the_subcommand_that_only_a_checkout_has(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = tmp_path / "recast"
    if there:
        launcher.touch()
    monkeypatch.setattr(entrypoint, "LAUNCHER", launcher)
    with pytest.raises(SystemExit):
        entrypoint.main(["recast", "--help"])
    assert ("\n  test " in capsys.readouterr().out) == there


def test_help_may_come_before_the_subcommand() -> None:
    assert run("help", "inspect").stdout == run("inspect", "--help").stdout
    assert "There is no subcommand nonsense" in run("help", "nonsense").stdout


def test_the_nearest_subcommand_is_named() -> None:
    ended = run("hf-to-maxtex")
    assert ended.returncode == 2
    assert "Did you mean hf-to-maxtext?" in ended.stdout
