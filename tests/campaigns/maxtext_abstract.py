"""Prints which parameters MaxText's own models have: names and shapes, nothing allocated.

This is the half of maxtext_headers.py that runs in a Python with MaxText 0.2.5 (maxtext_logits.py says how to make
one). Each line of standard input is a model as JSON, {"model_name": ..., "scan": true, "keys": {...}}; each line of
standard output is the answer to one, {"parameters": {name: shape}} or {"error": what MaxText said}. Names are those of
a checkpoint: the collection, then the path, with dots between.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from typing import Any


def parameters(model_name: str, scan: bool, keys: Mapping[str, Any]) -> dict[str, list[int]]:
    """Returns the shape of every parameter of a model.

    Args:
        model_name: MaxText's name of the model.
        scan: whether layers are stacked.
        keys: MaxText keys that differ from those of the named model.
    """
    from flax import nnx
    from maxtext.configs import pyconfig  # type: ignore[import-not-found]
    from maxtext.utils import model_creation_utils  # type: ignore[import-not-found]

    settings = {
        "model_name": model_name,
        "override_model_config": bool(keys),
        "scan_layers": scan,
        "run_name": "maxtext_abstract",
        "base_output_directory": tempfile.gettempdir(),
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "log_config": False,
        "enable_checkpointing": False,
        "per_device_batch_size": 1,
        "max_target_length": 16,
        "max_prefill_predict_length": 16,
        "attention": "dot_product",
        "sparse_matmul": False,
        "megablox": False,
        **keys,
    }
    config = pyconfig.initialize(["maxtext_abstract"], **settings)
    _, model = model_creation_utils.create_nnx_abstract_model(config)
    transient = (nnx.RngState, nnx.Cache, nnx.Intermediate, nnx.BatchStat)
    kept = nnx.state(model).filter(lambda path, variable: not isinstance(variable, transient))
    shapes = {}
    for path, variable in nnx.to_flat_state(kept):
        kind = type(variable).__name__
        name = ".".join(map(str, ("params", "params" if kind == "Param" else kind, *path)))
        shapes[name] = list(variable.get_value().shape)
    return shapes


def main() -> int:
    """Answers the requests on standard input."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    for line in sys.stdin:
        answer: dict[str, Any]
        with contextlib.redirect_stdout(sys.stderr):
            try:
                answer = {"parameters": parameters(**json.loads(line))}
            except Exception as error:  # whatever MaxText says is the answer
                answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
