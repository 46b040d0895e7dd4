"""Orbax itself must read what is written here without being told anything, and what it writes must be read here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as ocp_v1
import pytest

from converters.formats.base import AnyArray, Declared, TensorInfo
from converters.formats.orbax_second_reader import OrbaxElements
from converters.formats.orbax_sink import OrbaxSink
from converters.formats.orbax_source import OrbaxSource
from converters.formats.regions import whole

RANDOM = np.random.default_rng(0)


def bf16(*shape: int) -> AnyArray:
    """Values of every exponent, so that a detour over another type would show."""
    return RANDOM.integers(0, 0x7F80, shape, dtype=np.uint16).view(ml_dtypes.bfloat16)


ARRAYS: dict[str, tuple[AnyArray, tuple[int, ...]]] = {
    "params.params.decoder.layers.mlp.wi_0.kernel": (bf16(16, 3, 10), (4, 1, 10)),
    "params.params.decoder.logits_dense.kernel": (np.zeros((6, 4), ml_dtypes.bfloat16), (3, 4)),
    "params.params.decoder.decoder_norm.scale": (RANDOM.standard_normal(7).astype(np.float32), (7,)),
    "params.params.token_embedder.embedding": (
        np.concatenate([bf16(5, 8), np.zeros((3, 8), ml_dtypes.bfloat16)]),
        (2, 8),
    ),
    "params.params.gate": (np.asarray(1.5, np.float32), ()),
}


def written(directory: Path, **options: Any) -> Path:
    directory.mkdir(exist_ok=True)
    sink = OrbaxSink(directory, custom_metadata={"scan_layers": True}, **options)
    sink.declare([Declared(TensorInfo(n, a.shape, a.dtype.name), chunk) for n, (a, chunk) in ARRAYS.items()])
    for name, (array, chunk) in ARRAYS.items():
        if not chunk:
            sink.write(name, (), array)
            continue
        for start in range(0, array.shape[0], chunk[0]):
            stop = min(start + chunk[0], array.shape[0])
            sink.write(name, ((start, stop), *whole(array.shape[1:])), array[start:stop])
    sink.commit()
    return directory


def check(tree: Any, step: int = 0) -> None:
    assert tree["step"] == step
    assert tree["opt_state"] == {}
    leaves = jax.tree_util.tree_leaves_with_path(tree["params"])
    assert len(leaves) == len(ARRAYS)
    for path, leaf in leaves:
        expected, _ = ARRAYS[".".join(["params", *(key.key for key in path)])]
        found = np.asarray(leaf)
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()


def by_pytree(root: Path, step: int) -> Any:
    return ocp.PyTreeCheckpointer().restore(root / str(step) / "items")


def by_standard(root: Path, step: int) -> Any:
    return ocp.StandardCheckpointer().restore(root / str(step) / "items")


def by_manager(root: Path, step: int) -> Any:
    with ocp.CheckpointManager(root) as manager:
        assert manager.latest_step() == step
        return manager.restore(step)["items"]


def by_v1(root: Path, step: int) -> Any:
    return ocp_v1.load_checkpointables(root / str(step))["items"]


def by_v1_named(root: Path, step: int) -> Any:
    return ocp_v1.load(root / str(step), checkpointable_name="items")


READERS = [by_pytree, by_standard, by_manager, by_v1, by_v1_named]


@pytest.mark.parametrize("compression", ["none", "zstd:1"])
@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_orbax_restores_every_bit_without_arguments(tmp_path: Path, zarr3: bool, ocdbt: bool, compression: str) -> None:
    written(tmp_path, compression=compression, use_zarr3=zarr3, use_ocdbt=ocdbt)
    for read in READERS:
        check(read(tmp_path, 0))


@pytest.mark.parametrize("zarr3", [True, False])
@pytest.mark.parametrize("ocdbt", [True, False])
def test_both_readers_here_read_what_was_written_in_each_form(tmp_path: Path, zarr3: bool, ocdbt: bool) -> None:
    items = written(tmp_path, compression="zstd:1", use_zarr3=zarr3, use_ocdbt=ocdbt) / "0" / "items"
    source, elements = OrbaxSource(items), OrbaxElements(items)
    for name, (array, chunk) in ARRAYS.items():
        assert source.read(name, whole(array.shape)).tobytes() == array.tobytes()
        assert source.chunk(name) == chunk
        points = np.argwhere(np.ones(array.shape, bool)).reshape(array.size, array.ndim)
        assert elements.read(name, points).tobytes() == array.tobytes()


@pytest.mark.parametrize("read", READERS)
def test_orbax_restores_a_later_step(tmp_path: Path, read: Callable[[Path, int], Any]) -> None:
    check(read(written(tmp_path, step=1200), 1200), 1200)


def test_orbax_restores_it_on_several_devices(tmp_path: Path) -> None:
    written(tmp_path)
    code = (
        "import sys, jax, pathlib\n"
        "from converters.formats import orbax_peer_test as peer\n"
        "assert jax.device_count() == 4\n"
        "for read in peer.READERS:\n"
        "    tree = read(pathlib.Path(sys.argv[1]), 0)\n"
        "    assert tree['params']['params']['gate'] == 1.5 and tree['step'] == 0\n"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)


def test_orbax_sees_the_custom_metadata_of_the_step(tmp_path: Path) -> None:
    with ocp.CheckpointManager(written(tmp_path)) as manager:
        assert manager.metadata(0).custom_metadata == {"scan_layers": True}


def test_orbax_restores_a_part_of_the_tree_as_maxtext_does(tmp_path: Path) -> None:
    name = "params.params.decoder.decoder_norm.scale"
    expected, _ = ARRAYS[name]
    item = {"params": {"params": {"decoder": {"decoder_norm": {"scale": jnp.zeros(expected.shape, expected.dtype)}}}}}
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    path = written(tmp_path) / "0" / "items"
    tree = checkpointer.restore(path, args=ocp.args.PyTreeRestore(item, restore_args=arguments, transforms={}))
    assert np.asarray(tree["params"]["params"]["decoder"]["decoder_norm"]["scale"]).tolist() == expected.tolist()


def training_state() -> dict[str, Any]:
    weights = {"params": {"decoder": {"kernel": jnp.asarray(bf16(8, 6)), "scale": jnp.arange(5.0)}}}
    moments = jax.tree.map(lambda x: x.astype(jnp.float32) * 2, weights)
    return {
        "params": weights,
        "opt_state": [{"count": jnp.asarray(3), "mu": moments}, None, {"count": np.int64(4)}, {}],
        "step": 12,
    }


def save(path: Path, state: Any, **options: Any) -> None:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(state))


@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_a_training_state_that_orbax_wrote_is_read(tmp_path: Path, ocdbt: bool, zarr3: bool) -> None:
    state = training_state()
    save(tmp_path / "state", state, use_ocdbt=ocdbt, use_zarr3=zarr3)
    source = OrbaxSource(tmp_path / "state")
    expected = {
        "params.params.decoder.kernel": state["params"]["params"]["decoder"]["kernel"],
        "params.params.decoder.scale": state["params"]["params"]["decoder"]["scale"],
        "opt_state.0.count": np.asarray(3, np.int32),
        "opt_state.0.mu.params.decoder.kernel": state["opt_state"][0]["mu"]["params"]["decoder"]["kernel"],
        "opt_state.0.mu.params.decoder.scale": state["opt_state"][0]["mu"]["params"]["decoder"]["scale"],
        "opt_state.2.count": np.asarray(4),
        "step": np.asarray(12),
    }
    assert set(source.tensors) == set(expected)
    assert dict(source.without_data) == {"opt_state.1": "None", "opt_state.3": "Dict"}
    elements = OrbaxElements(tmp_path / "state")
    for name, leaf in expected.items():
        array = np.asarray(leaf)
        found = source.read(name, whole(array.shape))
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        last = np.array([[size - 1 for size in array.shape]])
        assert elements.read(name, last).tobytes() == array.reshape(-1)[-1:].tobytes()


def test_a_step_that_a_checkpoint_manager_wrote_is_found(tmp_path: Path) -> None:
    with ocp.CheckpointManager(tmp_path, item_names=("items",)) as manager:
        for step in (2, 10):
            tree = {"params": {"w": np.full(3, step, np.float32)}}
            arguments = ocp.args.Composite(items=ocp.args.PyTreeSave(tree))
            manager.save(step, args=arguments, custom_metadata={"scan_layers": False})
    source = OrbaxSource(tmp_path)
    assert (source.location.step, source.location.other_steps) == (10, (2,))
    assert source.custom_metadata == {"scan_layers": False}
    assert source.read("params.w", ((0, 3),)).tolist() == [10.0, 10.0, 10.0]


def test_a_checkpoint_that_orbax_v1_wrote_is_found(tmp_path: Path) -> None:
    ocp_v1.save(tmp_path / "ckpt", {"w": np.arange(3, dtype=np.float32)})
    source = OrbaxSource(tmp_path / "ckpt")
    assert source.read("w", ((0, 3),)).tolist() == [0.0, 1.0, 2.0]
