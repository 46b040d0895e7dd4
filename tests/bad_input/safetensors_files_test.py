"""Damaged safetensors files and indices: every violation is named, and nothing is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf, recast

ONE = "model.safetensors"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"


def offsets(name: str, begin: int, end: int) -> cp.Edit:
    """Shifts where a tensor of the single file says that it lies."""

    def change(header: dict[str, Any]) -> None:
        first, last = header[name]["data_offsets"]
        header[name]["data_offsets"] = [first + begin, last + end]

    return cp.changed_header(ONE, change)


def entry(name: str, **fields: object) -> cp.Edit:
    """Sets fields of a tensor's entry in the header of the single file."""
    return cp.changed_header(ONE, lambda header: header[name].update(fields))


def mapped(**places: object) -> cp.Edit:
    """Sets the file of tensors in the index."""
    named = {name.replace("__", "."): file for name, file in places.items()}
    return cp.changed_json(cp.INDEX, lambda content: content["weight_map"].update(named))


def same_tensors_twice(directory: Path) -> None:
    shutil.copy(directory / cp.shard(1), directory / "extra.safetensors")
    (directory / cp.INDEX).unlink()


def link_to_nothing(directory: Path) -> None:
    (directory / cp.shard(1)).unlink()
    (directory / cp.shard(1)).symlink_to(directory / "blobs" / "gone")


def header_only(length: int, text: bytes) -> cp.Edit:
    return cp.with_bytes(ONE, lambda _: length.to_bytes(8, "little") + text)


CASES = (
    Case(
        "no_file_at_all",
        cp.without(ONE),
        (Fault("SOURCE_NOT_RECOGNIZED", "holds no safetensors files and no pytorch_model.bin"),),
    ),
    Case("an_empty_file", cp.with_bytes(ONE, lambda _: b""), (Fault("FILE_TRUNCATED", ONE, "0 bytes"),)),
    Case("five_bytes", cp.with_bytes(ONE, lambda data: data[:5]), (Fault("FILE_TRUNCATED", ONE, "5 bytes"),)),
    Case(
        "cut_in_the_header",
        cp.with_bytes(ONE, lambda data: data[:100]),
        (Fault("FILE_TRUNCATED", ONE, "claims a header of", "has 92 after"),),
    ),
    Case(
        "cut_in_the_data",
        cp.with_bytes(ONE, lambda data: data[:-33]),
        (Fault("FILE_TRUNCATED", ONE, "of 19040 bytes of data", "model.layers.2.self_attn.v_proj.weight and 1 more"),),
    ),
    Case(
        "one_byte_short",
        cp.with_bytes(ONE, lambda data: data[:-1]),
        (Fault("FILE_TRUNCATED", ONE, "has 19039 of 19040 bytes", "model.norm.weight lies beyond"),),
    ),
    Case(
        "a_header_longer_than_the_file",
        cp.with_bytes(ONE, lambda data: (1 << 26).to_bytes(8, "little") + data[8:]),
        (Fault("FILE_TRUNCATED", ONE, "claims a header of 67108864 bytes"),),
    ),
    Case(
        "a_header_longer_than_any",
        cp.with_bytes(ONE, lambda data: b"\xff" * 8 + data[8:]),
        (Fault("HEADER_INVALID", ONE, "claims a header of 18446744073709551615 bytes"),),
    ),
    Case("a_header_that_is_no_json", header_only(8, b"{'a': 1}"), (Fault("HEADER_INVALID", ONE, "not JSON"),)),
    Case("a_header_that_is_a_list", header_only(2, b"[]"), (Fault("HEADER_INVALID", ONE, "not a JSON object"),)),
    Case(
        "a_header_nested_without_end",
        header_only(200_000, b"[" * 200_000),
        (Fault("HEADER_INVALID", ONE, "nested too deeply"),),
    ),
    Case(
        "a_git_lfs_pointer",
        cp.with_text(ONE, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 16060522240\n"),
        (Fault("HEADER_INVALID", ONE, "Git LFS pointer"),),
    ),
    Case(
        "a_pickle",
        cp.with_bytes(ONE, lambda _: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"),
        (Fault("HEADER_INVALID", ONE),),
    ),
    Case(
        "a_page_of_html",
        cp.with_text(ONE, "<!DOCTYPE html><html><body>Access to this model is restricted</body></html>"),
        (Fault("HEADER_INVALID", ONE),),
    ),
    Case("bytes_after_the_data", cp.with_bytes(ONE, lambda data: data + b"xy"), (Fault("OFFSETS_INVALID", ONE, "2"),)),
    Case(
        "overlapping_tensors",
        offsets(NORM, -32, -32),
        (
            Fault("OFFSETS_INVALID", NORM, "begins at byte 18976, inside of the tensor before it"),
            Fault("OFFSETS_INVALID", ONE, "32 bytes after its last tensor"),
        ),
    ),
    Case(
        "a_tensor_outside_of_the_file",
        offsets(NORM, 4096, 4096),
        (
            Fault("OFFSETS_INVALID", NORM, "4096"),
            Fault("FILE_TRUNCATED", ONE, "model.norm.weight lies beyond"),
        ),
    ),
    Case(
        "offsets_of_the_wrong_length",
        offsets(NORM, 0, -2),
        (Fault("OFFSETS_INVALID", NORM, "[16]", "32", "30"), Fault("OFFSETS_INVALID", ONE, "2 bytes after")),
    ),
    Case("offsets_that_run_backwards", entry(NORM, data_offsets=[64, 32]), (Fault("OFFSETS_INVALID", NORM, "64, 32"),)),
    Case("negative_offsets", entry(NORM, data_offsets=[-32, 0]), (Fault("OFFSETS_INVALID", NORM),)),
    Case(
        "offsets_that_are_no_integers",
        entry(NORM, data_offsets=["0", True]),
        (Fault("OFFSETS_INVALID", NORM, "not a pair of byte positions"),),
    ),
    Case(
        "a_shape_larger_than_any_memory",
        entry(NORM, shape=[2**62, 2**62]),
        (Fault("HEADER_INVALID", NORM, "larger than any file"),),
    ),
    Case("a_shape_that_is_no_list", entry(NORM, shape=16), (Fault("HEADER_INVALID", NORM, "shape"),)),
    Case("an_unknown_type", entry(NORM, dtype="F4_E2M1"), (Fault("DTYPE_NOT_SUPPORTED", NORM, "F4_E2M1"),)),
    Case(
        "several_faults_of_one_header",
        cp.together(
            entry(NORM, dtype="NVFP4"), entry(HEAD, data_offsets=[3]), entry("model.embed_tokens.weight", shape="x")
        ),
        (
            Fault("DTYPE_NOT_SUPPORTED", NORM, "NVFP4"),
            Fault("OFFSETS_INVALID", HEAD),
            Fault("HEADER_INVALID", "model.embed_tokens.weight"),
        ),
    ),
)

INDEX_CASES = (
    Case(
        "a_missing_shard",
        cp.without(cp.shard(2)),
        (Fault("MISSING_SHARD", cp.shard(2), "9 tensors", cp.INDEX),),
    ),
    Case(
        "two_missing_shards",
        cp.without(cp.shard(2), cp.shard(4)),
        (Fault("MISSING_SHARD", cp.shard(2)), Fault("MISSING_SHARD", cp.shard(4), "5 tensors")),
    ),
    Case(
        "missing_shards_without_an_index",
        cp.without(cp.shard(2), cp.shard(3), cp.INDEX),
        (Fault("MISSING_SHARD", "2 of the files numbered 'of 00004'", cp.shard(2), cp.shard(3)),),
    ),
    Case(
        "a_shard_that_is_a_link_to_nothing",
        link_to_nothing,
        (Fault("MISSING_SHARD", cp.shard(1)),),
    ),
    Case(
        "an_absent_file_in_the_index",
        mapped(model__norm__weight="model-00009-of-00009.safetensors"),
        (Fault("MISSING_SHARD", "model-00009-of-00009.safetensors", cp.INDEX),),
    ),
    Case(
        "an_absent_tensor_in_the_index",
        mapped(model__layers__7__weight=cp.shard(3)),
        (Fault("MISSING_INDEXED_TENSOR", "model.layers.7.weight", cp.shard(3)),),
    ),
    Case(
        "a_tensor_in_another_file_than_the_index_says",
        mapped(model__norm__weight=cp.shard(2)),
        (Fault("MISSING_INDEXED_TENSOR", NORM, cp.shard(2), f"{cp.shard(4)} has it"),),
    ),
    Case(
        "a_tensor_that_the_index_does_not_name",
        cp.changed_json(cp.INDEX, lambda content: content["weight_map"].pop(NORM)),
        (Fault("UNINDEXED_TENSOR", NORM, cp.shard(4)),),
    ),
    Case("an_index_that_is_no_json", cp.with_text(cp.INDEX, "{"), (Fault("INDEX_INVALID", cp.INDEX, "not JSON"),)),
    Case("an_index_of_bytes", lambda d: (d / cp.INDEX).write_bytes(b"\xff\xfe"), (Fault("INDEX_INVALID", "UTF-8"),)),
    Case("an_index_without_a_map", cp.with_text(cp.INDEX, "{}"), (Fault("INDEX_INVALID", "no weight_map"),)),
    Case(
        "an_index_with_a_key_twice",
        cp.with_text(cp.INDEX, '{"weight_map": {"a": "b", "a": "c"}}'),
        (Fault("INDEX_INVALID", cp.INDEX, "the key a appears twice"),),
    ),
    Case(
        "an_index_nested_without_end",
        cp.with_text(cp.INDEX, '{"weight_map":' + "[" * 200_000),
        (Fault("INDEX_INVALID", cp.INDEX, "nested too deeply"),),
    ),
    Case(
        "an_index_that_names_numbers",
        mapped(model__norm__weight=4),
        (Fault("INDEX_INVALID", NORM, "4"), Fault("UNINDEXED_TENSOR", NORM)),
    ),
    Case(
        "paths_that_leave_the_directory",
        mapped(model__norm__weight="../hf/model.safetensors", lm_head__weight="/etc/passwd"),
        (
            Fault("PATH_ESCAPES", "../hf/model.safetensors"),
            Fault("PATH_ESCAPES", "/etc/passwd"),
            Fault("UNINDEXED_TENSOR", NORM),
            Fault("UNINDEXED_TENSOR", HEAD),
        ),
    ),
    Case(
        "one_tensor_in_two_files",
        same_tensors_twice,
        tuple(
            Fault("DUPLICATE_TENSOR", name, "extra.safetensors", cp.shard(1))
            for name in (
                "model.embed_tokens.weight",
                "model.layers.0.mlp.gate_proj.weight",
                "model.layers.0.mlp.up_proj.weight",
                "model.layers.0.self_attn.k_proj.weight",
                "model.layers.0.self_attn.o_proj.weight",
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.0.self_attn.v_proj.weight",
            )
        ),
    ),
    Case(
        "two_checkpoints_in_one_directory",
        lambda directory: cp.write(directory),
        (Fault("INDEX_INVALID", ONE, cp.INDEX, "two checkpoints"),),
    ),
    Case(
        "faults_of_several_files",
        cp.together(
            cp.without(cp.shard(1)),
            cp.with_bytes(cp.shard(2), lambda data: data[:-1]),
            cp.with_text(cp.shard(3), "not a checkpoint"),
            mapped(model__layers__7__weight=cp.shard(4)),
        ),
        (
            Fault("MISSING_SHARD", cp.shard(1)),
            Fault("FILE_TRUNCATED", cp.shard(2)),
            Fault("HEADER_INVALID", cp.shard(3)),
            Fault("MISSING_INDEXED_TENSOR", "model.layers.7.weight"),
        ),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_file_is_refused(case: Case, hf: Path, destination: Path, tmp_path: Path) -> None:
    case.damage(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, *case.faults)
    assert run.steps["open_source"] == "Failed"


@pytest.mark.parametrize("case", INDEX_CASES, ids=lambda case: case.name)
def test_a_damaged_set_of_files_is_refused(case: Case, sharded: Path, destination: Path, tmp_path: Path) -> None:
    case.damage(sharded)
    with unchanged(tmp_path):
        run = hf_to_maxtext(sharded, destination)
    refused(run, *case.faults)
    assert run.steps["open_source"] == "Failed"


@pytest.mark.parametrize("case", INDEX_CASES, ids=lambda case: case.name)
def test_inspect_lists_the_same_faults(case: Case, sharded: Path, tmp_path: Path) -> None:
    case.damage(sharded)
    with unchanged(tmp_path):
        run = recast("inspect", sharded)
    refused(run, *case.faults)


@triggers("SOURCE_NOT_FOUND")
def test_a_source_that_is_not_there(destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        refused(hf_to_maxtext(tmp_path / "typo", destination), Fault("SOURCE_NOT_FOUND", str(tmp_path / "typo")))
        refused(maxtext_to_hf(tmp_path / "typo", destination), Fault("SOURCE_NOT_FOUND", str(tmp_path / "typo")))
        refused(recast("inspect", tmp_path / "typo"), Fault("SOURCE_NOT_FOUND", str(tmp_path / "typo")))


@triggers("SOURCE_NOT_RECOGNIZED")
def test_a_source_of_the_other_format(hf: Path, maxtext: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        there = hf_to_maxtext(maxtext, destination)
        back = maxtext_to_hf(hf, destination)
    refused(there, Fault("SOURCE_NOT_RECOGNIZED", "safetensors", "it is a MaxText checkpoint", str(maxtext)))
    refused(back, Fault("SOURCE_NOT_RECOGNIZED", "_METADATA", "it is a Hugging Face checkpoint", str(hf)))
    assert "`recast maxtext-to-hf`" in there.failures[0].suggestion
    assert "`recast hf-to-maxtext`" in back.failures[0].suggestion


@triggers("SOURCE_NOT_RECOGNIZED")
def test_a_file_of_weights_of_the_other_format(hf: Path, destination: Path) -> None:
    refused(maxtext_to_hf(hf / ONE, destination), Fault("SOURCE_NOT_RECOGNIZED", "it is a Hugging Face checkpoint"))


@pytest.mark.parametrize("inside", ["", "model-q4.gguf"], ids=["directory", "file"])
@triggers("SOURCE_NOT_RECOGNIZED")
def test_gguf_files_are_named_as_what_they_are(inside: str, destination: Path, tmp_path: Path) -> None:
    source = tmp_path / "gguf"
    source.mkdir()
    (source / "model-q4.gguf").write_bytes(b"GGUF" + bytes(60))
    runs = (
        hf_to_maxtext(source / inside, destination),
        maxtext_to_hf(source / inside, destination),
        recast("inspect", source / inside),
    )
    for run in runs:
        refused(run, Fault("SOURCE_NOT_RECOGNIZED", "it is GGUF", str(source / inside)))
        assert "the GGUF file was made from" in run.failures[0].suggestion


@triggers("SOURCE_NOT_RECOGNIZED")
def test_a_file_that_is_none_of_weights_is_not_read_as_one(hf: Path, destination: Path) -> None:
    for run in (hf_to_maxtext(hf / "config.json", destination), recast("inspect", hf / "config.json")):
        refused(run, Fault("SOURCE_NOT_RECOGNIZED", "none that ends in .safetensors", str(hf / "config.json")))
        assert run.failures[0].suggestion == "Give the directory of the checkpoint."


@triggers("SOURCE_NOT_RECOGNIZED")
def test_a_source_without_anything(destination: Path, tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    empty.mkdir()
    with unchanged(tmp_path):
        refused(hf_to_maxtext(empty, destination), Fault("SOURCE_NOT_RECOGNIZED", str(empty)))
        refused(maxtext_to_hf(empty, destination), Fault("SOURCE_NOT_RECOGNIZED", str(empty)))
        refused(recast("inspect", empty), Fault("SOURCE_NOT_RECOGNIZED", str(empty)))


@triggers("HEADER_INVALID")
def test_a_pipe_in_place_of_a_file_does_not_hang(hf: Path, destination: Path) -> None:
    (hf / ONE).unlink()
    os.mkfifo(hf / ONE)
    refused(hf_to_maxtext(hf, destination), Fault("HEADER_INVALID", ONE, "not a regular file"))


def test_a_whole_checkpoint_beside_other_files_is_accepted(sharded: Path, destination: Path, tmp_path: Path) -> None:
    (sharded / "training_args.bin").write_bytes(b"\x80\x02")
    (sharded / ".cache").mkdir()
    with unchanged(sharded):
        run = hf_to_maxtext(sharded, destination)
    assert run.code == 0, run.output
