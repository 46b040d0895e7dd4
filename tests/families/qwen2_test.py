"""Qwen 2.5: proven as every family is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import checkpoints
from tests.end_to_end.running import recast
from tests.families.harness import Family, FamilyTests, save
from tests.oracles import qwen2 as oracle


class TestQwen2(FamilyTests):
    family = Family(
        folder="qwen2",
        configs={
            "untied-128": {
                "model_type": "qwen2",
                "vocab_size": 96,
                "hidden_size": 84,
                "intermediate_size": 112,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "tie_word_embeddings": False,
            },
            "tied": {
                "model_type": "qwen2",
                "vocab_size": 72,
                "hidden_size": 60,
                "intermediate_size": 88,
                "num_hidden_layers": 4,
                "num_attention_heads": 7,
                "num_key_value_heads": 1,
                "head_dim": 10,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        published={
            "qwen2.5-0.5b": 494_032_768,
            "qwen2.5-1.5b": 1_543_714_304,
            "qwen2.5-3b": 3_085_938_688,
            "qwen2.5-7b": 7_615_616_512,
            "qwen2.5-14b": 14_770_033_664,
            "qwen2.5-14b-instruct": 14_770_033_664,
            "qwen2.5-32b": 32_763_876_352,
            "qwen2.5-32b-instruct": 32_763_876_352,
            "qwen2.5-72b": 72_706_203_648,
            "qwen2.5-72b-instruct": 72_706_203_648,
        },
        golden="qwen25",
    )


def test_a_rotary_embedding_that_maxtexts_block_has_not_is_refused_with_those_it_has(tmp_path: Path) -> None:
    saved = save(TestQwen2.family, "tied", tmp_path / "saved")
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = {key: value for key, value in saved.config.items() if key != "rope_parameters"}
    source = checkpoints.write_safetensors(
        tmp_path / "hf", saved.tensors, {**config, "rope_theta": 1000000.0, "rope_scaling": scaling}
    )
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == 2
    assert "RecastErrorId.UNKNOWN_ROPE_TYPE" in outcome.text
    assert "yarn" in outcome.text
    assert not (tmp_path / "mt").exists()


@pytest.mark.parametrize(("first", "code"), [(3, 2), (4, 0)])
def test_a_window_that_slides_in_some_layers_is_refused(first: int, code: int, tmp_path: Path) -> None:
    saved = save(TestQwen2.family, "tied", tmp_path / "saved")
    config = {**saved.config, "use_sliding_window": True, "sliding_window": 32, "max_window_layers": first}
    source = checkpoints.write_safetensors(tmp_path / "hf", saved.tensors, config)
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == code
    assert ("use_sliding_window is true" in outcome.text) == (code == 2)
