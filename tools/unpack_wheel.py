"""Unpacks a wheel and compiles its modules: python3 tools/unpack_wheel.py WHEEL FOLDER.

The same wheel and interpreter give the same bytes, so that an image made of them has one digest everywhere.
Needs the standard library alone.
"""

from __future__ import annotations

import py_compile
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

_LIBRARIES = ("purelib", "platlib")
_PACKAGE_MARKS = ("BUILD", "BUILD.bazel", "WORKSPACE", "MODULE.bazel")


def place(entry: str) -> PurePosixPath | None:
    """Where an entry of a wheel belongs in site-packages; None if it is a folder or of no use to an import.

    Left out are scripts and headers, and files whose names Bazel takes for the start of a package.
    """
    path = PurePosixPath(entry)
    if path.parts[0].endswith(".data"):
        if len(path.parts) < 3 or path.parts[1] not in _LIBRARIES:
            return None
        path = PurePosixPath(*path.parts[2:])
    return None if entry.endswith("/") or path.name in _PACKAGE_MARKS else path


def unpack(wheel: Path, folder: Path) -> None:
    """Unpacks the files of a wheel that an import may need."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = place(entry.filename)
            if path is None:
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            if entry.external_attr >> 16 & 0o111:
                target.chmod(0o755)


def compile_all(folder: Path) -> None:
    """Compiles each module below a folder, in one order. Python never looks at the source again.

    A file that is no Python of this version, such as a template, stays as it is.
    """
    for path in sorted(folder.rglob("*.py")):
        try:
            py_compile.compile(
                str(path),
                dfile=str(path.relative_to(folder)),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except (py_compile.PyCompileError, ValueError, RecursionError):
            continue


def main(arguments: Sequence[str]) -> None:
    """Unpacks one wheel."""
    wheel, folder = map(Path, arguments)
    unpack(wheel, folder)
    compile_all(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
