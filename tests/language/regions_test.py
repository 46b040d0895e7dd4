"""Any box of a target, and the fused form of a move, hold the oracle's elements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from mappings.language.composition import Composition, compose
from mappings.language.family import bind_family
from mappings.language.layout import bind_layout
from mappings.language.loader import load_family, load_layout
from mappings.language.regions import normal_form, restrict, source_box
from tests import checkpoints
from tests.language import executor
from tests.oracles import llama

Pair = tuple[Composition, llama.Arrays, llama.Arrays]

CASES = list(itertools.product(("grouped", "odd_six"), (True, False), ("there", "back")))


def _pair(name: str, scan: bool, direction: str) -> Pair:
    """A composition with interleaved rotary pairs, its source arrays and the oracle's target arrays."""
    config = checkpoints.CONFIGS[name]
    family = bind_family(load_family("llama"), config)
    hf = bind_layout(family, load_layout("llama", "hf"))
    maxtext = bind_layout(family, load_layout("llama", "maxtext"), {"scan": scan, "rope": "interleaved"})
    variant = llama.Variant(scan, True, "float32")
    tensors = checkpoints.element_coded_llama(config, "float32", seed=1)
    leaves = llama.to_maxtext(tensors, config, variant)
    if direction == "there":
        return compose(hf, maxtext), tensors, leaves
    return compose(maxtext, hf), leaves, llama.to_hf(leaves, config, variant, "float32")


@pytest.mark.parametrize(("name", "scan", "direction"), CASES)
def test_the_parts_of_a_box_fill_it_and_nothing_else(name: str, scan: bool, direction: str) -> None:
    composition, sources, expected = _pair(name, scan, direction)
    generator = np.random.default_rng(2)
    for target, values in expected.items():
        moves = [move for move in composition.moves if move.target == target]
        for _ in range(4):
            ends = [np.sort(generator.choice(size + 1, 2, replace=False)) for size in values.shape]
            box = tuple((int(start), int(stop)) for start, stop in ends)
            written = np.zeros(values.shape, np.uint8)
            found = np.zeros(values.shape, np.float32)
            for part in (part for move in moves for part in restrict(move, box)):
                executor.move_into(part, sources[part.source], found)
                executor.count_into(part, written)
            inside = tuple(slice(start, stop) for start, stop in box)
            assert (written[inside] == 1).all()
            assert written.sum() == written[inside].size
            assert found[inside].tobytes() == values[inside].tobytes()


@pytest.mark.parametrize(("name", "scan", "direction"), CASES)
def test_the_source_box_of_a_move_is_the_smallest_that_holds_its_elements(
    name: str, scan: bool, direction: str
) -> None:
    composition, sources, _ = _pair(name, scan, direction)
    generator = np.random.default_rng(3)
    moves = [composition.moves[index] for index in generator.integers(0, len(composition.moves), 20)]
    for move in moves:
        stop = tuple((size // 3, size) for size in move.target_shape)
        for part in restrict(move, stop):
            read = np.zeros(sources[move.source].shape, bool)
            executor.mark_source(part, read)
            places = np.argwhere(read)
            smallest = tuple(zip(places.min(0).tolist(), (places.max(0) + 1).tolist(), strict=True))
            assert tuple(map(tuple, source_box(part))) == smallest


@pytest.mark.parametrize(("name", "scan", "direction"), CASES)
def test_the_normal_form_reads_and_writes_the_same_elements(name: str, scan: bool, direction: str) -> None:
    composition, sources, expected = _pair(name, scan, direction)
    for move in composition.moves:
        form = normal_form(move)
        counts = [count for count, _, _ in form.dims]
        assert all(count > 1 for count in counts) or not counts
        strides = [stride for _, _, stride in form.dims]
        assert strides == sorted(strides, reverse=True)
        source = as_strided(
            sources[move.source].reshape(-1)[form.source_offset :], counts, [4 * stride for _, stride, _ in form.dims]
        )
        target = as_strided(
            expected[move.target].reshape(-1)[form.target_offset :], counts, [4 * stride for stride in strides]
        )
        assert executor.operated(move, source).tobytes() == target.tobytes()
