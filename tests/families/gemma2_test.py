"""Gemma 2: proven as every family is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.engine import convert
from converters.engine.request import ConversionRequest
from mappings import catalog
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.loader import load_family
from reporting.report import Report
from tests import checkpoints
from tests.families.harness import Family, FamilyTests, layout_of, save, to_maxtext
from tests.oracles import gemma2 as oracle
from tests.oracles.arrays import Variant


class TestGemma2(FamilyTests):
    family = Family(
        folder="gemma2",
        configs={
            # As the 27B: what divides the scores is not the head dimension.
            "large": {
                "model_type": "gemma2",
                "vocab_size": 96,
                "hidden_size": 84,
                "intermediate_size": 112,
                "num_hidden_layers": 6,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "query_pre_attn_scalar": 144,
                "sliding_window": 4,
                "tie_word_embeddings": True,
            },
            # The published vocabulary, which MaxText fills up, and a query whose factor is a power of two.
            "vocabulary": {
                "model_type": "gemma2",
                "vocab_size": 256000,
                "hidden_size": 6,
                "intermediate_size": 10,
                "num_hidden_layers": 4,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "head_dim": 4,
                "query_pre_attn_scalar": 4,
                "sliding_window": 4,
                "tie_word_embeddings": False,
            },
        },
        oracle=oracle.to_maxtext,
        published={"gemma2-2b": 2_614_341_888, "gemma2-9b": 9_241_705_984, "gemma2-27b": 27_227_128_320},
        golden="gemma2",
        golden_back=False,  # MaxText's own way back restores the norms in bfloat16, and with them 1 + weight
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers must be even"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 3}, "layer_types must alternate"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "an entry for each layer"),
        (
            {"layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"] * 2},
            r"layer_types\[4\] = 'full_attention'",
        ),
        ({"attention_bias": True}, "attention_bias must be false"),
        ({"head_dim": None}, "the config must give head_dim"),
    ],
)
def test_a_config_that_the_block_cannot_hold_is_refused(change: dict[str, object], message: str) -> None:
    config = {**TestGemma2.family.configs["large"], **change}
    with pytest.raises(MappingErrors, match=message):
        bind_family(load_family("gemma2"), config)


def test_the_query_of_the_27b_is_divided_by_what_the_config_says_and_not_by_its_head_dim() -> None:
    manifest = catalog.find("gemma2-27b")
    assert manifest is not None
    layout = layout_of("gemma2", "maxtext", manifest.config)
    (place, *_) = layout.places["", "attn.q"]
    assert [op.value for op in place.form.ops] == [144**-0.5]
    assert manifest.config["head_dim"] == 128


@pytest.mark.parametrize("exactness", ["as_requested", "invertible"])
@pytest.mark.parametrize("name", ["large", "vocabulary"])
def test_where_maxtexts_own_query_is_wrong_the_report_says_that_ours_is_another(
    name: str, exactness: Literal["as_requested", "invertible"], tmp_path: Path
) -> None:
    saved = save(TestGemma2.family, name, tmp_path / "hf")
    config = TestGemma2.family.configs[name]
    report = to_maxtext(saved.directory, tmp_path / "mt", Variant(exactness=exactness))
    notes = [note for note in report.notes if note.kind == "PEER_DIFFERS"]
    differs = exactness == "as_requested" and config["query_pre_attn_scalar"] != config["head_dim"]
    assert len(notes) == differs
    if differs:
        assert notes[0].tensor.endswith("self_attention_local.query.kernel")
        assert "query_pre_attn_scalar" in notes[0].reason


def test_what_training_makes_of_the_rows_that_maxtext_adds_is_left_out(tmp_path: Path) -> None:
    import orbax.checkpoint as ocp

    config = TestGemma2.family.configs["vocabulary"]
    saved = save(TestGemma2.family, "vocabulary", tmp_path / "shapes")
    generator = np.random.default_rng(6)
    weights = {
        # Far enough from zero that float32 + 1 keeps all of them: another tool's checkpoint has no residue.
        name: (generator.choice([-1, 1], values.shape) * generator.uniform(0.01, 0.03, values.shape)).astype(
            values.dtype
        )
        for name, values in saved.tensors.items()
    }
    (tmp_path / "hf").mkdir()
    save_file(weights, tmp_path / "hf" / "model.safetensors", {"format": "pt"})
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    to_maxtext(tmp_path / "hf", tmp_path / "mt", Variant())
    tree = ocp.PyTreeCheckpointer().restore(tmp_path / "mt" / "0" / "items")
    embedding = np.array(tree["params"]["params"]["token_embedder"]["embedding"])
    assert embedding.shape[0] == 256128
    assert not embedding[256000:].any()
    embedding[256000:] = 0.5
    tree["params"]["params"]["token_embedder"]["embedding"] = embedding
    ocp.PyTreeCheckpointer().save(tmp_path / "trained" / "0" / "items", tree)
    convert.run(
        ConversionRequest(
            tmp_path / "trained", tmp_path / "back", "maxtext", "hf", "bfloat16", config_path=tmp_path / "hf"
        ),
        Report("back"),
    )
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), weights) == []
