from __future__ import annotations

import os
import subprocess
import sys

import pytest

from container import entrypoint

FOR_FLAGS = "--flags_go_to=verify"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs an image's entrypoint; words before `--` are the image's own."""
    command = [sys.executable, "-m", "container.image", *words]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True)


@pytest.mark.parametrize("options", [(), (FOR_FLAGS,)])
@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_lists_all_subcommands_whatever_flags_are_for(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    ended = run(*options, "--", *words)
    assert ended.returncode == 0
    for name in (*entrypoint.SUBCOMMANDS, "version"):
        assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize("options", [(), (FOR_FLAGS,)])
def test_version_is_said_whatever_flags_are_for(options: tuple[str, ...]) -> None:
    assert run(*options, "--", "--version").stdout.startswith("recast ")


@pytest.mark.parametrize("words", [["--level=sample", "/none", "/such"], ["-h=True"], ["--levle=full"]])
def test_in_an_image_for_flags_a_first_flag_goes_to_its_subcommand(words: list[str]) -> None:
    ended = run(FOR_FLAGS, "--", *words)
    assert ended.returncode == 2
    assert "FINAL REPORT FOR: `verify" in ended.stdout
    assert "UNKNOWN_SUBCOMMAND" in run("--", *words).stdout


def test_in_an_image_for_flags_subcommands_work_as_ever() -> None:
    ended = run(FOR_FLAGS, "--", "families", "--models")
    assert ended.returncode == 0
    assert "llama" in ended.stdout


def test_a_subcommand_for_flags_that_is_not_there_is_named() -> None:
    ended = run("--flags_go_to=transmute", "--", "--bucket_name=b")
    assert (ended.returncode, ended.stderr) == (2, "")
    assert "RecastErrorId.UNKNOWN_SUBCOMMAND" in ended.stdout
    assert "Reason: There is no subcommand transmute. It is what this image gives --bucket_name to" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_words_of_the_caller_are_no_options_of_the_image() -> None:
    ended = run("--", FOR_FLAGS)
    assert "There is no subcommand --flags_go_to=" in ended.stdout
    assert "FINAL REPORT FOR: `families" in run("--", "families", FOR_FLAGS, "--").stdout


def test_an_entrypoint_without_its_boundary_is_refused() -> None:
    ended = run("families")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "-- must stand before" in ended.stderr
