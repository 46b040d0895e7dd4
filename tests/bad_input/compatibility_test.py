"""Each static attribute of a serving platform's model, changed in a checkpoint: refused with its name, unwritten."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mappings.serving import text
from tests import serving_checkpoints
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import Run, recast
from tests.serving_checkpoints import PLAIN

# Attributes that the tiny models have besides, so that they can be changed.
_MORE: Mapping[str, Any] = {
    "num_nextn_predict_layers": 1,
    "global_head_dim": 16,
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of tiny models and a good checkpoint of one."""
    root = tmp_path_factory.mktemp("compatibility")
    serving_checkpoints.catalogue(root / "catalog.textproto", _MORE)
    serving_checkpoints.write(root / "good", **_MORE)
    return root


@pytest.fixture
def source(templates: Path, tmp_path: Path) -> Path:
    """A good checkpoint to change."""
    return Path(shutil.copytree(templates / "good", tmp_path / "in"))


def _prepare(catalog: Path, source: Path) -> Run:
    paths = ("--original_checkpoint_path", str(source), "--output_checkpoint_path", str(source.parent / "out"))
    return recast("prepare-ckpt", "--model", PLAIN, *paths, "--server", str(catalog))


def _case(id: str, *says: str, **fields: object) -> Case:
    return Case(f"{id} {', '.join(fields)}", cp.with_fields(**fields), (Fault(id, *says),))


CASES = (
    _case("ARCHITECTURE_MISMATCH", "LlamaForSequenceClassification", architectures=["LlamaForSequenceClassification"]),
    _case("HIDDEN_SIZE_MISMATCH", "hidden_size is 48", "32", hidden_size=48),
    _case("LAYER_COUNT_MISMATCH", "num_hidden_layers is 3", "2", num_hidden_layers=3),
    _case("KEY_VALUE_HEADS_MISMATCH", "num_key_value_heads is 4", num_key_value_heads=4),
    _case("KEY_VALUE_HEADS_MISMATCH", "num_attention_heads", num_key_value_heads=None),
    _case("HEAD_DIM_MISMATCH", "head_dim is 16", head_dim=16),
    _case("NORM_EPSILON_MISMATCH", "rms_norm_eps is 1e-06", rms_norm_eps=1e-06),
    _case("ROPE_THETA_MISMATCH", "rope_theta is null", rope_theta=None),
    _case("ATTENTION_BIAS_MISMATCH", "attention_bias is true", attention_bias=True),
    _case("MLP_BIAS_MISMATCH", "mlp_bias is true", mlp_bias=True),
    _case("ATTENTION_DROPOUT_MISMATCH", "attention_dropout is 0.1", attention_dropout=0.1),
    _case("TIED_EMBEDDINGS_MISMATCH", "tie_word_embeddings is true", tie_word_embeddings=True),
    _case("SLIDING_WINDOW_MISMATCH", "sliding_window is 64", sliding_window=64),
    _case("EXPERTS_MISMATCH", "num_experts is 8", "num_local_experts", num_local_experts=8),
    _case("LATENT_ATTENTION_MISMATCH", "kv_lora_rank is 16", kv_lora_rank=16),
    _case("LINEAR_ATTENTION_MISMATCH", "linear_num_key_heads is 2", linear_num_key_heads=2),
    _case("LAYER_SIZES_MISMATCH", "global_head_dim is 32", global_head_dim=32),
    _case("PREDICTION_LAYERS_MISMATCH", "num_nextn_predict_layers is 2", num_nextn_predict_layers=2),
    _case("VISION_MISMATCH", "vision_config.hidden_size is 32", vision_config={"hidden_size": 32}),
    Case(
        "rope type",
        cp.changed_json("config.json", lambda config: config["rope_scaling"].update(rope_type="linear")),
        (Fault("ROPE_TYPE_MISMATCH", "rope_type is linear", "llama3"),),
    ),
    Case(
        "rope scaling",
        cp.changed_json("config.json", lambda config: config["rope_scaling"].update(factor=8.0)),
        (Fault("ROPE_SCALING_MISMATCH", '{"factor": 8.0}', '{"factor": 32.0}'),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_changed_attribute_is_refused_with_its_name(case: Case, templates: Path, source: Path) -> None:
    case.damage(source)
    with unchanged(source.parent):
        run = _prepare(templates / "catalog.textproto", source)
    refused(run, *case.faults)
    assert run.steps["validate_compatibility"] == "Failed"


@triggers("ATTENTION_SCALE_MISMATCH", "LAYER_KINDS_MISMATCH")
def test_what_only_another_family_has_is_refused_with_its_name(tmp_path: Path) -> None:
    source = serving_checkpoints.write_published(tmp_path / "in", "gemma2-2b")
    cp.with_fields(final_logit_softcapping=50.0, layer_types=["full_attention"] * 26)(source)
    run = recast("prepare-ckpt", "--model=gemma2-2b", "--original_checkpoint_path", str(source), "--dry_run")
    refused(
        run,
        Fault("ATTENTION_SCALE_MISMATCH", "final_logit_softcapping is 50.0", "30.0"),
        Fault("LAYER_KINDS_MISMATCH", "layer_types", "sliding_attention"),
    )


@triggers("MAX_POSITIONS_DIFFER", "DTYPE_DIFFERS")
def test_what_the_deployment_decides_is_a_warning(templates: Path, source: Path) -> None:
    cp.with_fields(max_position_embeddings=256, torch_dtype="float16")(source)
    run = _prepare(templates / "catalog.textproto", source)
    completed(run, Fault("MAX_POSITIONS_DIFFER", "256", "512"), Fault("DTYPE_DIFFERS", "float16", "bfloat16"))


@triggers("RULE_INVALID")
def test_a_rule_that_this_version_does_not_understand_is_no_passed_rule(
    templates: Path, source: Path, tmp_path: Path
) -> None:
    catalog = text.parse((templates / "catalog.textproto").read_text("utf-8"))
    catalog.rule[0].step, catalog.rule[0].error_id = "validate_files", "PHASE_OF_THE_MOON"
    path = tmp_path / "newer.textproto"
    path.write_text(text.dump(catalog), "utf-8")
    with unchanged(source):
        run = _prepare(path, source)
    refused(run, Fault("RULE_INVALID", catalog.rule[0].id, "PHASE_OF_THE_MOON"))
