"""Training states that cannot be converted as asked; each is refused with one clear report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

from tests import training_states
from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.running import Run, recast
from tests.training_states import Tree

WI_0 = "params.params.decoder.layers_1.mlp.wi_0.kernel"
ADAM = optax.adam(1e-3)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return training_states.write_config(tmp_path / "config")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a test saves its training state."""
    return tmp_path / "source" / "4"


def restacked(source: Path, destination: Path, config: Path, *flags: str) -> Run:
    return recast(
        "maxtext-to-maxtext",
        f"--load_full_state_path={source}",
        f"--base_output_directory={destination}",
        f"--hf_config_path={config}",
        *flags,
    )


def refuses(source: Path, destination: Path, config: Path, flags: tuple[str, ...], *faults: Fault) -> None:
    with unchanged(source):
        run = restacked(source, destination, config, *flags)
    refused(run, *faults)
    assert not destination.exists()


def changed(tree: Tree, path: str, change: Any) -> Tree:
    """A copy of a tree with one leaf changed, or removed where the change is None."""
    if not isinstance(tree, Mapping):
        tree = tree._asdict()
    first, _, rest = path.partition(".")
    below = dict(tree)
    if rest:
        below[first] = changed(below[first], rest, change)
    elif change is None:
        del below[first]
    else:
        below[first] = change(below[first])
    return below


@triggers("TRAIN_STATE_MISSING")
@pytest.mark.parametrize("flags", [(), ("--scan_layers=true",), ("--train_state=keep",)])
def test_weights_alone_are_no_training_state(
    flags: tuple[str, ...], source: Path, destination: Path, config: Path
) -> None:
    params = training_states.training_state(optax.sgd(0.1))["params"]
    training_states.save_v0({"params": params, "opt_state": {}, "step": np.int64(4)}, source)
    refuses(source.parent, destination, config, flags, Fault("TRAIN_STATE_MISSING", "only weights"))


@triggers("INVALID_FLAG")
def test_a_state_that_is_there_is_not_silently_replaced(source: Path, destination: Path, config: Path) -> None:
    training_states.save_v0(training_states.training_state(ADAM), source)
    fault = Fault("INVALID_FLAG", "--init_train_state")
    refuses(source, destination, config, ("--init_train_state=adam",), fault)


@triggers("TRAIN_STATE_INCOMPLETE")
@pytest.mark.parametrize("flags", [(), ("--scan_layers=true",)])
def test_moments_that_are_partly_gone_are_named(
    flags: tuple[str, ...], source: Path, destination: Path, config: Path
) -> None:
    state = training_states.training_state(ADAM)
    first = changed(state["opt_state"][0], "nu.params.decoder.layers_1.mlp.wi_0.kernel", None)
    training_states.save_v0({**state, "opt_state": (first, None)}, source)
    gone = "opt_state.0.nu.params.decoder.layers_1.mlp.wi_0.kernel"
    refuses(source, destination, config, flags, Fault("TRAIN_STATE_INCOMPLETE", "opt_state.0.nu", gone))


@triggers("TRAIN_STATE_NOT_RESTACKABLE")
def test_factored_moments_are_not_restacked(source: Path, destination: Path, config: Path) -> None:
    state = training_states.training_state(optax.adafactor(1e-3, min_dim_size_to_factor=4))
    training_states.save_v0(state, source)
    faults = [Fault("TRAIN_STATE_NOT_RESTACKABLE", f"opt_state.0.{name}") for name in ("v", "v_col", "v_row")]
    refuses(source, destination, config, ("--scan_layers=true",), *faults)


@triggers("TRAIN_STATE_NOT_RESTACKABLE")
def test_moments_below_a_key_with_a_dot_are_not_restacked(source: Path, destination: Path, config: Path) -> None:
    state = training_states.training_state(ADAM)
    moments = state["opt_state"][0].mu["params"]
    training_states.save_v0({**state, "opt_state": ({"mu.params": moments}, None)}, source)
    fault = Fault("TRAIN_STATE_NOT_RESTACKABLE", "opt_state.0.mu", "mu.params, with a dot")
    refuses(source, destination, config, ("--scan_layers=true",), fault)


@triggers("CANNOT_STACK")
def test_layers_of_another_shape_are_named(source: Path, destination: Path, config: Path) -> None:
    state = training_states.training_state(optax.sgd(0.1))
    params = changed(state["params"], "params.decoder.layers_1.mlp.wi_0.kernel", lambda array: array[:, :7])
    training_states.save_v0({**state, "params": params}, source)
    fault = Fault("CANNOT_STACK", WI_0, "[18, 7]", "[18, 23]")
    refuses(source, destination, config, ("--scan_layers=true",), fault)


@triggers("CANNOT_STACK")
def test_layers_of_another_dtype_are_named(source: Path, destination: Path, config: Path) -> None:
    state = training_states.training_state(optax.sgd(0.1))
    params = changed(state["params"], "params.decoder.layers_1.mlp.wi_0.kernel", lambda array: array.astype("bfloat16"))
    training_states.save_v0({**state, "params": params}, source)
    fault = Fault("CANNOT_STACK", WI_0, "bfloat16", "float32")
    refuses(source, destination, config, ("--scan_layers=true",), fault)


@triggers("CANNOT_STACK")
def test_moments_of_another_dtype_are_named(source: Path, destination: Path, config: Path) -> None:
    state = training_states.training_state(ADAM)
    path = "mu.params.decoder.layers_1.mlp.wi_0.kernel"
    first = changed(state["opt_state"][0], path, lambda array: array.astype("bfloat16"))
    training_states.save_v0({**state, "opt_state": (first, None)}, source)
    fault = Fault("CANNOT_STACK", "opt_state.0.mu.params.decoder.layers.mlp.wi_0.kernel", "bfloat16, float32")
    refuses(source, destination, config, ("--scan_layers=true",), fault)


@triggers("CANNOT_STACK")
def test_an_optimizer_of_some_layers_only_cannot_be_stacked(source: Path, destination: Path, config: Path) -> None:
    def first_layer(params: Tree) -> Tree:
        import jax

        return jax.tree_util.tree_map_with_path(
            lambda path, _: "layers_0" in jax.tree_util.keystr(path) and "wo" in jax.tree_util.keystr(path), params
        )

    training_states.save_v0(training_states.training_state(optax.masked(optax.trace(0.9), first_layer)), source)
    fault = Fault("CANNOT_STACK", "mlp.wo.kernel", "params.params.decoder.layers_1.mlp.wo.kernel")
    refuses(source, destination, config, ("--scan_layers=true",), fault)


@triggers("INVALID_FLAG")
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "neither was given"),
        (("--load_parameters_path=a", "--load_full_state_path=b"), "both were given"),
        (("--load_parameters_path=a", "--train_state=strip", "--init_train_state=adam"), "--train_state=strip"),
        (("--load_parameters_path=a", "--init_train_state=sgd"), "adam"),
        (("--load_parameters_path=a", "--step=-1"), "step"),
        (("--load_parameters_path=a", f"--step={2**63}"), "step"),
    ],
    ids=["neither", "both", "strip_and_init", "unknown_optimizer", "negative_step", "huge_step"],
)
def test_flags_that_contradict_each_other(flags: tuple[str, ...], says: str, destination: Path) -> None:
    run = recast("maxtext-to-maxtext", f"--base_output_directory={destination}", *flags)
    refused(run, Fault("INVALID_FLAG", says))


@triggers("SOURCE_NOT_FOUND")
def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, destination: Path) -> None:
    for number in ("2", "10", "²"):
        (tmp_path / "ckpt" / number).mkdir(parents=True)
    run = recast(
        "maxtext-to-maxtext",
        f"--load_full_state_path={tmp_path / 'ckpt'}",
        f"--base_output_directory={destination}",
        "--step=3",
    )
    refused(run, Fault("SOURCE_NOT_FOUND", "no step 3", "2, 10"))


@triggers("REMOTE_NOT_SUPPORTED")
def test_a_remote_state_is_refused(destination: Path) -> None:
    run = recast(
        "maxtext-to-maxtext", "--load_full_state_path=gs://bucket/run", f"--base_output_directory={destination}"
    )
    refused(run, Fault("REMOTE_NOT_SUPPORTED", "--load_full_state_path"))
