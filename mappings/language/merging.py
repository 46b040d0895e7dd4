"""Merging moves between the same two arrays whose bases form an arithmetic progression into one with one more dim."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mappings.language.regions import Dim, Move

_Step = tuple[int, int, int, int]
"""(source axis, source weight, target axis, target weight)."""


def merge(moves: Sequence[Move]) -> list[Move]:
    """Equal moves with fewer and larger ones; nested progressions (stacked blocks of stacked layers) merge as well."""
    current = list(moves)
    while True:
        merged = _once(current)
        if len(merged) == len(current):
            return merged
        current = merged


def _once(moves: Sequence[Move]) -> list[Move]:
    groups: dict[tuple[str, str, tuple[Dim, ...]], list[Move]] = {}
    for move in moves:
        groups.setdefault((move.source, move.target, move.dims), []).append(move)
    if len(groups) == len(moves):
        return list(moves)
    return [merged for group in groups.values() for merged in _progressions(group)]


def _progressions(group: list[Move]) -> list[Move]:
    if len(group) == 1:
        return group
    group = sorted(group, key=lambda move: (move.target_base, move.source_base))
    merged: list[Move] = []
    start = 0
    while start < len(group):
        stop = start + 1
        step = _step(group[start], group[stop]) if stop < len(group) else None
        if step is not None:
            while stop < len(group) and _step(group[stop - 1], group[stop]) == step:
                stop += 1
            merged.append(_joined(group[start], stop - start, step))
        else:
            merged.append(group[start])
        start = stop
    return merged


def _step(first: Move, second: Move) -> _Step | None:
    """The step from one base to the next, if it is along one axis on each side."""
    source = _axis_step(first.source_base, second.source_base)
    target = _axis_step(first.target_base, second.target_base)
    return None if source is None or target is None else (*source, *target)


def _axis_step(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int] | None:
    steps = [(axis, b - a) for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    return steps[0] if len(steps) == 1 and steps[0][1] > 0 else None


def _joined(move: Move, count: int, step: _Step) -> Move:
    source_axis, source_weight, target_axis, target_weight = step
    dim = Dim(count, source_axis, source_weight, target_axis, target_weight)
    return dataclasses.replace(move, dims=(*move.dims, dim))
