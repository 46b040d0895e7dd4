from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from tools import bazel_prefix
from tools.bazel_prefix import Unpacked


def jar(root: Path, name: str, class_path: str | None = None) -> str:
    path = root / "usr/share/java" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.class", "")
        if class_path is not None:
            archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\nClass-Path: {class_path}\r\n")
    return f"/usr/share/java/{name}"


def test_links_are_followed_inside_the_unpacked_root(tmp_path: Path) -> None:
    (tmp_path / "etc/java").mkdir(parents=True)
    (tmp_path / "etc/java/file").touch()
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/absolute").symlink_to("/etc/java/relative")
    (tmp_path / "etc/java/relative").symlink_to("../java/file")
    assert Unpacked(tmp_path).real("/usr/absolute") == tmp_path / "etc/java/file"


def test_jars_bring_those_that_their_manifests_name(tmp_path: Path) -> None:
    first = jar(tmp_path, "first.jar", "second.jar\r\n  /usr/share/java/third.jar gone.jar")
    second, third = jar(tmp_path, "second.jar"), jar(tmp_path, "third.jar", "first.jar")
    found = bazel_prefix.jars(Unpacked(tmp_path), [first, "/usr/share/java/missing.jar"])
    assert [str(path) for path in found] == [first, second, third]


@pytest.mark.skipif(shutil.which("patchelf") is None, reason="needs patchelf")
def test_a_program_brings_its_libraries_and_the_loader(tmp_path: Path) -> None:
    libraries = Path("/lib") / bazel_prefix.MULTIARCH
    if not (libraries / bazel_prefix.LOADER).exists():
        pytest.skip("needs the libraries of this architecture")
    inside = tmp_path / "root" / "usr/lib" / bazel_prefix.MULTIARCH
    inside.mkdir(parents=True)
    for name in ("libc.so.6", "libselinux.so.1", "libpcre2-8.so.0", "libcap.so.2", bazel_prefix.LOADER):
        if (libraries / name).exists():
            shutil.copy(libraries / name, inside)
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    program = Path(shutil.copy(os.path.realpath("/bin/cat"), prefix / "cat"))
    bazel_prefix.copy_libraries(Unpacked(tmp_path / "root"), prefix, [program], [])
    assert {"libc.so.6", bazel_prefix.LOADER} <= {path.name for path in (prefix / "lib").iterdir()}
    shutil.rmtree(prefix / "lib")
    (inside / "libc.so.6").unlink()
    with pytest.raises(SystemExit, match=r"no package holds libc\.so\.6"):
        bazel_prefix.copy_libraries(Unpacked(tmp_path / "root"), prefix, [program], [])
