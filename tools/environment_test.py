from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from grpc_tools import protoc

from tools import environment
from tools.environment import Environment, SetupError

PROTO = 'syntax = "proto3";\npackage recast.{0};\nmessage {1} {{ string name = 1; }}\n'


class Machine:
    """Stands in for venv and pip, and runs protoc for real.

    Attributes:
        fail: for a word of a pip command, the error with which that command ends.
        pip: the arguments of all pip commands so far.
    """

    def __init__(self) -> None:
        self.fail: dict[str, str] = {}
        self.pip: list[str] = []

    def __call__(self, command: Sequence[str], cwd: Path, lock: int) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        if "-m venv" in line:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
            return subprocess.CompletedProcess(command, 0, "")
        if "-m pip" in line:
            arguments = line.partition("--quiet ")[2]
            self.pip.append(arguments)
            if "kill" in self.fail:
                raise KeyboardInterrupt
            errors = [error for word, error in self.fail.items() if word in arguments]
            return subprocess.CompletedProcess(command, 1 if errors else 0, "".join(errors))
        assert protoc.__name__ in command
        # Not -I: under Bazel PYTHONPATH says where the packages are.
        return environment.run([sys.executable, *(word for word in command[1:] if word != "-I")], cwd, lock)

    def installed(self) -> list[str]:
        """The locks that were installed, in order."""
        return [line.rpartition("/")[2] for line in self.pip if line.startswith("install") and "--dry-run" not in line]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    for name in ("core", "verify", "dev", "transformers4"):
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"# {name}\n")
    pinned = (
        "numpy==2 \\\n    --hash=sha256:1\ntorch==2+cpu \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n    # via\n"
    )
    (tmp_path / "requirements" / "verify_cpu.txt").write_text(pinned)
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "first.proto").write_text(PROTO.format("first", "First"))
    return tmp_path


def test_a_stamp_is_what_sha256sum_prints(root: Path) -> None:
    files = ["requirements/core.txt", "proto/first.proto"]
    printed = subprocess.run(["sha256sum", *files], cwd=root, capture_output=True, text=True, check=True).stdout
    assert environment.stamp_of(root, files) == printed


def test_each_layer_is_installed_once(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["core", "dev"])
    Environment(root, machine).make(["core", "dev"])
    assert machine.installed() == ["core.txt", "dev.txt"]
    assert all("--require-hashes" in line for line in machine.pip)


def test_a_changed_lock_is_installed_again_and_the_others_are_not(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["core", "dev"])
    (root / "requirements" / "dev.txt").write_text("# newer\n")
    Environment(root, machine).make(["core", "dev"])
    assert machine.installed() == ["core.txt", "dev.txt", "dev.txt"]


def test_what_mypy_kept_of_the_packages_goes_with_a_changed_lock(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["dev"])
    kept = root / ".recast" / "cache" / "mypy" / "package.meta.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    Environment(root, machine).make(["dev"])
    assert kept.exists()
    (root / "requirements" / "dev.txt").write_text("# newer\n")
    Environment(root, machine).make(["dev"])
    assert not kept.exists()


def test_an_interrupted_install_begins_anew(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["core"])
    leftover = root / ".recast" / "venv" / "half_a_package"
    leftover.touch()
    machine.fail["kill"] = ""
    with pytest.raises(KeyboardInterrupt):
        Environment(root, machine).make(["core", "dev"])
    machine.fail.clear()
    machine.pip.clear()
    Environment(root, machine).make(["core", "dev"])
    assert machine.installed() == ["core.txt", "dev.txt"]
    assert not leftover.exists()


def test_a_failed_install_shows_what_pip_said_and_leaves_no_stamp(root: Path) -> None:
    machine = Machine()
    machine.fail["core.txt"] = "THESE PACKAGES DO NOT MATCH THE HASHES"
    with pytest.raises(SetupError, match=r"installing the core layer failed:\nTHESE PACKAGES DO NOT MATCH"):
        Environment(root, machine).make(["core"])
    assert not (root / ".recast" / "stamps" / "core").exists()


def test_a_venv_without_its_interpreter_is_made_anew(root: Path) -> None:
    machine = Machine()
    made = Environment(root, machine)
    made.make(["core"])
    made.python.unlink()
    made.python.symlink_to(root / "gone")
    made.make(["core"])
    assert machine.installed() == ["core.txt", "core.txt"]


def test_the_cpu_lock_is_taken_where_its_wheel_is_found(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["verify"])
    assert machine.installed() == ["verify_cpu.txt"]


def test_the_public_lock_is_taken_elsewhere(root: Path) -> None:
    machine = Machine()
    machine.fail["--dry-run"] = "No matching distribution found"
    Environment(root, machine).make(["verify"])
    assert machine.installed() == ["verify.txt"]
    assert not (root / ".recast" / "stamps" / "verify_cpu").exists()


def test_one_requirement_comes_with_all_its_hashes(root: Path) -> None:
    pinned = environment._requirement(root / "requirements" / "verify_cpu.txt", "torch")
    assert pinned == "torch==2+cpu \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n"


def test_transformers_4_gets_a_directory_of_its_own(root: Path) -> None:
    machine = Machine()
    Environment(root, machine).make(["transformers4"])
    assert f"--no-deps --target {root}/.recast/transformers4" in machine.pip[0]


def test_the_protobuf_modules_follow_the_proto_files(root: Path) -> None:
    made = Environment(root, Machine())
    made.make(["core"])
    package = root / ".recast" / "gen" / "recast_proto"
    assert sorted(path.name for path in package.iterdir()) == ["__init__.py", "first_pb2.py", "first_pb2.pyi"]

    (root / "proto" / "first.proto").unlink()
    (root / "proto" / "second.proto").write_text(PROTO.format("second", "Second"))
    made.make(["core"])
    assert sorted(path.name for path in package.iterdir()) == ["__init__.py", "second_pb2.py", "second_pb2.pyi"]


def test_a_wrong_proto_file_is_named_and_the_old_modules_stay(root: Path) -> None:
    made = Environment(root, Machine())
    made.make(["core"])
    (root / "proto" / "first.proto").write_text("nonsense")
    with pytest.raises(SetupError, match=r"proto/first\.proto:1:1: Expected top-level statement"):
        made.make(["core"])
    assert (root / ".recast" / "gen" / "recast_proto" / "first_pb2.py").exists()


def test_a_second_process_waits_for_the_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine()
    (root / ".recast").mkdir()
    with (root / ".recast" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=Environment(root, machine).make, args=[["core"]])
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert machine.pip == []
    waiting.join(20)
    assert machine.installed() == ["core.txt"]
    assert "waiting for another process" in capsys.readouterr().err
