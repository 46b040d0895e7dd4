"""Experts, kinds of layers and spellings that do not fit: config.json and the files of a model with routed experts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import kept_checkpoints
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext
from tests.kept_checkpoints import CONFIG

_FIRST = "model-00001-of-00002.safetensors"
_INDEX = "model.safetensors.index.json"
_MATRICES = ("gate_proj", "up_proj", "down_proj")
_LAYERS = (1, 2, 3)
_ROUTER = ("mlp.gate.weight", "mlp.gate.e_score_correction_bias")
PACKED = "model.layers.1.mlp.experts.down_proj"


@pytest.fixture(scope="session")
def good(templates: Path) -> Path:
    kept_checkpoints.write(templates / "experts")
    return templates / "experts"


@pytest.fixture
def source(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "hf"))


def _experts(id: str, *numbers: int) -> tuple[Fault, ...]:
    return tuple(
        Fault(id, f"model.layers.{layer}.mlp.experts.{number}.{name}.weight")
        for layer in _LAYERS
        for number in numbers
        for name in _MATRICES
    )


def _routers() -> tuple[Fault, ...]:
    shapes = (Fault("TENSOR_SHAPE", f"model.layers.{layer}.{name}") for layer in _LAYERS for name in _ROUTER)
    return (Fault("CONFIG_CONTRADICTS_TENSORS", "every layer", _ROUTER[0]), *shapes)


def _packed(directory: Path) -> None:
    """Adds the experts of a layer once more, as transformers 5 has them in memory."""
    experts, embed, inner = CONFIG["n_routed_experts"], CONFIG["hidden_size"], CONFIG["moe_intermediate_size"]
    values = np.zeros((experts, embed, inner), np.float16)
    cp.changed_tensors(lambda tensors: tensors.update({PACKED: values}), _FIRST)(directory)
    cp.changed_json(_INDEX, lambda index: index["weight_map"].update({PACKED: _FIRST}))(directory)


CASES = (
    Case(
        "fewer_experts_than_the_files",
        cp.with_fields(n_routed_experts=3, n_group=1),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "more experts than config.json says", "4, not 3"),
            *_routers(),
            *_experts("UNKNOWN_TENSOR", 3),
        ),
    ),
    Case(
        "more_experts_than_the_files",
        cp.with_fields(n_routed_experts=6),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "fewer experts than config.json says", "4, not 6"),
            *_routers(),
            *_experts("MISSING_TENSOR", 4, 5),
        ),
    ),
    Case(
        "experts_begin_in_a_later_layer",
        cp.with_fields(first_k_dense_replace=2),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "other layers have tensors of this kind", "model.layers.1.mlp."),
            *(Fault("MISSING_TENSOR", f"model.layers.1.mlp.{name}.weight") for name in _MATRICES),
            *(Fault("UNKNOWN_TENSOR", f"model.layers.1.{name}") for name in _ROUTER),
            *(Fault("UNKNOWN_TENSOR", f"model.layers.1.mlp.shared_experts.{name}.weight") for name in _MATRICES),
            *(
                Fault("UNKNOWN_TENSOR", f"model.layers.1.mlp.experts.{number}.{name}.weight")
                for number in range(4)
                for name in _MATRICES
            ),
        ),
    ),
    Case(
        "experts_per_token_above_their_number",
        cp.with_fields(num_experts_per_tok=5),
        (Fault("REQUIREMENT_NOT_MET", "num_experts_per_tok = 5", "n_routed_experts = 4"),),
    ),
    Case(
        "experts_in_every_second_layer",
        cp.with_fields(moe_layer_freq=2),
        (Fault("REQUIREMENT_NOT_MET", "moe_layer_freq must be 1", "moe_layer_freq = 2"),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_does_not_fit_is_refused_and_named_as_a_whole(case: Case, source: Path, destination: Path) -> None:
    case.damage(source)
    with unchanged(source):
        refused(hf_to_maxtext(source, destination), *case.faults)
    assert not destination.exists()


@triggers("DUPLICATE_TENSOR")
def test_experts_in_two_spellings_are_one_error_that_names_both(source: Path, destination: Path) -> None:
    _packed(source)
    fault = Fault("DUPLICATE_TENSOR", PACKED, "model.layers.1.mlp.experts.0.down_proj.weight")
    refused(hf_to_maxtext(source, destination), fault)
    assert not destination.exists()
