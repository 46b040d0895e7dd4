import json
from pathlib import Path
from typing import Any

import pytest

from converters.formats import orbax_metadata
from converters.formats.orbax_metadata import Leaf, is_safe_name, read_step, read_tree
from reporting.diagnostics import RecastError

LEAF = {
    "key_metadata": [{"key": "params", "key_type": 2}, {"key": "a", "key_type": 2}],
    "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
}


def tree_with(leaf: object, **fields: object) -> dict[str, Any]:
    return {"tree_metadata": {"('x',)": leaf}, "use_ocdbt": True, "use_zarr3": True, **fields}


def violations(tmp_path: Path, content: object) -> list[str]:
    path = tmp_path / "_METADATA"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RecastError) as caught:
        read_tree(path)
    return [d.id for d in caught.value.diagnostics]


def keys(*pairs: tuple[object, object]) -> dict[str, Any]:
    return {**LEAF, "key_metadata": [{"key": key, "key_type": kind} for key, kind in pairs]}


def test_a_tree_is_written_as_orbax_writes_it() -> None:
    leaves = [
        orbax_metadata.array_leaf("params.params.n"),
        orbax_metadata.scalar_leaf("step"),
        orbax_metadata.empty_dict_leaf("opt_state"),
    ]
    assert orbax_metadata.tree_bytes(leaves).decode() == (
        """{"tree_metadata": {"('params', 'params', 'n')": {"key_metadata": [{"key": "params", "key_type": 2}, """
        """{"key": "params", "key_type": 2}, {"key": "n", "key_type": 2}], """
        """"value_metadata": {"value_type": "np.ndarray", "skip_deserialize": false}}, """
        """"('step',)": {"key_metadata": [{"key": "step", "key_type": 2}], """
        """"value_metadata": {"value_type": "scalar", "skip_deserialize": false}}, """
        """"('opt_state',)": {"key_metadata": [{"key": "opt_state", "key_type": 2}], """
        """"value_metadata": {"value_type": "Dict", "skip_deserialize": true}}}, """
        """"use_ocdbt": true, "use_zarr3": true, "store_array_data_equal_to_fill_value": true, """
        """"custom_metadata": null}"""
    )


def test_a_step_is_written_as_orbax_writes_it() -> None:
    assert orbax_metadata.step_bytes("items", 5, 7, {"scan_layers": True}).decode() == (
        '{"item_handlers": {"items": '
        '"orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"}, '
        '"metrics": {}, "performance_metrics": {}, "init_timestamp_nsecs": 5, "commit_timestamp_nsecs": 7, '
        '"custom_metadata": {"scan_layers": true}}'
    )


def test_a_training_state_with_lists_and_empty_leaves_is_read(tmp_path: Path) -> None:
    def entry(path: list[tuple[str, int]], kind: str, *, skip: bool) -> dict[str, Any]:
        value = {"value_type": kind, "skip_deserialize": skip, "write_shape": [4], "future": 1}
        return {"key_metadata": [{"key": k, "key_type": t, "future": 1} for k, t in path], "value_metadata": value}

    entries = {
        "1": entry([("opt_state", 2), ("0", 1), ("mu", 2)], "jax.Array", skip=False),
        "2": entry([("opt_state", 2), ("1", 1)], "None", skip=True),
        "3": entry([("step", 2)], "scalar", skip=False),
        "4": entry([("name", 2)], "string", skip=False),
    }
    path = tmp_path / "_METADATA"
    path.write_text(json.dumps({"tree_metadata": entries, "value_metadata_tree": "{}", "custom_metadata": {"a": 1}}))
    tree = read_tree(path)
    assert tree.leaves["opt_state.0.mu"] == Leaf(("opt_state", "0", "mu"), (2, 1, 2), "jax.Array", False)
    assert [name for name, leaf in tree.leaves.items() if leaf.is_array] == ["opt_state.0.mu", "step"]
    assert (tree.use_ocdbt, tree.use_zarr3, tree.stores_zeros) == (None, False, False)
    assert tree.custom_metadata == {"a": 1}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"tree_metadata": []}', '{"tree_metadata": {}, "tree_metadata": {}}']
)
def test_a_file_without_a_tree_is_invalid(tmp_path: Path, content: str) -> None:
    assert violations(tmp_path, content) == ["ORBAX_METADATA_INVALID"]


@pytest.mark.parametrize(
    "leaf",
    [
        1,
        {},
        {**LEAF, "key_metadata": []},
        {**LEAF, "key_metadata": "params"},
        {**LEAF, "key_metadata": ["params"]},
        {**LEAF, "value_metadata": None},
        {**LEAF, "value_metadata": {"value_type": 1}},
        {**LEAF, "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": 1}},
        keys((1, 2)),
        keys(("a", "2")),
        keys(("a", True)),
        keys(("a", 3)),
        keys(("a", 1)),
        keys(("-1", 1)),
        keys(("\u0663", 1)),
    ],
)
def test_a_leaf_with_a_field_of_another_type_is_invalid(tmp_path: Path, leaf: object) -> None:
    assert violations(tmp_path, tree_with(leaf)) == ["ORBAX_METADATA_INVALID"]


@pytest.mark.parametrize("flag", ["use_ocdbt", "use_zarr3", "store_array_data_equal_to_fill_value"])
@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_a_flag_that_is_no_truth_value_is_invalid(tmp_path: Path, flag: str, value: object) -> None:
    assert violations(tmp_path, tree_with(LEAF, **{flag: value})) == ["ORBAX_METADATA_INVALID"]


def test_custom_metadata_that_is_no_object_is_invalid(tmp_path: Path) -> None:
    assert violations(tmp_path, tree_with(LEAF, custom_metadata=[1])) == ["ORBAX_METADATA_INVALID"]


@pytest.mark.parametrize("key", ["..", "/etc/passwd", "a/../../b", "a//b", "a/", "", "a\\b", "a\0b", "./a"])
def test_a_name_that_leaves_its_item_is_refused(tmp_path: Path, key: str) -> None:
    assert violations(tmp_path, tree_with(keys((key, 2)))) == ["PATH_ESCAPES"]


def test_keys_that_join_to_parent_directories_are_refused(tmp_path: Path) -> None:
    assert violations(tmp_path, tree_with(keys(("", 2), ("", 2), ("/x", 2)))) == ["PATH_ESCAPES"]


def test_names_with_slashes_inside_are_allowed() -> None:
    assert is_safe_name("transformer/layer_0/attn/q_einsum.w")
    assert not is_safe_name("\ud800")


def test_two_leaves_with_one_name_are_invalid(tmp_path: Path) -> None:
    tree = tree_with(LEAF)
    tree["tree_metadata"]["('params.a',)"] = keys(("params.a", 2))
    assert violations(tmp_path, tree) == ["ORBAX_METADATA_INVALID"]


def test_all_violations_come_at_once(tmp_path: Path) -> None:
    tree = tree_with(1, use_zarr3="no", custom_metadata=1)
    tree["tree_metadata"]["y"] = keys(("..", 2))
    expected = ["ORBAX_METADATA_INVALID", "PATH_ESCAPES", "ORBAX_METADATA_INVALID", "ORBAX_METADATA_INVALID"]
    assert violations(tmp_path, tree) == expected


@pytest.mark.parametrize(
    ("fields", "finished"),
    [
        ({"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2}, True),
        ({"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": None}, False),
        ({"init_timestamp_nsecs": 1}, False),
        ({}, True),
    ],
)
def test_a_step_is_finished_when_it_has_a_commit_time_or_no_times(
    tmp_path: Path, fields: dict[str, object], finished: bool
) -> None:
    path = tmp_path / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps({**fields, "custom_metadata": {"scan_layers": False}, "future": []}))
    step = read_step(path)
    assert step.finished is finished
    assert step.custom_metadata == {"scan_layers": False}


@pytest.mark.parametrize("content", ["", "[]", '{"custom_metadata": 1}'])
def test_step_metadata_that_is_damaged_is_invalid(tmp_path: Path, content: str) -> None:
    path = tmp_path / "_CHECKPOINT_METADATA"
    path.write_text(content)
    with pytest.raises(RecastError) as caught:
        read_step(path)
    assert [d.id for d in caught.value.diagnostics] == ["ORBAX_METADATA_INVALID"]
