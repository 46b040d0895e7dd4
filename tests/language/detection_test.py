"""The options of a MaxText checkpoint are found from names and shapes that were written down without the language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mappings.language.detection import Detection, detect
from mappings.language.family import bind_family
from mappings.language.loader import load_family, load_layout
from tests import checkpoints
from tests.oracles import llama

NAMES = [name for name, config in checkpoints.CONFIGS.items() if config["model_type"] == "llama"]


def _header(config: Mapping[str, Any], scan: bool) -> dict[str, tuple[int, ...]]:
    tensors = checkpoints.with_zero_biases(checkpoints.element_coded_llama(config, "bfloat16", seed=1))
    leaves = llama.to_maxtext(tensors, config, llama.Variant(scan))
    return {name: values.shape for name, values in leaves.items()}


def _detect(config: Mapping[str, Any], header: Mapping[str, tuple[int, ...]], **fixed: object) -> Detection:
    return detect(bind_family(load_family("llama"), config), load_layout("llama", "maxtext"), header, fixed)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_stacking_is_seen_and_the_order_of_rotary_pairs_is_not(name: str, scan: bool) -> None:
    config = checkpoints.CONFIGS[name]
    found = _detect(config, _header(config, scan))
    assert found.fits
    assert found.options["scan"] is scan
    assert sorted(map(str, found.undecided["rope"])) == ["half", "interleaved"]
    assert list(found.undecided) == ["rope"]


@pytest.mark.parametrize(
    ("fixed", "rope"),
    [
        ({"rope": "half"}, "half"),
        ({"rope": "interleaved"}, "interleaved"),
        ({"model_name": "llama3.1-8b"}, "interleaved"),
        ({"model_name": "llama3-8b"}, "half"),
        ({"model_name": "llama3.3-70b"}, "half"),
    ],
)
def test_the_order_of_rotary_pairs_may_be_given_or_follow_from_the_models_name(
    fixed: dict[str, object], rope: str
) -> None:
    config = checkpoints.CONFIGS["grouped"]
    found = _detect(config, _header(config, True), **fixed)
    assert not found.undecided
    assert found.options["rope"] == rope
    assert found.options["scan"] is True


@pytest.mark.parametrize("damage", ["missing", "shape", "unexpected"])
def test_a_damaged_header_is_named_against_the_nearest_layout(damage: str) -> None:
    config = checkpoints.CONFIGS["grouped"]
    header = _header(config, False)
    name = "params.params.decoder.layers_1.mlp.wo.kernel"
    if damage == "missing":
        del header[name]
    elif damage == "shape":
        header[name] = header[name][::-1]
    else:
        name = "params.params.decoder.layers_1.mlp.wo.bias"
        header[name] = (3,)
    found = _detect(config, header)
    assert not found.fits
    assert [(difference.kind, difference.name) for difference in found.nearest] == [(damage, name)]
