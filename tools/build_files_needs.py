"""What each Python file of the repository needs, as labels, and what about that is wrong."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from tools import build_files_pip as pip
from tools import build_files_rooms as rooms
from tools.build_files_tree import BY_HAND, PROTO, PythonFile, Tree

PROTO_MODULES = "recast_proto"
FILES = "files"
"""The name of the filegroup of all files of a package that programs read."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What one file needs.

    Attributes:
        deps: labels of what it imports.
        data: labels of what it reads.
        modules: the repository's modules among what it imports.
        layers: the layers of requirements/ that it needs.
    """

    deps: frozenset[str]
    data: frozenset[str]
    modules: frozenset[str]
    layers: frozenset[str]


class Analysis:
    """The needs of all files.

    Attributes:
        needs: by module.
        exported: files that other packages read, by package.
        grouped: packages whose filegroup something reads.
        faults: what is wrong, in sentences.
    """

    def __init__(self, tree: Tree) -> None:
        self.needs: dict[str, Needs] = {}
        self.exported: defaultdict[str, set[str]] = defaultdict(set)
        self.grouped: set[str] = set()
        self.faults: list[str] = list(tree.strays)
        self._tree = tree
        self._requirements = pip.Requirements(tree.root / "requirements")
        self.faults += [f"{package} is in no room" for package in tree.packages if rooms.room_of(package) is None]
        for file in tree.files.values():
            self.needs[file.module] = self._needs_of(file)
        libraries = {name: self.needs[name].modules for name, file in tree.files.items() if not file.is_test}
        self.faults += [f"modules import each other in a ring: {' -> '.join(ring)}" for ring in rings(libraries)]

    def label_of(self, module: str, package: str) -> str:
        """How a package calls the target of a module."""
        file = self._tree.files[module]
        return _label(file.package, file.stem, package)

    def _needs_of(self, file: PythonFile) -> Needs:
        modules: set[str] = set(file.scan.named & self._tree.files.keys())
        deps: set[str] = set()
        layers: set[str] = set()
        for imported in sorted(file.scan.imports):
            top = imported.partition(".")[0]
            if top == PROTO_MODULES:
                deps |= self._proto(file, imported)
            elif top in self._tree.packages or not top:
                modules |= self._own(file, imported)
            else:
                self._add_distribution(file, imported, deps, layers)
        modules -= {file.module}
        self._check_modules(file, modules)
        deps |= {self.label_of(module, file.package) for module in modules}
        return Needs(frozenset(deps), frozenset(self._data(file)), frozenset(modules), frozenset(layers))

    def _own(self, file: PythonFile, imported: str) -> set[str]:
        parts = imported.split(".")
        for end in range(len(parts), 0, -1):
            prefix = ".".join(parts[:end])
            if prefix in self._tree.files:
                return {prefix}
            if prefix.replace(".", "/") in self._tree.packages and end == len(parts):
                return set()
        self.faults.append(f"{file.module} imports {imported}, which does not exist")
        return set()

    def _proto(self, file: PythonFile, imported: str) -> set[str]:
        self._check_arrow(file, imported, PROTO)
        if imported == PROTO_MODULES:
            return set()
        name = imported.split(".")[1].removesuffix("_pb2")
        if name in self._tree.protos:
            return {f"//{PROTO}:{name}_py_pb2"}
        self.faults.append(f"{file.module} imports {imported}, but {PROTO}/ has no {name}.proto")
        return set()

    def _add_distribution(self, file: PythonFile, imported: str, deps: set[str], layers: set[str]) -> None:
        distribution = pip.distribution_of(imported)
        if distribution is None:
            return
        try:
            layer = self._requirements.layer(distribution)
        except pip.UnknownDistributionError as error:
            self.faults.append(f"{file.module} imports {imported}, but {error}")
            return
        if layer == "dev" and not file.is_test and rooms.room_of(file.package) not in rooms.DEVELOPMENT:
            self.faults.append(f"{file.module} imports {imported}, which only developers install")
        deps.add(self._requirements.label(distribution))
        layers.add(layer)

    def _check_modules(self, file: PythonFile, modules: Iterable[str]) -> None:
        for module in sorted(modules):
            self._check_arrow(file, module, self._tree.files[module].package)
            if self._tree.files[module].is_test:
                self.faults.append(f"{file.module} imports {module}, which is a test")

    def _check_arrow(self, file: PythonFile, imported: str, package: str) -> None:
        reason = rooms.forbids(file.package, package)
        if reason:
            self.faults.append(f"{file.module} imports {imported}, but {reason}")

    def _data(self, file: PythonFile) -> Iterator[str]:
        if file.is_test and pip.TRANSFORMERS4 in file.scan.parameters:
            yield from self._requirements.transformers4()
        for path in sorted(file.scan.paths):
            package = self._tree.package_of(path)
            place = self._tree.root / path
            hidden = path.parts[0].startswith(".") if path.parts else True
            if not place.exists() or (hidden and not (place.is_file() and len(path.parts) == 1)):
                continue
            if path.suffix == ".py":
                other = ".".join(path.with_suffix("").parts)
                if other in self._tree.files and other != file.module:
                    yield self.label_of(other, file.package)
            elif place.is_dir():
                yield from self._group(file, package)
            else:
                yield self._single(file, path, package)

    def _group(self, file: PythonFile, package: str) -> Iterator[str]:
        if package in BY_HAND:
            self._check_by_hand(file, package, FILES)
            yield _label(package, FILES, file.package)
        else:
            below = [other for other in self._tree.packages if f"{other}/".startswith(f"{package}/")]
            grouped = [other for other in below if self._tree.data_patterns(other)]
            if grouped:
                self.grouped |= {package, *grouped}
                yield _label(package, FILES, file.package)

    def _single(self, file: PythonFile, path: PurePosixPath, package: str) -> str:
        name = str(path.relative_to(package))
        if package == file.package:
            return name
        if package in BY_HAND:
            self._check_by_hand(file, package, name)
        self.exported[package].add(name)
        return _label(package, name, file.package)

    def _check_by_hand(self, file: PythonFile, package: str, name: str) -> None:
        build = self._tree.root / package / "BUILD.bazel"
        if f'"{name}"' not in build.read_text("utf-8"):
            self.faults.append(f"{build.relative_to(self._tree.root)} has no {name}, which {file.module} reads")


def rings(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Rings of modules that import each other, each with its first module again at its end.

    Not every ring, but there is one in the result if there is one in the graph.
    """
    done: set[str] = set()
    found = []

    def visit(node: str, path: tuple[str, ...]) -> None:
        if node in path:
            found.append((*path[path.index(node) :], node))
        elif node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, (*path, node))
            done.add(node)

    for start in sorted(graph):
        visit(start, ())
    return found


def _label(package: str, name: str, seen_from: str) -> str:
    return f":{name}" if package == seen_from else f"//{package}:{name}"
