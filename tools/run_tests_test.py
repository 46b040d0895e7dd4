from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import run_tests
from tools.run_tests import Check, Outcome


def _outcome(name: str, code: int, output: str) -> Outcome:
    return Outcome(Check(name, (), Path()), code, output, 1.25)


def _pytest_arguments(*arguments: str, cwd: Path = Path("/elsewhere")) -> list[str]:
    return list(run_tests.checks(Path("/checkout"), cwd, arguments)[-1].arguments)


def test_a_check_that_passes_is_one_line() -> None:
    assert run_tests.summary(_outcome("mypy", 0, "noise\n")) == "mypy: ok (1.2 s)"


def test_a_check_that_fails_shows_its_output() -> None:
    expected = "a.py:1: wrong\nmypy: FAILED, exit code 1 (1.2 s)"
    assert run_tests.summary(_outcome("mypy", 1, "a.py:1: wrong\n")) == expected


@pytest.mark.parametrize(
    "line",
    [
        "3 passed in 0.12s",
        "1 failed, 2 passed, 3 warnings in 65.30s (0:01:05)",
        "no tests ran in 0.01s",
        "===== 3 passed in 0.12s =====",
        "1 error in 0.50s",
    ],
)
def test_pytests_closing_line_ends_the_summary(line: str) -> None:
    text = run_tests.summary(_outcome("pytest", 0, f"...\nslept 3 times in 4s of test\n{line}\n"))
    assert text == f"pytest: ok (1.2 s)\n{line}"


def test_help_runs_no_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_tests, "checks", lambda *_: pytest.fail("a check was made"))
    assert run_tests.main(["-x", "--help"]) == 0
    assert "./recast test [--all]" in capsys.readouterr().out


def test_long_tests_run_on_demand_only() -> None:
    assert "-m" not in _pytest_arguments("-x")[2:]
    arguments = _pytest_arguments("--all", "-x")
    assert arguments[arguments.index("-m", 2) + 1] == ""
    assert "--all" not in arguments
    assert arguments[-1] == "-x"


def test_files_are_relative_to_the_users_directory(tmp_path: Path) -> None:
    (tmp_path / "a_test.py").touch()
    (check,) = run_tests.checks(tmp_path.parent, tmp_path, ["a_test.py::test_one"])[-1:]
    assert check.cwd == tmp_path
    (check,) = run_tests.checks(tmp_path.parent, tmp_path, ["-x"])[-1:]
    assert check.cwd == tmp_path.parent


def test_all_checks_run_when_one_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def scripted(root: Path, cwd: Path, arguments: object) -> tuple[Check, ...]:
        return tuple(Check(f"check {code}", ("-c", f"print('said'); exit({code})"), cwd) for code in (0, 3, 0))

    monkeypatch.setattr(run_tests, "checks", scripted)
    assert run_tests.main([]) == 1
    lines = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["check 0: ok", "said", "check 3: FAILED, exit code 3", "check 0: ok"]


def test_a_check_runs_this_interpreter(tmp_path: Path) -> None:
    outcome = run_tests.run(Check("a", ("-c", "import os, sys; print(sys.executable, os.getcwd())"), tmp_path))
    assert (outcome.code, outcome.output) == (0, f"{sys.executable} {tmp_path}\n")
