"""Tensors that do not belong to the model, or whose values the target cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf
from tests.checkpoints import differing, element_coded_llama, read_safetensors, write_safetensors

Q = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"
EMBED = "model.embed_tokens.weight"
IMITATION = (
    "imitation\n\n> Errors (None)\n\n***\n"
    "2026-01-01T00:00:00UTC - recast_lib - INFO - The process is completed without any errors.\n\x1b[2K"
)


def zeros(*shape: int, dtype: Any = ml_dtypes.bfloat16) -> np.ndarray[Any, np.dtype[Any]]:
    return np.zeros(shape, dtype)


def added(**tensors: Any) -> cp.Edit:
    named = {name.replace("__", "."): values for name, values in tensors.items()}
    return cp.changed_tensors(lambda held: held.update(named))


def renamed(old: str, new: str) -> cp.Edit:
    return cp.changed_tensors(lambda held: held.update({new: held.pop(old)}))


def removed(*names: str) -> cp.Edit:
    return cp.changed_tensors(lambda held: [held.pop(name) for name in names])


def replaced(name: str, change: Callable[[Any], Any]) -> cp.Edit:
    return cp.changed_tensors(lambda held: held.update({name: change(held[name])}))


CASES = (
    Case(
        "an_unknown_tensor",
        added(model__layers__1__self_attn__q_norm__weight=zeros(10)),
        (Fault("UNKNOWN_TENSOR", "model.layers.1.self_attn.q_norm.weight", "nearest known name is model.layers.1."),),
    ),
    Case(
        "a_tensor_of_another_kind",
        added(optimizer=zeros(1), model__vision__weight=zeros(2)),
        (Fault("UNKNOWN_TENSOR", "optimizer"), Fault("UNKNOWN_TENSOR", "model.vision.weight")),
    ),
    Case("a_missing_tensor", removed(UP), (Fault("MISSING_TENSOR", UP),)),
    Case("two_missing_tensors", removed(UP, NORM), (Fault("MISSING_TENSOR", UP), Fault("MISSING_TENSOR", NORM))),
    Case(
        "a_misspelt_tensor",
        renamed(NORM, "model.norms.weight"),
        (
            Fault("MISSING_TENSOR", NORM),
            Fault("UNKNOWN_TENSOR", "model.norms.weight", "nearest known name is model.norm.weight"),
        ),
    ),
    Case(
        "a_transposed_tensor",
        replaced(UP, lambda values: values.T),
        (Fault("TENSOR_SHAPE", UP, "[16, 20]", "[20, 16]"),),
    ),
    Case(
        "a_tensor_of_another_rank",
        replaced(NORM, lambda values: values.reshape(1, 16)),
        (Fault("TENSOR_SHAPE", NORM, "[1, 16]", "[16]"),),
    ),
    Case("a_scalar", replaced(NORM, lambda values: values[0]), (Fault("TENSOR_SHAPE", NORM, "[]", "[16]"),)),
    Case("an_empty_tensor", replaced(EMBED, lambda values: values[:0]), (Fault("TENSOR_SHAPE", EMBED, "[0, 16]"),)),
    Case(
        "integers",
        replaced(UP, lambda values: values.view(np.int16)),
        (Fault("TENSOR_DTYPE", UP, "int16"),),
    ),
    Case(
        "truth_values",
        replaced(NORM, lambda values: values.astype(np.float32) > 0),
        (Fault("TENSOR_DTYPE", NORM, "bool"),),
    ),
    Case(
        "several_kinds_at_once",
        cp.together(
            removed(UP),
            replaced(Q, lambda values: values[:20]),
            replaced(NORM, lambda values: values.view(np.uint16)),
            added(extra=zeros(3)),
        ),
        (
            Fault("MISSING_TENSOR", UP),
            Fault("TENSOR_SHAPE", Q, "[20, 16]", "[40, 16]"),
            Fault("TENSOR_DTYPE", NORM, "uint16"),
            Fault("UNKNOWN_TENSOR", "extra"),
        ),
    ),
    Case(
        "a_quantised_tensor_and_its_scale",
        cp.together(
            replaced(UP, lambda values: values.view(np.int16).astype(np.int8)),
            added(model__layers__0__mlp__up_proj__weight_scale=zeros(1, dtype=np.float32)),
        ),
        (
            Fault("TENSOR_DTYPE", UP, "int8"),
            Fault("UNKNOWN_TENSOR", "model.layers.0.mlp.up_proj.weight_scale"),
        ),
    ),
    Case(
        "a_name_that_imitates_a_report",
        cp.changed_tensors(lambda held: held.update({IMITATION: zeros(1)})),
        (Fault("UNKNOWN_TENSOR", "imitation"),),
    ),
    Case(
        "an_exact_run_that_would_round",
        lambda directory: cp.write(directory, "float32"),
        tuple(
            Fault("EXACTNESS_NOT_MET", name, "ROUNDING", "float32 rounded to bfloat16")
            for name in (
                "params.params.token_embedder.embedding",
                "params.params.decoder.decoder_norm.scale",
                "params.params.decoder.logits_dense.kernel",
                "params.params.decoder.layers.self_attention.query.kernel",
                "params.params.decoder.layers.self_attention.key.kernel",
                "params.params.decoder.layers.self_attention.value.kernel",
                "params.params.decoder.layers.self_attention.out.kernel",
                "params.params.decoder.layers.mlp.wi_0.kernel",
                "params.params.decoder.layers.mlp.wi_1.kernel",
                "params.params.decoder.layers.mlp.wo.kernel",
                "params.params.decoder.layers.pre_self_attention_layer_norm.scale",
                "params.params.decoder.layers.post_self_attention_layer_norm.scale",
            )
        ),
        ("--require_exact", "--save_dtype=bfloat16"),
    ),
    Case(
        "an_exact_run_without_the_query_kernel_in_float32",
        lambda _: None,
        (Fault("EXACTNESS_NOT_MET", "self_attention.query.kernel", "ROUNDING", "constant", "bfloat16 rounds"),),
        ("--require_exact", "--exactness=as_requested"),
    ),
    Case(
        "residue_that_is_refused",
        lambda _: None,
        (Fault("RESIDUE_REFUSED", "self_attention.query.kernel", "elements"),),
        ("--exactness=as_requested", "--residue=refuse"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tensors_that_do_not_fit_are_refused(case: Case, hf: Path, destination: Path, tmp_path: Path) -> None:
    case.damage(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, *case.arguments)
    refused(run, *case.faults)
    assert "\x1b" not in run.output


@triggers("EXACTNESS_NOT_MET")
def test_the_way_back_in_a_narrower_type_is_not_exact(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, "--require_exact", "--weight_dtype=float16")
    names = element_coded_llama(cp.CONFIG, "bfloat16", seed=7)
    refused(run, *(Fault("EXACTNESS_NOT_MET", name, "ROUNDING", "float16") for name in names))


@triggers("EXACTNESS_NOT_MET")
def test_what_a_refused_rounding_advises_makes_the_run_exact(hf: Path, destination: Path) -> None:
    run = hf_to_maxtext(hf, destination, "--require_exact", "--exactness=as_requested")
    refused(run, Fault("EXACTNESS_NOT_MET", "self_attention.query.kernel"))
    suggestion = run.failures[0].suggestion
    assert "wider" not in suggestion
    for advised in ("--residue=keep", "--exactness=invertible"):
        assert advised in suggestion
        out = destination.with_name(advised.strip("-"))
        completed(hf_to_maxtext(hf, out, "--require_exact", "--exactness=as_requested", advised))


@triggers("EXACTNESS_NOT_MET")
def test_a_way_back_without_a_record_says_that_no_wider_type_makes_it_exact(
    maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    (tmp_path / "config").mkdir()
    (maxtext / "recast" / "hf" / "config.json").rename(tmp_path / "config" / "config.json")
    shutil.rmtree(maxtext / "recast")
    flags = (f"--hf_config_path={tmp_path / 'config'}", "--model_name=llama3", "--weight_dtype=float32")
    run = maxtext_to_hf(maxtext, destination, "--require_exact", *flags)
    names = [name for name in element_coded_llama(cp.CONFIG, "bfloat16", seed=7) if "q_proj" in name]
    refused(run, *(Fault("EXACTNESS_NOT_MET", name, "ROUNDING", "nothing records") for name in names))
    assert all("wider" not in failure.suggestion for failure in run.failures)


def tied(directory: Path, change: Callable[[Any], Any]) -> Path:
    """A checkpoint of a tied model that still carries its head."""
    config = {**cp.CONFIG, "tie_word_embeddings": True}
    tensors = element_coded_llama(config, "bfloat16", seed=7)
    tensors[HEAD] = change(tensors[EMBED].copy())
    return write_safetensors(directory, tensors, config)


def flipped(values: Any, row: int, column: int) -> Any:
    """One bit of one element changed."""
    values.view(np.uint16)[row, column] ^= 1
    return values


@triggers("TIE_DOES_NOT_HOLD")
def test_a_tied_head_with_one_other_bit_is_refused(tmp_path: Path, destination: Path) -> None:
    source = tied(tmp_path / "tied", lambda values: flipped(values, 17, 5))
    with unchanged(tmp_path):
        run = hf_to_maxtext(source, destination)
    refused(run, Fault("TIE_DOES_NOT_HOLD", HEAD, EMBED, "[17, 5]"))
    assert "tie_word_embeddings" in run.failures[0].suggestion


def test_a_tied_head_with_the_same_bytes_is_accepted_and_named(tmp_path: Path, destination: Path) -> None:
    source = tied(tmp_path / "tied", lambda values: values)
    with unchanged(source):
        completed(hf_to_maxtext(source, destination))
    assert HEAD in (destination / "report.json").read_text("utf-8")
    back = destination.with_name("back")
    completed(maxtext_to_hf(destination, back, "--weight_dtype=auto"))
    expected = read_safetensors(source)
    found = read_safetensors(back)
    assert differing(found, {name: expected[name] for name in found}) == []
    assert set(expected) - set(found) <= {HEAD}


@pytest.mark.parametrize("scan", ["true", "false"])
@triggers("TENSOR_NOT_ZERO")
def test_biases_that_maxtext_cannot_hold_are_refused(scan: str, tmp_path: Path, destination: Path) -> None:
    config = {**cp.CONFIG, "attention_bias": True}
    tensors = element_coded_llama(config, "bfloat16", seed=7)
    biases = [name for name in tensors if name.endswith(".bias")]
    for name in biases:
        tensors[name] = np.zeros_like(tensors[name])
    loud = [biases[0], biases[-1]]
    for name in loud:
        tensors[name][-1] = 0.5
    source = write_safetensors(tmp_path / "biased", tensors, config)
    with unchanged(tmp_path):
        run = hf_to_maxtext(source, destination, f"--scan_layers={scan}")
    refused(run, *(Fault("TENSOR_NOT_ZERO", name, "no attention biases") for name in loud))


def test_biases_that_are_zero_are_accepted_and_come_back(tmp_path: Path, destination: Path) -> None:
    config = {**cp.CONFIG, "attention_bias": True}
    tensors = element_coded_llama(config, "bfloat16", seed=7)
    tensors |= {name: np.zeros_like(values) for name, values in tensors.items() if name.endswith(".bias")}
    source = write_safetensors(tmp_path / "biased", tensors, config)
    completed(hf_to_maxtext(source, destination))
    back = destination.with_name("back")
    completed(maxtext_to_hf(destination, back, "--weight_dtype=auto"))
    assert differing(read_safetensors(back), tensors) == []


def spoilt(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """NaN, an infinity and tensors of nothing but zeros among good ones."""
    out = {name: values.copy() for name, values in tensors.items()}
    out[UP][3, 4] = np.nan
    out[NORM][0] = -np.inf
    out["model.layers.2.mlp.down_proj.weight"][:] = 0
    out["model.layers.0.input_layernorm.weight"][:] = -0.0
    return out


@pytest.mark.parametrize("scan", ["true", "false"])
@triggers("TENSOR_NOT_FINITE", "TENSOR_ALL_ZERO")
def test_values_that_look_wrong_are_warnings_and_are_converted(scan: str, tmp_path: Path, destination: Path) -> None:
    tensors = spoilt(element_coded_llama(cp.CONFIG, "bfloat16", seed=7))
    source = write_safetensors(tmp_path / "spoilt", tensors, cp.CONFIG)
    warnings = (
        Fault("TENSOR_NOT_FINITE", UP),
        Fault("TENSOR_NOT_FINITE", NORM),
        Fault("TENSOR_ALL_ZERO", "model.layers.2.mlp.down_proj.weight"),
        Fault("TENSOR_ALL_ZERO", "model.layers.0.input_layernorm.weight"),
    )
    with unchanged(source):
        run = hf_to_maxtext(source, destination, f"--scan_layers={scan}")
    completed(run, *warnings)
    assert {entry.step for entry in run.warnings} == {"convert"}
    back = destination.with_name("back")
    second = maxtext_to_hf(destination, back, "--weight_dtype=auto")
    second.check_form()
    assert second.code == 0, second.summary
    assert {entry.id for entry in second.warnings} <= {"TENSOR_NOT_FINITE", "TENSOR_ALL_ZERO"}
    assert differing(read_safetensors(back), tensors) == []
