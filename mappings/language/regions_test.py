import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.language.merging import merge
from mappings.language.regions import Box, Dim, Move, NormalForm, normal_form, restrict, source_box, target_box
from mappings.language.testing import indices


def move(
    source_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    *dims: Dim,
    source_base: tuple[int, ...] | None = None,
    target_base: tuple[int, ...] | None = None,
) -> Move:
    return Move(
        "w",
        "s",
        "t",
        source_shape,
        target_shape,
        source_base or (0,) * len(source_shape),
        target_base or (0,) * len(target_shape),
        dims,
        (),
        (),
    )


def pairs(moves: list[Move]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(source index, target index) of each element."""
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for each in moves:
        source, target = indices(each)
        sources = zip(*(axis.ravel().tolist() for axis in source), strict=True)
        targets = zip(*(axis.ravel().tolist() for axis in target), strict=True)
        found += zip(sources, targets, strict=True)
    return found


def test_a_copy_of_a_whole_array_is_one_run() -> None:
    whole = move((3, 4, 5), (3, 4, 5), Dim(5, 2, 1, 2, 1), Dim(3, 0, 1, 0, 1), Dim(4, 1, 1, 1, 1))
    assert normal_form(whole) == NormalForm(0, 0, ((60, 1, 1),))


def test_a_transpose_keeps_two_dimensions() -> None:
    transposed = move((3, 4), (4, 3), Dim(3, 0, 1, 1, 1), Dim(4, 1, 1, 0, 1))
    assert normal_form(transposed) == NormalForm(0, 0, ((4, 1, 3), (3, 4, 1)))


def test_a_split_axis_of_equal_order_fuses() -> None:
    split = move((6, 5), (2, 3, 5), Dim(2, 0, 3, 0, 1), Dim(3, 0, 1, 1, 1), Dim(5, 1, 1, 2, 1))
    assert normal_form(split) == NormalForm(0, 0, ((30, 1, 1),))


def test_bases_become_offsets_and_scalars_have_no_dimension() -> None:
    inner = move((4, 5), (10,), Dim(5, 1, 1, 0, 2), source_base=(2, 0), target_base=(1,))
    assert normal_form(inner) == NormalForm(10, 1, ((5, 1, 2),))
    assert normal_form(move((), (3, 3), target_base=(1, 2))) == NormalForm(0, 5, ())


def test_boxes_bound_what_a_move_reads_and_writes() -> None:
    strided = move((10, 4), (8,), Dim(3, 0, 3, 0, 2), Dim(2, 1, 1, 0, 1), source_base=(1, 2), target_base=(1,))
    assert source_box(strided) == ((1, 8), (2, 4))
    assert target_box(strided) == ((1, 7),)


def test_a_box_that_holds_the_whole_move_leaves_it_as_it_is() -> None:
    whole = move((3, 4), (4, 3), Dim(3, 0, 1, 1, 1), Dim(4, 1, 1, 0, 1))
    assert restrict(whole, ((0, 4), (0, 3))) == [whole]


def test_a_box_beside_the_move_is_empty() -> None:
    right = move((3,), (9, 4), Dim(3, 0, 1, 0, 1), target_base=(5, 2))
    assert restrict(right, ((0, 5), (0, 4))) == []
    assert restrict(right, ((5, 8), (3, 4))) == []
    assert restrict(right, ((6, 6), (0, 4))) == []


def test_an_interval_is_cut_at_its_digits() -> None:
    digits = move((60,), (60,), Dim(3, 0, 1, 0, 20), Dim(4, 0, 3, 0, 5), Dim(5, 0, 12, 0, 1))
    parts = restrict(digits, ((7, 53),))
    assert len(parts) <= 2 * 3 - 1
    assert sum(part.elements for part in parts) == 46


def test_a_scalar_is_restricted_to_itself() -> None:
    scalar = move((), ())
    assert restrict(scalar, ()) == [scalar]


@st.composite
def moves_and_boxes(draw: st.DrawFn) -> tuple[Move, Box]:
    """A move with digits that leave gaps, as branches of sums and cut axes make them, and a box of its target."""
    axes = draw(st.integers(1, 3))
    target_shape, dims, target_base = [], [], []
    source_size = 1
    for axis in range(axes):
        weight = 1
        for _ in range(draw(st.integers(0, 3))):
            count = draw(st.integers(2, 4))
            weight *= draw(st.sampled_from([1, 1, 1, 2]))
            dims.append(Dim(count, 0, source_size, axis, weight))
            source_size *= count
            weight *= count
        base = draw(st.integers(0, 3))
        target_base.append(base)
        target_shape.append(base + weight + draw(st.integers(0, 2)))
    box = tuple(tuple(sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in target_shape)
    order = draw(st.permutations(dims))
    made = move((source_size,), tuple(target_shape), *order, target_base=tuple(target_base))
    return made, box  # type: ignore[return-value]


@given(moves_and_boxes())
@settings(max_examples=150, deadline=None)
def test_the_parts_of_a_move_are_its_elements_in_the_box(drawn: tuple[Move, Box]) -> None:
    whole, box = drawn
    parts = pairs(restrict(whole, box))
    inside = [
        (source, target)
        for source, target in pairs([whole])
        if all(low <= i < high for i, (low, high) in zip(target, box, strict=True))
    ]
    assert sorted(parts) == sorted(inside)


@given(moves_and_boxes())
@settings(max_examples=100, deadline=None)
def test_the_normal_form_has_the_same_elements(drawn: tuple[Move, Box]) -> None:
    whole, _ = drawn
    form = normal_form(whole)
    flat = {
        (
            form.source_offset + sum(i * dim[1] for i, dim in zip(index, form.dims, strict=True)),
            form.target_offset + sum(i * dim[2] for i, dim in zip(index, form.dims, strict=True)),
        )
        for index in itertools.product(*(range(count) for count, _, _ in form.dims))
    }
    expected = {(source[0], int(np.ravel_multi_index(target, whole.target_shape))) for source, target in pairs([whole])}
    assert flat == expected
    assert all(outer[2] >= inner[2] for outer, inner in itertools.pairwise(form.dims))


def stacked(layer: int) -> Move:
    """A vector of three that is one of several layers, stacked in front in the source and behind in the target."""
    return move((9, 3), (3, 9), Dim(3, 1, 1, 0, 1), source_base=(layer, 0), target_base=(0, layer))


@pytest.mark.parametrize(
    ("layers", "count"), [((0, 1, 2, 3), 1), ((2, 4, 6), 1), ((0, 1, 3), 2), ((0, 1, 2, 6, 7, 8), 1), ((4,), 1)]
)
def test_progressions_of_moves_merge(layers: tuple[int, ...], count: int) -> None:
    moves = [stacked(layer) for layer in layers]
    merged = merge(moves)
    assert len(merged) == count
    assert sorted(pairs(merged)) == sorted(pairs(moves))


def test_moves_between_other_arrays_do_not_merge() -> None:
    one = move((3, 2), (3, 2), Dim(3, 0, 1, 0, 1))
    other = move((3, 2), (3, 2), Dim(3, 0, 1, 0, 1), source_base=(0, 1), target_base=(0, 1))
    assert len(merge([one, other])) == 1
    elsewhere = dataclasses.replace(other, target="u")
    assert merge([one, elsewhere]) == [one, elsewhere]
