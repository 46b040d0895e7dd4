"""quickstart: makes a small Llama, converts it there and back stacked and unstacked, and compares every byte."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report, StepRecord

AnyArray = np.ndarray[Any, np.dtype[Any]]

# A model of Llama 3.1's kind, small enough to convert in a second: head_dim 128 makes the folded constant inexact.
_CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 640,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 6,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 1024,
}
_SHARDS = 2


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the tour happens."""

    folder: Path


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_string(
        "directory",
        None,
        "Directory for the model and its conversions; it must be empty. Default: a new temporary one.",
        flag_values=values,
    )


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Place:
    """Checks that the directory can be used."""
    given = values.directory
    if given is None:
        return Place(Path(tempfile.mkdtemp(prefix="recast-quickstart-")))
    folder = Path(given)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise_all(
            [
                Diagnostic(
                    "DESTINATION_EXISTS",
                    "The directory is not empty.",
                    "Choose an empty directory, or a new one.",
                    given,
                )
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    return Place(folder)


def execute(place: Place, report: Report) -> str:
    """Makes the model, converts it there and back twice, compares."""
    source = place.folder / "hf"
    with report.step("make_model") as step:
        size = make_model(source)
        step.lines.append(f"{source}: a Llama of {size} bytes in {_SHARDS} files, random weights, seed 0")
    for kind, scan in (("stacked", "true"), ("unstacked", "false")):
        middle, back = place.folder / f"maxtext-{kind}", place.folder / f"hf-from-{kind}"
        _converted(report, _forward(source, middle, scan), f"hf_to_maxtext_{kind}")
        _converted(report, _back(middle, back), f"maxtext_{kind}_to_hf")
        with report.step(f"compare_{kind}") as step:
            compare(source, back, step)
    return _guide(place.folder) if not report.failed else ""


def make_model(folder: Path, seed: int = 0) -> int:
    """Writes a Llama in Hugging Face's layout: two shards, their index, config.json; returns its size in bytes."""
    import ml_dtypes
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    tensors = {
        name: (generator.standard_normal(shape, np.float32) * 0.05).astype(ml_dtypes.bfloat16)
        for name, shape in _shapes().items()
    }
    names = list(tensors)
    files = [names[i::_SHARDS] for i in range(_SHARDS)]
    weight_map = {}
    for number, group in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{_SHARDS:05d}.safetensors"
        save_file({name: tensors[name] for name in group}, str(folder / file), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(group, file))
    size = sum(array.nbytes for array in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")
    (folder / "config.json").write_text(json.dumps(dict(_CONFIG), indent=2), "utf-8")
    return size


def compare(first: Path, second: Path, step: StepRecord) -> None:
    """Compares names, shapes, dtypes and bytes of two safetensors directories.

    Raises:
        RecastError: QUICKSTART_FAILED for each tensor that differs.
    """
    ours, theirs = _load(first), _load(second)
    found = [
        Diagnostic("QUICKSTART_FAILED", f"{name} is on one side only.", subject=name)
        for name in sorted(set(ours) ^ set(theirs))
    ]
    total = 0
    for name in sorted(set(ours) & set(theirs)):
        a, b = ours[name], theirs[name]
        total += a.nbytes
        if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
            found.append(Diagnostic("QUICKSTART_FAILED", f"{name} differs from the source.", subject=name))
    raise_all(found)
    step.lines.append(f"{len(ours)} tensors, {total} bytes: all equal")


def _forward(source: Path, destination: Path, scan: str) -> ConversionRequest:
    return ConversionRequest(
        source=source,
        destination=destination,
        source_format="hf",
        target_format="maxtext",
        dtype="bfloat16",
        model_name="llama3.1",
        target_options={"scan": scan},
    )


def _back(source: Path, destination: Path) -> ConversionRequest:
    return ConversionRequest(
        source=source, destination=destination, source_format="maxtext", target_format="hf", dtype="auto"
    )


def _converted(report: Report, request: ConversionRequest, name: str) -> None:
    """Runs a conversion whose own report stays in its output; here it is one step."""
    from converters.engine import convert
    from reporting.report import StepFailed

    inner = Report(f"{request.source_format}-to-{request.target_format} {request.source} {request.destination}")
    with report.step(name) as step:
        try:
            convert.run(request, inner)
        except StepFailed:
            step.diagnostics.extend(d for s in inner.steps for d in s.diagnostics)
            raise
        step.lines.append(f"{request.destination}: DONE, report.txt, report.json, checkpoint-manifest.json")


def _load(folder: Path) -> dict[str, AnyArray]:
    from safetensors.numpy import load_file

    out: dict[str, AnyArray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        out.update(load_file(str(path)))
    return out


def _shapes() -> dict[str, tuple[int, ...]]:
    hidden, inner, vocab = _CONFIG["hidden_size"], _CONFIG["intermediate_size"], _CONFIG["vocab_size"]
    query = _CONFIG["num_attention_heads"] * _CONFIG["head_dim"]
    kv = _CONFIG["num_key_value_heads"] * _CONFIG["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(_CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, inner)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
        shapes[prefix + "self_attn.k_proj.weight"] = (kv, hidden)
        shapes[prefix + "self_attn.o_proj.weight"] = (hidden, query)
        shapes[prefix + "self_attn.q_proj.weight"] = (query, hidden)
        shapes[prefix + "self_attn.v_proj.weight"] = (kv, hidden)
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _guide(folder: Path) -> str:
    return "\n".join(
        [
            "Where to look:",
            f"  {folder}/hf                   the model as transformers would save it",
            f"  {folder}/maxtext-stacked      the MaxText checkpoint: 0/items, recast/, report.txt, DONE",
            f"  {folder}/maxtext-unstacked    the same with one array per layer",
            f"  {folder}/hf-from-stacked      back again, byte for byte the model",
            f"  {folder}/hf-from-unstacked    back again, byte for byte the model",
            "",
        ]
    )


PROGRAM = Program(
    name="quickstart",
    summary="Makes a small Llama in Hugging Face's layout, converts it to MaxText stacked and unstacked and back, "
    "compares every byte, and says where to look. Needs the core packages only.",
    define=define,
    prepare=prepare,
    execute=execute,
)

if __name__ == "__main__":
    main(PROGRAM)
