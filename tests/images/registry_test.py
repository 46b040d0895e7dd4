"""An image is pushed to a registry, pulled by its digest and run. Needs Debian's docker-registry and skopeo."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reporting.version import VERSION
from tests.images import engine, structure
from tests.images.engine import Container, Engine

CONFIGURATION = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/registry
http:
  addr: 127.0.0.1:{port}
"""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Engine]:
    with engine.started(tmp_path) as podman:
        yield podman


@pytest.fixture
def registry(tmp_path: Path, podman: Engine) -> Iterator[str]:
    """The address of a registry."""
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        pytest.skip("needs docker-registry and skopeo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "registry.yml").write_text(CONFIGURATION.format(folder=tmp_path, port=port))
    command = ["docker-registry", "serve", str(tmp_path / "registry.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def test_a_pushed_image_is_pulled_by_digest_and_runs(registry: str, podman: Engine) -> None:
    folder = structure.folder()
    assert folder is not None
    name = "recast-slim"
    push = folder / f"{name}_push.sh"
    if not push.exists():
        pytest.skip("needs `tools/bazel build //container:all`")
    pushed = subprocess.run(
        [str(push), f"--repository={registry}/{name}"],
        env=os.environ | {"SKOPEO_OPTIONS": "--insecure-policy --dest-tls-verify=false"},
        capture_output=True,
        text=True,
    )
    assert pushed.returncode == 0, pushed.stderr
    digest = (folder / f"{name}_index.json.sha256").read_text().strip()
    pulled = podman.podman("pull", "--quiet", "--tls-verify=false", f"{registry}/{name}@{digest}")
    assert pulled.returncode == 0, pulled.stderr
    assert (
        podman.podman("pull", "--quiet", "--tls-verify=false", f"{registry}/{name}:{VERSION}").stdout == pulled.stdout
    )
    ended = Container(podman, pulled.stdout.split()[-1]).run("version")
    assert ended.stdout.startswith(f"recast {VERSION}\n"), ended.stderr
