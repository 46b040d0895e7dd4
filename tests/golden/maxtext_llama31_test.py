"""The oracle of the value tests writes what MaxText itself writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.golden import maxtext_llama31
from tests.oracles import llama


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> llama.Arrays:
    """The tensors that MaxText was given."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    directory: Path = maxtext_llama31.make_input(tmp_path_factory.mktemp("llama31"))
    return {name: values for path in directory.glob("*.safetensors") for name, values in load_file(path).items()}


def _as_maxtext_does(scan: bool) -> llama.Variant:
    return llama.Variant(scan, interleaved=True, save_dtype=maxtext_llama31.SAVE_DTYPE, exactness="as_requested")


@pytest.mark.parametrize("scan", [True, False])
def test_the_oracle_reproduces_every_bit_that_maxtext_wrote(tensors: llama.Arrays, scan: bool) -> None:
    leaves = llama.to_maxtext(tensors, maxtext_llama31.CONFIG, _as_maxtext_does(scan))
    assert maxtext_llama31.compare(leaves, maxtext_llama31.expected_leaves(scan)) == []


@pytest.mark.parametrize("scan", [True, False])
def test_the_oracle_reproduces_every_bit_that_maxtext_gave_back(tensors: llama.Arrays, scan: bool) -> None:
    variant = _as_maxtext_does(scan)
    leaves = llama.to_maxtext(tensors, maxtext_llama31.CONFIG, variant)
    back = llama.to_hf(leaves, maxtext_llama31.CONFIG, variant, maxtext_llama31.SAVE_DTYPE)
    assert maxtext_llama31.compare_tensors(back, maxtext_llama31.expected_tensors()) == []


def test_the_invertible_checkpoint_differs_from_maxtexts_in_the_query_only(tensors: llama.Arrays) -> None:
    variant = llama.Variant(scan=True, interleaved=True, exactness="invertible")
    leaves = llama.to_maxtext(tensors, maxtext_llama31.CONFIG, variant)
    problems = maxtext_llama31.compare(leaves, maxtext_llama31.expected_leaves(scan=True))
    assert [problem.split(":")[0] for problem in problems] == [
        "params.params.decoder.layers.self_attention.query.kernel"
    ]


@pytest.mark.parametrize("change", ["bits", "shape", "dtype", "missing", "extra"])
def test_a_difference_in_one_leaf_is_one_line(tensors: llama.Arrays, change: str) -> None:
    leaves = llama.to_maxtext(tensors, maxtext_llama31.CONFIG, _as_maxtext_does(scan=True))
    path = "params.params.decoder.decoder_norm.scale"
    match change:
        case "bits":
            leaves[path].view(np.uint16)[7] ^= 1
        case "shape":
            leaves[path] = leaves[path].reshape(1, -1)
        case "dtype":
            leaves[path] = leaves[path].view(np.float16)
        case "missing":
            del leaves[path]
        case "extra":
            path = "params.params.decoder.decoder_norm.bias"
            leaves[path] = np.zeros(1)
    problems = maxtext_llama31.compare(leaves, maxtext_llama31.expected_leaves(scan=True))
    assert len(problems) == 1
    assert problems[0].startswith(path)


def test_a_nested_tree_is_compared_like_a_flat_one() -> None:
    expected = {"params.a.0": ("int64", (), "af5570f5a1810b7af78caf4b")}
    assert maxtext_llama31.compare({"params": {"a": [np.int64(0)]}, "step": 3, "opt_state": None}, expected) == []
