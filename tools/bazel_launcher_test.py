from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LAUNCHER = HERE / "bazel"
VERSION = HERE.parent / ".bazelversion"
AIRGAP = f"--config=airgap --config=cgroup{1 if Path('/sys/fs/cgroup/memory').is_dir() else 2}"
PROGRAM = '#!/bin/sh\nif [ "$1" = --version ]; then echo "bazel {version}"; else echo {name} "$@"; fi\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not under /tmp, where no cache may lie."""
    path = Path(tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR", "/var/tmp")))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def checkout(folder: Path) -> Path:
    """A checkout with the launcher, whose installer makes a Bazel that prints its arguments."""
    (folder / "main" / "tools").mkdir(parents=True)
    shutil.copy(LAUNCHER, folder / "main" / "tools")
    shutil.copy(VERSION, folder / "main")
    program(folder / "installed", "airgap-bazel")
    installer = '#!/bin/sh\necho "installs $(basename "$1")" >&2\nmkdir -p "$1/bin"\ncp "{}" "$1/bin/bazel"\n'
    script(folder / "main" / "tools" / "install_bazel.sh", installer.format(folder / "installed"))
    return folder / "main"


def version() -> str:
    return VERSION.read_text().strip()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def program(path: Path, name: str, number: str | None = None) -> Path:
    return script(path, PROGRAM.format(name=name, version=number or version()))


def run(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent / 'bin'}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(checkout.parent / "home"), **variables}
    command = [str(checkout / "tools" / "bazel"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_bazelisk_comes_first_and_the_config_is_behind_the_command(checkout: Path) -> None:
    program(checkout.parent / "bin" / "bazelisk", "bazelisk")
    program(checkout.parent / "bin" / "bazel", "bazel")
    ended = run(checkout, "--batch", "test", "//...", "--jobs=2")
    assert ended.stdout == "bazelisk --batch test --config=public //... --jobs=2\n"


def test_a_bazel_of_the_right_version_will_do(checkout: Path) -> None:
    program(checkout.parent / "bin" / "bazel", "bazel")
    assert run(checkout, "info").stdout == "bazel info --config=public\n"


@pytest.mark.skipif(not Path("/usr/bin/python3.11").exists(), reason="needs Debian's python3.11")
class TestWithoutBazel:
    def test_one_is_installed_once(self, checkout: Path) -> None:
        program(checkout.parent / "bin" / "bazel", "bazel", "1.0")
        first, second = run(checkout, "build", "//..."), run(checkout, "build", "//...")
        assert first.stdout == second.stdout == f"airgap-bazel build {AIRGAP} //...\n"
        assert f"installs bazel-{version()}" in first.stderr
        assert second.stderr == ""
        assert (checkout.parent / "home" / ".cache" / "recast-bazel").is_dir()

    def test_the_airgap_may_be_chosen_where_there_is_one(self, checkout: Path) -> None:
        program(checkout.parent / "bin" / "bazel", "bazel")
        assert run(checkout, "build", RECAST_BAZEL_CONFIG="airgap").stdout == f"airgap-bazel build {AIRGAP}\n"

    def test_no_home_and_no_locale_are_needed(self, checkout: Path) -> None:
        ended = run(checkout, "build", HOME="", RECAST_CACHE=str(checkout.parent / "cache"), LC_ALL="no_SUCH.locale")
        assert ended.stdout == f"airgap-bazel build {AIRGAP}\n"

    def test_a_cache_that_the_sandbox_hides_is_refused(self, checkout: Path) -> None:
        ended = run(checkout, "build", RECAST_CACHE="/tmp/recast-cache")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "hides /tmp" in ended.stderr

    def test_a_cache_that_cannot_be_written_is_named(self, checkout: Path) -> None:
        (checkout.parent / "file").touch()
        ended = run(checkout, "build", RECAST_CACHE=str(checkout.parent / "file" / "cache"))
        assert ended.returncode == 2
        assert "file/cache cannot be written" in ended.stderr


def test_a_config_that_needs_what_is_not_there_or_does_not_exist_is_refused(checkout: Path) -> None:
    ended = run(checkout, "build", RECAST_BAZEL_CONFIG="public")
    assert ended.returncode == 2
    assert f"neither bazelisk nor bazel {version()}" in ended.stderr
    ended = run(checkout, "build", RECAST_BAZEL_CONFIG="private")
    assert ended.returncode == 2
    assert "may be public or airgap" in ended.stderr


def test_installing_says_that_it_needs_root(folder: Path) -> None:
    installer = shutil.copy(HERE / "install_bazel.sh", folder)
    folder.chmod(0o755)
    nobody = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"] if os.geteuid() == 0 else []
    if nobody and (
        shutil.which("setpriv") is None or subprocess.run([*nobody, "true"], capture_output=True).returncode
    ):
        pytest.skip("needs a user who is not root")
    command = [*nobody, "bash", str(installer), str(folder / "prefix")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "needs root" in ended.stderr or "no apt-get" in ended.stderr
