"""Makes the private environment of a checkout: installs what is missing or out of date, generates the protobuf modules.

    python3 tools/environment.py LAYER...

Needs the standard library alone. Everything lies in `.recast/`. A stamp in `.recast/stamps/` says which files a part
was made from, in the form that sha256sum prints, which is how the launcher compares it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LOCKS = {
    "core": ("core",),
    "verify": ("verify_cpu", "verify"),
    "dev": ("dev",),
    "transformers4": ("transformers4",),
}
"""The locks that serve for a layer, the preferred one first."""

SEPARATE = ("transformers4",)
"""Layers with a directory of their own, since they replace packages of another layer."""

PACKAGE = "recast_proto"

Runner = Callable[[Sequence[str], Path, int], "subprocess.CompletedProcess[str]"]
"""Runs a command in a directory; the process keeps the file descriptor open as long as it lives."""


class SetupError(Exception):
    """The environment cannot be made; the text is for the user."""


def run(command: Sequence[str], cwd: Path, lock: int) -> subprocess.CompletedProcess[str]:
    """Runs a command and captures what it prints."""
    return subprocess.run(
        command,
        cwd=cwd,
        pass_fds=(lock,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def stamp_of(root: Path, files: Sequence[str]) -> str:
    """What sha256sum prints for files, given relative to `root`."""
    return "".join(f"{hashlib.sha256((root / file).read_bytes()).hexdigest()}  {file}\n" for file in files)


@dataclasses.dataclass(frozen=True)
class Environment:
    """The parts of a checkout's `.recast/`.

    Attributes:
        root: the checkout.
        runner: runs commands.
    """

    root: Path
    runner: Runner = run

    @property
    def state(self) -> Path:
        """The directory of everything that is made here."""
        return self.root / ".recast"

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment."""
        return self.state / "venv" / "bin" / "python"

    def make(self, layers: Sequence[str]) -> None:
        """Installs layers and generates the protobuf modules, where they are not already as the files say.

        Safe against other processes that do the same.

        Raises:
            SetupError: a command failed.
            OSError: `.recast/` cannot be written.
        """
        self.state.mkdir(exist_ok=True)
        with self._locked() as lock:
            self._make_venv(lock)
            for layer in layers:
                if not any(self._is_fresh(name, [_lock_file(name)]) for name in LOCKS[layer]):
                    self._install(layer, lock)
            self._generate(lock)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with (self.state / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say("waiting for another process that installs")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def _is_fresh(self, name: str, files: Sequence[str]) -> bool:
        stamp = self._stamp(name)
        return stamp.exists() and stamp.read_text() == stamp_of(self.root, files)

    def _stamp(self, name: str) -> Path:
        return self.state / "stamps" / name

    def _write_stamp(self, name: str, files: Sequence[str]) -> None:
        stamp = self._stamp(name)
        stamp.parent.mkdir(exist_ok=True)
        fresh = stamp.with_suffix(".new")
        fresh.write_text(stamp_of(self.root, files))
        fresh.replace(stamp)

    @property
    def _unfinished(self) -> Path:
        return self.state / "venv" / "unfinished"

    def _make_venv(self, lock: int) -> None:
        """An empty virtual environment, if there is none, its interpreter has gone, or an install in it was cut off.

        What a killed pip leaves behind may look installed to the next one, so nothing of it is kept.
        """
        if self.python.exists() and not self._unfinished.exists():
            return
        shutil.rmtree(self.state / "stamps", ignore_errors=True)
        if (self.state / "venv").exists():
            shutil.rmtree(self.state / "venv")
        # The real path: a venv on /usr/bin/python3 would break when that becomes another version.
        base = os.path.realpath(sys.executable)
        (self.state / "venv").mkdir()
        self._unfinished.touch()
        self._check("making the virtual environment", [base, "-I", "-m", "venv", str(self.state / "venv")], lock)
        self._unfinished.unlink()

    def _install(self, layer: str, lock: int) -> None:
        name = self._choose(layer, lock)
        for other in LOCKS[layer]:
            self._stamp(other).unlink(missing_ok=True)
        options = ["--require-hashes", "--only-binary=:all:", "--requirement", _lock_file(name)]
        if layer in SEPARATE:
            target = self.state / layer
            _say(f"installing the {layer} layer into {target}")
            if target.exists():
                shutil.rmtree(target)
            self._pip(["install", "--no-deps", "--target", str(target), *options], layer, lock)
        else:
            _say(f"installing the {layer} layer into {self.state / 'venv'}")
            self._unfinished.touch()
            self._pip(["install", *options], layer, lock)
            self._unfinished.unlink()
            # mypy keeps that a package was not there, and looks no more.
            shutil.rmtree(self.state / "cache" / "mypy", ignore_errors=True)
        self._write_stamp(name, [_lock_file(name)])

    def _choose(self, layer: str, lock: int) -> str:
        """The first lock of a layer whose special wheel pip finds; the last one needs nothing special."""
        *special, general = LOCKS[layer]
        for name in special:
            wheel = self.state / f"{name}.wheel.txt"
            wheel.write_text(_requirement(self.root / _lock_file(name), "torch"))
            probe = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--require-hashes"]
            found = self.runner(self._pip_command([*probe, "--only-binary=:all:", "-r", str(wheel)]), self.root, lock)
            wheel.unlink()
            if found.returncode == 0:
                return name
        return general

    def _pip_command(self, arguments: Sequence[str]) -> list[str]:
        # -I: what the caller's PYTHONPATH holds must not count as installed.
        return [str(self.python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *arguments]

    def _pip(self, arguments: Sequence[str], layer: str, lock: int) -> None:
        self._check(f"installing the {layer} layer", self._pip_command(arguments), lock)

    def _check(self, step: str, command: Sequence[str], lock: int) -> None:
        result = self.runner(command, self.root, lock)
        if result.returncode != 0:
            raise SetupError(f"{step} failed:\n{result.stdout.rstrip()}")

    def _generate(self, lock: int) -> None:
        """Generates a module and its types for each .proto file, each replaced in one step under a reader's eyes."""
        protos = sorted(path.name for path in (self.root / "proto").glob("*.proto"))
        files = ["requirements/core.txt", *(f"proto/{name}" for name in protos)]
        target = self.state / "gen" / PACKAGE
        if self._is_fresh("protos", files) and target.is_dir():
            return
        scratch = self.state / "gen.new"
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / PACKAGE).mkdir(parents=True)
        command = [str(self.python), "-I", "-m", "grpc_tools.protoc", f"-I{PACKAGE}=proto"]
        command += [f"--python_out={scratch}", f"--pyi_out={scratch}", *(f"{PACKAGE}/{name}" for name in protos)]
        self._check("generating the protobuf modules", command, lock)
        (scratch / PACKAGE / "__init__.py").write_text('"""Modules generated from proto/."""\n')
        target.mkdir(parents=True, exist_ok=True)
        made = {path.name for path in (scratch / PACKAGE).iterdir()}
        for file in sorted(made):
            (scratch / PACKAGE / file).replace(target / file)
        for path in target.iterdir():
            if path.is_file() and path.name not in made:
                path.unlink()
        shutil.rmtree(scratch)
        self._write_stamp("protos", files)


def _lock_file(name: str) -> str:
    return f"requirements/{name}.txt"


def _requirement(lock: Path, package: str) -> str:
    """The lines of a lock that pin one package and its hashes."""
    lines = iter(lock.read_text().splitlines(keepends=True))
    taken = [next(line for line in lines if line.startswith(f"{package}=="))]
    while taken[-1].rstrip().endswith("\\"):
        taken.append(next(lines))
    return "".join(taken)


def _say(text: str) -> None:
    print(f"recast: {text}", file=sys.stderr, flush=True)


def main(layers: Sequence[str]) -> int:
    """Makes the environment with the given layers.

    Returns:
        0; 2 if the environment could not be made; 130 if the user interrupted it.
    """
    try:
        Environment(Path(__file__).resolve().parent.parent).make(layers)
    except (SetupError, OSError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
