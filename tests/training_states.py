"""Training states made by optax and saved by Orbax, and in plain loops what restacking must make of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Tree = Any
"""Nested dictionaries and lists of arrays and None, as Orbax restores them."""

CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 18,
    "intermediate_size": 23,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
"""No two sizes are equal."""

_LAYER = re.compile(r"layers_(\d+)")


def write_config(directory: Path) -> Path:
    """Writes config.json for `--hf_config_path`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    path.write_text(json.dumps(CONFIG), "utf-8")
    return path


def weights(dtype: str = "float32") -> Tree:
    """`params` of a training state with unstacked layers, of zeros."""
    e, h, k, d = (CONFIG[n] for n in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    f, v = CONFIG["intermediate_size"], CONFIG["vocab_size"]
    layer = {
        "pre_self_attention_layer_norm": {"scale": (e,)},
        "post_self_attention_layer_norm": {"scale": (e,)},
        "self_attention": {
            "query": {"kernel": (e, h, d)},
            "key": {"kernel": (e, k, d)},
            "value": {"kernel": (e, k, d)},
            "out": {"kernel": (h, d, e)},
        },
        "mlp": {"wi_0": {"kernel": (e, f)}, "wi_1": {"kernel": (e, f)}, "wo": {"kernel": (f, e)}},
    }
    shapes = {
        "token_embedder": {"embedding": (v, e)},
        "decoder": {
            **{f"layers_{i}": layer for i in range(CONFIG["num_hidden_layers"])},
            "decoder_norm": {"scale": (e,)},
            "logits_dense": {"kernel": (e, v)},
        },
    }
    return {"params": _map(shapes, lambda shape: np.zeros(shape, dtype))}


def stacked(tree: Tree) -> Tree:
    """The tree with the nodes layers_0, layers_1, ... of every dictionary made one, wherever they lie."""
    if isinstance(tree, list):
        return [stacked(child) for child in tree]
    if not isinstance(tree, Mapping):
        return tree
    out = {key: stacked(child) for key, child in tree.items() if not _LAYER.fullmatch(key)}
    layers = [tree[f"layers_{i}"] for i in range(sum(1 for key in tree if _LAYER.fullmatch(key)))]
    if layers:
        out["layers"] = _stack(layers)
    return out


def _stack(layers: list[Tree]) -> Tree:
    first = layers[0]
    if isinstance(first, Mapping):
        return {key: _stack([layer[key] for layer in layers]) for key in first}
    if first is None:
        assert all(layer is None for layer in layers)
        return None
    out = np.zeros((first.shape[0], len(layers), *first.shape[1:]), first.dtype)
    for i, layer in enumerate(layers):
        for row in range(first.shape[0]):
            out[row, i] = layer[row]
    return out


def training_state(optimizer: Any, dtype: str = "float32", scan: bool = False) -> Tree:
    """step, params and opt_state as optax makes them, every element of every array distinct in its bits.

    Args:
        optimizer: an optax.GradientTransformation.
        dtype: of the weights.
        scan: whether layers are stacked before the optimizer sees them.
    """
    import jax

    params = stacked(weights(dtype)) if scan else weights(dtype)
    state = {"step": np.int32(0), "params": params, "opt_state": optimizer.init(params)}
    counter = [1]

    def numbered(leaf: Any) -> Any:
        array = np.asarray(leaf)
        start, counter[0] = counter[0], counter[0] + array.size
        bits = np.arange(start, start + array.size, dtype=np.uint32).astype(f"u{array.dtype.itemsize}")
        return jax.numpy.asarray(bits.reshape(array.shape).view(array.dtype))

    return jax.tree.map(numbered, state)


def save_v0(state: Tree, step: Path, scan: bool | None = None) -> Path:
    """Saves as a MaxText run does with Orbax v0; returns the root of the checkpoint."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(step.parent) as manager:
        metadata = {} if scan is None else {"scan_layers": scan}
        arguments = ocp.args.Composite(items=ocp.args.PyTreeSave(state))
        manager.save(int(step.name), args=arguments, custom_metadata=metadata)
        manager.wait_until_finished()
    return step.parent


def save_v1(state: Tree, step: Path) -> Path:
    """Saves with Orbax v1; returns the root of the checkpoint."""
    import orbax.checkpoint.experimental.v1 as ocp

    ocp.save(step, state)
    return step.parent


def restore(items: Path) -> Tree:
    """What Orbax restores without arguments: dictionaries, lists, None and NumPy arrays."""
    import orbax.checkpoint as ocp

    return arrays(ocp.PyTreeCheckpointer().restore(items))


def with_float32_moments(items: Path, step: Path) -> Path:
    """Saves restored weights again, in their dtypes, beside moments in float32, as Adam keeps them."""
    import jax

    weights = restore(items)["params"]
    moments = jax.tree.map(lambda array: np.zeros(array.shape, np.float32), weights)
    state = {"params": weights, "opt_state": [{"count": np.int32(1), "mu": moments, "nu": moments}]}
    return save_v0({**state, "step": np.int32(1)}, step)


def arrays(tree: Tree) -> Tree:
    """The tree with NumPy arrays as leaves."""
    return _map(tree, np.asarray)


def differences(found: Tree, expected: Tree, where: str = "") -> list[str]:
    """In what two trees differ: containers, keys, dtypes, shapes, bytes."""
    if isinstance(expected, Mapping | list | tuple):
        same = isinstance(found, Mapping) if isinstance(expected, Mapping) else isinstance(found, list | tuple)
        if not same:
            return [f"{where}: {type(found).__name__} instead of {type(expected).__name__}"]
        below, wanted = _children(found), _children(expected)
        if below.keys() != wanted.keys():
            return [f"{where}: {sorted(below)} instead of {sorted(wanted)}"]
        return [line for key in wanted for line in differences(below[key], wanted[key], f"{where}/{key}")]
    if expected is None or found is None:
        return [] if expected is found else [f"{where}: {found!r} instead of {expected!r}"]
    ours, theirs = np.asarray(found), np.asarray(expected)
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return [f"{where}: {ours.dtype}{ours.shape} instead of {theirs.dtype}{theirs.shape}"]
    return [] if ours.tobytes() == theirs.tobytes() else [f"{where}: other bytes"]


def _children(tree: Tree) -> dict[str, Tree]:
    return {str(key): child for key, child in (tree.items() if isinstance(tree, Mapping) else enumerate(tree))}


def _map(tree: Tree, change: Callable[[Any], Any]) -> Tree:
    if isinstance(tree, Mapping):
        return {key: _map(child, change) for key, child in tree.items()}
    if isinstance(tree, list):
        return [_map(child, change) for child in tree]
    return tree if tree is None else change(tree)
