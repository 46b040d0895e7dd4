import json
from pathlib import Path

import pytest

from converters.engine import record
from converters.engine.record import ConversionRecord
from reporting.diagnostics import RecastError

RECORD = ConversionRecord(
    family="llama",
    model_name="llama3.1",
    source_format="hf",
    target_format="maxtext",
    source_options={},
    target_options={"scan": True, "rope": "interleaved"},
    source_dtypes={"model.norm.weight": "bfloat16", "step": "int64", "opt_state.0.mu.norm.scale": "float8_e4m3fn"},
    logical_dtypes={"q": "bfloat16"},
)


def _written(folder: Path, **changes: object) -> Path:
    data = json.loads(RECORD.to_json()) | changes
    (folder / record.FILE).write_text(json.dumps(data))
    return folder


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert record.read(_written(tmp_path)) == RECORD


def test_a_record_that_does_not_say_so_promises_no_way_back(tmp_path: Path) -> None:
    data = json.loads(RECORD.to_json())
    del data["invertible"]
    (tmp_path / record.FILE).write_text(json.dumps(data))
    assert record.read(tmp_path) == RECORD
    assert not RECORD.invertible


def test_no_record_is_none(tmp_path: Path) -> None:
    assert record.read(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"extra": 1},
        {"family": 3},
        {"step": True},
        {"invertible": 1},
        {"training_state": "lost"},
        {"source_dtypes": []},
        {"logical_dtypes": {"q": "int8"}},
        {"logical_dtypes": {"q": ["bfloat16"]}},
        {"source_dtypes": {"q": "complex64"}},
        {"target_options": {"rope": {}}},
    ],
)
def test_a_record_that_says_something_else_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(RecastError) as caught:
        record.read(_written(tmp_path, **changes))
    assert caught.value.diagnostics[0].id == "RESIDUE_INVALID"
    assert "recast/conversion.json" in caught.value.diagnostics[0].reason


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", b"[]", b'{"schema": 1, "schema": 1}'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / record.FILE).write_bytes(content)
    with pytest.raises(RecastError) as caught:
        record.read(tmp_path)
    assert caught.value.diagnostics[0].id == "RESIDUE_INVALID"
