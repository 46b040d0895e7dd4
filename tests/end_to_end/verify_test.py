"""`verify`: right conversions pass; damaged outputs and wrong conversions are found, by the tensors concerned."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from tests import checkpoints
from tests.end_to_end.running import Arrays, Outcome, converted, recast

CONFIG = {
    **checkpoints.CONFIGS["llama3_rope"],
    "head_dim": 24,
    "num_hidden_layers": 2,
}
BF16 = np.dtype(ml_dtypes.bfloat16)
QUERY = "params.params.decoder.layers.self_attention.query.kernel"
KEY = "params.params.decoder.layers.self_attention.key.kernel"
_FLIPS = 24
# Written after the manifest, which cannot list them.
_REPORTS = ("report.txt", "report.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf` in bfloat16, `wide` in float32, and what they were converted to."""
    root = tmp_path_factory.mktemp("verify")
    for name, dtype in (("hf", "bfloat16"), ("wide", "float32")):
        tensors = checkpoints.element_coded_llama(CONFIG, dtype, seed=21)
        checkpoints.write_safetensors(root / name, tensors, CONFIG, shard_bytes=60_000)
    _convert(root, "hf", "stacked", to="maxtext", model_name="llama3.1")
    _convert(root, "hf", "unstacked", to="maxtext", model_name="llama3.1", scan_layers=False, compression="zstd:1")
    plain = {"checkpoint_storage_use_zarr3": False, "checkpoint_storage_use_ocdbt": False}
    _convert(root, "hf", "plain", to="maxtext", model_name="llama3.1", compression="zstd:1", **plain)
    _convert(root, "stacked", "back", to="hf", max_shard_size="60KB")
    _convert(root, "wide", "rounded", to="maxtext", model_name="llama3.1", dtype="bfloat16")
    return root


def _convert(root: Path, source: str, target: str, **flags: object) -> None:
    converted("convert", str(root / source), str(root / target), **flags)


def _verify(source: Path, destination: Path, **flags: object) -> Outcome:
    return recast("verify", str(source), str(destination), **flags)


def _named(outcome: Outcome) -> set[str]:
    """Subjects of the errors of a report."""
    errors = outcome.text.partition("> Warnings")[0]
    return set(re.findall(r"^  Subject: (.+)$", errors, re.MULTILINE))


def _ids(outcome: Outcome) -> set[str]:
    return set(re.findall(r"^  Id: RecastErrorId\.(\w+)$", outcome.text, re.MULTILINE))


@pytest.mark.parametrize("level", ["headers", "sample", "full"])
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("hf", "stacked"),
        ("hf", "unstacked"),
        ("stacked", "back"),
        ("hf", "back"),
        ("wide", "rounded"),
        ("rounded", "rounded"),
        ("stacked", "unstacked"),
        ("unstacked", "stacked"),
        ("plain", "back"),
    ],
)
def test_right_conversions_pass(made: Path, source: str, destination: str, level: str) -> None:
    outcome = _verify(made / source, made / destination, level=level)
    assert outcome.code == 0, outcome.text


def test_full_reads_every_byte_of_the_destination(made: Path) -> None:
    arrays = checkpoints.read_safetensors(made / "back")
    outcome = _verify(made / "hf", made / "back", level="full")
    size = sum(array.nbytes for array in arrays.values())
    assert f"every element of {len(arrays)} arrays compared, {size} bytes" in outcome.text


def test_a_budget_smaller_than_a_tensor_is_enough(made: Path) -> None:
    outcome = _verify(made / "hf", made / "stacked", level="full", memory_budget="8MB")
    assert outcome.code == 0, outcome.text


def test_a_single_changed_element_is_found_by_full_with_its_coordinate(made: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    broken = _edited(made / "back", tmp_path / "broken", name, lambda array: _flipped(array, (3, 5)))
    outcome = _verify(made / "hf", broken, level="full")
    assert outcome.code == 3
    assert _named(outcome) == {name}
    assert f"1 elements of {name} are not what the source makes them; the first is [3, 5]" in outcome.text
    assert _verify(made / "hf", broken, level="headers").code == 0


@pytest.mark.parametrize("level", ["sample", "full"])
def test_swapped_layers_are_found(made: Path, tmp_path: Path, level: str) -> None:
    first, second = (f"model.layers.{layer}.self_attn.v_proj.weight" for layer in (0, 1))
    values = checkpoints.read_safetensors(made / "back")
    broken = _edited(made / "back", tmp_path / "one", first, lambda _: values[second])
    broken = _edited(broken, tmp_path / "two", second, lambda _: values[first])
    outcome = _verify(made / "stacked", broken, level=level)
    assert outcome.code == 3
    assert _named(outcome) == {first, second}


@pytest.mark.parametrize("level", ["sample", "full"])
def test_the_wrong_order_of_rotary_pairs_is_found(made: Path, tmp_path: Path, level: str) -> None:
    converted("convert", str(made / "hf"), str(tmp_path / "halves"), to="maxtext", model_name="llama3.2")
    told = _verify(made / "hf", tmp_path / "halves", level=level, model_name="llama3.1")
    assert "MODEL_NAME_MISMATCH" in _ids(told)
    shutil.rmtree(tmp_path / "halves" / "recast")
    outcome = _verify(made / "hf", tmp_path / "halves", level=level, model_name="llama3.1")
    assert outcome.code == 3
    assert _named(outcome) == {QUERY, KEY}
    assert _verify(made / "hf", tmp_path / "halves", level=level, model_name="llama3.2").code == 0


def test_values_cut_instead_of_rounded_are_found(made: Path, tmp_path: Path) -> None:
    name = "model.norm.weight"
    wide = checkpoints.read_safetensors(made / "wide")[name]
    converted("convert", str(made / "wide"), str(tmp_path / "narrow"), to="hf", dtype="bfloat16", model_name="llama3.1")
    assert _verify(made / "wide", tmp_path / "narrow", level="full").code == 0
    cut = (wide.view(np.uint32) >> 16).astype(np.uint16).view(BF16)
    broken = _edited(tmp_path / "narrow", tmp_path / "cut", name, lambda _: cut)
    outcome = _verify(made / "wide", broken, level="full")
    assert outcome.code == 3
    assert _named(outcome) == {name}


def test_two_conversions_of_which_one_rounds_are_right_each_and_not_together(made: Path, tmp_path: Path) -> None:
    _convert(made, "hf", str(tmp_path / "peer"), to="maxtext", model_name="llama3.1", exactness="as_requested")
    _convert(made, str(tmp_path / "peer"), str(tmp_path / "back"), to="hf")
    assert _verify(made / "hf", tmp_path / "peer", level="full").code == 0
    assert _verify(tmp_path / "peer", tmp_path / "back", level="full").code == 0
    together = _verify(made / "hf", tmp_path / "back", level="full")
    assert together.code == 3
    assert all("q_proj" in name for name in _named(together))
    assert "`verify` proves one conversion" in together.text
    assert "`recast diff`" in together.text


def test_a_missing_an_added_and_a_reshaped_tensor_are_found_by_headers(made: Path, tmp_path: Path) -> None:
    files = _copied(made / "back", tmp_path / "broken")
    arrays = checkpoints.read_safetensors(files)
    for path in [*files.glob("*.safetensors*")]:
        path.unlink()
    gone, reshaped = "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"
    del arrays[gone]
    arrays[reshaped] = np.ascontiguousarray(arrays[reshaped].T)
    arrays["model.layers.0.mlp.bias"] = arrays["model.norm.weight"]
    save_file(arrays, files / "model.safetensors")
    outcome = _verify(made / "hf", files, level="headers")
    assert outcome.code == 3
    assert {gone, reshaped, "model.layers.0.mlp.bias"} <= _named(outcome)


def test_a_config_of_other_sizes_beside_the_right_weights_is_found(made: Path, tmp_path: Path) -> None:
    files = _copied(made / "back", tmp_path / "broken")
    config = json.loads((files / "config.json").read_text())
    (files / "config.json").write_text(json.dumps({**config, "intermediate_size": 161}))
    outcome = _verify(made / "hf", files, level="headers")
    assert (outcome.code, _named(outcome)) == (3, {"config.json"})


def test_a_seed_chooses_the_same_coordinates_again(made: Path) -> None:
    texts = [_verify(made / "hf", made / "stacked", seed=7).text.partition("****")[2] for _ in range(2)]
    # All but the last line, which holds the time.
    assert len({text.rstrip().rpartition("\n")[0] for text in texts}) == 1


def test_verify_wants_two_paths_or_a_manifest(made: Path) -> None:
    assert recast("verify", str(made / "hf")).code == 2
    assert recast("verify").code == 2
    assert recast("verify", str(made / "hf"), manifest=made / "back").code == 2
    assert recast("verify", manifest=made / "back", level="full").code == 2


@pytest.mark.parametrize("name", ["stacked", "unstacked", "back"])
def test_an_untouched_output_fits_its_manifest(made: Path, name: str) -> None:
    for path in (made / name, made / name / "checkpoint-manifest.json"):
        outcome = recast("verify", manifest=path)
        assert outcome.code == 0, outcome.text


def test_a_small_budget_reads_tensors_in_parts(made: Path) -> None:
    assert recast("verify", manifest=made / "back", memory_budget="1KB").code == 0


@pytest.mark.parametrize("name", ["stacked", "unstacked", "plain", "back"])
def test_any_flipped_byte_is_found_and_names_the_tensors_that_it_touches(made: Path, name: str, tmp_path: Path) -> None:
    root = _copied(made / name, tmp_path / name)
    read = _hf_tensors if name == "back" else _maxtext_tensors
    before = read(root)
    chooser = random.Random(f"{name} 4")
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in _REPORTS)
    weights = [max(path.stat().st_size, 1) for path in files]
    flips = [*files, *chooser.choices(files, weights, k=_FLIPS)]
    touched_any = 0
    for path in flips:
        relative = str(path.relative_to(root))
        content = path.read_bytes()
        place = chooser.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << chooser.randrange(8)]) + content[place + 1 :])
        try:
            outcome = recast("verify", manifest=root)
            what = f"byte {place} of {relative}: {outcome.text}"
            assert outcome.code == 2, what
            if relative in ("DONE", "checkpoint-manifest.json"):
                assert _ids(outcome) == {"MANIFEST_INVALID"}, what
                continue
            assert _ids(outcome) == {"CHECKPOINT_DAMAGED"}, what
            assert relative in _named(outcome), what
            touched = _touched(read(root), before)
            assert _named(outcome) & set(before) >= touched, what
            if not relative.endswith(("_METADATA", "index.json")):
                assert _named(outcome) == touched | {relative}, what
            touched_any += bool(touched)
        finally:
            path.write_bytes(content)
    assert touched_any > _FLIPS // 2
    assert recast("verify", manifest=root).code == 0


def test_missing_added_and_cut_files_are_named(made: Path, tmp_path: Path) -> None:
    root = _copied(made / "back", tmp_path / "copy")
    first, second, *_ = sorted(root.glob("*.safetensors"))
    lost = set(load_file(first)) | set(load_file(second))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    (root / "extra").mkdir()
    (root / "extra" / "note").write_text("x")
    (root / "link").symlink_to("config.json")
    outcome = recast("verify", manifest=root)
    assert outcome.code == 2
    assert _named(outcome) == lost | {first.name, second.name, "extra/note", "link"}


def test_an_unfinished_run_in_the_directory_is_no_damage(made: Path, tmp_path: Path) -> None:
    root = _copied(made / "back", tmp_path / "copy")
    (root / ".recast-staging").mkdir()
    (root / ".recast-staging" / "lock").write_text("1")
    assert recast("verify", manifest=root).code == 0


def test_without_done_or_manifest_nothing_is_confirmed(made: Path, tmp_path: Path) -> None:
    for gone in ("DONE", "checkpoint-manifest.json"):
        root = _copied(made / "back", tmp_path / gone)
        (root / gone).unlink()
        outcome = recast("verify", manifest=root)
        assert (outcome.code, _ids(outcome)) == (2, {"MANIFEST_INVALID"})
    assert _ids(recast("verify", manifest=made / "hf")) == {"MANIFEST_INVALID"}
    assert _ids(recast("verify", manifest=made / "nothing")) == {"SOURCE_NOT_FOUND"}


def _copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def _flipped(array: np.ndarray[Any, Any], where: tuple[int, ...]) -> np.ndarray[Any, Any]:
    out = array.copy()
    out.view(f"u{array.dtype.itemsize}")[where] ^= 1
    return out


def _edited(
    source: Path, target: Path, name: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> Path:
    """A copy of a Hugging Face checkpoint with one tensor changed, otherwise valid."""
    _copied(source, target)
    for path in target.glob("*.safetensors"):
        arrays = load_file(path)
        if name in arrays:
            save_file({**arrays, name: change(arrays[name])}, path, {"format": "pt"})
    return target


def _touched(after: Mapping[str, np.ndarray[Any, Any]], before: Mapping[str, np.ndarray[Any, Any]]) -> set[str]:
    return {
        name
        for name, array in before.items()
        if name not in after or after[name].shape != array.shape or after[name].tobytes() != array.tobytes()
    }


def _hf_tensors(root: Path) -> Arrays:
    """What the safetensors library reads."""
    found: Arrays = {}
    for path in sorted(root.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy") as file:
                found |= {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError:
            continue
    return found


def _maxtext_tensors(root: Path) -> Arrays:
    """What TensorStore reads, array by array, with specs of our own."""
    listed = json.loads((root / "checkpoint-manifest.json").read_text())["tensors"]
    found: Arrays = {}
    for name in listed:
        kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{root}/0/items/"}, "path": f"{name}/"}
        if root.name == "plain":
            kvstore = {"driver": "file", "path": f"{root}/0/items/{name}/"}
        driver = "zarr" if root.name == "plain" else "zarr3"
        spec = {"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}
        try:
            found[name] = np.asarray(ts.open(spec, context=ts.Context()).result().read().result())
        except ValueError:
            continue
    return found
