"""prepare-ckpt: what it writes, what it leaves as it is, and that transformers computes the same with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mappings.serving import text
from recast_proto import model_manifest_pb2
from tests import serving_checkpoints
from tests.bad_input.running import environment
from tests.checkpoints import differing, read_safetensors
from tests.end_to_end.running import Outcome, converted, recast
from tests.serving_checkpoints import KEPT, PLAIN, TIED, TIED_CONFIG

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of tiny models."""
    return serving_checkpoints.catalogue(tmp_path_factory.mktemp("catalogue") / "catalog.textproto")


def prepared(catalogue: Path, model: str, source: Path, output: Path, *arguments: str) -> Outcome:
    """A run that must succeed."""
    return converted("prepare-ckpt", *_words(catalogue, model, source, output), *arguments)


def refused(catalogue: Path, model: str, source: Path, output: Path, *arguments: str) -> Outcome:
    """A run that must fail."""
    outcome = recast("prepare-ckpt", *_words(catalogue, model, source, output), *arguments)
    assert outcome.code == 2, outcome.text
    return outcome


def _words(catalogue: Path, model: str, source: Path, output: Path) -> list[str]:
    paths = ("--original_checkpoint_path", str(source), "--output_checkpoint_path", str(output))
    return ["--model", model, *paths, "--server", str(catalogue)]


def test_a_single_file_is_numbered_and_has_an_index(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
    assert set(index["weight_map"]) == set(read_safetensors(source))
    assert set(index["weight_map"].values()) == {"model-00001-of-00001.safetensors"}


def test_a_large_checkpoint_is_cut_as_the_catalogue_says(tmp_path: Path) -> None:
    form = model_manifest_pb2.Legalising(max_shard_bytes=9000)
    catalogue = serving_checkpoints.catalogue(tmp_path / "catalog.textproto", legalising=form)
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(names) > 2
    assert names == [f"model-{number:05d}-of-{len(names):05d}.safetensors" for number in range(1, len(names) + 1)]


def test_values_of_the_platforms_dtype_come_through_bit_for_bit(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    assert differing(read_safetensors(tmp_path / "out"), read_safetensors(source)) == []


def test_values_of_another_dtype_are_rounded_to_the_platforms(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", dtype="float32", torch_dtype="float32")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    before, after = read_safetensors(source), read_safetensors(tmp_path / "out")
    assert {values.dtype.name for values in after.values()} == {"bfloat16"}
    assert differing(after, {name: values.astype(after[name].dtype) for name, values in before.items()}) == []
    assert _config(tmp_path / "out")["torch_dtype"] == "bfloat16"


def test_tied_embeddings_are_untied_where_the_catalogue_says_so(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", TIED_CONFIG)
    prepared(catalogue, TIED, source, tmp_path / "out")
    after = read_safetensors(tmp_path / "out")
    assert after[_HEAD].tobytes() == after[_EMBEDDING].tobytes()
    assert _config(tmp_path / "out")["tie_word_embeddings"] is False


def test_tied_embeddings_are_kept_where_the_catalogue_says_so(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", TIED_CONFIG)
    _write_head_too(source)
    prepared(catalogue, KEPT, source, tmp_path / "out")
    assert _HEAD not in read_safetensors(tmp_path / "out")
    assert _config(tmp_path / "out")["tie_word_embeddings"] is True


def test_what_was_prepared_can_be_prepared_again_with_the_same_weights(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", TIED_CONFIG)
    prepared(catalogue, TIED, source, tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    outcome = prepared(catalogue, TIED, moved, tmp_path / "again")
    assert "the output head is written out already" in outcome.text
    for name in ("model-00001-of-00001.safetensors", "model.safetensors.index.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (moved / name).read_bytes()


@pytest.mark.parametrize("model", [PLAIN, KEPT])
def test_what_was_prepared_in_another_form_can_be_prepared_again_too(
    model: str, catalogue: Path, tmp_path: Path
) -> None:
    config = serving_checkpoints.CONFIG if model == PLAIN else TIED_CONFIG
    prepared(catalogue, model, serving_checkpoints.write(tmp_path / "in", config), tmp_path / "out")
    outcome = prepared(catalogue, model, tmp_path / "out", tmp_path / "again")
    assert "is written out already" not in outcome.text
    assert differing(read_safetensors(tmp_path / "again"), read_safetensors(tmp_path / "out")) == []


def test_a_head_that_was_trained_apart_is_taken_where_the_platforms_graph_has_one(
    catalogue: Path, tmp_path: Path
) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    before = read_safetensors(source)
    assert before[_HEAD].tobytes() != before[_EMBEDDING].tobytes()
    prepared(catalogue, TIED, source, tmp_path / "out")
    assert differing(read_safetensors(tmp_path / "out"), before) == []
    assert _config(tmp_path / "out")["tie_word_embeddings"] is False


def test_a_head_that_was_trained_apart_is_refused_where_the_platforms_graph_has_none(
    catalogue: Path, tmp_path: Path
) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    outcome = refused(catalogue, KEPT, source, tmp_path / "out")
    assert "ErrorId.TIED_EMBEDDINGS_MISMATCH" in outcome.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", [TIED, KEPT])
def test_a_head_that_differs_though_config_ties_it_is_refused(model: str, catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", tie_word_embeddings=False)
    (source / "config.json").write_text(json.dumps(dict(TIED_CONFIG)), "utf-8")
    outcome = refused(catalogue, model, source, tmp_path / "out")
    assert "ErrorId.TIE_DOES_NOT_HOLD" in outcome.text
    assert not (tmp_path / "out").exists()


def test_a_head_that_config_announces_and_that_is_not_there_is_refused(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", TIED_CONFIG)
    (source / "config.json").write_text(json.dumps({**TIED_CONFIG, "tie_word_embeddings": False}), "utf-8")
    outcome = refused(catalogue, TIED, source, tmp_path / "out")
    assert "ErrorId.TIED_EMBEDDINGS_MISMATCH" in outcome.text
    assert "STEP: legalizer" not in outcome.text


def test_a_config_of_the_deployments_version_stays_byte_for_byte(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def _write_newer(folder: Path) -> Path:
    """A checkpoint with a config as transformers 5 writes it."""
    rope = {**TIED_CONFIG["rope_scaling"], "rope_theta": TIED_CONFIG["rope_theta"]}
    newer = {
        **serving_checkpoints.CONFIG,
        "dtype": "bfloat16",
        "rope_parameters": rope,
        "transformers_version": "5.0.0",
    }
    for key in ("torch_dtype", "rope_theta", "rope_scaling"):
        del newer[key]
    return serving_checkpoints.write(folder, newer)


@pytest.mark.parametrize("arguments", [(), ("--ignore_transformers_version",)])
def test_what_is_done_about_newer_keys_of_a_config_is_told(
    arguments: tuple[str, ...], catalogue: Path, tmp_path: Path
) -> None:
    source = _write_newer(tmp_path / "in")
    told = prepared(catalogue, PLAIN, source, tmp_path / "out", "--dry_run", *arguments).text
    step = told.partition("STEP: validate_transformer")[2].partition("STEP: ")[0]
    assert (
        "  dtype is read from transformers 4.56.0 on, and not by 4.45.1; it is written as torch_dtype too\n"
        "  rope_parameters is read from transformers 5.0.0 on, and not by 4.45.1; it is written as rope_theta and "
        "rope_scaling too\n"
    ) in step


def test_newer_keys_are_no_matter_where_the_version_is_refused_or_reads_them(catalogue: Path, tmp_path: Path) -> None:
    source = _write_newer(tmp_path / "in")
    words = ("--dry_run", "--transformers_version")
    assert "is read from" not in refused(catalogue, PLAIN, source, tmp_path / "out", *words, "4.45.1").text
    assert "is read from" in refused(catalogue, PLAIN, source, tmp_path / "out", *words, "4.45.1", "--explain").text
    assert "is read from" not in prepared(catalogue, PLAIN, source, tmp_path / "out", *words, "5.0.0").text


def test_a_config_of_a_newer_version_gets_what_the_deployment_reads(catalogue: Path, tmp_path: Path) -> None:
    source = _write_newer(tmp_path / "in")
    rope = {**TIED_CONFIG["rope_scaling"], "rope_theta": TIED_CONFIG["rope_theta"]}
    prepared(catalogue, PLAIN, source, tmp_path / "out", "--ignore_transformers_version")
    written = _config(tmp_path / "out")
    assert written["rope_theta"] == TIED_CONFIG["rope_theta"]
    assert written["rope_scaling"] == TIED_CONFIG["rope_scaling"]
    assert written["rope_parameters"] == rope
    assert written["torch_dtype"] == "bfloat16"
    assert written["transformers_version"] == "4.45.1"


def test_the_other_files_are_copied_and_listed(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    (source / "training_args.bin").write_bytes(b"x" * 7)
    (source / "notes.txt").write_bytes(b"abc")
    outcome = prepared(catalogue, PLAIN, source, tmp_path / "out")
    names = ("generation_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
        assert f"{name} ({(source / name).stat().st_size} bytes)" in outcome.text
    assert "left behind: notes.txt (3 bytes), training_args.bin (7 bytes)" in outcome.text
    assert not (tmp_path / "out" / "training_args.bin").exists()


def test_files_of_torch_become_safetensors_files(catalogue: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    source = serving_checkpoints.write(tmp_path / "in")
    before = read_safetensors(source)
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].t().contiguous().t()
    torch.save(tensors, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    assert differing(read_safetensors(tmp_path / "out"), before) == []
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


def test_the_source_is_only_read(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()} == before


def test_the_same_command_again_finds_the_output_complete(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    written = (tmp_path / "out" / "DONE").stat().st_mtime_ns
    assert "already complete for this request" in prepared(catalogue, PLAIN, source, tmp_path / "out").text
    assert (tmp_path / "out" / "DONE").stat().st_mtime_ns == written


def test_overwrite_replaces_an_output_of_another_checkpoint(catalogue: Path, tmp_path: Path) -> None:
    prepared(catalogue, PLAIN, serving_checkpoints.write(tmp_path / "in"), tmp_path / "out")
    other = serving_checkpoints.write(tmp_path / "other", TIED_CONFIG)
    assert "ErrorId.DESTINATION_EXISTS" in refused(catalogue, TIED, other, tmp_path / "out").text
    prepared(catalogue, TIED, other, tmp_path / "out", "--overwrite")
    assert _config(tmp_path / "out")["tie_word_embeddings"] is False


def test_a_dry_run_validates_and_writes_nothing(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    outcome = prepared(catalogue, PLAIN, source, tmp_path / "out", "--dry_run")
    assert re.findall(r"STEP: (\w+)", outcome.text)[-1] == "validate_tokenizer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_dry_run_needs_no_output_path(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    converted("prepare-ckpt", "--dry_run", model=PLAIN, original_checkpoint_path=source, server=catalogue)


def test_explain_says_of_every_rule_why_it_holds(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    outcome = prepared(catalogue, PLAIN, source, tmp_path / "out", "--dry_run", "--explain")
    rules = {rule.id for rule in text.parse(catalogue.read_text("utf-8")).rule if not rule.applies.family}
    explained = set(re.findall(r"^  (\S+) holds: .+", outcome.text, re.MULTILINE))
    assert {
        "static.num_attention_heads",
        "static.rope_theta",
        "files.weights",
        "tokenizer.vocabulary_size",
    } <= explained
    assert explained <= rules | {rule for rule in explained if rule.split(".")[0] in ("static", "tensors")}


def test_nothing_is_explained_unasked(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    assert " holds: " not in prepared(catalogue, PLAIN, source, tmp_path / "out", "--dry_run").text


def test_ignoring_the_version_lets_a_newer_checkpoint_through(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", transformers_version="4.52.4")
    asked = ("--transformers_version", "4.45.1")
    assert "TRANSFORMERS_VERSION_ERROR" in refused(catalogue, PLAIN, source, tmp_path / "out", *asked).text
    prepared(catalogue, PLAIN, source, tmp_path / "out", *asked, "--ignore_transformers_version")


def test_a_newer_deployment_takes_a_newer_checkpoint(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in", transformers_version="4.52.4")
    prepared(catalogue, PLAIN, source, tmp_path / "out", "--transformers_version", "4.52.4")
    assert _config(tmp_path / "out")["transformers_version"] == "4.52.4"


@pytest.mark.parametrize(("model", "config"), [(PLAIN, serving_checkpoints.CONFIG), (TIED, TIED_CONFIG)])
def test_transformers_computes_the_same_logits(
    model: str, config: dict[str, Any], catalogue: Path, tmp_path: Path
) -> None:
    source = serving_checkpoints.write(tmp_path / "in", config)
    prepared(catalogue, model, source, tmp_path / "out")
    assert np.array_equal(_logits(source), _logits(tmp_path / "out"))


def test_verify_names_the_tensor_that_a_changed_byte_belongs_to(catalogue: Path, tmp_path: Path) -> None:
    source = serving_checkpoints.write(tmp_path / "in")
    prepared(catalogue, PLAIN, source, tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    converted("verify", manifest=moved)
    shard = moved / "model-00001-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    outcome = recast("verify", manifest=moved)
    assert outcome.code == 2
    assert f"Subject: {last}\n" in outcome.text


def test_the_resources_that_deploy_the_output_are_a_part_of_it(catalogue: Path, tmp_path: Path) -> None:
    import yaml

    source = serving_checkpoints.write(tmp_path / "in")
    output = tmp_path / "my-llama"
    prepared(catalogue, PLAIN, source, output, "--destination_uri", "gs://bucket/my-llama", "--legacy_bundle")
    made = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in (output / "recast" / "deployment").iterdir()}
    assert {name: resource["kind"] for name, resource in made.items()} == {
        "model.yaml": "Model",
        "model_bundle.yaml": "ModelBundle",
        "bundle.yaml": "Bundle",
    }
    assert {resource["metadata"]["name"] for resource in made.values()} == {"my-llama"}
    converted("verify", manifest=output)


def test_memory_stays_within_the_budget_and_the_start_up(catalogue: Path, tmp_path: Path) -> None:
    budget = 16 << 20
    sizes: dict[str, Any] = {"vocab_size": 1 << 16, "hidden_size": 1024, "head_dim": 256}
    grown = serving_checkpoints.catalogue(tmp_path / "catalog.textproto", sizes=sizes)
    small = _peak(catalogue, serving_checkpoints.write(tmp_path / "small"), tmp_path / "a", budget)
    source = serving_checkpoints.write(tmp_path / "large", **sizes)
    large = _peak(grown, source, tmp_path / "b", budget)
    assert (source / "model.safetensors").stat().st_size > 16 * budget
    assert large - small < budget + (16 << 20)


def _peak(catalogue: Path, source: Path, output: Path, budget: int) -> int:
    """The most anonymous bytes that a run in a process of its own had."""
    words = ["prepare-ckpt", *_words(catalogue, PLAIN, source, output), f"--memory_budget={budget}"]
    command = [sys.executable, "-m", "container.entrypoint", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    figures = json.loads((output / "report.json").read_text("utf-8"))["figures"]
    return int(figures["peak_anonymous_bytes"])


def _config(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
    return found


def _write_head_too(directory: Path) -> None:
    from safetensors.numpy import save_file

    tensors = read_safetensors(directory)
    save_file({**tensors, _HEAD: tensors[_EMBEDDING].copy()}, directory / "model.safetensors", {"format": "pt"})


def _logits(directory: Path) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.arange(1, 17).reshape(2, 8)).logits.numpy()
