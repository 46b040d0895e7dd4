"""Mapping files to nodes: text, positions, fragments and aliases."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import message as protobuf
from google.protobuf import text_format

from mappings.language import nodes, positions
from mappings.language.errors import MappingErrors
from mappings.language.nodes import FamilySource, LayoutSource
from recast_proto import mapping_pb2

FAMILY_FILE = "family.textproto"
_SUFFIX = ".textproto"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_CLASSES: dict[str, type[nodes.Node]] = {
    "Family": nodes.FamilyNode,
    "Layout": nodes.LayoutNode,
    "Tensor": nodes.TensorNode,
    **{
        c.__name__: c
        for c in (
            nodes.Let,
            nodes.Atom,
            nodes.Group,
            nodes.Tie,
            nodes.Require,
            nodes.Example,
            nodes.Option,
            nodes.Label,
            nodes.Scope,
            nodes.At,
            nodes.PeerDiffers,
            nodes.Rule,
            nodes.Op,
            nodes.Scale,
            nodes.Add,
            nodes.Codec,
            nodes.CodecArray,
            nodes.Absent,
            nodes.Ignore,
            nodes.Mirror,
        )
    },
}
_FRAGMENT_FIELDS = ("config_root", "let", "atom", "tensor", "group", "tie", "require")


@functools.cache
def mappings_root() -> Path:
    """The folder that holds the families of this installation."""
    return Path(__file__).resolve().parent.parent


def families(root: Path | None = None) -> tuple[str, ...]:
    """Names of all families, aliases included, sorted."""
    return tuple(sorted(file.parent.name for file in (root or mappings_root()).glob(f"*/{FAMILY_FILE}")))


def formats_of(family: str, root: Path | None = None) -> tuple[str, ...]:
    """Formats for which a family has a layout, sorted; those of the family it is an alias of, for an alias.

    Raises:
        MappingErrors: there is no such family, or its file cannot be read.
    """
    folder = (root or mappings_root()) / load_family(family, root).folder
    return tuple(sorted(file.stem for file in folder.glob("*" + _SUFFIX) if file.name != FAMILY_FILE))


def load_family(name: str, root: Path | None = None) -> FamilySource:
    """Reads a family: its alias resolved, its fragments merged, each node with its "file:line".

    Raises:
        MappingErrors: there is no such family, or a file cannot be read.
    """
    root = root or mappings_root()
    if not _PLAIN_NAME.fullmatch(name) or not (root / name / FAMILY_FILE).is_file():
        known = ", ".join(families(root))
        raise MappingErrors.of(FAMILY_FILE, f"there is no family '{name}'; there are: {known}", "unknown")
    own = _family_file(root / name / FAMILY_FILE, FAMILY_FILE)
    if not own.alias_of:
        return _with_fragments(name, name, own, root)
    target = load_family(own.alias_of, root)
    _check_alias(own, target)
    content = dataclasses.replace(target.node, name=own.name, model_type=own.model_type)
    return dataclasses.replace(target, name=name, node=content, location=own.location)


def load_layout(family: str, format: str, root: Path | None = None) -> LayoutSource:
    """Reads the layout of a family, or of the family it is an alias of, for a format.

    Raises:
        MappingErrors: there is no such family or format, or a file cannot be read.
    """
    root = root or mappings_root()
    folder = load_family(family, root).folder
    file = root / folder / (format + _SUFFIX)
    if format not in formats_of(family, root):
        known = ", ".join(formats_of(family, root))
        raise MappingErrors.of(FAMILY_FILE, f"family '{family}' has no layout '{format}'; it has: {known}", "unknown")
    return parse_layout(file.read_text(encoding="utf-8"), file.name, folder, root)


def parse_layout(text: str, file: str, family: str, root: Path | None = None) -> LayoutSource:
    """A layout from its text; `file` is the name that messages use."""
    root = root or mappings_root()
    content: nodes.LayoutNode = _parse(text, mapping_pb2.Layout(), file)
    scopes = tuple(_with_scope_fragments(scope, root) for scope in content.scope)
    fragments = tuple(dict.fromkeys(name for scope in scopes for name in scope.include))
    return LayoutSource(
        location=content.location,
        family=family,
        format=content.format,
        node=dataclasses.replace(content, scope=scopes),
        fragments=fragments,
    )


def parse_family(text: str, file: str = FAMILY_FILE, root: Path | None = None) -> FamilySource:
    """A family from its text; `file` is the name that messages use."""
    content: nodes.FamilyNode = _parse(text, mapping_pb2.Family(), file)
    return _with_fragments(content.name, content.name, content, root or mappings_root())


def _with_fragments(name: str, folder: str, own: nodes.FamilyNode, root: Path) -> FamilySource:
    parts = [_family_fragment(root, include, own.location) for include in own.include] + [own]
    merged: dict[str, Any] = {
        field: tuple(entry for part in parts for entry in getattr(part, field)) for field in _FRAGMENT_FIELDS
    }
    content = dataclasses.replace(own, **merged)
    return FamilySource(location=own.location, name=name, folder=folder, node=content, fragments=own.include)


def _family_fragment(root: Path, include: str, location: str) -> nodes.FamilyNode:
    fragment = _family_file(_fragment_path(root, include, location), include)
    _only_fields(fragment, _FRAGMENT_FIELDS, "a family fragment")
    return fragment


def _with_scope_fragments(scope: nodes.Scope, root: Path) -> nodes.Scope:
    rules: list[nodes.Rule] = []
    for include in scope.include:
        path = _fragment_path(root, include, scope.location)
        fragment = _scope_file(path, include)
        _only_fields(fragment, ("rule",), "a scope fragment")
        rules += fragment.rule
    return dataclasses.replace(scope, rule=(*rules, *scope.rule))


def _fragment_path(root: Path, include: str, location: str) -> Path:
    path = root / include
    if ".." in Path(include).parts or not path.is_file():
        raise MappingErrors.of(location, f"there is no fragment '{include}'", "unknown")
    return path


def _only_fields(fragment: nodes.Node, allowed: Iterable[str], what: str) -> None:
    extra = [
        field.name
        for field in dataclasses.fields(fragment)
        if field.name not in (*allowed, "location") and getattr(fragment, field.name)
    ]
    if extra:
        raise MappingErrors.of(fragment.location, f"{what} has no '{extra[0]}'", "syntax")


def _check_alias(own: nodes.FamilyNode, target: FamilySource) -> None:
    if target.node.alias_of or target.name != target.folder:
        raise MappingErrors.of(own.location, f"'{own.alias_of}' is an alias itself", "syntax")
    _only_fields(own, ("name", "alias_of", "model_type"), "an alias")


def _family_file(path: Path, shown: str) -> nodes.FamilyNode:
    node = _cached_file(path, path.stat().st_mtime_ns, shown, "Family")
    assert isinstance(node, nodes.FamilyNode)
    return node


def _scope_file(path: Path, shown: str) -> nodes.Scope:
    node = _cached_file(path, path.stat().st_mtime_ns, shown, "Scope")
    assert isinstance(node, nodes.Scope)
    return node


@functools.lru_cache(maxsize=256)
def _cached_file(path: Path, modified: int, shown: str, message: str) -> nodes.Node:
    """`modified` is part of the key, so that an edited file is read again."""
    node: nodes.Node = _parse(path.read_text(encoding="utf-8"), getattr(mapping_pb2, message)(), shown)
    return node


def _parse(text: str, message: protobuf.Message, file: str) -> Any:
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        # The position stands at the front of protobuf's own text too.
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise MappingErrors.of(f"{file}:{error.GetLine() or 1}", reason, "syntax") from None
    return _node(message, "", file, positions.field_lines(text))


def _node(message: protobuf.Message, path: str, file: str, lines: Any) -> Any:
    """The dataclass of a message. Its fields are named alike, except `is`, which is a word of Python."""
    values: dict[str, Any] = {"location": f"{file}:{lines.get(path.rstrip('.'), 1)}"}
    for field, value in message.ListFields():
        name = "is_" if field.name == "is" else field.name
        values[name] = _value(field, value, path, file, lines)
    cls = _CLASSES[message.DESCRIPTOR.name]
    needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
    if needed:
        what = message.DESCRIPTOR.name.lower()
        raise MappingErrors.of(values["location"], f"{what} without '{needed[0]}'", "syntax")
    return cls(**values)


def _value(field: Any, value: Any, path: str, file: str, lines: Any) -> Any:
    if field.is_repeated:
        if field.message_type is None:
            return tuple(value)
        return tuple(_node(item, f"{path}{field.name}[{i}].", file, lines) for i, item in enumerate(value))
    if field.message_type is not None:
        return _node(value, f"{path}{field.name}[0].", file, lines)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
