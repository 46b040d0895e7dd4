"""The repository as Bazel sees it: its packages, their Python files, and where any other file belongs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from tools.build_files_scan import Scan, scan

BY_HAND = ("", "requirements", "tools/protoc")
"""Folders whose BUILD.bazel is written by hand."""

PROTO = "proto"
_TEST = "_test"
_NO_DATA = (".bazel", ".bzl", ".md", ".py", ".pyc", ".pyi")


@dataclasses.dataclass(frozen=True)
class PythonFile:
    """One Python file of a package.

    Attributes:
        package: its folder.
        stem: its name without ".py".
        scan: what it needs.
    """

    package: str
    stem: str
    scan: Scan

    @property
    def module(self) -> str:
        """How it is imported."""
        return f"{self.package}/{self.stem}".replace("/", ".")

    @property
    def is_test(self) -> bool:
        """Whether it is a test, which nothing imports."""
        return self.stem.endswith(_TEST)

    @property
    def tested(self) -> str:
        """The module that a test is about, if there is one of that name."""
        return self.module.removesuffix(_TEST)


@dataclasses.dataclass(frozen=True)
class Tree:
    """The repository.

    Attributes:
        root: where it is.
        packages: its Python packages, by folder, in order.
        files: its Python files by module, without __init__.py.
        protos: the names of the .proto files, without ".proto".
        strays: Python files that are in no package, and __init__.py that hold code.
    """

    root: Path
    packages: tuple[str, ...]
    files: Mapping[str, PythonFile]
    protos: tuple[str, ...]
    strays: tuple[str, ...]

    @property
    def bazel_packages(self) -> frozenset[str]:
        """All folders with a BUILD.bazel."""
        return frozenset((*self.packages, PROTO, *BY_HAND))

    def package_of(self, path: PurePosixPath) -> str:
        """The Bazel package that a file or folder lies in."""
        folders = [str(folder) for folder in (path, *path.parents)]
        return next((folder for folder in folders if folder in self.bazel_packages), "")

    def data_patterns(self, package: str) -> tuple[str, ...]:
        """What matches all files of a package that a program may read."""
        patterns = set()
        for folder, _, names in os.walk(self.root / package):
            here = PurePosixPath(Path(folder).relative_to(self.root).as_posix())
            if self.package_of(here) == package and "__pycache__" not in here.parts:
                files = [PurePosixPath(name) for name in names if name[0] != "." and not name.endswith(_NO_DATA)]
                patterns |= {f"**/*{file.suffix}" if file.suffix else f"**/{file}" for file in files}
        return tuple(sorted(patterns))


def read(root: Path) -> Tree:
    """Reads the repository.

    Raises:
        SyntaxError: a file is not Python.
    """
    packages, files, strays = [], {}, []
    for folder, names in folders(root):
        package = folder.relative_to(root).as_posix()
        python = sorted(name for name in names if name.endswith(".py"))
        if "__init__.py" not in names:
            strays += [f"{package}/{name} is in a folder without __init__.py" for name in python if package != "."]
            continue
        packages.append(package)
        for name in python:
            file = _read_file(root, PurePosixPath(package, name))
            if file.stem != "__init__":
                files[file.module] = file
            elif file.scan.imports:
                strays.append(f"{package}/__init__.py imports something; it may only mark the folder")
    protos = tuple(sorted(path.stem for path in (root / PROTO).glob("*.proto")))
    return Tree(root, tuple(sorted(packages)), files, protos, tuple(strays))


def proto_imports(root: Path, proto: str) -> tuple[str, ...]:
    """What a .proto file imports."""
    text = (root / PROTO / f"{proto}.proto").read_text("utf-8")
    return tuple(re.findall(r'^import (?:public |weak )?"([^"]+)";', text, re.MULTILINE))


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders that may be packages, with the names of their files; not those of other Bazel modules."""
    for name, inside, files in os.walk(root):
        folder = Path(name)
        inside[:] = sorted(
            inner
            for inner in inside
            if not inner.startswith((".", "bazel-", "__pycache__"))
            and (folder / inner).relative_to(root).as_posix() not in BY_HAND
            and not (folder / inner / "MODULE.bazel").exists()
        )
        yield folder, files


def _read_file(root: Path, path: PurePosixPath) -> PythonFile:
    return PythonFile(str(path.parent), path.stem, scan((root / path).read_text("utf-8"), path))
