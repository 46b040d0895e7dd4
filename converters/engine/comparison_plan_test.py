"""Comparisons of two chunked sides: what is decoded, what is held, and what is found, against plain loops."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.engine import comparison_plan, recompute
from converters.engine.comparing import Difference, Differences
from converters.engine.gather import within
from converters.engine.memory_checkpoint import MemorySource
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.residue import EMPTY, Residue
from converters.engine.second_side import SecondSide
from converters.engine.values import AnyArray, ValuePath
from converters.formats.base import Region
from mappings.language.regions import Dim, Move
from reporting.diagnostics import RecastError

PLAIN = ValuePath("float32", "float32", "float32")
Sizes = tuple[int, ...]


class Held:
    """Bytes of reads that are still alive, and of the chunk that is being decoded; the most there ever was."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.RLock()

    def add(self, amount: int) -> None:
        with self._lock:
            self._now += amount
            self.most = max(self.most, self._now)


class Counting(MemorySource):
    """Says how often each chunk was decoded, and holds what it gives as a real source would."""

    def __init__(self, arrays: dict[str, AnyArray], chunks: dict[str, Sizes], held: Held):
        super().__init__(arrays, chunks)
        self.decodes: Counter[tuple[str, Sizes]] = Counter()
        self._held = held
        self._lock = threading.Lock()

    def read(self, name: str, region: Region) -> AnyArray:
        chunk = self.chunk(name)
        if chunk is None:
            return super().read(name, region)
        touched = itertools.product(
            *(range(start // size, -(-stop // size)) for (start, stop), size in zip(region, chunk, strict=True))
        )
        with self._lock:
            self.decodes.update((name, position) for position in touched)
        whole = 4 * math.prod(min(size, n) for size, n in zip(chunk, self.tensors[name].shape, strict=True))
        # As it is stored and as it is decoded.
        self._held.add(2 * whole)
        out = super().read(name, region).copy()
        self._held.add(out.nbytes - 2 * whole)
        weakref.finalize(out, self._held.add, -out.nbytes)
        return out

    @property
    def decoded(self) -> int:
        """Bytes of all chunks, each as often as it was decoded."""
        total = 0
        for (name, position), times in self.decodes.items():
            chunk = self.chunk(name) or ()
            sizes = zip(position, chunk, self.tensors[name].shape, strict=True)
            total += times * 4 * math.prod(min((i + 1) * size, n) - i * size for i, size, n in sizes)
        return total


def _compared(plan: Plan, first: MemorySource, second: MemorySource, budget: int) -> Differences:
    differences, side = Differences(), SecondSide(second, plan)

    def visit(name: str, region: Region, expected: AnyArray) -> None:
        side.each(
            name,
            region,
            lambda part, stored: differences.compare(name, part, within(expected, region, part), stored),
        )

    recompute.each_region(plan, first, Residue(EMPTY), budget, visit, "none")
    return differences


def _identical(
    shape: Sizes, ours: Sizes | None, theirs: Sizes | None, threads: int, budget: int
) -> tuple[Plan, Counting, Counting, Held]:
    held = Held()
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    first, second = (Counting({"a": values}, {} if c is None else {"a": c}, held) for c in (ours, theirs))
    return comparison_plan.identical(["a"], first, second, threads, budget), first, second, held


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((64, 128), (64, 128)),
        ((256, 512), (256, 512)),
        (None, (256, 512)),
        ((256, 512), None),
        ((64, 128), (256, 512)),
        ((256, 512), (64, 128)),
        ((64, 512), (256, 64)),
        ((96, 100), (48, 300)),
        (None, (251, 512)),
        ((7, 512), (256, 512)),
    ],
)
def test_each_chunk_of_either_side_is_decoded_once_within_the_budget(ours: Sizes | None, theirs: Sizes | None) -> None:
    budget = 4 * 256 * 512 * 4
    plan, first, second, held = _identical((256, 512), ours, theirs, 4, budget)
    comparison_plan.check_memory(plan, budget)
    assert not _compared(plan, first, second, budget).arrays
    assert {*first.decodes.values(), *second.decodes.values()} == {1}
    assert plan.amplification == 1
    assert first.decoded + second.decoded == sum(4 * 256 * 512 for chunk in (ours, theirs) if chunk is not None)
    assert held.most <= plan.peak_bytes <= budget


def test_a_large_chunk_of_the_second_side_is_held_while_pieces_of_the_first_take_turns() -> None:
    plan, first, second, held = _identical((512, 512), (4, 512), (256, 512), 2, 4 << 20)
    assert plan.arrays["a"].unit_count >= 4
    assert _compared(plan, first, second, 4 << 20).bytes == 1 << 20
    assert list(second.decodes.values()) == [1, 1]
    assert set(first.decodes.values()) == {1}
    # One chunk of 512 KiB thrice while it is decoded, and a piece; not the whole of the first side's counterpart.
    assert plan.arrays["a"].unit_bytes <= 7 << 18
    assert held.most <= plan.peak_bytes


@pytest.mark.parametrize("budget", [1_600_000, 1_900_000])
def test_where_chunks_do_not_fit_what_is_decoded_again_is_what_the_plan_says(budget: int) -> None:
    plan, first, second, held = _identical((256, 512), (256, 512), (256, 512), 4, budget)
    comparison_plan.check_memory(plan, budget)
    _compared(plan, first, second, budget)
    assert first.decoded + second.decoded == plan.bytes_decoded > plan.bytes_in == 1 << 20
    assert any("times those read" in line for line in comparison_plan.lines(plan))
    assert held.most <= plan.peak_bytes <= budget


def test_a_larger_budget_decodes_less() -> None:
    found = [
        _identical((256, 512), (256, 512), (256, 512), 4, budget)[0].bytes_decoded
        for budget in (1_580_000, 1_620_000, 1_900_000, 2_200_000)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 1 << 20


def test_a_chunk_that_even_one_thread_cannot_hold_is_refused_with_the_bytes_that_it_needs() -> None:
    plan = _identical((256, 512), None, (256, 512), 4, 500_000)[0]
    with pytest.raises(RecastError) as caught:
        comparison_plan.check_memory(plan, 500_000)
    (diagnostic,) = caught.value.diagnostics
    needed = plan.arrays["a"].unit_bytes
    assert (diagnostic.id, diagnostic.subject) == ("MEMORY_PLAN", "a")
    assert f"needs {needed} bytes" in diagnostic.reason
    again, first, second, held = _identical((256, 512), None, (256, 512), 4, needed)
    comparison_plan.check_memory(again, needed)
    assert _compared(again, first, second, needed).bytes == 256 * 512 * 4
    assert held.most <= needed


# Moves of one array [layers, rows, columns] into another: as it is, turned, and from a source array for each layer.
def _moves(kind: str, shape: Sizes) -> tuple[list[Move], dict[str, Sizes], Sizes]:
    layers, rows, columns = shape
    if kind == "stacked":
        dims = (Dim(rows, 0, 1, 1, 1), Dim(columns, 1, 1, 2, 1))
        sources: dict[str, Sizes] = {f"s{i}": (rows, columns) for i in range(layers)}
        moves = [
            Move("t", name, "a", (rows, columns), shape, (0, 0), (i, 0, 0), dims, (), ())
            for i, name in enumerate(sources)
        ]
        return moves, sources, shape
    target = (columns, layers, rows) if kind == "turned" else shape
    order = (1, 2, 0) if kind == "turned" else (0, 1, 2)
    dims3 = tuple(Dim(size, axis, 1, order[axis], 1) for axis, size in enumerate(shape))
    return [Move("t", "s", "a", shape, target, (0, 0, 0), (0, 0, 0), dims3, (), ())], {"s": shape}, target


def _expected(kind: str, sources: dict[str, AnyArray]) -> AnyArray:
    if kind == "stacked":
        return np.stack(list(sources.values()))
    return sources["s"].transpose(2, 0, 1).copy() if kind == "turned" else sources["s"].copy()


def _grids(data: st.DataObject, shapes: dict[str, Sizes]) -> dict[str, Sizes]:
    if data.draw(st.booleans()):
        return {}
    return {name: tuple(data.draw(st.integers(1, n)) for n in shape) for name, shape in shapes.items()}


def _elements(array: AnyArray) -> Iterator[Sizes]:
    return itertools.product(*(range(size) for size in array.shape))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["same", "turned", "stacked"]), st.tuples(*[st.integers(1, 6)] * 3), st.data())
def test_differences_and_decodes_are_those_of_plain_loops(kind: str, shape: Sizes, data: st.DataObject) -> None:
    moves, shapes, target = _moves(kind, shape)
    held = Held()
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    ours = {name: random.standard_normal(size).astype(np.float32) for name, size in shapes.items()}
    theirs = _expected(kind, ours)
    changed: AnyArray = np.asarray(random.random(theirs.shape)) < data.draw(st.sampled_from([0.0, 0.2]))
    theirs[changed] += 1
    first, second = (
        Counting(ours, _grids(data, shapes), held),
        Counting({"a": theirs}, _grids(data, {"a": target}), held),
    )
    threads, budget = data.draw(st.integers(1, 2)), data.draw(st.integers(64, 8000))
    info = second.tensors["a"]
    plan = comparison_plan.between([ArrayPlan(info, target, PLAIN, tuple(moves))], first, second, threads, budget)
    found = _compared(plan, first, second, budget).arrays.get("a")
    wrong = [at for at in _elements(theirs) if changed[at]]
    assert (0 if found is None else found.count) == len(wrong)
    assert found is None or found.first == wrong[0]
    mapped = sum(
        4 * math.prod(info.shape)
        for side in (first, second)
        for name, info in side.tensors.items()
        if side.chunk(name) is None
    )
    assert first.decoded + second.decoded + mapped == plan.bytes_decoded


def test_differences_of_several_units_are_one_of_the_array() -> None:
    held = Held()
    values = np.zeros((64, 64), np.float32)
    other = values.copy()
    other[3, 5], other[60, 1] = 2, 7
    first, second = Counting({"a": values}, {}, held), Counting({"a": other}, {"a": (32, 64)}, held)
    plan = comparison_plan.identical(["a"], first, second, 2, 20_000)
    assert any(group.in_turn for group in plan.shared)
    assert _compared(plan, first, second, 20_000).arrays == {"a": Difference(2, (3, 5), "0.0", "2.0", 7.0)}
