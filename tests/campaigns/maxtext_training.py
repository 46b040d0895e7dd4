"""Trains with MaxText, restacks the training state with Recast, goes on training, and compares every loss.

MaxText is no requirement of this project, so this is run by hand. SCRATCH is a Python with MaxText 0.2.5 as the text of
maxtext_logits.py says, and `ml_collections` beside it, which MaxText's data pipeline imports:

    python tests/campaigns/maxtext_training.py SCRATCH/bin/python WORKSPACE

Three layers of a tiny Llama are trained for some steps on synthetic data, stacked and unstacked. Each run's last
checkpoint goes on as it is, restacked, and restacked twice; all losses must be equal to the last printed digit, and
restacking twice must give back every array to the byte. The exit code is 0 if that is so.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LOSS = re.compile(r"completed step: (\d+),.* loss: ([0-9.]+)")
_SIZES = {
    "base_emb_dim": 18,
    "base_mlp_dim": 23,
    "base_num_decoder_layers": 3,
    "base_num_query_heads": 5,
    "base_num_kv_heads": 1,
    "head_dim": 6,
    "vocab_size": 31,
}
_CONFIG = {
    "model_type": "llama",
    "hidden_size": 18,
    "intermediate_size": 23,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "vocab_size": 31,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_SETTINGS = {
    "run_name": "run",
    "model_name": "default",
    "decoder_block": "llama2",
    "override_model_config": "true",
    **_SIZES,
    "hardware": "cpu",
    "skip_jax_distributed_system": "true",
    "dataset_type": "synthetic",
    "per_device_batch_size": 1,
    "max_target_length": 16,
    "enable_checkpointing": "true",
    "async_checkpointing": "false",
    "dtype": "float32",
    "weight_dtype": "float32",
    "attention": "dot_product",
    "learning_rate": 0.05,
    "log_config": "false",
    "enable_goodput_recording": "false",
    "monitor_goodput": "false",
}


def train(python: str, out: pathlib.Path, **settings: object) -> dict[int, str]:
    """Trains; returns the loss of each completed step as it was printed."""
    given = {**_SETTINGS, "base_output_directory": out, "tensorboard_dir": out / "tensorboard", **settings}
    base = "import maxtext.configs as c, os; print(os.path.join(list(c.__path__)[0], 'base.yml'))"
    yaml = (
        subprocess.run([python, "-c", base], check=True, capture_output=True, text=True).stdout.strip().split("\n")[-1]
    )
    words = [python, "-m", "maxtext.trainers.pre_train.train", yaml, *(f"{k}={v}" for k, v in given.items())]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    losses = {int(step): loss for step, loss in _LOSS.findall(ran.stdout + ran.stderr)}
    if ran.returncode or not losses:
        raise SystemExit(f"MaxText failed:\n{(ran.stdout + ran.stderr)[-3000:]}")
    return losses


def restack(source: pathlib.Path, out: pathlib.Path, config: pathlib.Path, scan: bool) -> pathlib.Path:
    """Runs maxtext-to-maxtext; returns the directory of the step that it wrote."""
    flags = [f"--load_full_state_path={source}", f"--base_output_directory={out}", f"--scan_layers={scan}"]
    subprocess.run([_ROOT / "recast", "maxtext-to-maxtext", *flags, f"--hf_config_path={config}"], check=True)
    (step,) = (entry for entry in out.iterdir() if entry.name.isdigit())
    return step


def same(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Whether `diff` finds two checkpoints equal."""
    return subprocess.run([_ROOT / "recast", "diff", first, second], check=False).returncode == 0


def main() -> int:
    """Runs all of it; prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="of the environment with MaxText")
    parser.add_argument("workspace", type=pathlib.Path, help="an empty or new directory")
    parser.add_argument("--before", type=int, default=4, help="steps before the conversion")
    parser.add_argument("--after", type=int, default=4, help="steps after it")
    arguments = parser.parse_args()
    work: pathlib.Path = arguments.workspace.absolute()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "config.json"
    config.write_text(json.dumps(_CONFIG), "utf-8")
    total = arguments.before + arguments.after
    found: dict[str, object] = {}
    passed = True
    for scan in (True, False):
        name = "stacked" if scan else "unstacked"
        train(arguments.python, work / name, steps=arguments.before, scan_layers=scan)
        saved = work / name / "run" / "checkpoints" / str(arguments.before - 1)
        once = restack(saved, work / f"{name}-once", config, not scan)
        twice = restack(once, work / f"{name}-twice", config, scan)
        losses = {}
        for label, step, stacked in (("as it is", saved, scan), ("once", once, not scan), ("twice", twice, scan)):
            out = work / f"{name}-{label.replace(' ', '-')}-goes-on"
            settings = {"steps": total, "scan_layers": stacked, "load_full_state_path": step / "items"}
            losses[label] = train(arguments.python, out, **settings)
        equal = len({json.dumps(loss) for loss in losses.values()}) == 1 and same(saved, twice)
        found[name] = {"losses": losses, "equal": equal}
        passed = passed and equal
    print(json.dumps({"passed": passed, **found}, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
