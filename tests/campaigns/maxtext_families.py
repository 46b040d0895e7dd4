"""Converts a tiny model of each family, has MaxText load and run it, and compares its logits with Transformers'.

MaxText is no requirement of this project, so this is run by hand. SCRATCH is a Python with MaxText 0.2.5 as the text of
maxtext_logits.py says; this module itself runs in Recast's own environment, from the root of the checkout:

    python -m tests.campaigns.maxtext_families SCRATCH/bin/python WORKSPACE [FAMILY ...]

For each family transformers writes a model with random weights, `recast hf-to-maxtext` converts it with and without
stacked layers, and both loaders of MaxText take both; where there is a vision tower, an image goes through it. The
table on standard output has a line for each family and each way of stacking, or one for each loader where one of them
refuses, with its last error. WORKSPACE/FAMILY keeps the files and logs. Everything is in float32. The exit code is 0 if
and only if every line says that MaxText and Transformers agree.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests import checkpoints

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LOGITS = ("-m", "tests.campaigns.maxtext_logits", "--lengths=160")
_TOWERS = ("-m", "tests.campaigns.maxtext_towers")

_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1000000.0}
_DENSE: Mapping[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 64,
}
_MLA: Mapping[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 72,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 5,
    "first_k_dense_replace": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}

_QWEN_TOWER: Mapping[str, Any] = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_heads": 4,
    "in_channels": 3,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 48,
    "num_position_embeddings": 49,
}

CASES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"model_type": "llama", **_DENSE},
    "mistral": {"model_type": "mistral", **_DENSE, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", **_DENSE, "rope_parameters": _PLAIN_ROPE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_DENSE, "rope_parameters": _PLAIN_ROPE},
    "qwen3_tied": {"model_type": "qwen3", **_DENSE, "rope_parameters": _PLAIN_ROPE, "tie_word_embeddings": True},
    "mixtral": {"model_type": "mixtral", **_DENSE, "num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **_DENSE,
        "moe_intermediate_size": 40,
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
    },
    "gemma": {"model_type": "gemma", **_DENSE, "tie_word_embeddings": True},
    # What divides the scores is not the head dimension; the window is shorter than the sequences.
    "gemma2": {
        "model_type": "gemma2",
        **_DENSE,
        "query_pre_attn_scalar": 24,
        "sliding_window": 16,
        "tie_word_embeddings": True,
    },
    # The published vocabulary, to which MaxText adds rows.
    "gemma2_rows": {
        "model_type": "gemma2",
        **_DENSE,
        "vocab_size": 256000,
        "hidden_size": 16,
        "query_pre_attn_scalar": 20,
        "tie_word_embeddings": True,
    },
    # One cycle of six, and two layers after it; two thetas.
    "gemma3": {
        "model_type": "gemma3_text",
        **_DENSE,
        "num_hidden_layers": 8,
        "query_pre_attn_scalar": 20,
        "sliding_window": 16,
        "tie_word_embeddings": True,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        **_DENSE,
        "num_local_experts": 5,
        "num_experts_per_tok": 3,
        "sliding_window": 16,
        "rope_parameters": {**_YARN, "rope_theta": 150000.0, "truncate": False},
    },
    "deepseek2_lite": {
        "model_type": "deepseek_v2",
        **_MLA,
        "q_lora_rank": None,
        "topk_method": "greedy",
        "routed_scaling_factor": 1.0,
        "rope_parameters": {**_YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek2": {
        "model_type": "deepseek_v2",
        **_MLA,
        "topk_method": "greedy",
        "rope_parameters": {**_YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek3": {
        "model_type": "deepseek_v3",
        **_MLA,
        "norm_topk_prob": True,
        "num_nextn_predict_layers": 0,
        "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "deepseek32": {
        "model_type": "deepseek_v32",
        **_MLA,
        "norm_topk_prob": True,
        "index_n_heads": 2,
        "index_head_dim": 14,
        "index_topk": 4,
        "num_nextn_predict_layers": 0,
        "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    },
    # MaxText has one rotary embedding for both kinds of layers; so has this model.
    "olmo3": {
        "model_type": "olmo3",
        **_DENSE,
        "num_hidden_layers": 8,
        "sliding_window": 16,
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), _PLAIN_ROPE),
    },
    "qwen3_next": {
        "model_type": "qwen3_next",
        **_DENSE,
        "num_hidden_layers": 8,
        "full_attention_interval": 4,
        "head_dim": 16,
        "linear_num_key_heads": 4,
        "linear_key_head_dim": 6,
        "linear_num_value_heads": 12,
        "linear_value_head_dim": 11,
        "linear_conv_kernel_dim": 4,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "norm_topk_prob": True,
    },
    # With their towers, though no image is looked at.
    "gemma3_vision": {
        "model_type": "gemma3",
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "gemma3_text",
            **_DENSE,
            "num_hidden_layers": 8,
            "query_pre_attn_scalar": 20,
            "sliding_window": 16,
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "image_size": 64,
            "intermediate_size": 36,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "patch_size": 4,
            "vision_use_head": False,
        },
    },
    "llama4": {
        "model_type": "llama4",
        "boi_token_index": 93,
        "eoi_token_index": 94,
        "image_token_index": 95,
        "text_config": {
            "model_type": "llama4_text",
            **_DENSE,
            "intermediate_size": 40,
            "intermediate_size_mlp": 72,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "llama4_vision_model",
            "hidden_size": 32,
            "image_size": 20,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "patch_size": 5,
            "projector_input_dim": 28,
            "projector_output_dim": 28,
            "vision_output_dim": 28,
        },
    },
    "qwen3_5": {
        "model_type": "qwen3_5_moe",
        "text_config": {
            "model_type": "qwen3_5_moe_text",
            **_DENSE,
            "num_hidden_layers": 8,
            "head_dim": 16,
            "linear_num_key_heads": 4,
            "linear_key_head_dim": 6,
            "linear_num_value_heads": 12,
            "linear_value_head_dim": 11,
            "linear_conv_kernel_dim": 4,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
        },
        "vision_config": {**_QWEN_TOWER},
    },
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_vl_text",
            **_DENSE,
            "rope_parameters": {**_PLAIN_ROPE, "mrope_section": [4, 3, 3]},
        },
        "vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": []},
    },
}
"""config.json by the name of a family: sizes that MaxText's kernels take, and differ where an exchange could hide."""


def write_model(directory: pathlib.Path, config: Mapping[str, Any], seed: int) -> None:
    """Has transformers write a model in float32 whose every tensor is random, and whose logits are of order 1."""
    import torch

    classes = "AutoModelForImageTextToText" if "vision_config" in config else "AutoModelForCausalLM"
    model = checkpoints.transformers_model(config, classes).float()
    generators = np.random.default_rng(seed).spawn(len(model.state_dict()))
    tied = set(model.all_tied_weights_keys)
    with torch.no_grad():
        for (name, values), generator in zip(sorted(model.state_dict().items()), generators, strict=True):
            if name in tied or not values.is_floating_point():
                continue
            noise = torch.from_numpy(generator.standard_normal(tuple(values.shape), np.float32))
            if values.ndim > 1:
                values.copy_(0.15 * noise)
            else:  # norms, biases, sinks: near what transformers begins with
                values.add_(0.2 * noise)
    model.save_pretrained(directory)


def run(words: Sequence[object], log: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs a command at the root of the checkout; its standard error goes to a file."""
    with log.open("w", encoding="utf-8") as errors:
        return subprocess.run(
            [str(word) for word in words], cwd=_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )


def run_or_stop(words: Sequence[object], log: pathlib.Path) -> None:
    """Runs a command without which nothing can be compared."""
    ran = run(words, log)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{ran.stdout}{log.read_text(encoding='utf-8')}")


def compare(python: str, family: str, config: Mapping[str, Any], workspace: pathlib.Path) -> list[list[str]]:
    """Converts and compares a family; returns the lines of the table."""
    workspace.mkdir(parents=True)
    hf, logits, features = workspace / "hf", workspace / "hf.npz", workspace / "towers.npz"
    write_model(hf, config, seed=7)
    run_or_stop([sys.executable, *_LOGITS, hf, f"--dump_hf_logits={logits}"], workspace / "hf.log")
    rows = []
    for scan in ("true", "false"):
        items = convert(hf, workspace, scan)
        for loader in ("both", "training", "pretrained"):
            log = workspace / f"maxtext-{scan}-{loader}.log"
            flags = [f"--scan_layers={scan}", f"--hf_logits={logits}", f"--loader={loader}"]
            ran = run([python, *_LOGITS, hf, items, *flags], log)
            if loader == "both" and not ran.stdout:
                continue  # which of them refuses is found by asking each
            rows.append([family, scan, loader, *figures(ran.stdout, log)])
            if loader == "both":
                break
        if "vision_config" in config:
            log = workspace / f"towers-{scan}.log"
            run_or_stop([sys.executable, *_TOWERS, hf, f"--dump={features}"], log)
            ran = run([python, *_TOWERS, hf, items, f"--scan_layers={scan}", f"--features={features}"], log)
            rows.append([family, scan, "training, tower", *figures(ran.stdout, log)])
    return rows


def convert(hf: pathlib.Path, workspace: pathlib.Path, scan: str) -> pathlib.Path:
    """Converts by the command that people use; returns MaxText's load_parameters_path."""
    out = workspace / f"scan-{scan}"
    flags = [f"--hf_model_path={hf}", f"--base_output_directory={out}", f"--scan_layers={scan}"]
    run_or_stop(["./recast", "hf-to-maxtext", *flags, "--save_dtype=float32"], workspace / f"recast-{scan}.log")
    return out / "0" / "items"


def figures(output: str, log: pathlib.Path) -> list[str]:
    """The figures of a comparison, or the last line of what MaxText said instead."""
    if not output:
        return ["refused", "", "", log.read_text(encoding="utf-8").strip().splitlines()[-1][:160]]
    found = json.loads(output)
    numbers = [f"{found[key]:.2g}" if key in found else "" for key in ("max_abs_diff", "max_kl")]
    argmax = f"argmax {found['argmax_agreement']:.4f}" if "argmax_agreement" in found else ""
    return ["agrees" if found["passed"] else "DIFFERS", *numbers, argmax]


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the families named, or all, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Compares MaxText's logits with Transformers' for tiny models.")
    parser.add_argument("python", help="a Python that has MaxText")
    parser.add_argument("workspace", type=pathlib.Path, help="a directory that does not exist, or is empty")
    parser.add_argument("families", nargs="*", help=f"which of {', '.join(CASES)}; all by default")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.families if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}")
    agree = True
    print("| family | stacked | loader | logits | max abs diff | max KL | |\n|---|---|---|---|---|---|---|")
    for family in arguments.families or CASES:
        for row in compare(arguments.python, family, CASES[family], arguments.workspace.absolute() / family):
            agree = agree and row[3] == "agrees"
            print("|", " | ".join(row), "|", flush=True)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
