"""--model_name that is unknown, that the files contradict, or that is needed and was not given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf
from tests.checkpoints import differing, read_safetensors

LLAMA3_ROPE: Mapping[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def llama3(tmp_path: Path) -> Path:
    """A tiny model with the rotary embedding of Llama 3.1 to 3.3."""
    return cp.write(tmp_path / "llama3", rope_scaling=dict(LLAMA3_ROPE), rope_theta=500000.0)


@triggers("MODEL_NAME_UNKNOWN")
def test_an_unknown_name_is_refused_with_the_nearest_ones(hf: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, "--model_name=llama3.1-9b")
    refused(run, Fault("MODEL_NAME_UNKNOWN", "llama3.1-9b", "llama3.1-8b", "llama3.1", "mistral"))


@triggers("MODEL_NAME_UNKNOWN")
def test_an_unknown_name_is_refused_on_the_way_back(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, "--model_name=gpt3-6b")
    refused(run, Fault("MODEL_NAME_UNKNOWN", "gpt3-6b", "llama2"))


@triggers("MODEL_NAME_UNKNOWN")
def test_the_name_of_a_family_that_is_not_converted_yet(hf: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, "--model_name=gpt3-22b")
    refused(run, Fault("MODEL_NAME_UNKNOWN", "gpt3-22b"))


@triggers("MODEL_NAME_MISMATCH")
def test_a_published_name_of_another_size_lists_every_field_that_differs(
    hf: Path, destination: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, "--model_name=llama2-7b")
    refused(
        run,
        Fault("MODEL_NAME_MISMATCH", "hidden_size is 16 in config.json and 4096 in llama2-7b"),
        Fault("MODEL_NAME_MISMATCH", "intermediate_size is 20", "11008"),
        Fault("MODEL_NAME_MISMATCH", "num_hidden_layers is 3", "32"),
        Fault("MODEL_NAME_MISMATCH", "num_attention_heads is 4", "32"),
        Fault("MODEL_NAME_MISMATCH", "num_key_value_heads is 2", "32"),
        Fault("MODEL_NAME_MISMATCH", "vocab_size is 24", "32000"),
        Fault("MODEL_NAME_MISMATCH", "head_dim is 10", "128"),
    )


@triggers("MODEL_NAME_MISMATCH")
def test_a_layout_name_whose_rotary_embedding_the_config_does_not_have(
    hf: Path, destination: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, "--model_name=llama3.1")
    refused(run, Fault("MODEL_NAME_MISMATCH", "llama3.1", "llama2, llama3"))


@triggers("MODEL_NAME_MISMATCH")
def test_a_name_of_another_family(hf: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, "--model_name=mistral-7b-v0.1")
    refused(run, Fault("MODEL_NAME_MISMATCH", "llama", "mistral"))


@triggers("MODEL_NAME_AMBIGUOUS")
def test_a_config_that_fits_models_with_other_values_needs_a_name(
    llama3: Path, destination: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(llama3, destination)
    refused(
        run,
        Fault("MODEL_NAME_AMBIGUOUS", "llama3.1 (rope=interleaved)", "llama3.2 (rope=half)", "llama3.3 (rope=half)"),
    )
    assert "--model_name" in run.failures[0].suggestion


@pytest.mark.parametrize("name", ["llama3.1", "llama3.2"])
def test_a_recorded_name_is_not_asked_for_again(name: str, llama3: Path, destination: Path) -> None:
    completed(hf_to_maxtext(llama3, destination, f"--model_name={name}"))
    back = destination.with_name("back")
    completed(maxtext_to_hf(destination, back, "--weight_dtype=auto"))
    assert differing(read_safetensors(back), read_safetensors(llama3)) == []


@triggers("MODEL_NAME_AMBIGUOUS")
def test_without_the_record_the_name_is_needed_on_the_way_back(llama3: Path, destination: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle"
    completed(hf_to_maxtext(llama3, middle, "--model_name=llama3.1"))
    (middle / "recast").rename(tmp_path / "kept")
    with unchanged(tmp_path):
        run = maxtext_to_hf(middle, destination, f"--hf_config_path={llama3}")
    refused(run, Fault("MODEL_NAME_AMBIGUOUS", "llama3.1", "llama3.2"))
    completed(maxtext_to_hf(middle, destination, f"--hf_config_path={llama3}", "--model_name=llama3.1"))


@pytest.mark.parametrize(("written", "given"), [("llama3.1", "llama3.2"), ("llama3.3", "llama3.1")])
@triggers("MODEL_NAME_MISMATCH")
def test_a_name_that_the_record_contradicts(
    written: str, given: str, llama3: Path, destination: Path, tmp_path: Path
) -> None:
    middle = tmp_path / "middle"
    completed(hf_to_maxtext(llama3, middle, f"--model_name={written}"))
    with unchanged(tmp_path):
        run = maxtext_to_hf(middle, destination, f"--model_name={given}")
    refused(run, Fault("MODEL_NAME_MISMATCH", given, "rope=interleaved", "rope=half"))


@triggers("CONFIG_MISSING")
def test_a_layout_name_does_not_replace_a_config(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    (maxtext / "recast").rename(tmp_path / "kept")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, "--model_name=llama2")
    refused(run, Fault("CONFIG_MISSING", str(maxtext)))


def test_a_published_config_that_does_not_belong_to_the_arrays(
    maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    (maxtext / "recast").rename(tmp_path / "kept")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, "--model_name=llama2-7b")
    run.check_form()
    assert run.code == 2, run.summary
    assert run.ids == ["TENSOR_SHAPE"] * 12, run.summary
