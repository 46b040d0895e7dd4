"""Runs images with podman and runc, where they are installed, in a storage of the tests' own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.images import structure

CALLER = (1000, 1001)
"""User and group of a caller who is not root, and whom the engine does not know."""

# What the engine's defaults ask for is refused to a root without CAP_SYS_RESOURCE, and so is crun on older cgroups.
CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclasses.dataclass(frozen=True)
class Engine:
    """podman with a configuration and a storage.

    Attributes:
        root: the folder of both.
        state: a folder for what runs, whose path must be short.
    """

    root: Path
    state: Path

    def command(self, *words: str) -> list[str]:
        """A command line of podman."""
        return ["podman", f"--root={self.root / 'storage'}", f"--runroot={self.state}", *words]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of its commands."""
        return os.environ | {"CONTAINERS_CONF": str(self.root / "containers.conf")}

    def podman(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command of podman."""
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def pull(self, name: str) -> str:
        """Brings an image from its layout.

        Returns:
            Its id.
        """
        folder = structure.folder()
        assert folder is not None
        # By a relative path: the engine takes it for the name as well, and a name may not look like any path.
        ended = self.podman("pull", "--quiet", f"oci:{name}", cwd=folder)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()[-1]


@dataclasses.dataclass(frozen=True)
class Container:
    """How containers of one image are started: without a network, and with a root that cannot be written.

    Attributes:
        engine: what starts them.
        image: the image's id.
    """

    engine: Engine
    image: str

    def arguments(self, options: Sequence[str], words: Sequence[str]) -> list[str]:
        """The arguments of podman."""
        return ["run", "--rm", "--network=none", "--read-only", "--read-only-tmpfs", *options, self.image, *words]

    def run(self, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a container to its end."""
        return self.engine.podman(*self.arguments(options, words))

    def typed(self, *words: str, options: Sequence[str] = ()) -> tuple[int, str]:
        """Runs a container on a terminal of its own, as people do with `-it`.

        Returns:
            Its exit code, and all that the terminal shows.
        """
        command = self.engine.command(*self.arguments(["--interactive", "--tty", *options], words))
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, env=self.engine.environment, stdin=theirs, stdout=theirs, stderr=theirs) as run:
            os.close(theirs)
            shown = b"".join(_until_closed(ours))
            os.close(ours)
            code = run.wait(timeout=600)
        return code, shown.decode().replace("\r\n", "\n")


def _until_closed(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody has it open any more."""
    with contextlib.suppress(OSError):  # EIO, the end of what a terminal gives
        while chunk := os.read(terminal, 1 << 16):
            yield chunk


@contextlib.contextmanager
def started(root: Path) -> Iterator[Engine]:
    """An engine; skips the test where there is none, or no image. All that it holds is removed afterwards."""
    if structure.folder() is None:
        pytest.skip(structure.WITHOUT)
    if "TEST_SRCDIR" in os.environ or shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("needs podman and runc, outside of a sandbox")
    (root / "containers.conf").write_text(CONFIGURATION)
    with tempfile.TemporaryDirectory(prefix="recast-", ignore_cleanup_errors=True) as state:
        engine = Engine(root, Path(state))
        info = engine.podman("info")
        if info.returncode != 0:
            pytest.skip(f"podman does not work here: {info.stderr}")
        yield engine
        for words in (["pod", "rm"], ["rm"], ["volume", "rm"], ["rmi"]):
            engine.podman(*words, "--all", "--force")
