"""Compares the logits of a converted checkpoint, loaded and run by MaxText, with those of Transformers.

MaxText is no requirement of this project, so the comparison is made by hand in a scratch environment. MaxText 0.2.5
needs Python 3.12 or newer, and its plain wheel has no dependencies, so what its imports ask for is named here:

    python3.12 -m venv scratch && . scratch/bin/activate
    pip install jax==0.11.1 jaxlib==0.11.1 flax==0.12.12 orbax-checkpoint==0.12.8 tensorstore==0.1.86
    pip install omegaconf==2.4.0 packaging pathwaysutils==0.1.13 jinja2 huggingface_hub==2.4.0 transformers==5.23.0 \
        grain==0.2.18 drjax==0.2.1 jaxtyping==0.3.11 qwix==0.1.8 aqtp==0.9.0 tokamax==0.0.17 pillow tiktoken \
        sentencepiece sympy
    pip install --no-deps maxtext==0.2.5

None of these brings PyTorch. Where the scratch environment has none, the half that runs Transformers is done by another
Python, one with torch, transformers and numpy; both start at the root of the checkout:

    python -m tests.campaigns.maxtext_logits HF_DIR --dump_hf_logits=hf.npz
    scratch/bin/python -m tests.campaigns.maxtext_logits HF_DIR OUT/0/items --scan_layers=true --hf_logits=hf.npz

Both halves draw the same token ids, and the file carries them along to be checked. Each sequence starts at position 0;
one is long, because an error in the rotary embedding (a missing frequency scaling above all) hardly shows in a short
one. The model is run in float32 by both.

MaxText has two ways to load `load_parameters_path`. `training` is strict: a missing array or a wrong shape is an error.
`pretrained` (inference and post-training) transposes, repeats or pads an array of another shape without a word. Both
are run unless --loader names one.

Llama's 1/sqrt(head_dim) is folded into the stored query kernel. In bfloat16 that is exact for a head_dim of 64 or 256,
and a rounding for 128, which moves logits by some thousandths: enough to turn a near tie of the argmax. With
--folded_query, given to both halves, the reference's query is rounded likewise, and what is left is float32 noise.

Whatever its dtypes, MaxText multiplies by the embedding in bfloat16 where the head is tied to it. So does the reference
here, or logits of float32 models would differ by a thousandth. Likewise a Gemma 3 has its embedding multiplied by the
root of the width rounded to bfloat16, as transformers does in bfloat16 only.

The result is one JSON object on standard output; logs go to standard error. The exit code is 0 if and only if every
argmax is equal and every divergence is at most --max_kl, 1 if not or if MaxText refuses the checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.campaigns.maxtext_keys import BLOCKS, maxtext_keys, text_of

Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

LOADERS = ("training", "pretrained")


def make_tokens(vocab_size: int, lengths: Sequence[int], seed: int) -> list[Tokens]:
    """Returns one sequence of random token ids for each length; the same arguments give the same ids."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, size=length, dtype=np.int64) for length in lengths]


def read_config(hf_dir: pathlib.Path) -> dict[str, Any]:
    """Returns what `config.json` of a Hugging Face directory holds."""
    config: dict[str, Any] = json.loads((hf_dir / "config.json").read_text(encoding="utf-8"))
    return config


def hf_logits(hf_dir: pathlib.Path, tokens: Sequence[Tokens], folded_query: bool) -> list[Logits]:
    """Returns the logits [length, vocab] that Transformers computes in float32, one array per sequence.

    Args:
        hf_dir: directory with config.json and safetensors.
        tokens: the sequences.
        folded_query: whether to round the query projections as bfloat16 storage with 1/sqrt(head_dim) folded in does.
    """
    import torch
    import transformers

    config = read_config(hf_dir)
    classes = (
        transformers.AutoModelForImageTextToText if "vision_config" in config else transformers.AutoModelForCausalLM
    )
    model = classes.from_pretrained(
        hf_dir, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    if folded_query:
        root = (config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]) ** 0.5
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".q_proj.weight"):
                    parameter.copy_((parameter * (1 / root)).bfloat16().float() * root)
    _read_embedding_as_maxtext(model, config)
    with torch.no_grad():
        return [
            model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].float().numpy() for ids in tokens
        ]


def _read_embedding_as_maxtext(model: Any, config: Mapping[str, Any]) -> None:
    """Lets a model use its embedding as MaxText does; changes the model in place.

    The root of the width that a Gemma multiplies its embedding by is rounded as in the stored embedding. A head that is
    tied to it becomes one of its own, of bfloat16 numbers.
    """
    import torch

    embedding = model.get_input_embeddings()
    weight = embedding.weight.detach()
    root = stored_root = torch.ones(())
    if dtype := BLOCKS[config["model_type"]].embedding_root:
        root = torch.tensor(weight.shape[1] ** 0.5)
        stored_root = root.to(getattr(torch, dtype)).float()
        embedding.embed_scale.copy_(stored_root)
    if model.config.get_text_config().tie_word_embeddings:
        head = torch.nn.Linear(*reversed(weight.shape), bias=False)
        head.weight = torch.nn.Parameter((weight * stored_root).bfloat16().float() / root)
        model.set_output_embeddings(head)


def save_logits(path: pathlib.Path, tokens: Sequence[Tokens], logits: Sequence[Logits], folded_query: bool) -> None:
    """Writes an .npz file with `tokens_<i>` and `logits_<i>` for each sequence, and `folded_query`."""
    arrays: dict[str, npt.NDArray[Any]] = {"folded_query": np.array(folded_query)}
    for index, (ids, values) in enumerate(zip(tokens, logits, strict=True)):
        arrays[f"tokens_{index}"] = ids
        arrays[f"logits_{index}"] = values
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_logits(path: pathlib.Path, tokens: Sequence[Tokens], folded_query: bool) -> list[Logits]:
    """Reads what `save_logits` wrote.

    Raises:
        ValueError: the file is for other token ids, or differs in `folded_query`.
    """
    with np.load(path) as arrays:
        same = len(arrays.files) == 2 * len(tokens) + 1 and all(
            np.array_equal(arrays[f"tokens_{index}"], ids) for index, ids in enumerate(tokens)
        )
        if not same or bool(arrays["folded_query"]) != folded_query:
            raise ValueError(f"{path} was written with another --lengths, --seed or --folded_query")
        return [arrays[f"logits_{index}"] for index in range(len(tokens))]


def maxtext_config(
    items_dir: pathlib.Path, model_name: str, scan_layers: bool, length: int, overrides: Mapping[str, Any]
) -> Any:
    """Returns a MaxText configuration for a forward pass in float32 on one CPU device.

    Args:
        items_dir: the checkpoint's directory of arrays (.../0/items).
        model_name: MaxText's name of the model.
        scan_layers: whether the layers are stacked in the checkpoint.
        length: the longest sequence to be run.
        overrides: keys that differ from those of the named model; the last word on every key.
    """
    from maxtext.configs import pyconfig  # type: ignore[import-not-found]

    keys: dict[str, Any] = {
        "model_name": model_name,
        "override_model_config": True,
        "load_parameters_path": str(items_dir),
        "scan_layers": scan_layers,
        "run_name": "maxtext_logits",
        "base_output_directory": tempfile.gettempdir(),
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "log_config": False,
        "per_device_batch_size": 1,
        "max_target_length": length,
        "max_prefill_predict_length": length,
        "dtype": "float32",
        "weight_dtype": "float32",
        "matmul_precision": "highest",
        "attention": "dot_product",
        "float32_qk_product": True,
        "float32_logits": True,
        "logits_dot_in_fp32": True,
        "normalize_embedding_logits": False,  # tied logits undivided, as Transformers has them
        "activations_in_float32": True,
        "enable_dropout": False,
        "dropout_rate": 0.0,
        "sparse_matmul": False,  # every expert is computed in full: the sparse kernels are for accelerators
        "megablox": False,
        "capacity_factor": -1.0,
    }
    keys.update(overrides)
    return pyconfig.initialize(["maxtext_logits"], **keys)


def load_model(config: Any, loader: str) -> tuple[Any, Any]:
    """Returns MaxText's model with the parameters of `load_parameters_path`, and its mesh.

    Args:
        config: what `maxtext_config` returned.
        loader: `training` or `pretrained`, the two ways MaxText has.
    """
    from flax import nnx
    from maxtext.common import checkpointing  # type: ignore[import-not-found]
    from maxtext.utils import maxtext_utils_nnx, model_creation_utils  # type: ignore[import-not-found]

    if loader == "pretrained":
        loaded: tuple[Any, Any] = model_creation_utils.from_pretrained(config)
        return loaded
    config = model_creation_utils.verify_and_sync_scan_layers(config)
    create, abstract = model_creation_utils.create_nnx_abstract_model(config)
    transient = (nnx.RngState, nnx.Cache, nnx.Intermediate, nnx.BatchStat)
    wanted = nnx.state(abstract).filter(lambda path, variable: not isinstance(variable, transient))
    parameters = checkpointing.load_params_from_path(
        config.load_parameters_path,
        wanted,
        config.checkpoint_storage_concurrent_gb,
        use_ocdbt=config.checkpoint_storage_use_ocdbt,
        use_zarr3=config.checkpoint_storage_use_zarr3,
    )
    model = maxtext_utils_nnx.create_nnx_sharded_model(abstract, create, mesh=abstract.mesh)
    nnx.update(model, parameters)
    return model, abstract.mesh


@functools.cache
def _compiled_forward() -> Any:
    """The forward pass of a MaxText model; one for all, so that what both loaders load is compiled once."""
    from flax import nnx

    def forward(model: Any, ids: Any, positions: Any, segments: Any) -> Any:
        return model(ids, positions, segments, enable_dropout=False)

    return nnx.jit(forward)


def maxtext_logits(config: Any, loader: str, tokens: Sequence[Tokens]) -> list[Logits]:
    """Returns the logits [length, vocab] that MaxText computes, one array per sequence."""
    import jax
    import jax.numpy as jnp
    from flax import linen

    model, mesh = load_model(config, loader)
    compiled = _compiled_forward()
    results: list[Logits] = []
    with jax.set_mesh(mesh), linen.logical_axis_rules(config.logical_axis_rules):
        for sequence in tokens:
            ids = jnp.asarray(sequence, dtype=jnp.int32)[None]
            positions = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
            logits = compiled(model, ids, positions, jnp.ones_like(ids))
            results.append(np.asarray(logits, dtype=np.float32)[0])
    return results


def kl_divergence(reference: Logits, other: Logits) -> npt.NDArray[np.float64]:
    """Returns KL(reference || other) in nats at each position."""

    def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return result

    reference_log, other_log = log_softmax(reference), log_softmax(other)
    divergence: npt.NDArray[np.float64] = (np.exp(reference_log) * (reference_log - other_log)).sum(axis=-1)
    return divergence


def compare(reference: Logits, other: Logits) -> dict[str, Any]:
    """Returns the figures of one sequence; entries one side's vocabulary is padded with are left out.

    `max_flipped_margin` is how far the reference's own best logit lies above the one chosen instead: a flip with a
    margin below `max_abs_diff` is a near tie, one above it cannot be.
    """
    vocab = min(reference.shape[-1], other.shape[-1])
    left, right = reference[:, :vocab], other[:, :vocab]
    best, chosen = left.argmax(axis=-1), right.argmax(axis=-1)
    flips = np.flatnonzero(best != chosen)
    margins = left[flips, best[flips]] - left[flips, chosen[flips]]
    return {
        "length": int(reference.shape[0]),
        "vocab_compared": vocab,
        "finite": bool(np.isfinite(left).all() and np.isfinite(right).all()),
        "argmax_agreement": float((best == chosen).mean()),
        "max_flipped_margin": float(margins.max(initial=0.0)),
        "max_kl": float(kl_divergence(left, right).max()),
        "max_abs_diff": float(np.abs(left - right).max()),
        "max_abs_logit": float(np.abs(left).max()),
    }


def summarise(runs: Mapping[str, Sequence[Mapping[str, Any]]], max_kl: float) -> dict[str, Any]:
    """Returns the worst figures over every loader and sequence, the verdict, and the figures themselves."""
    rows = [row for sequences in runs.values() for row in sequences]
    agreement = min(row["argmax_agreement"] for row in rows)
    worst_kl = max((row["max_kl"] for row in rows), key=lambda value: (np.isnan(value), value))
    finite = all(row["finite"] for row in rows)
    return {
        "passed": bool(finite and agreement == 1.0 and worst_kl <= max_kl),
        "argmax_agreement": agreement,
        "max_kl": worst_kl,
        "max_abs_diff": max(row["max_abs_diff"] for row in rows),
        "kl_limit": max_kl,
        "loaders": dict(runs),
    }


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description="Compares MaxText's logits with those of Transformers.")
    parser.add_argument("hf_dir", type=pathlib.Path, help="directory with config.json and safetensors")
    parser.add_argument("items_dir", type=pathlib.Path, nargs="?", help="MaxText's load_parameters_path: .../0/items")
    parser.add_argument("--model_name", help="MaxText's name of the model; by default one of the model_type's block")
    parser.add_argument("--scan_layers", choices=("true", "false"), help="whether the layers are stacked")
    parser.add_argument("--loader", choices=(*LOADERS, "both"), default="both", help="MaxText's way of loading")
    parser.add_argument("--hf_logits", type=pathlib.Path, help="file written with --dump_hf_logits; no torch needed")
    parser.add_argument("--dump_hf_logits", type=pathlib.Path, help="write Transformers' logits to this .npz, and stop")
    parser.add_argument(
        "--folded_query", action="store_true", help="let the reference round its query as MaxText's bfloat16 form does"
    )
    parser.add_argument("--lengths", default="48,256", help="lengths of the sequences, with commas between")
    parser.add_argument("--seed", type=int, default=20261121, help="seed of the token ids")
    parser.add_argument("--max_kl", type=float, default=1e-5, help="largest divergence that passes, in nats")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a further MaxText key, its value as JSON"
    )
    arguments = parser.parse_args(argv)
    arguments.lengths = [int(length) for length in arguments.lengths.split(",")]
    if arguments.dump_hf_logits is None and (arguments.items_dir is None or arguments.scan_layers is None):
        parser.error("without --dump_hf_logits, ITEMS_DIR and --scan_layers are needed")
    return arguments


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of `KEY=VALUE` texts; a value that is not JSON is taken as text."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        try:
            overrides[key] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key] = text
    return overrides


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one of the halves, or both, and returns the exit code."""
    arguments = parse_arguments(argv)
    config = read_config(arguments.hf_dir)
    tokens = make_tokens(text_of(config)["vocab_size"], arguments.lengths, arguments.seed)
    folded = arguments.folded_query
    if arguments.dump_hf_logits is not None:
        logits = hf_logits(arguments.hf_dir, tokens, folded)
        save_logits(arguments.dump_hf_logits, tokens, logits, folded)
        return 0

    os.environ["JAX_PLATFORMS"] = "cpu"
    loaders = LOADERS if arguments.loader == "both" else (arguments.loader,)
    model_name = arguments.model_name or BLOCKS[config["model_type"]].model_name
    overrides = {**maxtext_keys(config, model_name), **parse_overrides(arguments.set)}
    with contextlib.redirect_stdout(sys.stderr):
        if arguments.hf_logits is not None:
            reference = load_logits(arguments.hf_logits, tokens, folded)
        else:
            reference = hf_logits(arguments.hf_dir, tokens, folded)
        maxtext = maxtext_config(
            arguments.items_dir.absolute(),
            model_name,
            arguments.scan_layers == "true",
            max(arguments.lengths),
            overrides,
        )
        runs = {
            loader: [
                compare(left, right)
                for left, right in zip(reference, maxtext_logits(maxtext, loader, tokens), strict=True)
            ]
            for loader in loaders
        }
    result = summarise(runs, arguments.max_kl)
    print(json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
