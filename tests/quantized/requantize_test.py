"""--requantize=source: a DeepSeek checkpoint there and back in float8, with the error that the report states."""

from __future__ import annotations

import errno
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.engine import execute, journal, planning
from converters.engine.journal import UnitRecord
from converters.formats.safetensors_source import SafetensorsSource
from tests import checkpoints
from tests.end_to_end.running import converted, recast, restored
from tests.families import mtp
from tests.families.harness import to_maxtext
from tests.oracles.arrays import Variant
from tests.quantized import loops, making
from tests.quantized.cases import CASES, Pair, linear, made, plain
from tests.quantized.loops import Array
from tests.quantized.making import Arrays


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(CASES["deepseek-fp8"], tmp_path_factory.mktemp("deepseek"))


@pytest.fixture(scope="module")
def maxtext(deepseek: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("maxtext") / "mt"
    to_maxtext(deepseek.quantized, out, Variant())
    return out


@pytest.fixture(scope="module")
def back(maxtext: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output, and what its report says."""
    out = tmp_path_factory.mktemp("back") / "hf"
    said = converted("maxtext-to-hf", load_parameters_path=maxtext, base_output_directory=out, requantize="source")
    return out, said.text


def stored_in(directory: Path) -> Arrays:
    return making.read(SafetensorsSource(directory))


def test_the_same_arrays_of_the_same_types_come_back_and_a_config_that_announces_them(
    deepseek: Pair, back: tuple[Path, str]
) -> None:
    before, after = stored_in(deepseek.quantized), stored_in(back[0])
    kinds = [{name: (values.dtype, values.shape) for name, values in held.items()} for held in (before, after)]
    assert kinds[0] == kinds[1]
    plain = [name for name in before if "_proj" not in name or name.endswith("layernorm.weight")]
    assert checkpoints.differing({n: after[n] for n in plain}, {n: before[n] for n in plain}) == []
    configs = [json.loads((path / "config.json").read_text("utf-8")) for path in (deepseek.quantized, back[0])]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]
    assert configs[0]["dtype"] == configs[1]["dtype"] == "bfloat16"


def encoded(values: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    """Codes and scales by the recipe: the largest magnitude of a block becomes 448, every quotient the nearest code."""
    numbers = np.array([loops.e4m3(code) for code in range(127)], np.float64)
    codes = np.empty(values.shape, np.uint8)
    scales = np.empty(tuple(-(-n // b) for n, b in zip(values.shape, block, strict=True)), np.float32)
    for (i, j), place in loops.blocks(values.shape, block):
        part = values[place].astype(np.float32)
        scales[i, j] = np.abs(part).max() / np.float32(448)
        quotients = (part / scales[i, j]).astype(np.float64)
        above = np.searchsorted(numbers, np.abs(quotients)).clip(1, 126)
        low, high = (np.abs(np.abs(quotients) - numbers[above - step]) for step in (1, 0))
        nearest = np.where((low < high) | ((low == high) & (above % 2 == 1)), above - 1, above)
        codes[place] = nearest + np.where(np.signbit(quotients), 128, 0)
    return codes, scales


def test_codes_and_scales_are_those_of_the_recipe(deepseek: Pair, back: tuple[Path, str]) -> None:
    after = stored_in(back[0])
    chosen = [name for name in deepseek.tensors if f"{name}_scale_inv" in after]
    assert len(chosen) > 20
    for name in chosen:
        codes, scales = encoded(deepseek.tensors[name], (128, 128))
        assert np.array_equal(after[f"{name}_scale_inv"], scales), name
        assert np.array_equal(after[name].view(np.uint8), codes), name


def test_the_report_states_the_error_that_is_measured_between_both_sides(
    deepseek: Pair, back: tuple[Path, str]
) -> None:
    after = stored_in(back[0])
    absolute = relative = error = total = 0.0
    for name, values in deepseek.tensors.items():
        if f"{name}_scale_inv" not in after:
            continue
        decoded = loops.scaled(loops.float8_values(after[name]), after[f"{name}_scale_inv"], (128, 128), "float32")
        exact = values.astype(np.float64)
        difference = np.abs(exact - decoded.astype(np.float64))
        absolute = max(absolute, float(difference.max()))
        relative = max(relative, float((difference[exact != 0] / np.abs(exact[exact != 0])).max()))
        error += float((difference**2).sum())
        total += float((exact**2).sum())
    said = {
        kind: float(number)
        for kind, number in re.findall(r"(absolute|relative|square) error ([0-9.e+-]+)(?:,| of)", back[1])
    }
    assert said["absolute"] == pytest.approx(absolute, rel=1e-6)
    assert said["relative"] == pytest.approx(relative, rel=1e-6)
    assert said["square"] == pytest.approx((error / total) ** 0.5, rel=1e-6)
    assert 0 < said["square"] < 0.05


def test_what_was_encoded_is_decoded_again_by_transformers(back: tuple[Path, str]) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(back[0])
    assert config.quantization_config["weight_block_size"] == [128, 128]
    assert config.quantization_config["quant_method"] == "fp8"


def test_a_second_time_nothing_is_lost(back: tuple[Path, str], tmp_path: Path) -> None:
    # What codes of these scales stand for is encoded as the same codes, where no rounding to bfloat16 lies between.
    to_maxtext(back[0], tmp_path / "mt", Variant(save_dtype="float32"))
    flags = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "again"}
    converted("maxtext-to-hf", requantize="source", **flags)
    first, second = stored_in(back[0]), stored_in(tmp_path / "again")
    codes = [name for name in first if f"{name}_scale_inv" in first]
    assert checkpoints.differing({n: second[n] for n in codes}, {n: first[n] for n in codes}) == []


def test_the_manifest_lists_codes_and_scales_and_verify_holds_them_against_it(
    back: tuple[Path, str], tmp_path: Path
) -> None:
    converted("verify", manifest=back[0])
    other = shutil.copytree(back[0], tmp_path / "other")
    file = next(iter(sorted(other.glob("*.safetensors"))))
    source = SafetensorsSource(other)
    name = next(
        name for name, info in source.tensors.items() if info.dtype == "float8_e4m3fn" and info.location == file.name
    )
    making.damage(file, name)
    outcome = recast("verify", manifest=other)
    assert outcome.code == 2
    assert name in outcome.text


@pytest.mark.parametrize("level", ["sample", "full"])
def test_verify_proves_that_the_codes_are_those_nearest_to_the_values(
    maxtext: Path, back: tuple[Path, str], level: str, tmp_path: Path
) -> None:
    assert recast("verify", str(maxtext), str(back[0]), level=level).code == 0


def test_verify_finds_a_code_that_is_not_the_nearest(maxtext: Path, back: tuple[Path, str], tmp_path: Path) -> None:
    held = stored_in(back[0])
    name = next(name for name in held if f"{name}_scale_inv" in held)
    held[name].view(np.uint8)[3, 4] ^= 1
    config = json.loads((back[0] / "config.json").read_text("utf-8"))
    outcome = recast("verify", str(maxtext), str(making.write(tmp_path / "other", held, config)), level="full")
    assert outcome.code == 3
    assert f"{name}" in outcome.text
    assert "[3, 4]" in outcome.text


def test_units_are_whole_blocks_and_a_run_that_stops_and_continues_states_the_same_error(
    maxtext: Path, back: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 2048)
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 20_000)
    monkeypatch.setattr(journal, "_GROUP_BYTES", 8192)
    out = tmp_path / "out"
    flags = {"load_parameters_path": maxtext, "base_output_directory": out, "requantize": "source", "progress": "none"}
    for unit in (30, 25):
        record = execute.Executor._record
        numbers = itertools.count(1)

        def failing(self: execute.Executor, written: UnitRecord) -> None:
            if next(numbers) == unit:  # noqa: B023
                raise OSError(errno.EIO, "Input/output error")
            record(self, written)  # noqa: B023

        with monkeypatch.context() as patches:
            patches.setattr(execute.Executor, "_record", failing)
            assert recast("maxtext-to-hf", **flags).code == 5
    outcome = converted("maxtext-to-hf", **flags)
    assert "continued: " in outcome.text
    assert checkpoints.differing(stored_in(out), stored_in(back[0])) == []
    said = [re.findall(r"largest \w+ error .*", text) for text in (outcome.text, back[1])]
    assert said[0] == said[1]
    assert len(said[0]) == 2
    converted("verify", manifest=out)


def test_scales_of_the_format_ue8m0_are_powers_of_two(deepseek: Pair, tmp_path: Path) -> None:
    config = json.loads((deepseek.quantized / "config.json").read_text("utf-8"))
    config["quantization_config"]["scale_fmt"] = "ue8m0"
    source = making.write(tmp_path / "hf", stored_in(deepseek.quantized), config)
    to_maxtext(source, tmp_path / "mt", Variant())
    flags = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    converted("maxtext-to-hf", requantize="source", **flags)
    after = stored_in(tmp_path / "back")
    for name, values in deepseek.tensors.items():
        if f"{name}_scale_inv" not in after:
            continue
        scales = after[f"{name}_scale_inv"]
        assert (np.frexp(scales)[0] == 0.5).all()
        largest = np.array(
            [np.abs(values[place].astype(np.float32)).max() for _, place in loops.blocks(values.shape, (128, 128))]
        )
        assert (largest <= 448 * scales.reshape(-1)).all()
        assert (largest > 224 * scales.reshape(-1)).all()


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("gpt-oss-mxfp4", "stored as mxfp4"),
        ("llama-float-channel", "stored as compressed-tensors"),
        ("llama-fp8-whole", "stored as float8_e4m3fn, one scale for a tensor"),
        ("plain", "announces plain weights"),
        ("unrecorded", "says which arrays were codes"),
    ],
)
def test_what_cannot_be_encoded_again_is_refused(case: str, says: str, maxtext: Path, tmp_path: Path) -> None:
    if case == "unrecorded":
        other = shutil.copytree(maxtext, tmp_path / "mt")
        (other / "recast" / "quantized.json").unlink()
    else:
        pair = made(CASES["llama-float-channel" if case == "plain" else case], tmp_path)
        to_maxtext(pair.plain if case == "plain" else pair.quantized, tmp_path / "mt", Variant())
    flags = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    outcome = recast("maxtext-to-hf", requantize="source", **flags)
    assert outcome.code == 2
    assert "INVALID_FLAG" in outcome.text
    assert says in outcome.text


def test_which_arrays_were_codes_is_known_after_layers_were_stacked_otherwise(
    deepseek: Pair, maxtext: Path, back: tuple[Path, str], tmp_path: Path
) -> None:
    flags = {"load_parameters_path": maxtext, "base_output_directory": tmp_path / "unstacked"}
    converted("maxtext-to-maxtext", scan_layers="false", **flags)
    flags = {"load_parameters_path": tmp_path / "unstacked", "base_output_directory": tmp_path / "back"}
    converted("maxtext-to-hf", requantize="source", **flags)
    assert checkpoints.differing(stored_in(tmp_path / "back"), stored_in(back[0])) == []


def test_a_quantised_layer_that_predicts_further_tokens_is_kept_decoded_and_encoded_again(tmp_path: Path) -> None:
    case = CASES["deepseek-fp8"]
    saved, other = plain(case, tmp_path / "base"), plain(case, tmp_path / "other", seed=3)
    mtp.count_layer(saved.directory)
    added = mtp.layer(saved.tensors, other.tensors, case.config["num_hidden_layers"])
    names = {name for name in {**saved.tensors, **added} if linear(name) and "eh_proj" not in name}
    tensors = {**saved.tensors, **added}
    source, first, plain_tensors = making.pair(tmp_path, saved.directory, tensors, names.__contains__, case.way)
    report = to_maxtext(source, tmp_path / "mt", Variant())
    assert added.keys() == {note.tensor for note in report.notes if note.kind == "KEPT"}
    to_maxtext(first, tmp_path / "first", Variant())
    assert checkpoints.differing(restored(tmp_path / "mt"), restored(tmp_path / "first")) == []
    flags = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    converted("maxtext-to-hf", requantize="source", **flags)
    after = stored_in(tmp_path / "back")
    assert {name for name in after if f"{name}_scale_inv" in after} == names
    for name in names & added.keys():
        codes, scales = encoded(plain_tensors[name], (128, 128))
        assert np.array_equal(after[f"{name}_scale_inv"], scales), name
        assert np.array_equal(after[name].view(np.uint8), codes), name


def test_what_is_encoded_is_lossy_and_require_exact_refuses_it(maxtext: Path, tmp_path: Path) -> None:
    flags = {"load_parameters_path": maxtext, "base_output_directory": tmp_path / "back"}
    outcome = recast("maxtext-to-hf", requantize="source", require_exact="true", **flags)
    assert outcome.code == 2
    assert "would be LOSSY: float32 encoded in fewer bits." in outcome.text


def test_an_explicit_dtype_is_that_of_all_that_is_not_encoded(maxtext: Path, tmp_path: Path) -> None:
    flags = {"load_parameters_path": maxtext, "base_output_directory": tmp_path / "back"}
    converted("maxtext-to-hf", requantize="source", weight_dtype="float32", **flags)
    dtypes = {values.dtype.name for values in stored_in(tmp_path / "back").values()}
    assert dtypes == {"float8_e4m3fn", "float32"}


def test_convert_takes_the_flag_to_hugging_face_from_maxtext_alone(
    deepseek: Pair, maxtext: Path, back: tuple[Path, str], tmp_path: Path
) -> None:
    converted("convert", str(maxtext), str(tmp_path / "out"), to="hf", requantize="source")
    assert checkpoints.differing(stored_in(tmp_path / "out"), stored_in(back[0])) == []
    outcome = recast("convert", str(deepseek.quantized), str(tmp_path / "other"), to="hf", requantize="source")
    assert outcome.code == 2
    assert "--requantize" in outcome.text


def test_a_damaged_list_of_what_was_quantised_is_refused(maxtext: Path, tmp_path: Path) -> None:
    other = shutil.copytree(maxtext, tmp_path / "mt")
    (other / "checkpoint-manifest.json").unlink()
    for number, text in enumerate(("{", "[]", '{"schema": 2, "arrays": {}}', '{"schema": 1, "arrays": ["x"]}')):
        (other / "recast" / "quantized.json").write_text(text, encoding="utf-8")
        flags = {"load_parameters_path": other, "base_output_directory": tmp_path / f"back{number}"}
        outcome = recast("maxtext-to-hf", requantize="source", **flags)
        assert outcome.code == 2
        assert "RESIDUE_INVALID" in outcome.text, text


def test_what_a_link_in_the_source_leads_to_is_not_written_into_an_output(maxtext: Path, tmp_path: Path) -> None:
    other = shutil.copytree(maxtext, tmp_path / "mt")
    (tmp_path / "secret.txt").write_text("of somebody else", encoding="utf-8")
    (other / "recast" / "quantized.json").unlink()
    (other / "recast" / "quantized.json").symlink_to(tmp_path / "secret.txt")
    flags = {"load_parameters_path": other, "base_output_directory": tmp_path / "unstacked"}
    outcome = recast("maxtext-to-maxtext", scan_layers="false", **flags)
    assert outcome.code == 2
    assert "RESIDUE_INVALID" in outcome.text
    assert "somebody" not in outcome.text
    assert list((tmp_path / "unstacked").rglob("quantized.json")) == []


def test_values_that_are_not_finite_are_not_encoded(tmp_path: Path) -> None:
    case = CASES["llama-fp8-small-blocks"]
    pair = made(case, tmp_path)
    held = stored_in(pair.quantized)
    name = "model.layers.1.mlp.up_proj.weight"
    held[name].view(np.uint8)[2, 3] = 0x7F
    config = json.loads((pair.quantized / "config.json").read_text("utf-8"))
    source = making.write(tmp_path / "nan", held, config)
    outcome = converted("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert "TENSOR_NOT_FINITE" in outcome.text
    flags = {"load_parameters_path": tmp_path / "mt", "base_output_directory": tmp_path / "back"}
    outcome = recast("maxtext-to-hf", requantize="source", **flags)
    assert outcome.code == 2
    assert "SCALE_INVALID" in outcome.text
    assert f"{name} holds NaN or infinite values" in outcome.text
