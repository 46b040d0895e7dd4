from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from container import entrypoint


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "container.entrypoint", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


def test_version_says_from_what_an_image_was_made() -> None:
    ended = run("version", RECAST_REVISION="0123abc")
    assert ended.returncode == 0
    assert re.fullmatch(r"recast \S+\nrevision 0123abc\nmappings sha256:[0-9a-f]{64}\n", ended.stdout)


def test_help_lists_all_subcommands_whatever_flags_are_for() -> None:
    for variables in ({}, {entrypoint.FLAGS_GO_TO: "verify"}):
        ended = run("--help", **variables)
        assert ended.returncode == 0
        for name in (*entrypoint.SUBCOMMANDS, "version"):
            assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize("arguments", [["--level=sample", "/none", "/such"], ["-h=True"], ["--levle=full"]])
def test_in_an_image_for_flags_a_first_flag_goes_to_its_subcommand(arguments: list[str]) -> None:
    ended = run(*arguments, **{entrypoint.FLAGS_GO_TO: "verify"})
    assert ended.returncode == 2
    assert "FINAL REPORT FOR: `verify" in ended.stdout
    assert "UNKNOWN_SUBCOMMAND" in run(*arguments).stdout


def test_in_an_image_for_flags_subcommands_work_as_ever() -> None:
    ended = run("families", **{entrypoint.FLAGS_GO_TO: "verify"})
    assert ended.returncode == 0
    assert "llama" in ended.stdout


def test_the_nearest_subcommand_is_named() -> None:
    ended = run("hf-to-maxtex")
    assert ended.returncode == 2
    assert "Did you mean hf-to-maxtext?" in ended.stdout
