"""Makes a runnable Bazel of Debian packages that were unpacked into a folder.

    python3 tools/bazel_prefix.py UNPACKED PREFIX

The programs in PREFIX start with the loader and find the libraries in PREFIX, whatever the machine has. The path is
written into them. Needs the standard library and patchelf, and the machine's certificates in Java's form.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

MULTIARCH = "x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
HELPERS = ("build-runfiles", "daemonize", "linux-sandbox", "process-wrapper")
ZIPPER = "embedded_tools/tools/zip/zipper/zipper"
PROFILER = "libcpu_profiler.so"
CLASS_PATH = "bazel_classpath_debian_depends.txt"
CERTIFICATES = Path("/etc/ssl/certs/java/cacerts")
UNUSED_IN_JDK = ("jmods", "man", "docs", "lib/src.zip", "lib/ct.sym")
# What the C library opens by name, to look up users and hosts.
LOADED_BY_NAME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")

LAUNCHER = """#!/bin/sh
# Debian's build does not know its own version, which every published rule asks for.
export BAZEL_DEV_VERSION_OVERRIDE=7.7.1 JAVA_HOME="{prefix}/jvm/jdk"
# Folders that are inputs, such as an unpacked wheel, are told apart by what is in them.
exec "{prefix}/bin/bazel.real" --nosystem_rc --host_jvm_args=-DBAZEL_TRACK_SOURCE_DIRECTORIES=1 \\
  --install_base="{prefix}/share/bazel" --trust_install_base --server_javabase="{prefix}/jvm/jdk" "$@"
"""


class Unpacked:
    """The folder that holds the unpacked packages: a root file system of which nothing was configured."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def real(self, path: str) -> Path:
        """The file that an absolute path means inside, with symbolic links followed."""
        place = self.root / path.lstrip("/")
        for _ in range(40):
            if not place.is_symlink():
                break
            target = os.readlink(place)
            start = self.root if target.startswith("/") else place.parent
            place = Path(os.path.normpath(start / target.lstrip("/")))
        return place

    def libraries(self) -> dict[str, str]:
        """The paths of the shared libraries, by name."""
        folder = f"usr/lib/{MULTIARCH}"
        names = sorted(path.name for path in (self.root / folder).iterdir() if ".so" in path.name)
        return {name: f"/{folder}/{name}" for name in names} | {LOADER: self._loader()}

    def _loader(self) -> str:
        places = (f"/usr/lib64/{LOADER}", f"/lib64/{LOADER}", f"/usr/lib/{MULTIARCH}/{LOADER}")
        return next((place for place in places if self.real(place).exists()), places[0])


def copy_bazel(unpacked: Unpacked, prefix: Path) -> list[Path]:
    """Copies Bazel and its helpers.

    Returns:
        The programs.
    """
    share = prefix / "share" / "bazel"
    shutil.copytree(unpacked.root / "usr/share/bazel", share, symlinks=True)
    helpers = unpacked.root / "usr/libexec" / MULTIARCH / "bazel"
    copies = {share / name: helpers / name for name in HELPERS}
    copies[share / ZIPPER] = helpers / "zipper"
    copies[share / PROFILER] = unpacked.root / "usr/lib" / MULTIARCH / "bazel" / PROFILER
    copies[prefix / "bin" / "bazel.real"] = unpacked.root / "usr/bin/bazel"
    for target, source in copies.items():
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return [target for target in copies if target.name != PROFILER]


def copy_java(unpacked: Unpacked, prefix: Path) -> Path:
    """Copies the newest Java, with the machine's certificates."""
    found = (unpacked.root / "usr/lib/jvm").glob("java-*-openjdk-*")
    newest = max((path for path in found if not path.is_symlink()), key=lambda path: int(path.name.split("-")[1]))
    java = prefix / "jvm" / "jdk"
    shutil.copytree(newest, java, symlinks=True)
    for name in UNUSED_IN_JDK:
        unused = java / name
        if unused.is_dir() and not unused.is_symlink():
            shutil.rmtree(unused)
        else:
            unused.unlink(missing_ok=True)
    for link in [path for path in java.rglob("*") if path.is_symlink() and os.readlink(path).startswith("/etc/")]:
        source = unpacked.real(os.readlink(link))
        link.unlink()
        if source.is_dir():
            shutil.copytree(source, link)
        elif source.exists():
            shutil.copy(source, link)
    certificates = java / "lib" / "security" / "cacerts"
    certificates.parent.mkdir(parents=True, exist_ok=True)
    certificates.unlink(missing_ok=True)
    shutil.copy(CERTIFICATES, certificates)
    return java


def jars(unpacked: Unpacked, listed: Iterable[str]) -> Iterator[Path]:
    """The jars of a class path and those that they name in their manifests.

    Args:
        unpacked: where they are.
        listed: the class path.
    """
    queue = list(listed)
    for jar in queue:
        file = unpacked.real(jar)
        if not file.exists():
            continue
        yield Path(jar)
        queue += [name for name in _class_path(file) if name not in queue]


def _class_path(jar: Path) -> Iterator[str]:
    with zipfile.ZipFile(jar) as archive:
        if "META-INF/MANIFEST.MF" not in archive.namelist():
            return
        manifest = archive.read("META-INF/MANIFEST.MF").decode().replace("\r\n", "\n").replace("\n ", "")
    for line in manifest.splitlines():
        if line.startswith("Class-Path:"):
            for name in line.split()[1:]:
                yield name if name.startswith("/") else f"/usr/share/java/{Path(name).name}"


def copy_jars(unpacked: Unpacked, prefix: Path) -> None:
    """Copies the jars that Debian's Bazel takes from other packages."""
    listing = prefix / "share" / "bazel" / CLASS_PATH
    folder = prefix / "share" / "java"
    folder.mkdir(parents=True)
    lines = []
    for jar in jars(unpacked, listing.read_text().split()):
        shutil.copy(unpacked.real(str(jar)), folder / jar.name)
        lines.append(f"{folder / jar.name}\n")
    listing.write_text("".join(lines))


def copy_libraries(unpacked: Unpacked, prefix: Path, programs: Iterable[Path], parts: Iterable[Path]) -> None:
    """Copies all shared libraries that files need, and what those need.

    Args:
        unpacked: where they are.
        prefix: where they go.
        programs: files that need all of theirs.
        parts: parts of Java; some draw windows and letters, and nothing here does.

    Raises:
        SystemExit: a library that a program needs is in no package.
    """
    index, folder = unpacked.libraries(), prefix / "lib"
    folder.mkdir()
    parts = list(parts)
    own = {path.name for path in parts}
    queue = [LOADER, *(name for name in LOADED_BY_NAME if name in index)]
    missing = _copy_closure(unpacked, folder, own, [*queue, *(name for path in programs for name in _needed(path))])
    if missing:
        sys.exit(f"no package holds {', '.join(sorted(missing))}")
    _copy_closure(unpacked, folder, own, [name for path in parts for name in _needed(path)])
    (folder / LOADER).chmod(0o755)


def _copy_closure(unpacked: Unpacked, folder: Path, own: Set[str], queue: list[str]) -> set[str]:
    """Copies libraries and what they need.

    Returns:
        Those that there are not.
    """
    index, missing = unpacked.libraries(), set()
    for name in queue:
        if name in own or (folder / name).exists():
            continue
        if name in index:
            shutil.copy(unpacked.real(index[name]), folder / name)
            queue += _needed(folder / name)
        else:
            missing.add(name)
    return missing


def _needed(path: Path) -> list[str]:
    ended = subprocess.run(["patchelf", "--print-needed", str(path)], capture_output=True, text=True, check=False)
    return ended.stdout.split()


def redirect(programs: Iterable[Path], prefix: Path) -> None:
    """Makes programs start with the loader of the prefix and find its libraries."""
    for program in programs:
        program.chmod(0o755)
        libraries = f"{prefix}/lib:{prefix}/jvm/jdk/lib"
        command = ["patchelf", "--set-interpreter", f"{prefix}/lib/{LOADER}", "--force-rpath", "--set-rpath", libraries]
        subprocess.run([*command, str(program)], check=True)


def make(unpacked: Unpacked, prefix: Path) -> None:
    """Makes the prefix. The launcher is written last: where there is one, all is there."""
    programs = copy_bazel(unpacked, prefix)
    java = copy_java(unpacked, prefix)
    copy_jars(unpacked, prefix)
    programs += [path for path in (java / "bin").iterdir() if not path.is_symlink()] + [java / "lib" / "jspawnhelper"]
    shared = [path for path in (java / "lib").rglob("*.so") if not path.is_symlink()]
    copy_libraries(unpacked, prefix, programs, [*shared, prefix / "share" / "bazel" / PROFILER])
    redirect(programs, prefix)
    launcher = prefix / "bin" / "bazel"
    launcher.write_text(LAUNCHER.format(prefix=prefix))
    launcher.chmod(0o755)


def main(arguments: Sequence[str]) -> None:
    """Makes a prefix."""
    unpacked, prefix = (Path(os.path.abspath(argument)) for argument in arguments)
    make(Unpacked(unpacked), prefix)


if __name__ == "__main__":
    main(sys.argv[1:])
