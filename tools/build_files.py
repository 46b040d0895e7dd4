"""Derives the BUILD.bazel files from the modules and their imports.

    python -m tools.build_files [--write]    without --write it shows what would change

There is a target for each module and test. A folder's visibility is what the arrows between the rooms allow; a module
that goes against an arrow is named, and so is an import that nothing provides. Exit code 1 if anything is to be
written or is wrong. What stands below the line "# By hand:" in a file is kept, with what it loads; a target that it
defines is not derived.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools import build_files_rooms as rooms
from tools import build_files_tree as trees
from tools.build_files_needs import FILES, PROTO_MODULES, Analysis, Needs
from tools.build_files_starlark import Glob, Value, call, loads
from tools.build_files_tree import PROTO, PythonFile, Tree

HEADER = "# Derived from the imports: `python -m tools.build_files --write` writes it."
HAND = "# By hand:"
ENTRYPOINT = "container.entrypoint"

_LOADED_FROM = {
    "proto_library": "@protobuf//bazel:proto_library.bzl",
    "py_binary": "@rules_python//python:py_binary.bzl",
    "py_module": "//tools:defs.bzl",
    "py_proto_library": "@protobuf//bazel:py_proto_library.bzl",
    "python_test": "//tools:defs.bzl",
}
_NOTHING = Needs(frozenset(), frozenset(), frozenset(), frozenset())


@dataclasses.dataclass(frozen=True)
class Derived:
    """The files as they should be.

    Attributes:
        files: their text, by path.
        faults: what is wrong in the repository itself, in sentences.
    """

    files: Mapping[str, str]
    faults: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """One rule or macro of a BUILD file."""

    function: str
    name: str
    attributes: Mapping[str, Value]


def derive(root: Path) -> Derived:
    """Derives all files.

    Args:
        root: the repository.
    """
    tree = trees.read(root)
    analysis = Analysis(tree)
    packages = {package: list(_targets(tree, analysis, package)) for package in tree.packages}
    if tree.protos:
        packages[PROTO] = list(_proto_targets(tree))
    files = {}
    for package, targets in packages.items():
        path = f"{package}/BUILD.bazel"
        if package in analysis.grouped:
            below = tuple(f"//{other}:{FILES}" for other in sorted(analysis.grouped) if other.startswith(f"{package}/"))
            targets.insert(0, Target("filegroup", FILES, {"srcs": Glob(tree.data_patterns(package), below)}))
        old = (root / path).read_text("utf-8") if (root / path).exists() else ""
        files[path] = _text(tree, package, targets, sorted(analysis.exported[package]), old)
    return Derived(files, tuple(sorted(set(analysis.faults))))


def stale(root: Path, derived: Derived) -> Iterator[str]:
    """Derived files in folders that are no packages any more."""
    for folder, names in trees.folders(root):
        path = folder / "BUILD.bazel"
        name = path.relative_to(root).as_posix()
        if path.name in names and name not in derived.files and path.read_text("utf-8").startswith(HEADER):
            yield name


def differences(root: Path, derived: Derived) -> list[str]:
    """Lines of a diff from the files as they are to the derived ones."""
    lines: list[str] = []
    for path, new in {**derived.files, **dict.fromkeys(stale(root, derived), "")}.items():
        old = (root / path).read_text("utf-8") if (root / path).exists() else ""
        lines += difflib.unified_diff(old.splitlines(), new.splitlines(), path, path, lineterm="", n=1)
    return lines


def write(root: Path, derived: Derived) -> None:
    """Writes the files that differ, and removes those that are no longer wanted."""
    for path in stale(root, derived):
        (root / path).unlink()
    for path, text in derived.files.items():
        if not (root / path).exists() or (root / path).read_text("utf-8") != text:
            (root / path).write_text(text, "utf-8")


def _targets(tree: Tree, analysis: Analysis, package: str) -> Iterator[Target]:
    here = {file.stem: file for file in tree.files.values() if file.package == package}
    for stem, file in sorted(here.items()):
        if not file.is_test:
            yield _module(tree, analysis, file)
            if file.scan.is_program or file.module == ENTRYPOINT:
                main = f"{stem}.py"
                yield Target("py_binary", f"{stem}_bin", {"srcs": [main], "main": main, "deps": [f":{stem}"]})
        elif file.tested not in tree.files:
            needs, size = _test(tree, analysis, file)
            yield Target("python_test", stem, {"size": size, "data": [*needs.data], "deps": [*needs.deps]})


def _module(tree: Tree, analysis: Analysis, file: PythonFile) -> Target:
    needs = analysis.needs[file.module]
    attributes: dict[str, Value] = {"data": [*needs.data], "deps": [*needs.deps]}
    test = tree.files.get(f"{file.module}_test")
    if test is not None:
        tested, size = _test(tree, analysis, test)
        attributes |= {"size": size, "test_data": [*tested.data], "test_deps": [*tested.deps]}
    return Target("py_module", file.stem, attributes)


def _test(tree: Tree, analysis: Analysis, test: PythonFile) -> tuple[Needs, str]:
    """What a test needs beside pytest and its module, which the macros add, and its size unless that is small."""
    needs = analysis.needs[test.module]
    given = {"@recast_dev_pip//pytest"}
    if test.tested in tree.files:
        given.add(analysis.label_of(test.tested, test.package))
    parts = test.package.split("/")
    above = [".".join([*parts[:end], "conftest"]) for end in range(1, len(parts) + 1)]
    fixtures = {analysis.label_of(module, test.package) for module in above if module in tree.files}
    slow = rooms.room_of(test.package) == "tests" or "verify" in needs.layers
    return dataclasses.replace(needs, deps=needs.deps - given | fixtures), "medium" if slow else ""


def _proto_targets(tree: Tree) -> Iterator[Target]:
    for proto in tree.protos:
        # The public rules then give both the .proto and the generated module the path that imports name.
        place = {"import_prefix": PROTO_MODULES, "strip_import_prefix": f"/{PROTO}"}
        deps = [_proto_label(imported) for imported in trees.proto_imports(tree.root, proto)]
        yield Target("proto_library", f"{proto}_proto", {"srcs": [f"{proto}.proto"], **place, "deps": deps})
        yield Target("py_proto_library", f"{proto}_py_pb2", {"deps": [f":{proto}_proto"]})


def _proto_label(imported: str) -> str:
    folder, _, name = imported.removesuffix(".proto").rpartition("/")
    return f":{name}_proto" if folder == PROTO_MODULES else f"@protobuf//:{name}_proto"


def _text(tree: Tree, package: str, targets: Sequence[Target], exported: Sequence[str], old: str) -> str:
    """The text of one file.

    Args:
        tree: the repository.
        package: the folder.
        targets: its targets.
        exported: its files that other packages read.
        old: the text so far.
    """
    hand = _by_hand(old)
    taken = set(re.findall(r'\bname = "([^"]+)"', hand))
    targets = [target for target in targets if target.name not in taken]
    symbols: defaultdict[str, set[str]] = defaultdict(set)
    for file, symbol in _loaded(old):
        if re.search(rf"\b{symbol}\b", hand):
            symbols[file].add(symbol)
    for target in targets:
        if target.function in _LOADED_FROM:
            symbols[_LOADED_FROM[target.function]].add(target.function)
    statements = [loads(symbols)] if symbols else []
    visibility = rooms.visibility(package, tree.bazel_packages)
    statements.append(call("package", default_visibility=visibility or ["//visibility:private"]))
    if any(other.startswith(f"{package}/") for other in tree.packages):
        # Of //tools:defs.bzl: a module brings the __init__.py of all folders that it is in.
        statements.append(call("exports_files", ["__init__.py"], visibility=[f"//{package}:__subpackages__"]))
    if exported:
        statements.append(call("exports_files", exported))
    statements += [call(target.function, name=target.name, **target.attributes) for target in targets]
    text = "\n\n".join([HEADER, *statements]) + "\n"
    return f"{text}\n{HAND}\n{hand}\n" if hand else text


def _by_hand(text: str) -> str:
    """The part of a file that is kept, without its load statements: all of it, if it was never derived."""
    hand = text.partition(f"\n{HAND}\n")[2] if text.startswith(HEADER) else text.removeprefix(f"{HAND}\n")
    return re.sub(r"^load\([^)]*\)\n+", "", hand, flags=re.MULTILINE).strip("\n")


def _loaded(text: str) -> Iterator[tuple[str, str]]:
    for arguments in re.findall(r"^load\(([^)]*)\)", text, re.MULTILINE):
        file, *symbols = re.findall(r'"([^"]+)"', arguments)
        yield from ((file, symbol) for symbol in symbols)


def main(arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Compares or writes.

    Returns:
        0 if the files are as derived and nothing is wrong, or, with --write, if nothing is wrong; else 1.
    """
    parser = argparse.ArgumentParser(description="Derives the BUILD.bazel files from the modules and their imports.")
    parser.add_argument("--write", action="store_true", help="write them, instead of showing what would change")
    options = parser.parse_args(arguments)
    root = root or Path(__file__).resolve().parent.parent
    derived = derive(root)
    if options.write:
        write(root, derived)
    lines = differences(root, derived)
    for line in (*lines, *derived.faults):
        print(line)
    return int(bool(lines or derived.faults))


if __name__ == "__main__":
    sys.exit(main())
