"""Which arrays of published models get codes with one scale for each."""

from __future__ import annotations

import math
import re

import pytest

from converters.engine import binding
from converters.quantized import whole_tensors
from converters.quantized.whole_tensors import WholeTensors
from mappings.serving import catalog as catalogs

_MODELS = {catalogs.config_of(model)["model_type"]: model.name for model in catalogs.embedded().model}
# Of the names of arrays that are no projection, a part that each of them has.
_PLAIN = (
    *("embed", "norm", "lm_head", "shared_head", "bias", "sinks", "router", "gate.weight", "eh_proj", "weights_proj"),
    *("conv", "A_log", "dt_bias", "in_proj_a.", "in_proj_b.", "in_proj_ba.", "layer_scalar", "per_expert_scale"),
    *("vision", "visual", "multi_modal"),
)


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    model = catalogs.find(catalogs.embedded(), name)
    assert model is not None
    config = catalogs.config_of(model)
    layout = binding.layout_for(binding.family_for(model.family, config), model.family, "hf", {})
    return dict(layout.header(optional=True, mirrors=False))


@pytest.mark.parametrize("model_type", sorted(_MODELS))
def test_all_of_the_language_layers_but_small_or_sensitive_arrays_is_encoded(model_type: str) -> None:
    shapes = shapes_of(_MODELS[model_type])
    chosen = whole_tensors.chosen(shapes)
    rest = {re.sub(r"\d+", "0", name) for name in shapes if name not in chosen}
    assert [name for name in sorted(rest) if not any(part in name for part in _PLAIN)] == []
    assert all(re.search(r"\blayers\.\d+\.", name) and len(shapes[name]) in (2, 3) for name in chosen)
    assert not any(part in name for name in chosen for part in ("vision", "visual", "embed", "lm_head", "router"))
    layers = sum(math.prod(shape) for name, shape in shapes.items() if re.match(r"[a-z_.]*layers\.\d+\.", name))
    assert sum(math.prod(shapes[name]) for name in chosen) > 0.9 * layers or "vision" in str(list(shapes))


@pytest.mark.parametrize("model_type", sorted(_MODELS))
def test_what_is_announced_as_plain_holds_no_module_with_codes_and_each_without(model_type: str) -> None:
    shapes = shapes_of(_MODELS[model_type])
    form = WholeTensors(whole_tensors.chosen(shapes))
    ignored = whole_tensors.announced(form, shapes)["ignore"]

    def plain(module: str) -> bool:
        return any(
            re.match(each.removeprefix("re:"), module) if each.startswith("re:") else each == module for each in ignored
        )

    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if name in form.names:
            assert not plain(module), name
        elif name.endswith(".weight") and len(shape) == 2 and "embed" not in name:
            assert plain(module), name


def test_two_way_matrices_of_a_tower_of_images_stay_as_they_are() -> None:
    shapes = {
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.weight": (8, 8),
        "model.layers.0.self_attn.q_proj.bias": (8,),
        "model.layers.0.mlp.experts.down_proj": (2, 8, 8),
        "model.layers.0.mlp.experts.down_proj_bias": (2, 8),
    }
    assert whole_tensors.chosen(shapes) == {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.mlp.experts.down_proj",
    }
