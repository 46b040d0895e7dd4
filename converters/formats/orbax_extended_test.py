"""What Orbax keeps of arrays beside their values, written and read."""

import json
from pathlib import Path

import pytest

from converters.formats import orbax_extended
from converters.formats.base import Declared, TensorInfo
from reporting.diagnostics import RecastError

KEY = Declared(TensorInfo("rngs.key", (3, 2), "uint32"), (3, 2))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    orbax_extended.write(tmp_path, [(KEY, {"random_key_impl": "fry"})])
    assert orbax_extended.read(tmp_path) == {"rngs.key": {"random_key_impl": "fry"}}


def test_without_anything_to_keep_there_is_no_folder(tmp_path: Path) -> None:
    orbax_extended.write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert orbax_extended.read(tmp_path) == {}


def test_entries_of_all_processes_are_read_and_empty_ones_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "array_metadatas"
    folder.mkdir()
    for number, kept in enumerate(({"random_key_impl": "fry"}, None, {"random_key_impl": "rbg"})):
        entry = {"array_metadata": {"param_name": f"key{number}", "ext_metadata": kept}}
        (folder / f"process_{number}").write_text(json.dumps({"array_metadatas": [entry]}))
    assert orbax_extended.read(tmp_path) == {"key0": {"random_key_impl": "fry"}, "key2": {"random_key_impl": "rbg"}}


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"array_metadatas": [1]}', '{"array_metadatas": [{"array_metadata": {"ext_metadata": {}}}]}']
)
def test_a_damaged_file_is_one_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "array_metadatas").mkdir()
    (tmp_path / "array_metadatas" / "process_0").write_text(text)
    with pytest.raises(RecastError) as caught:
        orbax_extended.read(tmp_path)
    (found,) = caught.value.diagnostics
    assert found.id == "ORBAX_METADATA_INVALID"
    assert found.subject == "array_metadatas/process_0"
