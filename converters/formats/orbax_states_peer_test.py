"""Trees of every kind that Orbax saves: read here as it restores them, written here so that it restores them."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as ocp_v1
import pytest
import tensorstore as ts
from orbax.checkpoint._src.serialization import ocdbt_utils

from converters.formats.base import AnyArray, Declared, TensorInfo
from converters.formats.ocdbt_files import reachable_files
from converters.formats.orbax_second_reader import OrbaxElements
from converters.formats.orbax_sink import OrbaxSink
from converters.formats.orbax_source import OrbaxSource
from converters.formats.regions import whole

RANDOM = np.random.default_rng(1)


class Pair(NamedTuple):
    """A state of an optimizer of one's own."""

    first: Any
    second: Any


def weights() -> dict[str, Any]:
    kernel = jnp.asarray(RANDOM.standard_normal((8, 3, 6)), jnp.bfloat16)
    return {"params": {"decoder": {"layers": {"kernel": kernel}, "scale": jnp.arange(5.0)}}}


def adamw() -> dict[str, Any]:
    """As a trainer keeps it: chained transformations, a schedule, a mask with holes, two steps taken."""
    params = weights()
    schedule = optax.linear_schedule(1e-3, 0.0, 10)
    mask = jax.tree.map(lambda x: x.ndim > 1, params)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1, mask=mask))
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return {"params": params, "opt_state": state, "step": jnp.asarray(2, jnp.int32)}


def containers() -> dict[str, Any]:
    """Every kind of container and leaf, empty ones too."""
    return {
        "list": [np.arange(3), [np.asarray(2.5, np.float32), None]],
        "tuple": (np.ones((2, 2), np.int8), ()),
        "pair": Pair(jnp.zeros((), jnp.uint32), {"deep": np.arange(4, dtype=np.uint8)}),
        "empty": {"dict": {}, "list": [], "none": None},
        "numbers": {"int": 7, "float": 0.5, "flag": np.asarray(True)},
        "rngs": {"key": jnp.asarray([1, 0xFFFFFFFF], jnp.uint32)},
    }


def nnx() -> dict[str, Any]:
    tree = weights()["params"]
    return {
        "model": jax.tree.map(lambda x: {"value": x}, tree),
        "attention": {"value": np.arange(2), "key": np.ones(1)},
    }


STATES = [adamw, containers, nnx]


def save_v0(path: Path, state: Any, **options: Any) -> None:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(state))


def save_v1(path: Path, state: Any, **options: Any) -> None:
    context = ocp_v1.Context()
    for name, value in options.items():
        setattr(context.array.saving, name, value)
    with context:
        ocp_v1.save(path, state)


def arrays_of(tree: Any) -> dict[str, AnyArray]:
    """What a restored or saved tree holds, by dotted path, by JAX's own walk."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(_key(key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def _key(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))


def same(found: AnyArray, expected: AnyArray) -> bool:
    return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def check_read(path: Path, expected: Mapping[str, AnyArray]) -> None:
    """Both readers return every array, under its stored name, bit for bit."""
    source = OrbaxSource(path)
    elements = OrbaxElements(source.location.items)
    stored = {source.leaves[name].name: name for name in source.tensors}
    assert set(stored) == set(expected)
    for name, array in expected.items():
        assert same(source.read(stored[name], whole(array.shape)), array), name
        points = np.argwhere(np.ones(array.shape, bool)).reshape(array.size, array.ndim)
        assert elements.read(name, points).tobytes() == array.tobytes(), name


@pytest.mark.parametrize("make", STATES)
@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_what_orbax_v0_saved_is_read_as_it_restores_it(tmp_path: Path, make: Any, zarr3: bool, ocdbt: bool) -> None:
    state = make()
    save_v0(tmp_path / "state", state, use_ocdbt=ocdbt, use_zarr3=zarr3)
    saved = arrays_of(state)
    assert {n: a.tobytes() for n, a in arrays_of(ocp.PyTreeCheckpointer().restore(tmp_path / "state")).items()} == {
        n: a.tobytes() for n, a in saved.items()
    }
    check_read(tmp_path / "state", saved)


@pytest.mark.parametrize("make", STATES)
@pytest.mark.parametrize("options", [{}, {"use_ocdbt": False}, {"use_ocdbt": False, "use_zarr3": False}])
def test_what_orbax_v1_saved_is_read(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    state = make()
    save_v1(tmp_path / "state", state, **options)
    check_read(tmp_path / "state", arrays_of(state))


def sharded() -> dict[str, Any]:
    """Cut over all devices as MaxText's default is: on the first axis, so that each chunk spans all layers."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("fsdp",))
    random = np.random.default_rng(2)
    shapes = {"kernel": (32, 3, 10), "wide": (6, 48), "scale": (32, 3), "odd": (7,)}
    cuts = {"kernel": ("fsdp",), "wide": (None, "fsdp"), "scale": ("fsdp",), "odd": ()}

    def place(name: str, dtype: Any) -> Any:
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*cuts[name]))
        return jax.device_put(random.standard_normal(shapes[name]).astype(dtype), sharding)

    params = {"params": {"decoder": {name: place(name, jnp.bfloat16) for name in shapes}}}
    moments = {"params": {"decoder": {name: place(name, np.float32) for name in shapes}}}
    return {"params": params, "opt_state": [{"mu": moments, "count": jnp.asarray(9)}, None], "step": jnp.asarray(9)}


def save_sharded(directory: Path) -> None:
    """Run by a process of its own, which has 16 devices."""
    assert jax.device_count() == 16
    state = sharded()
    words: dict[str, Any] = {name: array.view(f"u{array.itemsize}") for name, array in arrays_of(state).items()}
    np.savez(directory / "expected.npz", **words)
    save_v0(directory / "default", state)
    save_v0(directory / "zarr3", state, use_zarr3=True)
    save_v0(directory / "plain", state, use_zarr3=False, use_ocdbt=False)
    save_v1(directory / "v1", state)


@pytest.fixture(name="sixteen", scope="module")
def _sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sixteen")
    code = (
        "import sys, pathlib\n"
        "from converters.formats import orbax_states_peer_test as peer\n"
        "peer.save_sharded(pathlib.Path(sys.argv[1]))\n"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=16", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(directory)], env=environment, check=True)
    return directory


@pytest.mark.parametrize("name", ["default", "zarr3", "plain", "v1"])
def test_what_sixteen_devices_saved_is_read_as_orbax_restores_it(sixteen: Path, name: str) -> None:
    source = OrbaxSource(sixteen / name)
    items = source.location.items
    assert source.chunk("params.params.decoder.kernel") == (2, 3, 10)
    assert source.chunk("params.params.decoder.wide") == (6, 3)
    assert (items / "ocdbt.process_0").is_dir() == (name != "plain")
    restored = ocp.PyTreeCheckpointer().restore(
        items, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), sharded_shape())
    )
    check_read(sixteen / name, arrays_of(restored))
    expected = np.load(sixteen / "expected.npz")
    assert {n: a.tobytes() for n, a in arrays_of(restored).items()} == {n: expected[n].tobytes() for n in expected}


def sharded_shape() -> dict[str, Any]:
    """The tree of `sharded`, with numbers for arrays."""
    leaves = dict.fromkeys(("kernel", "wide", "scale", "odd"), 0)
    params = {"params": {"decoder": leaves}}
    return {"params": params, "opt_state": [{"mu": params, "count": 0}, None], "step": 0}


@pytest.mark.parametrize("driver", ["zarr3", "zarr"])
def test_databases_of_several_processes_are_read_as_orbax_merges_them(tmp_path: Path, driver: str) -> None:
    array = RANDOM.integers(0, 1000, (8, 5), dtype=np.int32)
    items: Any = tmp_path / "state"
    save_v0(items, {"w": array}, use_zarr3=driver == "zarr3", use_ocdbt=True)
    for left in (items / "d", items / "ocdbt.process_0"):
        shutil.rmtree(left, ignore_errors=True)
    (items / "manifest.ocdbt").unlink()
    chunks = {"chunk_layout": {"chunk": {"shape": [4, 5]}}}
    for process in (0, 1):
        base = {"driver": "file", "path": f"{items}/ocdbt.process_{process}/"}
        config = {"max_inline_value_bytes": 0}
        spec = {"driver": driver, "kvstore": {"driver": "ocdbt", "base": base, "path": "w/", "config": config}}
        store = ts.open({**spec, "schema": chunks}, create=True, dtype=ts.int32, shape=array.shape).result()
        half = slice(4 * process, 4 * process + 4)
        store[half].write(array[half]).result()
    merged = ocdbt_utils.merge_ocdbt_per_process_files(items, ts.Context({"cache_pool#ocdbt": {}}), driver == "zarr3")
    asyncio.run(merged)
    check_read(items, {"w": array})
    assert {name.split("/")[0] for name in reachable_files(items)} > {"ocdbt.process_0", "ocdbt.process_1"}


@pytest.mark.parametrize("make", STATES)
@pytest.mark.parametrize("ocdbt", [True, False])
@pytest.mark.parametrize("zarr3", [True, False])
def test_a_tree_that_was_read_is_written_so_that_orbax_restores_the_same(
    tmp_path: Path, make: Any, zarr3: bool, ocdbt: bool
) -> None:
    save_v0(tmp_path / "state", make())
    source = OrbaxSource(tmp_path / "state")
    copy(source, tmp_path, use_zarr3=zarr3, use_ocdbt=ocdbt)
    expected = ocp.PyTreeCheckpointer().restore(tmp_path / "state")
    items = tmp_path / "0" / "items"
    for restored in (
        ocp.PyTreeCheckpointer().restore(items),
        ocp.StandardCheckpointer().restore(items),
        ocp_v1.load(tmp_path / "0", checkpointable_name="items"),
    ):
        assert jax.tree.structure(restored, is_leaf=_hole) == jax.tree.structure(expected, is_leaf=_hole)
        found = arrays_of(restored)
        for name, array in arrays_of(expected).items():
            assert same(found[name], array), name
    assert OrbaxSource(tmp_path).leaves.keys() == source.leaves.keys()


def _hole(value: Any) -> bool:
    return value is None


def copy(source: OrbaxSource, directory: Path, **options: Any) -> None:
    sink = OrbaxSink(directory, leaves=source.leaves, **options)
    sink.declare([Declared(TensorInfo(n, i.shape, i.dtype), i.shape) for n, i in source.tensors.items()])
    for name, info in source.tensors.items():
        sink.write(name, whole(info.shape), source.read(name, whole(info.shape)))
    sink.commit()
