"""What one Python file needs: the modules it imports or names, and the repository's files it reads."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclasses.dataclass(frozen=True)
class Scan:
    """One file, read.

    Attributes:
        imports: what it imports, wherever in the file: `from a import b` is a.b, which may be a module or a name in a.
            What a program imports that the file gives to `python -c` counts too.
        named: dotted names that it gives to `python -m`, or in any string if it uses importlib.
        paths: where its paths that start at __file__ lead, as far as they are constant; relative to the repository.
        is_program: it defines PROGRAM as a Program.
        parameters: of its functions; those of a test are fixtures.
    """

    imports: frozenset[str]
    named: frozenset[str]
    paths: frozenset[PurePosixPath]
    is_program: bool
    parameters: frozenset[str]


def scan(source: str, file: PurePosixPath) -> Scan:
    """Reads a file.

    Args:
        source: its text.
        file: where it lies, relative to the repository.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source, str(file))
    imports = set(_imports(tree))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    commands = list(_python_commands(tree))
    if any("-c" in words for words in commands):
        imports.update(name for text in strings for name in _imports(_program(text)))
    named = strings if "importlib" in imports else {after for words in commands for after in _following("-m", words)}
    return Scan(
        frozenset(imports),
        frozenset(text for text in named if _DOTTED.fullmatch(text)),
        frozenset(_paths(tree, file)),
        any(_defines_program(node) for node in tree.body),
        frozenset(node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)),
    )


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                start = "." * node.level + (f"{node.module}." if node.module else "")
                yield from (start.rstrip(".") if alias.name == "*" else f"{start}{alias.name}" for alias in node.names)


def _python_commands(tree: ast.Module) -> Iterator[list[str]]:
    """The strings in each command line that begins with this interpreter."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.List(elts=[ast.Attribute(value=ast.Name(id="sys"), attr="executable"), *words])
                | ast.Tuple(elts=[ast.Attribute(value=ast.Name(id="sys"), attr="executable"), *words])
            ):
                yield [str(word.value) if isinstance(word, ast.Constant) else "" for word in words]


def _following(option: str, words: list[str]) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word == option]


def _program(text: str) -> ast.Module:
    """A string as a program; one without statements if it is none."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _assignment(node: ast.stmt) -> tuple[str, ast.expr] | None:
    """The name and the value, if a statement gives a value to one name."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return name, value
    return None


def _defines_program(node: ast.stmt) -> bool:
    match _assignment(node):
        case ("PROGRAM", ast.Call(func=ast.Name(id="Program") | ast.Attribute(attr="Program"))):
            return True
    return False


def _paths(tree: ast.Module, file: PurePosixPath) -> Iterator[PurePosixPath]:
    """Each longest expression that is a known path. A constant counts where it is used, if it is used at all."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    constants: dict[str, PurePosixPath] = {}
    for statement in tree.body:
        assignment = _assignment(statement)
        path = _evaluate(assignment[1], file, constants) if assignment else None
        if assignment and path is not None:
            constants[assignment[0]] = path
            if assignment[0] in used:
                continue
        yield from _longest(statement, file, constants)


def _longest(node: ast.AST, file: PurePosixPath, constants: Mapping[str, PurePosixPath]) -> Iterator[PurePosixPath]:
    path = _evaluate(node, file, constants)
    if path is not None:
        yield path
        return
    for child in ast.iter_child_nodes(node):
        yield from _longest(child, file, constants)


def _evaluate(node: ast.AST, file: PurePosixPath, constants: Mapping[str, PurePosixPath]) -> PurePosixPath | None:
    """The path that an expression gives, or None if that cannot be told from the file alone."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return constants.get(name)
        case ast.Call(func=ast.Name(id="Path") | ast.Attribute(attr="Path"), args=[ast.Name(id="__file__")]):
            return file
        case (
            ast.Call(func=ast.Attribute(value=inner))
            | ast.Attribute(value=inner)
            | ast.Subscript(value=ast.Attribute(value=inner))
            | ast.BinOp(left=inner)
        ):
            start = _evaluate(inner, file, constants)
            return None if start is None else _step(node, start)
    return None


def _step(node: ast.AST, start: PurePosixPath) -> PurePosixPath | None:
    """The path that one operation on a path gives."""
    match node:
        case ast.Call(func=ast.Attribute(attr="resolve" | "absolute"), args=[]):
            return start
        case ast.Call(func=ast.Attribute(attr="with_name"), args=[ast.Constant(value=str() as name)]):
            return start.with_name(name)
        case ast.Attribute(attr="parent"):
            return start.parent
        case ast.Subscript(value=ast.Attribute(attr="parents"), slice=ast.Constant(value=int() as steps)):
            return start.parents[steps] if steps < len(start.parents) else None
        case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str() as name)):
            return start / name
    return None
