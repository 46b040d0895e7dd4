"""Makes an image's root of a folder with unpacked Debian packages: debian_root.py ROOT PACKAGES TAR.

Nothing was installed, so that what the packages' scripts would make is made here: users, certificates, compiled
modules. What only these scripts or a person at a shell would use is removed. PACKAGES gets a line for each
package. In TAR names are sorted, times are 0 and owners are root.
Needs the standard library alone.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

INTERPRETER = "python3.11"
USERS = (("root", 0, "/root"), ("nobody", 65534, "/nonexistent"), ("nonroot", 65532, "/tmp"))
KEPT_PROGRAMS = (INTERPRETER,)
UNUSED = (
    "etc/alternatives",
    "etc/apt",
    "etc/ca-certificates",
    "etc/debconf.conf",
    "etc/hostname",
    "etc/kernel",
    "etc/perl",
    "etc/resolv.conf",
    "etc/ssl/openssl.cnf",
    "usr/lib/udev",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/share/applications",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/share/pixmaps",
    "var",
)
UNUSED_MODULES = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "unittest/test")
CERTIFICATES = "usr/share/ca-certificates/mozilla"


def packages(archives: Iterable[Path]) -> list[str]:
    """A line `NAME=VERSION` for each package."""
    lines = []
    for archive in archives:
        fields = ["dpkg-deb", "--showformat=${Package}=${Version}\n", "--show", str(archive)]
        lines.append(subprocess.run(fields, capture_output=True, text=True, check=True).stdout)
    return sorted(lines)


def remove(root: Path) -> None:
    """Removes what an image that only runs Python does not use."""
    library = f"usr/lib/{INTERPRETER}"
    for name in (*UNUSED, *(f"{library}/{module}" for module in UNUSED_MODULES)):
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin"):
        if (root / folder).is_symlink() or not (root / folder).is_dir():
            continue
        for path in (root / folder).iterdir():
            if path.name not in KEPT_PROGRAMS:
                path.unlink()
    for path in (root / "usr/share/doc").rglob("*"):
        if path.is_file() and path.name != "copyright":
            path.unlink()


def make_users(root: Path) -> None:
    """Writes users and groups, and where names are looked up."""
    passwd = [f"{name}:x:{number}:{number}:{name}:{home}:/sbin/nologin\n" for name, number, home in USERS]
    files = {
        "passwd": "".join(passwd),
        "group": "".join(f"{name}:x:{number}:\n" for name, number, _ in USERS),
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    for name, text in files.items():
        (root / "etc" / name).write_text(text)


def make_certificates(root: Path) -> None:
    """Joins the certificates, as the package's script does."""
    target = root / "etc/ssl/certs/ca-certificates.crt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"".join(path.read_bytes() for path in sorted((root / CERTIFICATES).glob("*.crt"))))
    shutil.rmtree(root / CERTIFICATES)


def make_python(root: Path) -> None:
    """Names the interpreter, and compiles its modules so that no start has to."""
    link = root / "usr/bin/python3"
    link.unlink(missing_ok=True)
    link.symlink_to(INTERPRETER)
    library = root / "usr/lib" / INTERPRETER
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(str(library), quiet=2, workers=1, stripdir=str(root), prependdir="/", invalidation_mode=mode)


def make_folders(root: Path) -> None:
    """Makes the folders that a runtime mounts something on, and those that programs expect."""
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)


def write(root: Path, output: Path) -> None:
    """Writes the root as a tar that depends on names, modes and contents alone."""
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            info = tar.gettarinfo(str(path), str(path.relative_to(root)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)


def main(arguments: Sequence[str]) -> None:
    """Makes a root."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # what is compiled may depend on the order of hashes
        os.execve(sys.executable, [sys.executable, "-s", *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    root, listing, tar = map(Path, arguments)
    listing.write_text("".join(packages((root / "var/cache/apt/archives").glob("*.deb"))))
    remove(root)
    make_users(root)
    make_certificates(root)
    make_python(root)
    make_folders(root)
    write(root, tar)


if __name__ == "__main__":
    main(sys.argv[1:])
