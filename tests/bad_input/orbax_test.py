"""Damaged and unfinished Orbax checkpoints as a source."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf, recast
from tests.checkpoints import differing, read_safetensors

ITEMS = "0/items"
TREE = f"{ITEMS}/_METADATA"
STEP = "0/_CHECKPOINT_METADATA"
QUERY = "params.params.decoder.layers.self_attention.query.kernel"
KEY = "params.params.decoder.layers.self_attention.key.kernel"
NORM = "params.params.decoder.decoder_norm.scale"


def largest_data_file(directory: Path) -> Path:
    return max((directory / ITEMS / "d").iterdir(), key=lambda path: path.stat().st_size)


def leaf(keys: str, value_type: str = "np.ndarray") -> dict[str, Any]:
    return {
        "key_metadata": [{"key": key, "key_type": 2} for key in keys.split(".")],
        "value_metadata": {"value_type": value_type, "skip_deserialize": False},
    }


def in_tree(change: Callable[[dict[str, Any]], object]) -> cp.Edit:
    return cp.changed_json(TREE, lambda content: change(content["tree_metadata"]))


def without_leaf(name: str) -> cp.Edit:
    return in_tree(lambda tree: tree.pop(str(tuple(name.split(".")))))


def stored(name: str, values: Any) -> cp.Edit:
    """Writes an array into the database beside those that are there."""

    def apply(directory: Path) -> None:
        kvstore = {"driver": "ocdbt", "base": f"file://{directory / ITEMS}/", "path": f"{name}/"}
        spec = {"driver": "zarr3", "kvstore": kvstore}
        store = ts.open(spec, create=True, delete_existing=True, dtype=values.dtype, shape=values.shape).result()
        store.write(values).result()

    return apply


def added(name: str, values: Any) -> cp.Edit:
    return cp.together(stored(name, values), in_tree(lambda tree: tree.update({name: leaf(name)})))


def dropped_from_the_database(*names: str) -> cp.Edit:
    def apply(directory: Path) -> None:
        store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{directory / ITEMS}/"}).result()
        for name in names:
            start = f"{name}/".encode()
            store.delete_range(ts.KvStore.KeyRange(start, start[:-1] + b"0")).result()

    return apply


def only_the_chunks_dropped(name: str) -> cp.Edit:
    def apply(directory: Path) -> None:
        store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{directory / ITEMS}/"}).result()
        start = f"{name}/c".encode()
        store.delete_range(ts.KvStore.KeyRange(start, start[:-1] + b"d")).result()

    return apply


def moved_to_a_temporary_name(directory: Path) -> None:
    (directory / "0").rename(directory / "0.orbax-checkpoint-tmp-1700000000")


def never_merged(directory: Path) -> None:
    (directory / ITEMS / "ocdbt.process_0").mkdir()
    (directory / ITEMS / "manifest.ocdbt").rename(directory / ITEMS / "ocdbt.process_0" / "manifest.ocdbt")
    (directory / ITEMS / "d").rename(directory / ITEMS / "ocdbt.process_0" / "d")


CASES = (
    Case("a_save_in_progress", moved_to_a_temporary_name, (Fault("CHECKPOINT_UNFINISHED", "orbax-checkpoint-tmp"),)),
    Case(
        "a_pipe_among_the_files",
        lambda directory: os.mkfifo(directory / ITEMS / "pipe"),
        (Fault("ORBAX_ARRAY_UNREADABLE", "pipe is not a regular file"),),
    ),
    Case("no_tree", cp.without(TREE), (Fault("CHECKPOINT_UNFINISHED", "_METADATA"),)),
    Case(
        "no_commit_time",
        cp.together(cp.with_fields(STEP, commit_timestamp_nsecs=None), cp.without("0/commit_success.txt")),
        (Fault("CHECKPOINT_UNFINISHED", "no commit time"),),
    ),
    Case("databases_that_were_never_merged", never_merged, (Fault("CHECKPOINT_UNFINISHED", "never merged"),)),
    Case(
        "no_database",
        cp.without(f"{ITEMS}/manifest.ocdbt"),
        (Fault("ORBAX_ARRAY_UNREADABLE", "manifest.ocdbt"),),
    ),
    Case("a_tree_that_is_no_json", cp.with_text(TREE, "{"), (Fault("ORBAX_METADATA_INVALID", "_METADATA"),)),
    Case("an_empty_tree_file", cp.with_text(TREE, ""), (Fault("ORBAX_METADATA_INVALID", "_METADATA"),)),
    Case("a_tree_without_leaves", cp.with_text(TREE, "{}"), (Fault("ORBAX_METADATA_INVALID", "tree_metadata"),)),
    Case(
        "a_tree_nested_without_end",
        cp.with_text(TREE, '{"tree_metadata":' + "[" * 200_000),
        (Fault("ORBAX_METADATA_INVALID", "_METADATA", "nested too deeply"),),
    ),
    Case(
        "a_step_that_is_no_json", cp.with_text(STEP, "nul"), (Fault("ORBAX_METADATA_INVALID", "_CHECKPOINT_METADATA"),)
    ),
    Case(
        "custom_metadata_that_is_a_list",
        cp.with_fields(STEP, custom_metadata=[True]),
        (Fault("ORBAX_METADATA_INVALID", "custom_metadata is not an object"),),
    ),
    Case(
        "flags_that_are_no_truth_values",
        cp.with_fields(TREE, use_ocdbt="yes", use_zarr3=1),
        (Fault("ORBAX_METADATA_INVALID", "use_ocdbt"), Fault("ORBAX_METADATA_INVALID", "use_zarr3")),
    ),
    Case(
        "names_that_leave_the_directory",
        in_tree(lambda tree: tree.update(a=leaf("../../etc/passwd"), b=leaf("/etc/passwd"))),
        (Fault("PATH_ESCAPES", "../../etc/passwd"), Fault("PATH_ESCAPES", "/etc/passwd")),
    ),
    Case(
        "several_damaged_leaves",
        in_tree(lambda tree: tree.update(a=3, b={"key_metadata": []}, c={"key_metadata": [{"key": "x"}]})),
        (
            Fault("ORBAX_METADATA_INVALID", "the leaf a", "not an object"),
            Fault("ORBAX_METADATA_INVALID", "the leaf b", "key_metadata"),
            Fault("ORBAX_METADATA_INVALID", "the leaf c", "key"),
        ),
    ),
    Case(
        "arrays_that_the_database_lacks",
        dropped_from_the_database(QUERY, NORM),
        (Fault("ORBAX_ARRAY_UNREADABLE", QUERY), Fault("ORBAX_ARRAY_UNREADABLE", NORM)),
    ),
    Case("chunks_that_the_database_lacks", only_the_chunks_dropped(KEY), (Fault("ORBAX_ARRAY_UNREADABLE", KEY),)),
    Case(
        "an_empty_manifest",
        cp.with_bytes(f"{ITEMS}/manifest.ocdbt", lambda _: b""),
        tuple(Fault("ORBAX_ARRAY_UNREADABLE") for _ in range(13)),
    ),
    Case(
        "a_cut_manifest",
        cp.with_bytes(f"{ITEMS}/manifest.ocdbt", lambda data: data[:-1]),
        tuple(Fault("ORBAX_ARRAY_UNREADABLE") for _ in range(13)),
    ),
    Case(
        "a_flipped_bit_in_the_manifest",
        cp.with_bytes(
            f"{ITEMS}/manifest.ocdbt",
            lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :],
        ),
        tuple(Fault("ORBAX_ARRAY_UNREADABLE") for _ in range(13)),
    ),
    Case("a_missing_array", without_leaf(KEY), (Fault("MISSING_TENSOR", KEY),)),
    Case(
        "an_unknown_parameter",
        added("params.params.decoder.layers.adapter.kernel", np.zeros((2, 2), np.float32)),
        (Fault("UNKNOWN_TENSOR", "params.params.decoder.layers.adapter.kernel"),),
    ),
    Case(
        "an_array_of_another_shape",
        stored(NORM, np.ones(17, np.float32)),
        (Fault("TENSOR_SHAPE", NORM, "[17]", "[16]"),),
    ),
    Case("an_array_of_integers", stored(NORM, np.ones(16, np.int32)), (Fault("TENSOR_DTYPE", NORM, "int32"),)),
    Case(
        "an_array_of_complex_numbers",
        stored(NORM, np.ones(16, np.complex64)),
        (Fault("DTYPE_NOT_SUPPORTED", NORM, "complex64"),),
    ),
    Case(
        "several_arrays_at_once",
        cp.together(
            without_leaf(KEY),
            added("params.params.extra", np.zeros(3, np.float32)),
            stored(NORM, np.ones(15, np.float32)),
            stored("params.params.token_embedder.embedding", np.ones((24, 16), np.int8)),
        ),
        (
            Fault("MISSING_TENSOR", KEY),
            Fault("UNKNOWN_TENSOR", "params.params.extra"),
            Fault("TENSOR_SHAPE", NORM, "[15]"),
            Fault("TENSOR_DTYPE", "params.params.token_embedder.embedding", "int8"),
        ),
    ),
    Case(
        "a_flag_against_the_metadata",
        lambda _: None,
        (Fault("SCAN_LAYERS_MISMATCH", "--scan_layers=false"),),
        ("--scan_layers=false",),
    ),
    Case(
        "a_flag_against_the_arrays",
        cp.with_fields(STEP, custom_metadata={}),
        (Fault("SCAN_LAYERS_MISMATCH", "--scan_layers=false", "scan_layers=true"),),
        ("--scan_layers=false",),
    ),
    Case(
        "metadata_against_the_arrays",
        cp.with_fields(STEP, custom_metadata={"scan_layers": False}),
        (Fault("SCAN_LAYERS_MISMATCH", "scan_layers"),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_checkpoint_is_refused(case: Case, maxtext: Path, destination: Path, tmp_path: Path) -> None:
    case.damage(maxtext)
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, *case.arguments)
    refused(run, *case.faults)


@triggers("ORBAX_ARRAY_UNREADABLE")
def test_every_data_file_that_is_gone_is_noticed(hf: Path, maxtext: Path, tmp_path: Path) -> None:
    before, destination = snapshot(tmp_path), tmp_path / "out"
    for victim in sorted((maxtext / ITEMS / "d").iterdir()):
        hidden = victim.rename(tmp_path / "hidden")
        run = maxtext_to_hf(maxtext, destination, "--weight_dtype=auto")
        if run.code == 0:
            # An older version of a node, to which nothing refers any more.
            assert differing(read_safetensors(destination), read_safetensors(hf)) == []
            shutil.rmtree(destination)
            hidden.rename(victim)
            continue
        assert set(run.ids) == {"ORBAX_ARRAY_UNREADABLE"}, run.summary
        refused(run, *(Fault("ORBAX_ARRAY_UNREADABLE") for _ in run.ids))
        hidden.rename(victim)
        assert_same(snapshot(tmp_path), before)


@pytest.mark.parametrize("kind", ["cut", "empty"])
@triggers("ORBAX_ARRAY_UNREADABLE")
def test_a_data_file_that_was_cut_is_noticed(kind: str, maxtext: Path, destination: Path, tmp_path: Path) -> None:
    victim = largest_data_file(maxtext)
    victim.write_bytes(victim.read_bytes()[:100] if kind == "cut" else b"")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination)
    assert set(run.ids) == {"ORBAX_ARRAY_UNREADABLE"}, run.summary
    refused(run, *(Fault("ORBAX_ARRAY_UNREADABLE") for _ in run.ids))


@triggers("SCAN_LAYERS_MISMATCH")
def test_unstacked_arrays_and_a_flag_that_says_stacked(hf: Path, destination: Path, tmp_path: Path) -> None:
    middle = tmp_path / "unstacked"
    completed(hf_to_maxtext(hf, middle, "--scan_layers=false"))
    for custom in ({"scan_layers": False}, {}):
        cp.with_fields(STEP, custom_metadata=custom)(middle)
        with unchanged(tmp_path):
            run = maxtext_to_hf(middle, destination, "--scan_layers=true")
        refused(run, Fault("SCAN_LAYERS_MISMATCH", "--scan_layers=true", "scan_layers=false"))


@pytest.mark.parametrize("scan", ["true", "false"])
def test_the_right_flag_and_no_flag_mean_the_same(scan: str, hf: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle"
    completed(hf_to_maxtext(hf, middle, f"--scan_layers={scan}"))
    cp.with_fields(STEP, custom_metadata={})(middle)
    for number, flags in enumerate(((), (f"--scan_layers={scan}",))):
        back = tmp_path / f"back{number}"
        completed(maxtext_to_hf(middle, back, "--weight_dtype=auto", *flags))
        assert differing(read_safetensors(back), read_safetensors(hf)) == []


def test_an_unfinished_newer_step_is_passed_over_and_named(maxtext: Path, destination: Path) -> None:
    shutil.copytree(maxtext / "0", maxtext / "7")
    (maxtext / "7" / "items" / "_METADATA").unlink()
    run = maxtext_to_hf(maxtext, destination)
    assert run.code == 0, run.summary
    assert "7" in run.output.partition("STEP: open_source")[2].partition("STEP: validate_config")[0]


@triggers("ORBAX_METADATA_INVALID")
def test_a_damaged_newer_step_is_not_passed_over(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    shutil.copytree(maxtext / "0", maxtext / "7")
    (maxtext / "7" / "items" / "_METADATA").write_text("{", "utf-8")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination)
    refused(run, Fault("ORBAX_METADATA_INVALID", "_METADATA"))


@triggers("CHECKPOINT_UNFINISHED")
def test_inspect_names_an_unfinished_save(maxtext: Path, tmp_path: Path) -> None:
    (maxtext / TREE).unlink()
    with unchanged(tmp_path):
        run = recast("inspect", maxtext)
    refused(run, Fault("CHECKPOINT_UNFINISHED", "_METADATA"))


def test_training_state_beside_the_parameters_is_named_and_left_out(maxtext: Path, destination: Path, hf: Path) -> None:
    with_moments(maxtext)
    run = maxtext_to_hf(maxtext, destination, "--weight_dtype=auto")
    assert run.code == 0, run.summary
    notes = json.loads((destination / "report.json").read_text("utf-8"))["note"]
    named = {note["tensor"] for note in notes if "training state" in note["reason"]}
    assert named == set(moments(maxtext))
    assert differing(read_safetensors(destination), read_safetensors(hf)) == []


def test_training_state_that_is_incomplete_hinders_no_conversion_of_the_weights(
    maxtext: Path, destination: Path, hf: Path
) -> None:
    with_moments(maxtext)
    gone = moments(maxtext)[0]
    in_tree(lambda tree: tree.pop(gone))(maxtext)
    run = maxtext_to_hf(maxtext, destination, "--weight_dtype=auto")
    assert run.code == 0, run.summary
    notes = json.loads((destination / "report.json").read_text("utf-8"))["note"]
    assert any(f"incomplete: there is no '{gone}'" in note["reason"] for note in notes)
    assert differing(read_safetensors(destination), read_safetensors(hf)) == []


def with_moments(directory: Path) -> None:
    """Adds the optimizer's moments of every parameter."""
    for name in weights(directory):
        for kind in ("mu", "nu"):
            added(name.replace("params.params", f"opt_state.0.{kind}.params"), np.ones(shape_of(directory, name)))(
                directory
            )


def weights(directory: Path) -> list[str]:
    tree = json.loads((directory / TREE).read_text("utf-8"))["tree_metadata"]
    names = [".".join(key["key"] for key in entry["key_metadata"]) for entry in tree.values()]
    return sorted(name for name in names if name.startswith("params."))


def moments(directory: Path) -> list[str]:
    kinds = [f"opt_state.0.{kind}.params" for kind in ("mu", "nu")]
    return [name.replace("params.params", kind) for name in weights(directory) for kind in kinds]


def shape_of(directory: Path, name: str) -> tuple[int, ...]:
    kvstore = {"driver": "ocdbt", "base": f"file://{directory / ITEMS}/", "path": f"{name}/"}
    return tuple(ts.open({"driver": "zarr3", "kvstore": kvstore}).result().shape)
