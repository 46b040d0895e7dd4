"""Llama's layouts put every element where the oracle puts it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mappings.language.composition import compose
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.loader import load_family, load_layout
from tests import checkpoints
from tests.language import executor
from tests.oracles import llama

STYLES = list(itertools.product((True, False), ("half", "interleaved")))
ROOTS = ("params.params.", "opt_state.0.mu.params.", "opt_state.0.nu.params.")
CASES = [(name, scan, rope) for name in checkpoints.CONFIGS for scan, rope in STYLES]


def _layouts(config: Mapping[str, Any], scan: bool, rope: str) -> tuple[Layout, Layout]:
    maxtext = _maxtext_layouts(config, ((scan, rope),))[0]
    return bind_layout(maxtext.family, load_layout(config["model_type"], "hf")), maxtext


def _maxtext_layouts(config: Mapping[str, Any], styles: Sequence[tuple[bool, str]]) -> list[Layout]:
    family = bind_family(load_family(config["model_type"]), config)
    source = load_layout(config["model_type"], "maxtext")
    return [bind_layout(family, source, {"scan": scan, "rope": rope}) for scan, rope in styles]


def _movable(config: Mapping[str, Any], dtype: str, seed: int) -> llama.Arrays:
    return checkpoints.with_zero_biases(checkpoints.element_coded_llama(config, dtype, seed))


@pytest.mark.parametrize(("name", "scan", "rope"), CASES)
def test_hf_to_maxtext_writes_the_oracles_bits(name: str, scan: bool, rope: str) -> None:
    config = checkpoints.CONFIGS[name]
    hf, maxtext = _layouts(config, scan, rope)
    # Patterns of 32 bits are practically all distinct, so that no exchange of elements goes unseen.
    tensors = _movable(config, "float32", seed=1)
    variant = llama.Variant(scan, rope == "interleaved", "float32")
    found = executor.run(compose(hf, maxtext), tensors, "float32")
    assert checkpoints.differing(found, llama.to_maxtext(tensors, config, variant)) == []


@pytest.mark.parametrize(("name", "scan", "rope"), CASES)
def test_maxtext_to_hf_writes_the_oracles_bits(name: str, scan: bool, rope: str) -> None:
    config = checkpoints.CONFIGS[name]
    hf, maxtext = _layouts(config, scan, rope)
    variant = llama.Variant(scan, rope == "interleaved", "float32")
    leaves = llama.to_maxtext(_movable(config, "float32", seed=2), config, variant)
    found = executor.run(compose(maxtext, hf), leaves, "float32")
    assert checkpoints.differing(found, llama.to_hf(leaves, config, variant, "float32")) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["grouped", "biased", "tied"])
def test_rounding_to_a_short_dtype_gives_the_oracles_bits(name: str, dtype: str) -> None:
    config = checkpoints.CONFIGS[name]
    hf, maxtext = _layouts(config, True, "interleaved")
    tensors = _movable(config, dtype, seed=3)
    variant = llama.Variant(True, True, dtype, "as_requested")
    found = executor.run(compose(hf, maxtext), tensors, dtype)
    assert checkpoints.differing(found, llama.to_maxtext(tensors, config, variant)) == []


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
def test_restacking_between_two_maxtext_layouts_moves_bits_only(name: str) -> None:
    config = checkpoints.CONFIGS[name]
    tensors = _movable(config, "float32", seed=4)
    variants = [llama.Variant(scan, rope == "interleaved", "float32") for scan, rope in STYLES]
    layouts = _maxtext_layouts(config, STYLES)
    leaves = [llama.to_maxtext(tensors, config, variant) for variant in variants]
    for one, other in itertools.product(range(len(STYLES)), repeat=2):
        composition = compose(layouts[one], layouts[other])
        assert all(not move.source_ops and not move.target_ops for move in composition.moves)
        assert checkpoints.differing(executor.run(composition, leaves[one], "float32"), leaves[other]) == []


def test_a_bias_is_checked_to_be_zero_before_it_is_dropped() -> None:
    config = checkpoints.CONFIGS["biased"]
    hf, maxtext = _layouts(config, True, "half")
    zeros = _movable(config, "bfloat16", seed=5)
    composition = compose(hf, maxtext, zeros)
    assert executor.broken_checks(composition, zeros) == []
    for name in (name for name in zeros if name.endswith(".bias")):
        changed = {**zeros, name: zeros[name].copy()}
        changed[name][-1] = 1
        assert len(executor.broken_checks(composition, changed)) == 1


def test_a_tied_head_that_a_checkpoint_carries_is_compared_with_the_embedding() -> None:
    config = checkpoints.CONFIGS["tied"]
    hf, maxtext = _layouts(config, True, "half")
    tensors = _movable(config, "bfloat16", seed=6)
    carried = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].copy()}
    composition = compose(hf, maxtext, carried)
    assert executor.broken_checks(composition, carried) == []
    without = executor.run(compose(hf, maxtext, tensors), tensors, "bfloat16")
    assert checkpoints.differing(executor.run(composition, carried, "bfloat16"), without) == []
    carried["lm_head.weight"].view(np.uint16)[7, 5] ^= 1
    assert len(executor.broken_checks(composition, carried)) == 1


def test_every_source_array_is_accounted_for() -> None:
    for name in checkpoints.CONFIGS:
        config = checkpoints.CONFIGS[name]
        hf, maxtext = _layouts(config, True, "half")
        tensors = checkpoints.llama_shapes(config)
        there, back = compose(hf, maxtext, tensors), compose(maxtext, hf)
        assert there.consumed == tensors.keys()
        assert set(back.produced) == tensors.keys()
        assert back.consumed == set(there.produced)


def test_moments_are_restacked_like_the_weights() -> None:
    config = checkpoints.CONFIGS["grouped"]
    tensors = _movable(config, "float32", seed=7)
    (stacked, unstacked) = _maxtext_layouts(config, ((True, "half"), (False, "half")))
    states = []
    for scan in (True, False):
        leaves = llama.to_maxtext(tensors, config, llama.Variant(scan, save_dtype="float32"))
        states.append(
            {name.replace("params.params.", root): values for name, values in leaves.items() for root in ROOTS}
        )
    composition = compose(stacked, unstacked, states[0])
    assert checkpoints.differing(executor.run(composition, states[0], "float32"), states[1]) == []
