"""Checkpoints whose tensors have other names than the model's: read where one rule mends all, else one error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_model
from transformers import LlamaConfig, LlamaForCausalLM

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf, recast

WEIGHTS = "model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def _renamed(directory: Path, rename: Callable[[str], str]) -> None:
    save_file({rename(name): held for name, held in load_file(directory / WEIGHTS).items()}, directory / WEIGHTS)


def _bytes(directory: Path) -> dict[str, tuple[str, bytes]]:
    held: dict[str, Any] = {}
    for path in directory.glob("*.safetensors"):
        held.update(load_file(path))
    return {name: (str(value.dtype), value.tobytes()) for name, value in held.items()}


@pytest.mark.parametrize("lead", ["module.", "_orig_mod.", "base_model.model.", "module._orig_mod.", "model."])
def test_what_wrapped_the_model_is_left_out_of_names(lead: str, hf: Path, destination: Path) -> None:
    expected = _bytes(hf)
    _renamed(hf, lambda name: lead + name)
    run = recast("convert", hf, destination, "--to=hf")
    completed(run)
    assert _bytes(destination) == expected
    assert f"all names of the files begin with {lead.split('.')[0]}." in run.output


@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
def test_a_base_model_is_read_as_a_part_of_the_whole_one(name: str, hf: Path, destination: Path) -> None:
    expected = _bytes(hf)
    _renamed(hf, lambda name: name.removeprefix("model."))
    if name != WEIGHTS:
        held = {
            name: torch.from_numpy(a.view("int16")).view(torch.bfloat16) for name, a in load_file(hf / WEIGHTS).items()
        }
        torch.save(held, hf / name)
        (hf / WEIGHTS).unlink()
    run = recast("convert", hf, destination, "--to=hf")
    completed(run)
    assert _bytes(destination) == expected
    assert "the files are of a base model" in run.output


def test_the_head_stands_for_the_embedding_that_is_tied_to_it(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).to(torch.bfloat16)
    source, middle, back = tmp_path / "hf", tmp_path / "maxtext", tmp_path / "back"
    model.save_pretrained(source)
    expected = _bytes(source)
    save_model(model, str(source / WEIGHTS))
    assert EMBEDDING not in load_file(source / WEIGHTS)
    run = hf_to_maxtext(source, middle)
    completed(run)
    assert f"{HEAD} is read as {EMBEDDING}, to which config.json ties it" in run.output
    completed(recast("verify", source, middle))
    completed(maxtext_to_hf(middle, back, "--weight_dtype=auto"))
    assert _bytes(back) == expected
    assert recast("diff", source, back).code == 0
    assert recast("inspect", source).code == 0


@triggers("MISSING_TENSOR")
def test_the_head_stands_for_nothing_where_nothing_is_tied(hf: Path, destination: Path) -> None:
    cp.changed_tensors(lambda held: held.pop(EMBEDDING))(hf)
    refused(hf_to_maxtext(hf, destination), Fault("MISSING_TENSOR", EMBEDDING))


@triggers("UNKNOWN_TENSOR")
def test_an_unknown_lead_of_all_names_is_one_error_with_a_remedy_that_works(hf: Path, destination: Path) -> None:
    _renamed(hf, lambda name: f"net.inner.{name}")
    run = hf_to_maxtext(hf, destination)
    refused(run, Fault("UNKNOWN_TENSOR", "all 30 have one with net.inner. in front"))
    assert "take net.inner. off the names" in run.failures[0].suggestion
    _renamed(hf, lambda name: name.removeprefix("net.inner."))
    completed(hf_to_maxtext(hf, destination))


@triggers("UNKNOWN_TENSOR", "CONFIG_CONTRADICTS_TENSORS")
def test_files_of_something_else_are_one_error(hf: Path, destination: Path) -> None:
    _renamed(hf, lambda name: name.replace("model.", "net.").replace("lm_head", "out"))
    foreign = hf_to_maxtext(hf, destination)
    _renamed(hf, lambda name: f"base_model.model.{name.removesuffix('weight')}lora_A.weight")
    adapter = hf_to_maxtext(hf, destination)
    refused(foreign, Fault("CONFIG_CONTRADICTS_TENSORS", "No tensor of the files has a name", "is there"))
    refused(adapter, Fault("UNKNOWN_TENSOR", "they hold an adapter"))
    assert "Merge the adapter" in adapter.failures[0].suggestion


@triggers("UNKNOWN_ARCHITECTURE")
def test_the_architecture_of_a_base_model_is_refused_with_a_remedy_that_works(hf: Path, destination: Path) -> None:
    cp.with_fields(architectures=["LlamaModel"])(hf)
    run = hf_to_maxtext(hf, destination)
    refused(run, Fault("UNKNOWN_ARCHITECTURE", "LlamaModel"))
    assert run.failures[0].suggestion.startswith("Put LlamaForCausalLM in its place")
    cp.with_fields(architectures=["LlamaForCausalLM"])(hf)
    completed(hf_to_maxtext(hf, destination))


def test_an_adapter_beside_the_weights_is_not_read(hf: Path, tmp_path: Path) -> None:
    expected = _bytes(hf)
    adapter = {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(8, 16).numpy()}
    held = {name: torch.from_numpy(a.view("int16")).view(torch.bfloat16) for name, a in load_file(hf / WEIGHTS).items()}
    save_file(adapter, hf / "adapter_model.safetensors")
    (hf / WEIGHTS).rename(hf / "model-00001-of-00001.safetensors")
    runs = [recast("convert", hf, tmp_path / "set", "--to=hf")]
    (hf / "model-00001-of-00001.safetensors").unlink()
    torch.save(held, hf / "pytorch_model.bin")
    runs.append(recast("convert", hf, tmp_path / "torch", "--to=hf"))
    for run in runs:
        completed(run)
        assert "adapter_model.safetensors is no part of the checkpoint and was not read" in run.output
    assert _bytes(tmp_path / "set") == _bytes(tmp_path / "torch") == expected
