import json

import pytest

from converters.formats.base import TensorInfo
from converters.formats.safetensors_shards import index_file, plan_shards


def bytes_of(name: str, size: int) -> TensorInfo:
    return TensorInfo(name, (size,), "uint8")


def groups(sizes: list[int], limit: int) -> list[list[str]]:
    shards = plan_shards([bytes_of(str(i), size) for i, size in enumerate(sizes)], limit, {})
    return [sorted(shard.entries) for shard in shards]


def test_shards_are_filled_in_the_order_given() -> None:
    assert groups([6, 6, 2, 6, 2, 2], 10) == [["0"], ["1", "2"], ["3", "4", "5"]]


def test_a_shard_may_be_exactly_full() -> None:
    assert groups([5, 5, 5, 5], 10) == [["0", "1"], ["2", "3"]]


def test_a_tensor_above_the_limit_has_a_file_of_its_own_and_others_go_on_around_it() -> None:
    assert groups([4, 11, 4, 4], 10) == [["1"], ["0", "2"], ["3"]]


def test_a_single_file_has_no_number_and_no_index() -> None:
    shards = plan_shards([bytes_of("a", 1)], 10, {})
    assert [shard.file for shard in shards] == ["model.safetensors"]
    assert index_file(shards) is None


def test_several_files_are_numbered_and_indexed() -> None:
    shards = plan_shards([bytes_of("b", 8), TensorInfo("a", (2, 3), "bfloat16")], 12, {})
    assert [shard.file for shard in shards] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = index_file(shards)
    assert index is not None
    assert index[0] == "model.safetensors.index.json"
    assert json.loads(index[1]) == {
        "metadata": {"total_parameters": 14, "total_size": 20},
        "weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"},
    }


def test_a_header_states_its_length_and_ends_on_a_multiple_of_eight() -> None:
    for name in ("a", "ab", "abc", "é", 'q"\\\n\x01'):
        (shard,) = plan_shards([bytes_of(name, 3)], 10, {"format": "pt"})
        length = int.from_bytes(shard.header[:8], "little")
        assert len(shard.header) == 8 + length
        assert length % 8 == 0
        assert json.loads(shard.header[8:])[name] == {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
        assert shard.entries[name].offset == len(shard.header)
        assert shard.size == len(shard.header) + 3


def test_no_tensors_and_names_that_appear_twice_are_refused() -> None:
    for tensors in ([], [bytes_of("a", 1), bytes_of("a", 1)]):
        with pytest.raises(ValueError, match="distinct"):
            plan_shards(tensors, 10, {})
