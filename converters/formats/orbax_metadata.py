"""The JSON files by which Orbax knows a checkpoint: `_METADATA` of an item and `_CHECKPOINT_METADATA` of a step.

Written for Orbax 0.11 and later; read from any version that stores a PyTree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.formats.json_files import JsonFault, dump, is_text, printable, read_object
from converters.formats.storage_errors import reading
from reporting.diagnostics import Diagnostic, RecastError, raise_all

TREE_FILE = "_METADATA"
STEP_FILE = "_CHECKPOINT_METADATA"
COMMIT_FILE = "commit_success.txt"
TEMPORARY_MARK = ".orbax-checkpoint-tmp"
SEQUENCE_KEY = 1
DICT_KEY = 2
_HANDLER = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
_STORES_ZEROS = "store_array_data_equal_to_fill_value"
_VALUE_KEY = "value"
_EMPTY_TYPES = frozenset({"None", "Dict", "List", "Tuple", "NamedTuple"})


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of the saved tree.

    Attributes:
        keys: the keys that lead to it.
        key_types: SEQUENCE_KEY or DICT_KEY for each key.
        value_type: "np.ndarray", "jax.Array", "scalar", "string", or the type of an empty container.
        skip: whether nothing is stored for it.
    """

    keys: tuple[str, ...]
    key_types: tuple[int, ...]
    value_type: str
    skip: bool = False

    @property
    def name(self) -> str:
        """The keys joined by dots: the name of its array in the database."""
        return ".".join(self.keys)

    @property
    def is_array(self) -> bool:
        """Whether an array is stored for it."""
        return not self.skip and self.value_type not in _EMPTY_TYPES and self.value_type != "string"


@dataclasses.dataclass(frozen=True)
class Tree:
    """What `_METADATA` says.

    Attributes:
        leaves: all leaves by name.
        use_ocdbt: whether arrays are in an OCDBT database; None where the file does not say.
        use_zarr3: whether arrays are zarr version 3, else version 2.
        stores_zeros: whether chunks that hold only zeros were stored, so that a missing chunk is a lost one.
        custom_metadata: what the writer added.
    """

    leaves: Mapping[str, Leaf]
    use_ocdbt: bool | None
    use_zarr3: bool
    stores_zeros: bool
    custom_metadata: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """What `_CHECKPOINT_METADATA` says.

    Attributes:
        finished: False where it was written at the start of a save and never completed.
        custom_metadata: what the writer added, such as MaxText's scan_layers.
    """

    finished: bool
    custom_metadata: Mapping[str, Any]


def array_leaf(name: str) -> Leaf:
    """The leaf of an array with a dotted name, below dictionaries only.

    `np.ndarray`, and not `jax.Array`, so that Orbax restores it without being told a sharding.
    """
    return _dict_leaf(name, "np.ndarray")


def scalar_leaf(name: str) -> Leaf:
    """The leaf of a Python number."""
    return _dict_leaf(name, "scalar")


def empty_dict_leaf(name: str) -> Leaf:
    """The leaf of an empty dictionary."""
    return _dict_leaf(name, "Dict", skip=True)


def tree_bytes(
    leaves: Iterable[Leaf],
    custom_metadata: Mapping[str, Any] | None = None,
    *,
    use_zarr3: bool = True,
    use_ocdbt: bool = True,
) -> bytes:
    """`_METADATA` of arrays of which every chunk is stored."""
    entries = {
        str(leaf.keys): {
            "key_metadata": [{"key": k, "key_type": t} for k, t in zip(leaf.keys, leaf.key_types, strict=True)],
            "value_metadata": {"value_type": leaf.value_type, "skip_deserialize": leaf.skip},
        }
        for leaf in leaves
    }
    return dump(
        {
            "tree_metadata": entries,
            "use_ocdbt": use_ocdbt,
            "use_zarr3": use_zarr3,
            _STORES_ZEROS: True,
            "custom_metadata": dict(custom_metadata) if custom_metadata else None,
        }
    )


def step_bytes(item: str, started_ns: int, committed_ns: int, custom_metadata: Mapping[str, Any]) -> bytes:
    """`_CHECKPOINT_METADATA` of a step with one item.

    The handler is that of Orbax v0: a CheckpointManager of any version restores it without arguments.

    Args:
        item: name of the item's directory.
        started_ns: when the save began, nanoseconds since 1970.
        committed_ns: when it ended.
        custom_metadata: JSON values, such as {"scan_layers": True}.
    """
    return dump(
        {
            "item_handlers": {item: _HANDLER},
            "metrics": {},
            "performance_metrics": {},
            "init_timestamp_nsecs": started_ns,
            "commit_timestamp_nsecs": committed_ns,
            "custom_metadata": dict(custom_metadata),
        }
    )


def array_names(leaves: Mapping[str, Leaf]) -> Iterator[tuple[str, Leaf]]:
    """Each leaf that has an array, under the name by which it is known.

    A leaf with the key "value" that is the only one below its parent, as NNX writes each parameter, takes the name of
    its parent.
    """
    children: dict[tuple[str, ...], int] = {}
    for leaf in leaves.values():
        for depth in range(len(leaf.keys)):
            parent = leaf.keys[:depth]
            children[parent] = children.get(parent, 0) + 1
    for leaf in leaves.values():
        if not leaf.is_array:
            continue
        wrapped = len(leaf.keys) > 1 and leaf.keys[-1] == _VALUE_KEY and leaf.key_types[-1] == DICT_KEY
        if wrapped and children[leaf.keys[:-1]] == 1:
            yield ".".join(leaf.keys[:-1]), leaf
        else:
            yield leaf.name, leaf


def read_tree(path: Path) -> Tree:
    """`_METADATA` at a path.

    Raises:
        RecastError: ORBAX_METADATA_INVALID and PATH_ESCAPES, all at once; INPUT_OUTPUT.
    """
    fields = _read(path)
    entries = fields.get("tree_metadata")
    if not isinstance(entries, dict):
        raise RecastError.of("ORBAX_METADATA_INVALID", f"{path.name} has no tree_metadata", subject=path.name)
    leaves: dict[str, Leaf] = {}
    found: list[Diagnostic] = []
    for label, entry in entries.items():
        try:
            leaf = _leaf(entry)
        except JsonFault as fault:
            reason = f"{path.name}: the leaf {printable(label)} {fault}"
            found.append(Diagnostic("ORBAX_METADATA_INVALID", reason, subject=printable(label)))
            continue
        if not is_safe_name(leaf.name):
            reason = f"{path.name} names the array {printable(leaf.name)}, which is not a path inside of its item"
            found.append(Diagnostic("PATH_ESCAPES", reason, subject=printable(leaf.name)))
        elif leaf.name in leaves:
            reason = f"{path.name}: two leaves share the name {printable(leaf.name)}"
            found.append(Diagnostic("ORBAX_METADATA_INVALID", reason, subject=printable(leaf.name)))
        else:
            leaves[leaf.name] = leaf
    flags = {}
    for flag in ("use_ocdbt", "use_zarr3", _STORES_ZEROS):
        flags[flag] = fields.get(flag)
        if flags[flag] is not None and not isinstance(flags[flag], bool):
            reason = f"{path.name}: {flag} is not a truth value"
            found.append(Diagnostic("ORBAX_METADATA_INVALID", reason, subject=path.name))
    custom = _custom(fields, path, found)
    raise_all(found)
    return Tree(leaves, flags["use_ocdbt"], bool(flags["use_zarr3"]), bool(flags[_STORES_ZEROS]), custom)


def read_step(path: Path) -> Step:
    """`_CHECKPOINT_METADATA` at a path; raises RecastError: ORBAX_METADATA_INVALID, INPUT_OUTPUT."""
    fields = _read(path)
    found: list[Diagnostic] = []
    custom = _custom(fields, path, found)
    raise_all(found)
    finished = fields.get("init_timestamp_nsecs") is None or fields.get("commit_timestamp_nsecs") is not None
    return Step(finished, custom)


def is_safe_name(name: str) -> bool:
    """Whether an array's name stays inside of its item when it is used as a relative path.

    Slashes are allowed: checkpoints of Flax models have keys such as "transformer/layer_0/attn".
    """
    if not is_text(name) or "\\" in name or "\0" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _dict_leaf(name: str, value_type: str, *, skip: bool = False) -> Leaf:
    keys = tuple(name.split("."))
    return Leaf(keys, (DICT_KEY,) * len(keys), value_type, skip)


def _read(path: Path) -> dict[str, Any]:
    try:
        with reading(path):
            return read_object(path)
    except JsonFault as fault:
        raise RecastError.of("ORBAX_METADATA_INVALID", f"{path.name}: {fault}", subject=path.name) from fault


def _custom(fields: Mapping[str, Any], path: Path, found: list[Diagnostic]) -> dict[str, Any]:
    custom = fields.get("custom_metadata")
    if custom is None:
        return {}
    if not isinstance(custom, dict):
        found.append(
            Diagnostic("ORBAX_METADATA_INVALID", f"{path.name}: custom_metadata is not an object", subject=path.name)
        )
        return {}
    return custom


def _leaf(entry: object) -> Leaf:
    if not isinstance(entry, dict):
        raise JsonFault("is not an object")
    path = entry.get("key_metadata")
    if not isinstance(path, list) or not path:
        raise JsonFault("has no key_metadata")
    keys = tuple(_key(key) for key in path)
    value = entry.get("value_metadata")
    if not isinstance(value, dict) or not is_text(value.get("value_type")):
        raise JsonFault("has no value_type")
    skip = value.get("skip_deserialize", False)
    if not isinstance(skip, bool):
        raise JsonFault("has a skip_deserialize that is not a truth value")
    return Leaf(tuple(k for k, _ in keys), tuple(t for _, t in keys), value["value_type"], skip)


def _key(entry: object) -> tuple[str, int]:
    if not isinstance(entry, dict) or not is_text(entry.get("key")) or type(entry.get("key_type")) is not int:
        raise JsonFault("has a key without a name and a type")
    key, kind = entry["key"], entry["key_type"]
    if kind not in (SEQUENCE_KEY, DICT_KEY):
        raise JsonFault(f"has a key of type {kind}")
    if kind == SEQUENCE_KEY and not (key.isascii() and key.isdigit()):
        raise JsonFault(f"has the list position {printable(key)}")
    return key, kind
