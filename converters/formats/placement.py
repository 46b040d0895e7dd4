"""Where the index of a checkpoint and its files, or two of its files, disagree about a tensor."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Protocol

from converters.formats.json_files import printable
from reporting.diagnostics import Diagnostic


class Names(Container[str], Iterable[str], Protocol):
    """The tensors of a file."""


def problems(index: Mapping[str, str] | None, held: Mapping[str, Names]) -> list[Diagnostic]:
    """Every disagreement.

    Args:
        index: the file of each tensor by the index, if there is one.
        held: the tensors found in each file that could be read.
    """
    holders: dict[str, list[str]] = {}
    for file, names in held.items():
        for tensor in names:
            holders.setdefault(tensor, []).append(file)
    found = []
    for tensor in sorted(tensor for tensor, files in holders.items() if len(files) > 1):
        reason = f"{printable(tensor)} is in {' and in '.join(map(printable, holders[tensor]))}"
        found.append(Diagnostic("DUPLICATE_TENSOR", reason, subject=printable(tensor)))
    if index is None:
        return found
    for tensor, file in index.items():
        if file in held and tensor not in held[file]:
            elsewhere = f"; {printable(holders[tensor][0])} has it" if tensor in holders else ""
            reason = f"the index places {printable(tensor)} in {printable(file)}, which lacks it{elsewhere}"
            found.append(Diagnostic("MISSING_INDEXED_TENSOR", reason, subject=printable(tensor)))
    for tensor in sorted(set(holders) - set(index)):
        reason = f"{printable(holders[tensor][0])} holds {printable(tensor)}, which the index does not name"
        found.append(Diagnostic("UNINDEXED_TENSOR", reason, subject=printable(tensor)))
    return found
