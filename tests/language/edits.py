"""All single edits of a family, its layouts and the fragments that they include, as changed texts of one file each."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from recast_proto import mapping_pb2
from tests.language.changes import Found, whole
from tests.language.family_edits import family_changes
from tests.language.layout_edits import layout_changes, scope_changes


@dataclasses.dataclass(frozen=True)
class Edit:
    """One single edit.

    Attributes:
        kind: what was done.
        file: the edited file, relative to the mappings.
        subject: what it was done to.
        text: the whole file after the edit.
    """

    kind: str
    file: str
    subject: str
    text: str

    @property
    def key(self) -> str:
        """The name of the edit in tables: kind, file and subject."""
        return f"{self.kind} | {self.file} | {self.subject}"


def layout_edits(mappings: Path, family: str, formats: tuple[str, ...]) -> list[Edit]:
    """The edits of the layouts of a family and of the fragments that they include.

    An edit that leaves a file as it is, or makes the same text as an earlier one, is left out.

    Args:
        mappings: the folder of the mappings.
        family: name of the family's folder.
        formats: names of its layouts.
    """
    edits: list[Edit] = []
    fragments: dict[str, None] = {}
    for name in formats:
        file = f"{family}/{name}.textproto"
        layout = _parsed(mappings / file, mapping_pb2.Layout())
        fragments |= {included: None for scope in layout.scope for included in scope.include}
        edits += _edits_of(file, layout, layout_changes(layout))
    for file in fragments:
        scope = _parsed(mappings / file, mapping_pb2.Scope())
        edits += _edits_of(file, scope, scope_changes(scope, whole))
    return edits


def family_edits(mappings: Path, family: str) -> list[Edit]:
    """The edits of a family and of the fragments that it includes, under the same rule."""
    file = f"{family}/family.textproto"
    message = _parsed(mappings / file, mapping_pb2.Family())
    edits = _edits_of(file, message, family_changes(message))
    for fragment in message.include:
        part = _parsed(mappings / fragment, mapping_pb2.Family())
        edits += _edits_of(fragment, part, family_changes(part))
    return edits


def _parsed(path: Path, message: Any) -> Any:
    return text_format.Parse(path.read_text(encoding="utf-8"), message)


def _edits_of(file: str, message: Any, changes: Iterator[Found]) -> list[Edit]:
    seen = {text_format.MessageToString(message)}
    edits = []
    for kind, subject, change in changes:
        edited = copy.deepcopy(message)
        change(edited)
        text = text_format.MessageToString(edited)
        if text not in seen:
            seen.add(text)
            edits.append(Edit(kind, file, subject, text))
    return edits
