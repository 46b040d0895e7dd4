from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import environment

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("cat", "cmp", "dirname", "readlink", "sha256sum", "sh")

INTERPRETER = """#!/bin/sh
printf '%s\\n' "$@"
echo "in $PWD"
env | grep -E '^(PYTHON|MALLOC|RECAST)' | sort
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment that is complete, whose interpreter prints its arguments and settings."""
    root = tmp_path / "a checkout"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "recast", root)
    shutil.copy(ROOT / "tools" / "layers.txt", root / "tools")
    shutil.copy(ROOT / "tools" / "environment.py", root / "tools")
    shutil.copytree(ROOT / "requirements", root / "requirements")
    (root / "proto").mkdir()
    for name in ("a_b.proto", "aa.proto", "B.proto"):
        (root / "proto" / name).write_text(name)
    python = root / ".recast" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(INTERPRETER)
    python.chmod(0o755)
    (root / ".recast" / "stamps").mkdir()
    protos = sorted(f"proto/{path.name}" for path in (root / "proto").iterdir())
    stamp(root, "core", ["requirements/core.txt"])
    stamp(root, "protos", ["requirements/core.txt", *protos])
    return root


def stamp(root: Path, name: str, files: Sequence[str]) -> None:
    (root / ".recast" / "stamps" / name).write_text(environment.stamp_of(root, files))


def launch(
    root: Path, *arguments: str, cwd: Path | None = None, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the launcher, with a Python on PATH that only says that it was asked to make the environment."""
    if path is None:
        path = root.parent / "bin"
        path.mkdir(exist_ok=True)
        python = path / "python3"
        python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nshift; echo "makes $*" | sed "s#/.*/##"; exit 9\n')
        python.chmod(0o755)
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MALLOC", "RECAST"))
    }
    settings["PATH"] = f"{path}:{os.environ['PATH']}" if path.name == "bin" else str(path)
    command = [str(root / "recast"), *arguments]
    return subprocess.run(command, cwd=cwd, env=settings | variables, capture_output=True, text=True)


def test_a_subcommand_runs_in_the_environment(checkout: Path, tmp_path: Path) -> None:
    result = launch(
        checkout, "inspect", "two words", "", cwd=tmp_path, PYTHONPATH="/elsewhere", PYTHONHOME="/elsewhere"
    )
    assert result.stdout.splitlines() == [
        "-m",
        "container.entrypoint",
        "inspect",
        "two words",
        "",
        f"in {tmp_path}",
        "MALLOC_ARENA_MAX=1",
        "MALLOC_MMAP_MAX_=0",
        "MALLOC_TRIM_THRESHOLD_=4294967296",
        f"PYTHONPATH={checkout}:{checkout}/.recast/gen",
        "PYTHONSAFEPATH=1",
    ]
    assert (result.returncode, result.stderr) == (0, "")


def test_the_users_allocator_settings_stay(checkout: Path) -> None:
    lines = launch(checkout, "inspect", MALLOC_ARENA_MAX="4", MALLOC_MMAP_MAX_="").stdout.splitlines()
    assert {"MALLOC_ARENA_MAX=4", "MALLOC_MMAP_MAX_="} <= set(lines)


def test_it_works_through_a_chain_of_symlinks(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("a checkout/recast")
    (tmp_path / "recast").symlink_to("one")
    assert f"PYTHONPATH={checkout}:" in launch(tmp_path, "inspect").stdout


@pytest.mark.parametrize("file", ["requirements/core.txt", "proto/aa.proto", "proto/new.proto"])
def test_a_changed_file_has_the_environment_made(checkout: Path, file: str) -> None:
    (checkout / file).write_text("changed")
    result = launch(checkout, "inspect")
    assert (result.stdout, result.returncode) == ("makes environment.py core\n", 9)


def test_a_subcommand_has_its_layers_made(checkout: Path) -> None:
    assert launch(checkout, "test").stdout == "makes environment.py core verify dev transformers4\n"
    assert launch(checkout, "verify", "--level=logits").stdout == "makes environment.py core verify\n"
    assert launch(checkout, "verify", "--level", "logits").stdout == "makes environment.py core verify\n"
    assert launch(checkout, "verify", "--level=full").stdout.startswith("-m\n")
    assert launch(checkout).stdout.startswith("-m\n")


@pytest.mark.parametrize("help", ["--help", "-help", "-h", "--helpfull", "--helpshort", "-?"])
def test_help_needs_no_layer(checkout: Path, help: str) -> None:
    assert launch(checkout, "check-family", help).stdout.startswith("-m\n")
    assert launch(checkout, "check-family", "llama", help).stdout.startswith("-m\n")
    assert launch(checkout, "test", help).stdout.splitlines()[0].endswith("run_tests.py")
    assert launch(checkout, "test", "--", help).stdout.startswith("makes ")


@pytest.mark.parametrize("lock", ["verify", "verify_cpu"])
def test_either_verify_lock_serves(checkout: Path, lock: str) -> None:
    stamp(checkout, lock, [f"requirements/{lock}.txt"])
    assert launch(checkout, "verify", "--level=logits").stdout.startswith("-m\n")


def test_every_layer_of_the_table_has_a_lock() -> None:
    rows = [line.split() for line in (ROOT / "tools" / "layers.txt").read_text().splitlines() if line[0] != "#"]
    assert {row[2] for row in rows} <= set(environment.LOCKS)
    assert all(
        (ROOT / "requirements" / f"{lock}.txt").exists() for locks in environment.LOCKS.values() for lock in locks
    )


def bare_machine(tmp_path: Path) -> Path:
    path = tmp_path / "bare"
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or tool)
    return path


def test_without_python_one_line_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".recast" / "venv" / "bin" / "python").unlink()
    result = launch(checkout, "inspect", path=bare_machine(tmp_path))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "apt-get install python3 python3-venv" in result.stderr


def test_without_venv_one_line_says_what_to_install(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".recast" / "venv" / "bin" / "python").unlink()
    path = bare_machine(tmp_path)
    (path / "python3").write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    (path / "python3").chmod(0o755)
    result = launch(checkout, "inspect", path=path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "apt-get install python3-venv" in result.stderr


def test_a_complete_environment_costs_less_than_60_ms(checkout: Path) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        launch(checkout, "inspect")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(10)) < 0.06
