"""Headers of checkpoints beside those of models."""

from __future__ import annotations

import json

import pytest

from mappings.serving import catalog as serving
from recast_proto import model_manifest_pb2
from validators.compatibility import headers, testing
from validators.compatibility.facts import TensorInfo

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 12,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "vocab_size": 24,
    "tie_word_embeddings": True,
}


def _model(config: dict[str, object] | None = None, family: str = "llama") -> model_manifest_pb2.ModelManifest:
    return model_manifest_pb2.ModelManifest(name="tiny", family=family, config_json=json.dumps(config or LLAMA))


def _found(model: model_manifest_pb2.ModelManifest, tensors: dict[str, TensorInfo]) -> list[tuple[str, str, str, str]]:
    deviations = headers.compare(model, tensors).deviations
    return [(d.kind, d.name, d.found, d.expected) for d in deviations]


def test_derived_headers_are_those_of_the_published_checkpoint() -> None:
    model = serving.find(serving.embedded(), "llama3-1b")
    assert model is not None
    found = testing.header_of(model)
    assert len(found) == 146
    assert found["model.layers.15.self_attn.k_proj.weight"] == TensorInfo((512, 2048), "BF16")
    assert "lm_head.weight" not in found


def test_a_head_that_is_tied_may_be_stored_beside_the_embedding() -> None:
    tensors = {**testing.header_of(_model()), "lm_head.weight": TensorInfo((24, 8), "BF16")}
    assert _found(_model(), tensors) == []


def test_deviations_come_in_the_order_of_layers() -> None:
    lost = [name for name in testing.header_of(_model()) if name.endswith("o_proj.weight")]
    tensors = {name: info for name, info in testing.header_of(_model()).items() if name not in lost}
    found = [name for _, name, _, _ in _found(_model(), tensors)]
    assert found == [f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(12)]


def test_digits_in_a_name_that_are_no_number_are_text() -> None:
    for digits in ("9" * 5000, "²"):
        name = f"model.layers.{digits}.w"
        tensors = {**testing.header_of(_model()), name: TensorInfo((1,), "BF16")}
        assert [found for _, found, _, _ in _found(_model(), tensors)] == [name]


def test_the_layout_that_is_nearest_to_the_headers_is_compared() -> None:
    model = serving.find(serving.embedded(), "mixtral-8x7b")
    assert model is not None
    packed = next(header for header in _layouts_of(model) if "gate_up_proj" in " ".join(header))
    lost = next(name for name in packed if name.endswith("gate_up_proj"))
    tensors = {name: TensorInfo(shape, "BF16") for name, shape in packed.items() if name != lost}
    assert [(kind, name) for kind, name, _, _ in _found(model, tensors)] == [("missing", lost)]


def _layouts_of(model: model_manifest_pb2.ModelManifest) -> list[dict[str, tuple[int, ...]]]:
    return [
        layout.header(optional=False, mirrors=False) for layout in headers._layouts(model.family, model.config_json)
    ]


@pytest.mark.parametrize(
    ("exception", "change", "expected"),
    [
        ({"optional": True}, {"model.norm.weight": None}, []),
        ({"optional": True}, {"model.norm.weight": TensorInfo((8,), "I8")}, ["dtype"]),
        ({"shape": [9]}, {"model.norm.weight": TensorInfo((9,), "F32")}, []),
        ({"shape": [9]}, {}, ["shape"]),
        ({"shape": [9]}, {"model.norm.weight": TensorInfo((7,), "F32")}, ["shape"]),
        ({"shape": [9]}, {"model.norm.weight": None}, ["missing"]),
        ({"dtype": ["F32"]}, {}, ["dtype"]),
        ({"dtype": ["I8"]}, {"model.norm.weight": TensorInfo((8,), "I8")}, []),
    ],
)
def test_a_model_may_differ_from_its_family(
    exception: dict[str, object], change: dict[str, TensorInfo | None], expected: list[str]
) -> None:
    model = _model()
    model.tensor_exception.add(name="model.norm.weight", **exception)
    tensors = {**testing.header_of(_model()), **change}
    found = _found(model, {name: info for name, info in tensors.items() if info is not None})
    assert [kind for kind, _, _, _ in found] == expected
    assert {name for _, name, _, _ in found} <= {"model.norm.weight"}


def test_a_tensor_that_is_ignored_may_be_there_in_any_layer() -> None:
    model = _model()
    model.tensor_exception.add(name="model.layers.*.scratch", ignored=True)
    tensors = dict(testing.header_of(_model()))
    tensors |= dict.fromkeys(["model.layers.11.scratch", "model.layers.x.scratch"], TensorInfo((1,), "F32"))
    assert [(kind, name) for kind, name, _, _ in _found(model, tensors)] == [("unexpected", "model.layers.x.scratch")]


def test_a_family_that_there_is_not_is_named() -> None:
    with pytest.raises(headers.UnknownFamilyError, match="no mapping of the family marsupial"):
        headers.compare(_model(family="marsupial"), {})


@pytest.mark.parametrize("config", ['{"model_type": "llama"}', "no JSON"])
def test_a_config_that_makes_no_model_is_told(config: str) -> None:
    model = model_manifest_pb2.ModelManifest(name="tiny", family="llama", config_json=config)
    with pytest.raises(headers.UnknownFamilyError, match="does not make a model of llama"):
        headers.compare(model, {})
