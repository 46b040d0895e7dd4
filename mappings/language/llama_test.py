"""Llama against values and names that the mapping language had no part in."""

import dataclasses
import itertools

import numpy as np
import pytest

from mappings.language.composition import compose
from mappings.language.detection import detect
from mappings.language.errors import MappingErrors
from mappings.language.family import Family, bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.loader import load_family, load_layout
from mappings.language.testing import Values, run

ROOT = "params.params."


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a model; all that could be mistaken for each other differ."""

    layers: int = 3
    vocab: int = 11
    embed: int = 7
    heads: int = 6
    kv: int = 2
    head: int = 8
    mlp: int = 13

    def config(self, **more: object) -> dict[str, object]:
        return {
            "model_type": "llama",
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "hidden_size": self.embed,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv,
            "head_dim": self.head,
            "intermediate_size": self.mlp,
            **more,
        }


S = Sizes()


def hf_shapes(*, tied: bool = False, biases: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a checkpoint of LlamaForCausalLM; a Linear keeps (out, in)."""
    query, kv = S.heads * S.head, S.kv * S.head
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (S.vocab, S.embed),
        "model.norm.weight": (S.embed,),
    }
    if not tied:
        shapes["lm_head.weight"] = (S.vocab, S.embed)
    linear = {
        "self_attn.q_proj": (query, S.embed),
        "self_attn.k_proj": (kv, S.embed),
        "self_attn.v_proj": (kv, S.embed),
        "self_attn.o_proj": (S.embed, query),
        "mlp.gate_proj": (S.mlp, S.embed),
        "mlp.up_proj": (S.mlp, S.embed),
        "mlp.down_proj": (S.embed, S.mlp),
    }
    for layer in range(S.layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (S.embed,)
        shapes[prefix + "post_attention_layernorm.weight"] = (S.embed,)
        for name, (rows, columns) in linear.items():
            shapes[f"{prefix}{name}.weight"] = (rows, columns)
            if biases:
                shapes[f"{prefix}{name}.bias"] = (rows,)
    return shapes


def hf_weights(*, tied: bool = False, biases: bool = False) -> dict[str, Values]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape) for name, shape in hf_shapes(tied=tied, biases=biases).items()}


def maxtext_layer(weights: dict[str, Values], layer: int, interleaved: bool) -> dict[str, Values]:
    """One layer's leaves of MaxText's llama2 block, element by element."""
    prefix = f"model.layers.{layer}."

    def projection(name: str, heads: int, rotary: bool) -> Values:
        kernel = np.zeros((S.embed, heads, S.head))
        for head, i in itertools.product(range(heads), range(S.head)):
            # Interleaved: new[2j] = old[j], new[2j + 1] = old[j + head_dim / 2].
            old = (i % 2) * (S.head // 2) + i // 2 if rotary and interleaved else i
            kernel[:, head, i] = weights[f"{prefix}self_attn.{name}.weight"][head * S.head + old]
        return kernel

    out = weights[prefix + "self_attn.o_proj.weight"]
    return {
        "self_attention.query.kernel": projection("q_proj", S.heads, True) / np.sqrt(S.head),
        "self_attention.key.kernel": projection("k_proj", S.kv, True),
        "self_attention.value.kernel": projection("v_proj", S.kv, False),
        "self_attention.out.kernel": np.stack([out[:, h * S.head : (h + 1) * S.head].T for h in range(S.heads)]),
        "mlp.wi_0.kernel": weights[prefix + "mlp.gate_proj.weight"].T,
        "mlp.wi_1.kernel": weights[prefix + "mlp.up_proj.weight"].T,
        "mlp.wo.kernel": weights[prefix + "mlp.down_proj.weight"].T,
        "pre_self_attention_layer_norm.scale": weights[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": weights[prefix + "post_attention_layernorm.weight"],
    }


def maxtext_weights(weights: dict[str, Values], *, scan: bool, interleaved: bool) -> dict[str, Values]:
    """What MaxText keeps of a checkpoint."""
    leaves = {
        ROOT + "token_embedder.embedding": weights["model.embed_tokens.weight"],
        ROOT + "decoder.decoder_norm.scale": weights["model.norm.weight"],
    }
    if "lm_head.weight" in weights:
        leaves[ROOT + "decoder.logits_dense.kernel"] = weights["lm_head.weight"].T
    layers = [maxtext_layer(weights, layer, interleaved) for layer in range(S.layers)]
    for name in layers[0]:
        if scan:
            leaves[f"{ROOT}decoder.layers.{name}"] = np.stack([layer[name] for layer in layers], axis=1)
        else:
            leaves.update({f"{ROOT}decoder.layers_{i}.{name}": layer[name] for i, layer in enumerate(layers)})
    return leaves


def family(**config: object) -> Family:
    return bind_family(load_family("llama"), S.config(**config))


def layout(bound: Family, format: str, **options: object) -> Layout:
    return bind_layout(bound, load_layout("llama", format), options)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("scan", [False, True])
def test_maxtext_gets_the_values_that_it_expects(scan: bool, interleaved: bool, tied: bool) -> None:
    bound = family(tie_word_embeddings=tied)
    hf, maxtext = (
        layout(bound, "hf"),
        layout(bound, "maxtext", scan=scan, rope="interleaved" if interleaved else "half"),
    )
    weights = hf_weights(tied=tied)
    expected = maxtext_weights(weights, scan=scan, interleaved=interleaved)
    made = run(compose(hf, maxtext, weights), weights)
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(made[name], values, rtol=1e-14, err_msg=name)
    back = run(compose(maxtext, hf, expected), expected)
    assert back.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_allclose(back[name], values, rtol=1e-14, err_msg=name)


def test_names_and_shapes_are_those_of_a_checkpoint() -> None:
    for tied, biases in itertools.product((False, True), (False, True)):
        bound = family(tie_word_embeddings=tied, attention_bias=biases, mlp_bias=biases)
        assert layout(bound, "hf").header(optional=False) == hf_shapes(tied=tied, biases=biases)


def test_a_tied_checkpoint_may_carry_its_head() -> None:
    bound = family(tie_word_embeddings=True)
    composition = compose(layout(bound, "hf"), layout(bound, "maxtext"), hf_shapes())
    (check,) = composition.checks
    assert (check.kind, check.move.source, check.move.target) == ("TIE", "model.embed_tokens.weight", "lm_head.weight")


def test_biases_that_maxtext_has_no_place_for_must_be_zero() -> None:
    bound = family(attention_bias=True, mlp_bias=True)
    hf, maxtext = layout(bound, "hf"), layout(bound, "maxtext")
    zeros = {zero.move.source for zero in compose(hf, maxtext).zeros}
    assert zeros == {name for name in hf_shapes(biases=True) if name.endswith("bias")}
    made = run(compose(maxtext, hf), maxtext_weights(hf_weights(), scan=True, interleaved=False))
    assert all((made[name] == 0).all() for name in zeros)


def test_scan_is_found_and_the_rotary_order_is_left_open() -> None:
    bound = family()
    source = load_layout("llama", "maxtext")
    for scan in (True, False):
        header = {name: v.shape for name, v in maxtext_weights(hf_weights(), scan=scan, interleaved=False).items()}
        found = detect(bound, source, {**header, "step": ()})
        assert found.fits
        assert found.options["scan"] is scan
        assert found.undecided == {"rope": ("half", "interleaved")}


@pytest.mark.parametrize(
    ("model", "rope"),
    [
        ("llama2-7b", "half"),
        ("llama3-70b", "half"),
        ("llama3.1-8b", "interleaved"),
        ("llama3.1-405b", "interleaved"),
        ("llama3.3-70b", "half"),
        ("mistral-7b", "half"),
    ],
)
def test_the_rotary_order_follows_from_the_models_name(model: str, rope: str) -> None:
    bound = family()
    assert layout(bound, "maxtext", model_name=model).options["rope"] == rope
    header = layout(bound, "maxtext").header(mirrors=False)
    assert detect(bound, load_layout("llama", "maxtext"), header, {"model_name": model}).options["rope"] == rope


def test_training_state_is_restacked() -> None:
    bound = family()
    scanned, single = layout(bound, "maxtext"), layout(bound, "maxtext", scan=False)
    made = compose(scanned, single, scanned.header()).produced
    assert "opt_state.0.mu.params.decoder.layers_2.mlp.wo.kernel" in made
    assert "opt_state.0.nu.params.decoder.layers_0.self_attention.query.kernel" in made


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads must be a multiple of num_key_value_heads"),
        ({"head_dim": 7}, "the head dimension must be even: rotary embedding turns pairs of head_dim"),
        ({"head_dim": None}, "hidden_size must be a multiple of num_attention_heads, or the config must give head_dim"),
    ],
)
def test_configs_that_describe_no_llama_are_refused(change: dict[str, object], say: str) -> None:
    with pytest.raises(MappingErrors) as error:
        family(**change)
    assert any(issue.text.startswith(say) for issue in error.value.issues if issue.kind == "require")


def test_head_dim_is_derived_where_the_config_gives_none() -> None:
    bound = family(hidden_size=24, head_dim=None)
    assert layout(bound, "hf").arrays["model.layers.0.self_attn.k_proj.weight"].shape == (8, 24)
