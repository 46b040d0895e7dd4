"""GPT-OSS in plain numbers: proven as every family is."""

from __future__ import annotations

import pytest

from mappings.language.errors import MappingErrors
from tests.families.harness import Config, Family, FamilyTests, layout_of
from tests.oracles import gpt_oss as oracle

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 150000.0,
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}
_CONFIG: Config = {
    "model_type": "gpt_oss",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "sliding_window": 8,
    "rope_parameters": _YARN,
    "tie_word_embeddings": False,
}
_TIED: Config = {
    **_CONFIG,
    "vocab_size": 54,
    "num_hidden_layers": 2,
    "num_attention_heads": 7,
    "num_key_value_heads": 1,
    "num_local_experts": 3,
    "attention_bias": False,
    "tie_word_embeddings": True,
}


class TestGptOss(FamilyTests):
    family = Family(
        folder="gpt_oss",
        configs={"untied": _CONFIG, "tied-without-biases": _TIED},
        oracle=oracle.to_maxtext,
        published={"gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672},
        golden="gpt_oss",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 5}, "must be even"),
        ({"head_dim": None}, "head_dim"),
        ({"layer_types": ["sliding_attention"] * 6}, "must alternate"),
        ({"layer_types": ["full_attention", "sliding_attention"] * 3}, "must alternate"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "an entry for each layer"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("gpt_oss", "maxtext", {**_CONFIG, **changes})
