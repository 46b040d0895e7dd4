"""Published quantised checkpoints equal those that were dequantised first and then converted, bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converters.engine import convert, declared_source
from converters.engine.model import Model
from converters.engine.request import ConversionRequest
from converters.formats.safetensors_source import SafetensorsSource
from mappings import catalog
from reporting.report import Report
from tests import checkpoints, training_states
from tests.end_to_end.running import converted, recast, restored
from tests.families.harness import to_hf, to_maxtext
from tests.oracles.arrays import Variant
from tests.quantized import making
from tests.quantized.cases import CASES, Pair, linear, made


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(CASES[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(CASES["deepseek-fp8"], tmp_path_factory.mktemp("deepseek"))


@pytest.mark.parametrize("scan", [True, False])
def test_one_pass_equals_dequantising_first(pair: Pair, scan: bool, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    to_maxtext(pair.quantized, one, Variant(scan=scan))
    to_maxtext(pair.plain, two, Variant(scan=scan))
    assert checkpoints.differing(restored(one), restored(two)) == []


def test_as_requested_too_starts_from_the_values_that_transformers_gives(pair: Pair, tmp_path: Path) -> None:
    variant = Variant(exactness="as_requested")
    to_maxtext(pair.quantized, tmp_path / "one", variant)
    to_maxtext(pair.plain, tmp_path / "two", variant)
    assert checkpoints.differing(restored(tmp_path / "one"), restored(tmp_path / "two")) == []


def test_the_way_back_writes_plain_weights_and_a_config_that_announces_none(pair: Pair, tmp_path: Path) -> None:
    to_maxtext(pair.quantized, tmp_path / "mt", Variant())
    carried = json.loads((tmp_path / "mt" / "recast" / "hf" / "config.json").read_text(encoding="utf-8"))
    assert carried["quantization_config"] == pair.case.way.config
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), pair.tensors) == []
    back = json.loads((tmp_path / "back" / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in back


def test_a_wider_dtype_of_the_run_keeps_the_product_as_it_is(tmp_path: Path) -> None:
    case = CASES["llama-fp8-small-blocks"]
    pair = made(case, tmp_path, "float32")
    variant = Variant(save_dtype="float32")
    to_maxtext(pair.quantized, tmp_path / "one", variant)
    to_maxtext(pair.plain, tmp_path / "two", variant)
    assert checkpoints.differing(restored(tmp_path / "one"), restored(tmp_path / "two")) == []
    decoded = pair.tensors["model.layers.0.mlp.up_proj.weight"]
    assert not np.array_equal(decoded, decoded.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("name", ["deepseek3-671b", "gpt-oss-20b"])
def test_a_published_config_that_announces_codes_is_planned_from_itself_alone(name: str) -> None:
    manifest = catalog.find(name)
    assert manifest is not None
    fp8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
    mxfp4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    config = {**manifest.config, "quantization_config": fp8 if name.startswith("deepseek") else mxfp4}
    published = dataclasses.replace(manifest, config=config)
    report = Report("plan")
    request = ConversionRequest(Path(), Path("plan-only"), "hf", "maxtext", "bfloat16", model_name=name, plan_only=True)
    opened = declared_source.open_published(published, "hf", {})
    convert.plan(request, opened, report, Model(config, None, None))
    assert [diagnostic for step in report.steps for diagnostic in step.diagnostics] == []


def test_hf_to_hf_dequantises(deepseek: Pair, tmp_path: Path) -> None:
    converted("convert", str(deepseek.quantized), str(tmp_path / "out"), to="hf")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "out"), deepseek.tensors) == []


def test_the_report_says_how_many_arrays_were_decoded_from_what(deepseek: Pair, tmp_path: Path) -> None:
    report: Report = to_maxtext(deepseek.quantized, tmp_path / "mt", Variant())
    count = sum(linear(name) for name in deepseek.tensors)
    (step,) = (step for step in report.steps if step.name == "decode")
    assert step.lines == [f"{count} arrays decoded to bfloat16 from float8_e4m3fn, a scale for 128 x 128"]
    classes = {tensor.name.rpartition(".")[2]: tensor.exactness for tensor in report.tensors}
    assert classes["embedding"] == "EXACT"
    assert {tensor.exactness for tensor in report.tensors if ".wi_0" in tensor.name} == {"ROUNDING"}


def test_scales_of_activations_and_caches_are_reported_as_not_converted(tmp_path: Path) -> None:
    more = {
        f"model.layers.{layer}.self_attn.{name}": np.full((1,), 0.5, np.float32)
        for layer in range(3)
        for name in ("k_scale", "v_scale", "q_proj.input_scale")
    }
    pair = made(CASES["llama-float-tensor"], tmp_path, more=more)
    report = to_maxtext(pair.quantized, tmp_path / "one", Variant())
    notes = {note.tensor: note.reason for note in report.notes if note.kind == "NOT_CONVERTED"}
    assert set(notes) == set(more)
    assert "activations or the key-value cache" in notes["model.layers.0.self_attn.k_scale"]
    to_maxtext(pair.plain, tmp_path / "two", Variant())
    assert checkpoints.differing(restored(tmp_path / "one"), restored(tmp_path / "two")) == []


def test_require_exact_refuses_fp8_and_takes_mxfp4(tmp_path: Path) -> None:
    fp8, gpt = (made(CASES[name], tmp_path / name) for name in ("llama-fp8-small-blocks", "gpt-oss-mxfp4"))
    refused = recast(
        "hf-to-maxtext", hf_model_path=fp8.quantized, base_output_directory=tmp_path / "a", require_exact="true"
    )
    assert refused.code == 2
    assert "EXACTNESS_NOT_MET" in refused.text
    assert "would be ROUNDING: decoded from codes, and rounded to bfloat16." in refused.text
    assert "choose a wider dtype" in refused.text
    flags = {"hf_model_path": fp8.quantized, "base_output_directory": tmp_path / "a", "require_exact": "true"}
    widest = recast("hf-to-maxtext", **flags, save_dtype="float32")
    assert "would be ROUNDING: decoded from codes, and rounded to float32." in widest.text
    assert "Suggestion: Leave --require_exact out.\n" in widest.text
    converted("hf-to-maxtext", hf_model_path=gpt.quantized, base_output_directory=tmp_path / "b", require_exact="true")


@pytest.mark.parametrize("level", ["headers", "sample", "full"])
def test_verify_proves_a_conversion_of_a_quantised_source(deepseek: Pair, level: str, tmp_path: Path) -> None:
    out = tmp_path / "mt"
    to_maxtext(deepseek.quantized, out, Variant())
    assert recast("verify", str(deepseek.quantized), str(out), level=level).code == 0
    # The other way round: the plain checkpoint that comes back, made from the same values.
    to_hf(out, tmp_path / "back")
    assert recast("verify", str(deepseek.quantized), str(tmp_path / "back"), level=level).code == 0


def test_verify_finds_a_scale_that_was_changed(deepseek: Pair, tmp_path: Path) -> None:
    out = tmp_path / "mt"
    to_maxtext(deepseek.quantized, out, Variant())
    config = json.loads((deepseek.quantized / "config.json").read_text(encoding="utf-8"))
    tensors = making.read(SafetensorsSource(deepseek.quantized))
    name = next(name for name in tensors if name.endswith("scale_inv"))
    tensors[name][0, 0] *= 2
    other = making.write(tmp_path / "other", tensors, config)
    outcome = recast("verify", str(other), str(out), level="full")
    assert outcome.code == 3
    assert "VERIFICATION_FAILED" in outcome.text


def test_verify_takes_the_dtype_that_the_other_side_is_stored_in(tmp_path: Path) -> None:
    pair = made(CASES["llama-fp8-small-blocks"], tmp_path)
    to_maxtext(pair.quantized, tmp_path / "mt", Variant(save_dtype="float32"))
    assert recast("verify", str(pair.quantized), str(tmp_path / "mt"), level="full").code == 0


def test_float32_moments_do_not_decide_what_codes_beside_bfloat16_weights_are_decoded_to(tmp_path: Path) -> None:
    pair = made(CASES["llama-fp8-small-blocks"], tmp_path)
    to_maxtext(pair.quantized, tmp_path / "mt", Variant())
    saved = training_states.with_float32_moments(tmp_path / "mt" / "0" / "items", tmp_path / "state" / "1")
    assert recast("verify", str(pair.quantized), str(saved), level="full").code == 0
    assert recast("diff", str(pair.quantized), str(saved)).code == 0


def test_codes_that_only_a_folded_array_holds_are_decoded_to_the_dtype_of_other_weights(tmp_path: Path) -> None:
    case = dataclasses.replace(CASES["llama-fp8-small-blocks"], names=lambda name: name.endswith("q_proj.weight"))
    pair = made(case, tmp_path)
    to_maxtext(pair.quantized, tmp_path / "mt", Variant(save_dtype="float32"))
    shutil.copytree(tmp_path / "mt" / "0", tmp_path / "foreign" / "0")
    assert recast("verify", str(pair.quantized), str(tmp_path / "foreign"), level="full").code == 0


def test_diff_of_an_unknown_model_decodes_to_the_dtype_of_the_arrays_of_the_same_name(tmp_path: Path) -> None:
    way, generator = making.fp8_blocks((16, 24)), np.random.default_rng(2)
    norms = {f"norms.{number}.weight": np.ones((8,), ml_dtypes.bfloat16) for number in range(3)}
    stored = way.stored("a.weight", (40, 60), generator)
    config = {"model_type": "unknown", "dtype": "bfloat16", "quantization_config": way.config}
    ours = making.write(tmp_path / "q", {**stored, **norms}, config)
    plain = {"a.weight": way.plain("a.weight", stored, "float32"), **norms}
    theirs = making.write(tmp_path / "p", plain, {"model_type": "unknown"})
    assert recast("diff", str(ours), str(theirs)).code == 0
    plain["a.weight"][3, 4] *= 1.01
    other = making.write(tmp_path / "o", plain, {"model_type": "unknown"})
    assert "1 of 2400 elements of a.weight" in recast("diff", str(ours), str(other)).text


def test_diff_compares_the_plain_values_of_a_quantised_checkpoint(deepseek: Pair) -> None:
    assert recast("diff", str(deepseek.quantized), str(deepseek.plain)).code == 0
    assert recast("diff", str(deepseek.quantized), str(deepseek.quantized)).code == 0


def test_inspect_lists_the_arrays_as_they_are_stored_and_what_they_are_decoded_to(deepseek: Pair) -> None:
    outcome = recast("inspect", str(deepseek.quantized), json="true")
    assert outcome.code == 0
    said = json.loads(outcome.text)
    name = "model.layers.1.self_attn.kv_b_proj.weight"
    kept = {entry["name"]: entry["dtype"] for entry in said["tensors"]}
    assert (kept[name], kept[f"{name}_scale_inv"]) == ("float8_e4m3fn", "float32")
    assert said["quantized"] == [
        f"{sum(map(linear, deepseek.tensors))} arrays decoded to bfloat16 from float8_e4m3fn, a scale for 128 x 128"
    ]
