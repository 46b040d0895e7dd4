import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from converters.engine import declared_source
from mappings import catalog
from mappings.catalog import Manifest

HIDDEN, LAYERS, HEADS, KEYS, HEAD, INNER, WORDS = 96, 4, 6, 2, 32, 160, 64
CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "vocab_size": WORDS,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A published model that is small."""
    like, find = catalog.find("llama3.1-8b"), catalog.find
    assert like is not None
    rope = {"rope_theta": like.config["rope_theta"], "rope_scaling": like.config["rope_scaling"]}
    found = dataclasses.replace(like, name="llama3.1-tiny", config={**CONFIG, **rope})
    monkeypatch.setattr(catalog, "find", lambda name, root=None: found if name == found.name else find(name, root))
    return found


def _shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the config, as Hugging Face names them."""
    layer = {
        "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
        "self_attn.k_proj": (KEYS * HEAD, HIDDEN),
        "self_attn.v_proj": (KEYS * HEAD, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }
    found = {f"model.layers.{at}.{name}.weight": shape for at in range(LAYERS) for name, shape in layer.items()}
    ends = {"model.embed_tokens.weight": (WORDS, HIDDEN), "lm_head.weight": (WORDS, HIDDEN)}
    return {**found, **ends, "model.norm.weight": (HIDDEN,)}


def test_headers_for_hugging_face_are_those_of_the_config(tiny: Manifest) -> None:
    opened = declared_source.open_published(tiny, "hf", {})
    held = opened.source.tensors
    assert {name: info.shape for name, info in held.items()} == _shapes()
    assert {info.dtype for info in held.values()} == {"bfloat16"}
    assert {opened.source.chunk(name) for name in held} == {None}
    assert "no files" in opened.description


@pytest.mark.parametrize("scan", ["true", "false"])
def test_headers_for_maxtext_are_those_of_what_recast_writes(scan: str, tiny: Manifest) -> None:
    opened, model = declared_source.open_with_model(tiny, "maxtext", {"scan": scan})
    kernels = {name: info for name, info in opened.source.tensors.items() if name.endswith("query.kernel")}
    shape = (HIDDEN, LAYERS, HEADS, HEAD) if scan == "true" else (HIDDEN, HEADS, HEAD)
    assert [info.shape for info in kernels.values()] == [shape] * (1 if scan == "true" else LAYERS)
    # The constant folded into it is no power of two; the record says what the values were before.
    assert {info.dtype for info in kernels.values()} == {"float32"}
    assert model.logical_dtypes == dict.fromkeys(kernels, "bfloat16")
    assert {info.dtype for name, info in opened.source.tensors.items() if name not in kernels} == {"bfloat16"}
    assert all(opened.source.chunk(name) for name in opened.source.tensors)
    assert model.config == tiny.config
    assert set(model.source_dtypes) == set(_shapes())


def test_there_is_nothing_to_read(tiny: Manifest) -> None:
    opened = declared_source.open_published(tiny, "hf", {})
    assert opened.source.fingerprints() == ()
    opened.source.release("model.norm.weight", ((0, 1),))
    with pytest.raises(ValueError, match="declared, not stored"):
        opened.source.read("model.norm.weight", ((0, 1),))
    with pytest.raises(ValueError, match="no files"):
        opened.reader()
    opened.source.close()
