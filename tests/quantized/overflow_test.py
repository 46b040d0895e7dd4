"""MXFP4, whose decoding is declared exact: where a power of two is too large, the claim is taken back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bad_input.judging import Fault, completed, refused, unchanged
from tests.bad_input.running import hf_to_maxtext
from tests.quantized import making
from tests.quantized.cases import CASES, plain

MXFP4 = CASES["gpt-oss-mxfp4"]


def mxfp4(directory: Path, exponent: int, code: int) -> tuple[Path, str]:
    """A gpt-oss of which one group of codes has an exponent and holds nothing but a code; and the tensor's name."""
    made = plain(MXFP4, directory / "plain")
    config = json.loads((made.directory / "config.json").read_text())
    stored, _ = making.quantized(made.tensors, MXFP4.names, MXFP4.way, "bfloat16")
    scales = next(name for name in stored if name.endswith("_scales"))
    blocks = scales.replace("_scales", "_blocks")
    stored[scales], stored[blocks] = stored[scales].copy(), stored[blocks].copy()
    stored[scales].reshape(-1)[5] = exponent
    stored[blocks].reshape(-1, 16)[5] = code * 0x11
    return making.write(
        directory / "hf", stored, {**config, "quantization_config": MXFP4.way.config}
    ), scales.removesuffix("_scales")


def test_a_decoding_that_was_declared_exact_is_refused_where_it_overflows(tmp_path: Path) -> None:
    source, name = mxfp4(tmp_path, 254, 7)
    destination = tmp_path / "out"
    with unchanged(tmp_path):
        run = hf_to_maxtext(source, destination, "--require_exact", "--save_dtype=bfloat16")
    refused(run, Fault("EXACTNESS_NOT_MET", "would be LOSSY", name))
    assert [(entry.id, entry.subject) for entry in run.warnings] == [("TENSOR_OVERFLOWED", name)]
    assert "more than float32 holds" in run.warnings[0].reason
    assert run.warnings[0].suggestion.startswith("No dtype of the output holds these values")
    lax = hf_to_maxtext(source, destination, "--save_dtype=bfloat16")
    completed(lax, Fault("TENSOR_OVERFLOWED", name))
    tensors = json.loads((destination / "report.json").read_text())["tensor"]
    assert [tensor["exactness"] for tensor in tensors].count("LOSSY") == 1


def test_the_largest_values_that_a_dtype_holds_are_exact(tmp_path: Path) -> None:
    source, _ = mxfp4(tmp_path, 254, 3)
    completed(hf_to_maxtext(source, tmp_path / "out", "--require_exact", "--save_dtype=bfloat16"))
