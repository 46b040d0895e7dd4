"""docs/checkpoint_layouts.md against what a conversion writes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from converters.engine import convert, grids, manifest, planning, record
from converters.engine.request import ConversionRequest
from reporting.report import Report
from tests import checkpoints
from tests.docs import pages
from validators import carried_files

PAGE = "checkpoint_layouts.md"
QUERY = "params.params.decoder.layers.self_attention.query.kernel"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A MaxText output with a residue, and the Hugging Face output of the way back."""
    folder = tmp_path_factory.mktemp("layouts")
    config = checkpoints.CONFIGS["grouped"]
    tensors = checkpoints.element_coded_llama(config, "float32", seed=1)
    checkpoints.write_safetensors(folder / "hf", tensors, config)
    there = ConversionRequest(folder / "hf", folder / "out", "hf", "maxtext", "float32", model_name="llama2")
    convert.run(there, Report("there"))
    convert.run(ConversionRequest(folder / "out", folder / "back", "maxtext", "hf", "auto"), Report("back"))
    return folder / "out", folder / "back"


def _shown(tree: str) -> set[str]:
    """Paths in a tree as the page draws it: two spaces for each level, remarks after two spaces or more."""
    paths: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines()[1:]:
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        above = [*above[: depth - 1], name.rstrip("/")]
        paths.add("/".join(above))
    return paths


def _there(root: Path) -> set[str]:
    """What lies below a directory, but for data files, whose names are random."""
    found = (path.relative_to(root) for path in root.rglob("*"))
    return {str(path) for path in found if path.parent.name != "d"}


def test_outputs_have_the_files_that_the_page_draws(outputs: tuple[Path, Path]) -> None:
    maxtext, hf = pages.blocks_of(PAGE, "")
    assert _shown(maxtext) == _there(outputs[0])
    assert _shown(hf) == _there(outputs[1])


def _fields(heading: str) -> set[str]:
    return {name for row in pages.table_of(PAGE, heading) for name in pages.names_in(row[0])}


def test_the_record_has_the_fields_of_the_page(outputs: tuple[Path, Path]) -> None:
    written = json.loads((outputs[0] / "recast" / record.FILE).read_text(encoding="utf-8"))
    assert _fields("## recast/conversion.json") == written.keys()
    assert written.keys() == {"schema", *(field.name for field in dataclasses.fields(record.ConversionRecord))}
    assert (written["logical_dtypes"], written["step"]) == ({QUERY: "float32"}, 0)


def test_the_residue_has_the_columns_of_the_page(outputs: tuple[Path, Path]) -> None:
    with safe_open(outputs[0] / "recast" / record.RESIDUE_FILE, "numpy") as file:
        parts: list[dict[str, Any]] = json.loads(file.metadata()["parts"])
        columns = {f"{i}.{name.split('.')[1]}" for i in range(len(parts)) for name in _fields("## recast/residue")}
        assert columns == set(file.keys())
        (part,) = parts
        assert part.keys() == {"array", "shape", "box", "stored_dtype", "original_dtype", "count"}
        assert all(f"`{name}`" in pages.text_of(PAGE) for name in part)
        index, original = file.get_tensor("0.index"), file.get_tensor("0.original")
    assert (part["array"], index.dtype, original.dtype, index.size) == (QUERY, np.int64, np.uint32, part["count"])


def test_the_manifest_and_done_are_as_the_page_says(outputs: tuple[Path, Path]) -> None:
    for output in outputs:
        content = (output / manifest.FILE).read_bytes()
        written = json.loads(content)
        assert _fields("## checkpoint-manifest.json") >= written.keys()
        assert {path for path in _there(output) if (output / path).is_file()} - written["files"].keys() == {
            manifest.FILE,
            "report.txt",
            "report.json",
            "DONE",
        }
        assert all(entry.keys() == {"bytes", "blake3"} for entry in written["files"].values())
        assert all(entry.keys() == {"dtype", "shape", "units"} for entry in written["tensors"].values())
        done = json.loads((output / "DONE").read_text(encoding="utf-8"))
        assert done == {"request": written["request"], "manifest_sha256": hashlib.sha256(content).hexdigest()}


def test_orbax_metadata_is_as_the_page_says(outputs: tuple[Path, Path]) -> None:
    step = outputs[0] / "0"
    tree = json.loads((step / "items" / "_METADATA").read_text(encoding="utf-8"))
    assert all(tree[name] is True for name in ("use_ocdbt", "use_zarr3", "store_array_data_equal_to_fill_value"))
    kinds = {label: entry["value_metadata"]["value_type"] for label, entry in tree["tree_metadata"].items()}
    assert kinds.pop("('step',)") == "scalar"
    assert kinds.pop("('opt_state',)") == "Dict"
    assert set(kinds.values()) == {"np.ndarray"}
    said = json.loads((step / "_CHECKPOINT_METADATA").read_text(encoding="utf-8"))
    assert said["custom_metadata"] == {"scan_layers": True}


def test_the_chunks_of_the_page_are_those_of_the_planner() -> None:
    rows = pages.table_of(PAGE, "**Chunk grid.**")
    assert rows
    for name, shape, rows_axis, chunk in rows:
        sizes = tuple(int(n) for n in shape.split(", "))
        stacked = [1] if "layers" in name else []
        width = 4 if "float32" in name else 2
        free = [1] * len(sizes)
        made = grids.free_chunk(sizes, stacked, int(rows_axis), free, width, planning._CHUNK_LIMIT)
        assert made == tuple(int(n) for n in chunk.split(", ")), name


def test_the_page_names_every_file_that_travels() -> None:
    text = pages.text_of(PAGE).partition("## Files that travel")[2].partition("\n## ")[0]
    named = set(pages.names_in(text.replace("\n", " ")))
    patterns = {pattern.replace(".v[0-9]", "") for pattern in carried_files.PATTERNS}
    legal = ("LIC", "NOTICE", "THIRD", "USE", "USAGE")
    assert named - {"recast/hf/", ".v1", ".v9", ".md", ".txt", "License", "license"} == {
        pattern
        for pattern in patterns
        if not pattern.upper().startswith(legal) or ("." not in pattern and pattern.isupper())
    }
