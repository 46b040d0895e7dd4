"""Llama between Hugging Face and MaxText, through transformers, Orbax, the oracle and MaxText's own digests."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests import checkpoints
from tests.end_to_end.running import Arrays, converted, flat, recast, restored
from tests.golden import maxtext_llama31
from tests.oracles import llama as oracle

BF16 = np.dtype(ml_dtypes.bfloat16)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
MODELS: dict[str, tuple[Mapping[str, Any], str, bool]] = {
    "gqa-untied-128-llama3": (
        {
            "model_type": "llama",
            "vocab_size": 96,
            "hidden_size": 84,
            "intermediate_size": 112,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rope_parameters": LLAMA3_ROPE,
            "tie_word_embeddings": False,
        },
        "llama3.1",
        True,
    ),
    "tied-64": (
        {
            "model_type": "llama",
            "vocab_size": 112,
            "hidden_size": 96,
            "intermediate_size": 144,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rope_parameters": LLAMA3_ROPE,
            "tie_word_embeddings": True,
        },
        "llama3.2",
        False,
    ),
    "odd": (checkpoints.CONFIGS["odd_ten"], "", False),
    "mistral": (checkpoints.CONFIGS["mistral"], "", False),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Arrays]:
    """A checkpoint that transformers saved, every tensor distinct and random, in several shards."""
    config = MODELS[request.param][0]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=5)
    directory = tmp_path_factory.mktemp(request.param) / "hf"
    checkpoints.save_with_transformers(directory, config, tensors, max_shard_size="10KB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    return request.param, directory, checkpoints.read_safetensors(directory)


def _forward(source: Path, out: Path, name: str, **flags: object) -> Path:
    given = {"model_name": MODELS[name][1]} if MODELS[name][1] else {}
    converted("hf-to-maxtext", hf_model_path=source, base_output_directory=out, **{**given, **flags})
    return out


def _back(source: Path, out: Path, **flags: object) -> Path:
    converted("maxtext-to-hf", load_parameters_path=source, base_output_directory=out, **flags)
    return out


@pytest.mark.parametrize("scan", [True, False])
def test_there_equals_the_oracle_and_back_every_byte_is_the_source(
    model: tuple[str, Path, Arrays], scan: bool, tmp_path: Path
) -> None:
    name, source, tensors = model
    config, _, interleaved = MODELS[name]
    middle = _forward(source, tmp_path / "mt", name, scan_layers=scan)
    expected = oracle.to_maxtext(tensors, config, oracle.Variant(scan=scan, interleaved=interleaved))
    assert checkpoints.differing(restored(middle), expected) == []
    back = _back(middle, tmp_path / "back", weight_dtype="auto")
    assert checkpoints.differing(checkpoints.read_safetensors(back), tensors) == []
    assert (middle / "DONE").exists()
    assert (back / "DONE").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("scan", [True, False])
def test_from_wider_sources_the_way_back_is_the_source_after_the_cast(scan: bool, dtype: str, tmp_path: Path) -> None:
    config, _, interleaved = MODELS["gqa-untied-128-llama3"]
    tensors = checkpoints.element_coded_llama(config, dtype, seed=6)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config, shard_bytes=200_000)
    middle = _forward(source, tmp_path / "mt", "gqa-untied-128-llama3", scan_layers=scan)
    expected = oracle.to_maxtext(tensors, config, oracle.Variant(scan=scan, interleaved=interleaved))
    assert checkpoints.differing(restored(middle), expected) == []
    back = _back(middle, tmp_path / "back", weight_dtype="auto")
    with np.errstate(all="ignore"):
        cast = {name: array.astype(BF16).astype(array.dtype) for name, array in tensors.items()}
    assert checkpoints.differing(checkpoints.read_safetensors(back), cast) == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_in_its_own_dtype_a_wider_source_comes_back_whole(dtype: str, tmp_path: Path) -> None:
    config, _, _ = MODELS["gqa-untied-128-llama3"]
    tensors = checkpoints.element_coded_llama(config, dtype, seed=7)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    middle = _forward(source, tmp_path / "mt", "gqa-untied-128-llama3", save_dtype=dtype)
    back = _back(middle, tmp_path / "back", weight_dtype="auto")
    assert checkpoints.differing(checkpoints.read_safetensors(back), tensors) == []
    if dtype == "float32":
        assert (middle / "recast" / "residue.safetensors").exists()


@pytest.mark.parametrize("scan", [True, False])
def test_as_requested_equals_what_maxtext_itself_writes(scan: bool, tmp_path: Path) -> None:
    source = maxtext_llama31.make_input(tmp_path / "in")
    converted(
        "hf-to-maxtext",
        hf_model_path=source,
        base_output_directory=tmp_path / "mt",
        model_name="llama3.1",
        scan_layers=scan,
        exactness="as_requested",
    )
    assert maxtext_llama31.compare(restored(tmp_path / "mt"), maxtext_llama31.expected_leaves(scan)) == []


@pytest.mark.parametrize("scan", [True, False])
def test_orbax_restores_in_four_ways_without_arguments(
    model: tuple[str, Path, Arrays], scan: bool, tmp_path: Path
) -> None:
    import orbax.checkpoint as ocp
    import orbax.checkpoint.experimental.v1 as ocp_v1

    name, source, _ = model
    out = _forward(source, tmp_path / "mt", name, scan_layers=scan)
    expected = restored(out)
    assert checkpoints.differing(flat(ocp.StandardCheckpointer().restore(out / "0" / "items")), expected) == []
    with ocp.CheckpointManager(out) as manager:
        assert manager.latest_step() == 0
        tree = manager.restore(0)
    assert checkpoints.differing(flat(tree.get("items", tree)), expected) == []
    assert checkpoints.differing(flat(_loaded(ocp_v1, out / "0")), expected) == []


def _loaded(ocp_v1: Any, step: Path) -> Any:
    loaded = ocp_v1.load(step)
    return loaded.get("items", loaded)


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama 3.2 as transformers initialises it: weights of a size that gives finite logits."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**MODELS["tied-64"][0], "initializer_range": 0.2})
    directory = tmp_path_factory.mktemp("initialised") / "hf"
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="100KB")
    return directory


@pytest.mark.parametrize("scan", [True, False])
def test_transformers_loads_both_ends_with_identical_logits(initialised: Path, scan: bool, tmp_path: Path) -> None:
    middle = _forward(initialised, tmp_path / "mt", "tied-64", scan_layers=scan)
    back = _back(middle, tmp_path / "back", weight_dtype="auto")
    before, after = _logits(initialised), _logits(back)
    assert np.isfinite(before).all()
    assert before.std() > 0.1
    assert np.array_equal(before, after)


def test_transformers_4_reads_the_same_model(initialised: Path, tmp_path: Path, transformers4: dict[str, str]) -> None:
    back = _back(_forward(initialised, tmp_path / "mt", "tied-64"), tmp_path / "back")
    script = (
        "import sys, numpy, torch, transformers\n"
        "assert transformers.__version__ == '4.45.1'\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()\n"
        "tokens = torch.arange(96).reshape(2, 48) % model.config.vocab_size\n"
        "numpy.save(sys.argv[2], model(tokens).logits.detach().float().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", script, back, tmp_path / "old.npy"], env=transformers4, check=True)
    assert np.abs(np.load(tmp_path / "old.npy") - _logits(back)).max() < 1e-4


def _logits(directory: Path) -> np.ndarray:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    tokens = torch.arange(96).reshape(2, 48) % vocabulary
    with torch.no_grad():
        result: np.ndarray = model.eval()(tokens).logits.float().numpy()
    return result


def test_float32_weights_are_the_default_of_the_way_back(tmp_path: Path) -> None:
    config, _, _ = MODELS["gqa-untied-128-llama3"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=8)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    back = _back(_forward(source, tmp_path / "mt", "gqa-untied-128-llama3"), tmp_path / "back")
    widened = {name: array.astype(np.float32) for name, array in tensors.items()}
    assert checkpoints.differing(checkpoints.read_safetensors(back), widened) == []


@pytest.mark.parametrize("where", ["", "0", "0/items"])
def test_the_way_back_takes_every_spelling_of_the_checkpoint(where: str, tmp_path: Path) -> None:
    config, _, _ = MODELS["tied-64"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=9)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    middle = _forward(source, tmp_path / "mt", "tied-64")
    back = _back(middle / where, tmp_path / "back", weight_dtype="auto", max_shard_size="40KB")
    assert (back / "model.safetensors.index.json").exists()
    assert checkpoints.differing(checkpoints.read_safetensors(back), tensors) == []


def test_the_report_counts_every_tensor_and_its_class(tmp_path: Path) -> None:
    config, _, _ = MODELS["gqa-untied-128-llama3"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=10)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    out = _forward(source, tmp_path / "mt", "gqa-untied-128-llama3")
    report = json.loads((out / "report.json").read_text())
    classes = {entry["name"]: entry["exactness"] for entry in report["tensor"]}
    query = "params.params.decoder.layers.self_attention.query.kernel"
    assert len(classes) == 12
    assert {name for name, exactness in classes.items() if exactness != "EXACT"} == {query}
    assert classes[query] == "INVERTIBLE"
    assert report["succeeded"] is True


def test_an_ambiguous_model_is_refused_with_its_candidates(tmp_path: Path) -> None:
    config, _, _ = MODELS["gqa-untied-128-llama3"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=11)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == 2
    assert "RecastErrorId.MODEL_NAME_AMBIGUOUS" in outcome.text
    assert all(name in outcome.text for name in ("llama3.1", "llama3.2", "llama3.3"))
    assert not (tmp_path / "mt").exists()
