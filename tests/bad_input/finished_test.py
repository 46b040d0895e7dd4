"""Finished outputs that were damaged, and checkpoints that differ: what `verify` and `diff` report."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, recast

NORM = "params.params.decoder.decoder_norm.scale"


@triggers("MANIFEST_INVALID")
def test_a_manifest_that_done_does_not_confirm(maxtext: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(maxtext, tmp_path / "copy")
    cp.with_bytes("checkpoint-manifest.json", lambda content: content.replace(b"float32", b"float16", 1))(copy)
    with unchanged(copy):
        run = recast("verify", "--manifest", copy)
    refused(run, Fault("MANIFEST_INVALID", "DONE does not confirm checkpoint-manifest.json"))


@triggers("MANIFEST_INVALID")
def test_a_directory_that_is_no_output(hf: Path) -> None:
    with unchanged(hf):
        refused(recast("verify", "--manifest", hf), Fault("MANIFEST_INVALID", "has no checkpoint-manifest.json"))


@triggers("CHECKPOINT_DAMAGED")
def test_a_file_that_was_changed_and_one_that_was_added(maxtext: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(maxtext, tmp_path / "copy")
    (copy / "note").write_text("x")
    config = "recast/hf/config.json"
    cp.with_bytes(config, lambda content: content.replace(b'"vocab_size": 24', b'"vocab_size": 25'))(copy)
    with unchanged(copy):
        run = recast("verify", f"--manifest={copy}")
    refused(
        run,
        Fault("CHECKPOINT_DAMAGED", config, "right size, but other bytes"),
        Fault("CHECKPOINT_DAMAGED", "note is not in checkpoint-manifest.json"),
    )


@triggers("CHECKPOINTS_DIFFER")
def test_checkpoints_that_differ_in_one_tensor(hf: Path, maxtext: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(hf, tmp_path / "copy")
    cp.changed_tensors(lambda tensors: tensors.update({"model.norm.weight": -tensors["model.norm.weight"]}))(copy)
    with unchanged(hf, maxtext, copy):
        refused(recast("diff", hf, copy), Fault("CHECKPOINTS_DIFFER", "model.norm.weight", "16 of 16 elements"))
        refused(recast("diff", copy, maxtext), Fault("CHECKPOINTS_DIFFER", NORM, "model.norm.weight"))


@triggers("VERIFICATION_FAILED")
def test_a_destination_of_another_source(hf: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(hf, tmp_path / "copy")
    cp.changed_tensors(lambda tensors: tensors.update({"model.norm.weight": -tensors["model.norm.weight"]}))(copy)
    assert hf_to_maxtext(copy, tmp_path / "mt").code == 0
    with unchanged(hf, tmp_path / "mt"):
        run = recast("verify", hf, tmp_path / "mt", "--level=full")
    refused(run, Fault("VERIFICATION_FAILED", NORM, "16 elements", "the first is [0]"))


@triggers("SOURCE_NOT_FOUND", "INVALID_FLAG")
def test_all_faults_of_the_arguments_are_reported_together(hf: Path, tmp_path: Path) -> None:
    run = recast("diff", hf, tmp_path / "none", "--memory_budget=much")
    refused(run, Fault("SOURCE_NOT_FOUND", "none does not exist"), Fault("INVALID_FLAG", "memory_budget"))


@triggers("REMOTE_NOT_SUPPORTED")
def test_remote_paths_are_refused(hf: Path) -> None:
    refused(recast("verify", hf, "gs://bucket/model"), Fault("REMOTE_NOT_SUPPORTED", "gs://"))


@triggers("MEMORY_PLAN")
def test_a_budget_that_holds_no_unit(hf: Path, maxtext: Path) -> None:
    run = recast("verify", hf, maxtext, "--level=full", "--memory_budget=64")
    assert {entry.id for entry in run.failures} == {"MEMORY_PLAN"}
    refused(run, *(Fault("MEMORY_PLAN", "memory budget") for _ in run.failures))
