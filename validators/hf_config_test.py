"""Tests of config.json: reading, checking, naming and writing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mappings import catalog
from mappings.catalog import Manifest
from reporting.diagnostics import Diagnostic, RecastError
from validators import hf_config

LLAMA31 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
PLAIN = {key: value for key, value in LLAMA31.items() if not key.startswith("rope_")}
V5 = {
    **PLAIN,
    "rope_parameters": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
    },
}
del V5["torch_dtype"]
V5["dtype"] = "bfloat16"


def _found(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(diagnostic.id, diagnostic.subject) for diagnostic in hf_config.check_config(config)]


def _one(config: Mapping[str, Any]) -> Diagnostic:
    (diagnostic,) = hf_config.check_config(config)
    return diagnostic


def _refused(path: Path) -> Diagnostic:
    with pytest.raises(RecastError) as caught:
        hf_config.load(path)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def _manifest(name: str) -> Manifest:
    manifest = catalog.find(name)
    assert manifest is not None
    return manifest


# ---- reading


def test_a_config_is_read_from_its_folder_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA31))
    assert hf_config.load(tmp_path) == LLAMA31
    assert hf_config.load(tmp_path / "config.json") == LLAMA31


def test_a_missing_config_is_told_with_its_path(tmp_path: Path) -> None:
    diagnostic = _refused(tmp_path)
    assert (diagnostic.id, diagnostic.subject) == ("CONFIG_MISSING", str(tmp_path / "config.json"))


def test_a_link_to_nothing_is_a_missing_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("../blobs/gone")
    diagnostic = _refused(tmp_path)
    assert diagnostic.id == "CONFIG_MISSING"
    assert "link to nothing" in diagnostic.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1"),
        (b"not json", "line 1"),
        (b"[1]", "no JSON object"),
        (b"3", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": ' + b"[" * 100_000, "deep"),
        (b" " * 10_000_001, "10000001 bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    diagnostic = _refused(tmp_path)
    assert diagnostic.id == "CONFIG_INVALID"
    assert said in diagnostic.reason


def test_a_pipe_in_the_place_of_a_config_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert _refused(tmp_path).id == "CONFIG_INVALID"


# ---- checking


def test_every_published_config_is_good() -> None:
    for manifest in catalog.manifests():
        assert hf_config.check_config(manifest.config) == [], manifest.name


@pytest.mark.parametrize(
    "config",
    [
        LLAMA31,
        V5,
        PLAIN,
        {"model_type": "llama"},
        {"architectures": ["LlamaForCausalLM"]},
        LLAMA31 | {"architectures": ["LLaMAForCausalLM"]},
        LLAMA31 | {"architectures": []},
        LLAMA31 | {"architectures": None, "num_key_value_heads": None, "head_dim": None, "quantization_config": None},
        LLAMA31 | {"torch_dtype": "torch.bfloat16", "dtype": "bfloat16"},
        LLAMA31 | {"head_dim": 80, "hidden_size": 4097},
        LLAMA31 | {"partial_rotary_factor": 1.0},
        LLAMA31 | {"attention_bias": True},
        LLAMA31 | {"rms_norm_eps": 0},
    ],
)
def test_a_good_config_has_no_fault(config: dict[str, Any]) -> None:
    assert hf_config.check_config(config) == []


def test_an_unknown_model_type_is_told_with_the_nearest() -> None:
    diagnostic = _one({"model_type": "lama", "architectures": ["LlamaForCausalLM"]})
    assert (diagnostic.id, diagnostic.subject) == ("UNKNOWN_ARCHITECTURE", "model_type")
    assert '"lama"' in diagnostic.reason
    assert "nearest known one is llama" in diagnostic.reason


def test_an_unknown_model_type_that_is_near_to_none_is_told_with_the_known() -> None:
    reason = _one({"model_type": "xyz"}).reason
    assert "nearest" not in reason
    assert all(f" {kind}," in reason for kind in ("llama", "mistral"))


def test_a_model_type_that_is_no_text_is_unknown() -> None:
    assert _found({"model_type": 3}) == [("UNKNOWN_ARCHITECTURE", "model_type")]


def test_a_config_that_says_nothing_of_its_architecture_is_unknown() -> None:
    assert _found({"hidden_size": 8}) == [("UNKNOWN_ARCHITECTURE", "model_type")]


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "MistralForCausalLM", "LlamaModel"])
def test_an_architecture_that_the_family_does_not_publish_is_unknown(name: str) -> None:
    diagnostic = _one(LLAMA31 | {"architectures": [name]})
    assert (diagnostic.id, diagnostic.subject) == ("UNKNOWN_ARCHITECTURE", "architectures")
    assert name in diagnostic.reason
    assert "LlamaForCausalLM" in diagnostic.reason


def test_an_unknown_architecture_without_model_type_is_told_with_the_nearest() -> None:
    diagnostic = _one({"architectures": ["LlamaForCausalLMs"]})
    assert diagnostic.id == "UNKNOWN_ARCHITECTURE"
    assert "nearest known one is LlamaForCausalLM." in diagnostic.reason


@pytest.mark.parametrize("value", ["LlamaForCausalLM", [3], {"a": 1}])
def test_architectures_must_be_a_list_of_texts(value: object) -> None:
    assert _found(LLAMA31 | {"architectures": value}) == [("CONFIG_FIELD_INVALID", "architectures")]


@pytest.mark.parametrize(
    "field", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
@pytest.mark.parametrize("value", [0, -1, 4096.0, "4096", True, None, [4096]])
def test_a_size_must_be_a_positive_integer(field: str, value: object) -> None:
    assert _found(LLAMA31 | {field: value}) == [("CONFIG_FIELD_INVALID", field)]


@pytest.mark.parametrize("field", ["num_key_value_heads", "head_dim", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, 8.0, "8", False])
def test_a_size_that_may_be_null_must_else_be_a_positive_integer(field: str, value: object) -> None:
    assert _found(LLAMA31 | {field: value}) == [("CONFIG_FIELD_INVALID", field)]


@pytest.mark.parametrize("field", ["tie_word_embeddings", "attention_bias", "mlp_bias"])
@pytest.mark.parametrize("value", [0, 1, "false", []])
def test_a_flag_must_be_true_or_false(field: str, value: object) -> None:
    assert _found(LLAMA31 | {field: value}) == [("CONFIG_FIELD_INVALID", field)]


@pytest.mark.parametrize("value", ["1e-5", -1e-5, True])
def test_epsilon_must_be_a_number(value: object) -> None:
    assert _found(LLAMA31 | {"rms_norm_eps": value}) == [("CONFIG_FIELD_INVALID", "rms_norm_eps")]


def test_the_hidden_size_must_divide_into_heads_if_head_dim_is_not_given() -> None:
    diagnostic = _one(LLAMA31 | {"hidden_size": 4097})
    assert (diagnostic.id, diagnostic.subject) == ("CONFIG_FIELD_INVALID", "hidden_size")
    assert "4097" in diagnostic.reason
    assert "32" in diagnostic.reason


def test_heads_must_divide_into_groups() -> None:
    diagnostic = _one(LLAMA31 | {"num_key_value_heads": 5})
    assert (diagnostic.id, diagnostic.subject) == ("CONFIG_FIELD_INVALID", "num_attention_heads")


@pytest.mark.parametrize("value", ["float8_e4m3fn", "auto", "int8", 16, {"a": "bfloat16"}])
@pytest.mark.parametrize("field", ["torch_dtype", "dtype"])
def test_a_dtype_must_be_one_of_floating_point(field: str, value: object) -> None:
    assert _found(PLAIN | {"torch_dtype": None} | {field: value}) == [("CONFIG_FIELD_INVALID", field)]


def test_two_dtypes_that_differ_are_both_named() -> None:
    diagnostic = _one(LLAMA31 | {"dtype": "float16"})
    assert (diagnostic.id, diagnostic.subject) == ("CONFIG_FIELD_INVALID", "torch_dtype")
    assert "bfloat16" in diagnostic.reason
    assert "float16" in diagnostic.reason


@pytest.mark.parametrize("field", ["quantization_config", "compression_config"])
def test_quantised_weights_are_refused_with_their_method(field: str) -> None:
    diagnostic = _one(LLAMA31 | {field: {"quant_method": "gptq", "bits": 4}})
    assert (diagnostic.id, diagnostic.subject) == ("CONFIG_FIELD_INVALID", f"{field}.quant_method")
    assert "gptq" in diagnostic.reason


def test_quantised_weights_of_an_unnamed_method_are_refused() -> None:
    assert "quant_method is null" in _one(LLAMA31 | {"quantization_config": {"bits": 4}}).reason


def test_biases_in_the_mlp_are_refused() -> None:
    assert _found(LLAMA31 | {"mlp_bias": True}) == [("CONFIG_FIELD_INVALID", "mlp_bias")]


@pytest.mark.parametrize(
    "config",
    [
        LLAMA31 | {"partial_rotary_factor": 0.5},
        PLAIN | {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    ],
)
def test_heads_that_are_rotated_in_part_are_refused(config: dict[str, Any]) -> None:
    assert _found(config) == [("CONFIG_FIELD_INVALID", "partial_rotary_factor")]


def test_the_known_rotary_embeddings_are_those_of_the_familys_published_models() -> None:
    scaling = LLAMA31["rope_scaling"]
    mistral = PLAIN | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    assert _found(mistral | {"rope_scaling": scaling}) == [("UNKNOWN_ROPE_TYPE", "rope_scaling.rope_type")]
    diagnostic = _one(PLAIN | {"rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert diagnostic.id == "UNKNOWN_ROPE_TYPE"
    assert "default, llama3" in diagnostic.reason


def test_two_spellings_of_theta_that_differ_are_a_fault() -> None:
    config = LLAMA31 | {"rope_parameters": V5["rope_parameters"], "rope_theta": 10000.0}
    assert _found(config) == [("CONFIG_FIELD_INVALID", "rope_parameters.rope_theta")]


def test_all_faults_of_a_config_are_told_at_once() -> None:
    config = LLAMA31 | {
        "architectures": ["Other"],
        "hidden_size": "big",
        "num_key_value_heads": 5,
        "tie_word_embeddings": 1,
        "torch_dtype": "int4",
        "mlp_bias": True,
        "quantization_config": {"quant_method": "awq"},
        "rope_theta": -1,
    }
    assert {subject for _, subject in _found(config)} == {
        "architectures",
        "hidden_size",
        "num_attention_heads",
        "tie_word_embeddings",
        "torch_dtype",
        "mlp_bias",
        "quantization_config.quant_method",
        "rope_theta",
    }


def test_a_value_of_any_length_is_shown_in_short() -> None:
    assert len(_one({"model_type": "x" * 100_000}).reason) < 500


# ---- names


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA31, {"llama3.1", "llama3.2", "llama3.3"}),
        (V5, {"llama3.1", "llama3.2", "llama3.3"}),
        (PLAIN, {"llama2", "llama3"}),
        (PLAIN | {"model_type": "mistral"}, {"mistral"}),
        ({"model_type": "unknown"}, set()),
    ],
)
def test_layouts_fit_by_family_and_kind_of_rotary_embedding(config: dict[str, Any], expected: set[str]) -> None:
    found = hf_config.layout_candidates(config)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_layouts_whose_rotary_embedding_is_the_same_come_first() -> None:
    assert hf_config.layout_candidates(PLAIN)[0] == "llama2"
    assert hf_config.layout_candidates(PLAIN | {"rope_theta": 500000})[0] == "llama3"
    assert hf_config.layout_candidates(_manifest("llama3.2-1b").config)[0] == "llama3.2"
    assert hf_config.layout_candidates(LLAMA31)[:2] == ("llama3.1", "llama3.3")


def test_a_published_model_fits_its_own_layout() -> None:
    for manifest in catalog.manifests():
        assert manifest.layout in hf_config.layout_candidates(manifest.config)


def test_a_published_model_matches_its_own_name_and_no_other_size() -> None:
    first = [manifest for manifest in catalog.manifests() if manifest.family in ("llama", "mistral")]
    for manifest in first:
        for other in first:
            found = hf_config.compare_with_manifest(other.config, manifest)
            alike = {manifest.name, other.name} <= {"llama3.1-70b", "llama3.3-70b"} or manifest is other
            assert (found == []) == alike, (manifest.name, other.name)


def test_a_config_in_the_newer_spelling_matches_the_published_one() -> None:
    assert hf_config.compare_with_manifest(V5, _manifest("llama3.1-8b")) == []


@pytest.mark.parametrize(
    "same", [{"head_dim": 128}, {"torch_dtype": "float32"}, {"eos_token_id": [1, 2]}, {"max_position_embeddings": 9}]
)
def test_what_shapes_no_tensor_may_differ_from_the_published_config(same: dict[str, Any]) -> None:
    assert hf_config.compare_with_manifest(LLAMA31 | same, _manifest("llama3.1-8b")) == []


@pytest.mark.parametrize(
    ("change", "field", "own", "published"),
    [
        ({"hidden_size": 2048, "head_dim": 128}, "hidden_size", "2048", "4096"),
        ({"num_hidden_layers": 2}, "num_hidden_layers", "2", "32"),
        ({"num_attention_heads": 16, "head_dim": 128}, "num_attention_heads", "16", "32"),
        ({"num_key_value_heads": 4}, "num_key_value_heads", "4", "8"),
        ({"num_key_value_heads": None}, "num_key_value_heads", "32", "8"),
        ({"head_dim": 64}, "head_dim", "64", "128"),
        ({"intermediate_size": 11008}, "intermediate_size", "11008", "14336"),
        ({"vocab_size": 128258}, "vocab_size", "128258", "128256"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings", "true", "false"),
        ({"attention_bias": True}, "attention_bias", "true", "false"),
        ({"rope_theta": 10000.0}, "rope_theta", "10000.0", "500000.0"),
        ({"rope_scaling": {**LLAMA31["rope_scaling"], "factor": 32.0}}, "rope_parameters", "32.0", "8.0"),  # type: ignore[dict-item]
    ],
)
def test_a_field_that_differs_from_the_published_one_is_named_with_both_values(
    change: dict[str, Any], field: str, own: str, published: str
) -> None:
    (diagnostic,) = hf_config.compare_with_manifest(LLAMA31 | change, _manifest("llama3.1-8b"))
    assert (diagnostic.id, diagnostic.subject) == ("MODEL_NAME_MISMATCH", field)
    before, after = diagnostic.reason.split(" in config.json and ")
    assert own in before
    assert published in after
    assert "llama3.1-8b" in after


def test_a_missing_scaling_is_a_mismatch() -> None:
    found = hf_config.compare_with_manifest(PLAIN | {"rope_theta": 500000.0}, _manifest("llama3.1-8b"))
    assert [diagnostic.subject for diagnostic in found] == ["rope_type", "rope_parameters"]


def test_all_mismatches_are_told_at_once() -> None:
    found = hf_config.compare_with_manifest(_manifest("llama3.2-1b").config, _manifest("llama3.1-8b"))
    assert {diagnostic.subject for diagnostic in found} == {
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "head_dim",
        "tie_word_embeddings",
        "rope_parameters",
    }


def test_a_model_of_another_family_is_one_mismatch() -> None:
    (diagnostic,) = hf_config.compare_with_manifest(_manifest("mistral-7b-v0.3").config, _manifest("llama3-8b"))
    assert (diagnostic.id, diagnostic.subject) == ("MODEL_NAME_MISMATCH", "model_type")


def test_a_field_that_the_config_lacks_is_left_to_the_mapping() -> None:
    config = {key: value for key, value in LLAMA31.items() if key != "vocab_size"}
    assert hf_config.compare_with_manifest(config, _manifest("llama3.1-8b")) == []
