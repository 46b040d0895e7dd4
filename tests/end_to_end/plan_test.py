"""Plans: what they say is what a run then does, and they come from headers alone, for any size."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from converters.benchmarking import default_grid, synthetic
from converters.engine import execute
from converters.formats.orbax_source import OrbaxSource
from converters.formats.safetensors_source import SafetensorsSource
from mappings import catalog
from recast_proto import error_pb2, plan_pb2, report_pb2
from tests import checkpoints
from tests.bad_input.judging import snapshot
from tests.end_to_end.running import converted, recast

_WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "int64": 8}
_ITEMSIZE = 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One model in each format."""
    folder = tmp_path_factory.mktemp("plans")
    config = checkpoints.CONFIGS["grouped"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=3)
    checkpoints.write_safetensors(folder / "hf", tensors, config, shard_bytes=200_000)
    for name, scan in (("stacked", "true"), ("unstacked", "false")):
        converted("convert", str(folder / "hf"), str(folder / name), to="maxtext", scan_layers=scan)
    return {name: folder / name for name in ("hf", "stacked", "unstacked")}


def planned(out: Path, *arguments: str, **flags: object) -> plan_pb2.Plan:
    """What `plan` writes; its text is not looked at."""
    converted("plan", *arguments, plan_file=out, **flags)
    return json_format.Parse(out.read_text("utf-8"), plan_pb2.Plan())


def boxes(shape: tuple[int, ...], unit: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    """The regions into which units of a size cut an array."""
    cuts = [
        [(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, unit, strict=True)
    ]
    return set(itertools.product(*cuts))


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("hf", {"to": "maxtext"}),
        ("hf", {"to": "maxtext", "scan_layers": "false", "exactness": "as_requested"}),
        ("hf", {"to": "maxtext", "dtype": "float32", "memory_budget": "8MiB"}),
        ("hf", {"to": "hf", "dtype": "float16"}),
        ("stacked", {"to": "hf"}),
        ("stacked", {"to": "maxtext", "scan_layers": "false"}),
        ("unstacked", {"to": "hf", "dtype": "float32"}),
        ("unstacked", {"to": "maxtext", "scan_layers": "true"}),
    ],
)
def test_a_run_does_what_its_plan_says(
    source: str, flags: dict[str, str], sources: Mapping[str, Path], tmp_path: Path
) -> None:
    plan = planned(tmp_path / "plan.json", str(sources[source]), **flags)
    out = tmp_path / "out"
    converted("convert", str(sources[source]), str(out), **flags)
    report = json_format.Parse((out / "report.json").read_text("utf-8"), report_pb2.Report())
    listed = json.loads((out / "checkpoint-manifest.json").read_text("utf-8"))["tensors"]

    assert (plan.source_format, plan.target_format) == (source if source == "hf" else "maxtext", flags["to"])
    assert plan.source == report.source == str(sources[source])
    assert plan.model_name == report.model_name
    assert plan.version == report.version
    assert plan.options == report.options
    assert plan.bytes_in == report.figures.bytes_read
    assert plan.bytes_out == report.figures.bytes_written
    assert plan.units == sum(len(entry["units"]) for entry in listed.values())
    assert {array.name for array in plan.array} == set(listed)
    told = {tensor.name: tensor for tensor in report.tensor}
    said = [diagnostic for step in report.step for diagnostic in step.diagnostic]
    overflowed = {diagnostic.subject for diagnostic in said if diagnostic.id == error_pb2.TENSOR_OVERFLOWED}
    assert bool(overflowed) == (flags.get("dtype") == "float16")
    for array in plan.array:
        entry, name = listed[array.name], array.name
        assert (array.dtype, list(array.shape)) == (entry["dtype"], entry["shape"])
        done = {tuple(zip(unit["start"], unit["stop"], strict=True)) for unit in entry["units"]}
        assert done == boxes(tuple(array.shape), tuple(array.unit_shape))
        assert array.units == len(done)
        assert array.bytes == math.prod(array.shape) * _WIDTHS[array.dtype]
        # The patterns of the test reach magnitudes that float16 does not hold, which no plan can know.
        exactness = report_pb2.LOSSY if name in overflowed else array.exactness
        assert (exactness, array.source_dtype) == (told[name].exactness, told[name].source_dtype)
    held = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    assert plan.bytes_out <= sum(held.values()) <= plan.disk_bytes


def test_a_plan_of_each_command_is_the_same_as_that_of_plan(sources: Mapping[str, Path], tmp_path: Path) -> None:
    def of(subcommand: str, **flags: object) -> plan_pb2.Plan:
        converted(subcommand, base_output_directory=tmp_path / "out", plan_only="true", **flags)
        return json_format.Parse((tmp_path / "plan.json").read_text("utf-8"), plan_pb2.Plan())

    file = tmp_path / "plan.json"
    back = of("maxtext-to-hf", load_parameters_path=sources["stacked"], weight_dtype="auto", plan_file=file)
    assert back == planned(tmp_path / "other.json", str(sources["stacked"]), to="hf")
    forward = of("hf-to-maxtext", hf_model_path=sources["hf"], save_dtype="bfloat16", plan_file=file)
    assert forward == planned(tmp_path / "other.json", str(sources["hf"]), to="maxtext")
    across = of("maxtext-to-maxtext", load_parameters_path=sources["stacked"], scan_layers="false", plan_file=file)
    assert across == planned(tmp_path / "other.json", str(sources["stacked"]), to="maxtext", scan_layers="false")
    converted("convert", str(sources["hf"]), str(tmp_path / "out"), to="maxtext", plan_only="true", plan_file=file)
    assert json_format.Parse(file.read_text("utf-8"), plan_pb2.Plan()) == forward
    assert not (tmp_path / "out").exists()


def test_a_plan_writes_nothing_and_reads_no_weights(
    sources: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any) -> Any:
        raise AssertionError("weights were read")

    monkeypatch.setattr(SafetensorsSource, "read", read)
    monkeypatch.setattr(OrbaxSource, "read", read)
    monkeypatch.chdir(tmp_path)
    root = sources["hf"].parent
    before = snapshot(root)
    for name, format in (("hf", "maxtext"), ("stacked", "hf"), ("unstacked", "hf")):
        text = converted("plan", str(sources[name]), to=format).text
        assert text.startswith("PLAN: ")
        assert "commit" not in text
    converted(
        "hf-to-maxtext", hf_model_path=sources["hf"], base_output_directory=tmp_path / "new" / "out", plan_only="true"
    )
    assert list(tmp_path.iterdir()) == []
    assert snapshot(root) == before


def test_the_text_says_what_the_file_says(sources: Mapping[str, Path], tmp_path: Path) -> None:
    text = converted("plan", str(sources["stacked"]), to="hf", plan_file=tmp_path / "new" / "plan.json").text
    plan = json_format.Parse((tmp_path / "new" / "plan.json").read_text("utf-8"), plan_pb2.Plan())
    for figure in (plan.units, plan.groups, plan.bytes_in, plan.bytes_out, plan.disk_bytes, plan.peak_buffer_bytes):
        assert f" {figure}" in text
    assert "(amplification 1.00)" in text
    assert "30 EXACT" in text
    assert len(plan.array) == 30
    rows = [line.split() for line in text.splitlines() if line.startswith(("model.", "lm_head."))]
    assert sum(int(row[1]) for row in rows) == len(plan.array)
    assert sum(int(row[-2]) for row in rows) == plan.bytes_out
    assert ["model.layers.[0-2].mlp.gate_proj.weight", "3"] in [row[:2] for row in rows]


def test_a_plan_of_the_destination_it_has_is_no_obstacle(sources: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    converted("hf-to-maxtext", hf_model_path=sources["hf"], base_output_directory=tmp_path / "out", plan_only="true")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


# ---- published models, without files


def counted(config: Mapping[str, Any]) -> tuple[int, int]:
    """Bytes of a Llama's weights as published, and of its query projections alone: plain arithmetic."""
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = 2 * hidden * queries + 2 * hidden * keys
    elements = 2 * config["vocab_size"] * hidden + hidden + layers * (attention + 3 * hidden * inner + 2 * hidden)
    return elements * _ITEMSIZE, layers * hidden * queries * _ITEMSIZE


_405B = "llama3.1-405b"
_LAYERS = 126


def published(name: str) -> Mapping[str, Any]:
    found = catalog.find(name)
    assert found is not None
    return found.config


@pytest.mark.parametrize(
    ("flags", "arrays"),
    [
        ({"to": "maxtext"}, 12),
        ({"to": "maxtext", "scan_layers": "false"}, 9 * _LAYERS + 3),
        ({"from": "maxtext", "to": "hf"}, 9 * _LAYERS + 3),
        ({"from": "maxtext", "to": "hf", "scan_layers": "false"}, 9 * _LAYERS + 3),
    ],
    ids=["stacked", "unstacked", "from stacked", "from unstacked"],
)
def test_a_model_of_405_billion_is_planned_in_seconds(flags: dict[str, str], arrays: int, tmp_path: Path) -> None:
    weights, queries = counted(published(_405B))
    assert weights == 811_706_777_600
    started = time.process_time()
    plan = planned(tmp_path / "plan.json", model_name=_405B, memory_budget="1GiB", **flags)
    assert time.process_time() - started < 8
    # MaxText's query kernel is stored in float32, since its folded constant is no power of two.
    folded = weights + queries
    assert (plan.bytes_in, plan.bytes_out) == ((weights, folded) if flags["to"] == "maxtext" else (folded, weights))
    assert plan.bytes_decoded == plan.bytes_in
    assert plan.read_amplification == 1
    assert len(plan.array) == arrays
    assert sum(array.bytes for array in plan.array) == plan.bytes_out
    assert plan.units == sum(len(boxes(tuple(a.shape), tuple(a.unit_shape))) for a in plan.array)
    assert plan.units * (64 << 20) > plan.bytes_out
    assert plan.peak_buffer_bytes <= 1 << 30
    assert plan.bytes_out < plan.disk_bytes < 1.02 * plan.bytes_out
    changed = "INVERTIBLE" if flags["to"] == "maxtext" else "EXACT"
    names = "query.kernel" if flags["to"] == "maxtext" else "q_proj.weight"
    expected = {array.name: changed if array.name.endswith(names) else "EXACT" for array in plan.array}
    assert {array.name: report_pb2.Exactness.Name(array.exactness) for array in plan.array} == expected


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python some work takes: a measure that a busy machine does not change."""
    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("field", ["num_experts", "num_hidden_layers"])
@pytest.mark.parametrize(
    "flags",
    [{"to": "maxtext"}, {"from": "maxtext", "to": "hf"}],
    ids=["there", "back"],
)
@pytest.mark.parametrize("scan", ["true", "false"])
def test_the_work_of_planning_grows_as_the_number_of_arrays_does(
    scan: str, flags: dict[str, str], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = catalog.find("qwen3-30b-a3b")
    assert like is not None
    find = catalog.find

    def planned_with(size: int) -> None:
        config = {**like.config, "num_experts": 8, "num_hidden_layers": 4, field: size}
        small = dataclasses.replace(like, name="qwen3-small", config=config)
        with monkeypatch.context() as patched:
            patched.setattr(catalog, "find", lambda name, root=None: small if name == small.name else find(name, root))
            converted("plan", model_name=small.name, scan_layers=scan, **flags)

    # What is imported and read once is no part of it.
    planned_with(16)
    counts = [lines_run(functools.partial(planned_with, size)) for size in (16, 32, 64)]
    # The second step is twice as large as the first: a part that grows with the square would count four times.
    assert counts[2] - counts[1] < 2.2 * (counts[1] - counts[0])


def test_a_small_budget_changes_the_units_and_no_bytes(tmp_path: Path) -> None:
    large = planned(tmp_path / "a.json", model_name=_405B, to="maxtext", memory_budget="2GiB")
    small = planned(tmp_path / "b.json", model_name=_405B, to="maxtext", memory_budget="8MiB")
    assert small.units > 2 * large.units
    assert small.peak_buffer_bytes <= 8 << 20
    assert (small.bytes_in, small.bytes_out, small.bytes_decoded) == (large.bytes_in, large.bytes_out, large.bytes_in)
    assert small.digest != large.digest


@pytest.mark.parametrize("name", ["llama3.2-1b", "llama3.1-8b", "mistral-7b-v0.1"])
def test_the_plan_of_a_published_model_is_that_of_its_files(name: str, tmp_path: Path) -> None:
    config = published(name)
    source = tmp_path / "hf"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for tensor, shape in checkpoints.llama_shapes(config).items():
        begin, end = end, end + math.prod(shape) * _ITEMSIZE
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(source / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        # A hole: there is nothing to read but the header.
        file.truncate(8 + len(text) + end)
    theirs = planned(tmp_path / "files.json", str(source), to="maxtext", model_name=name)
    ours = planned(tmp_path / "name.json", to="maxtext", model_name=name)
    assert theirs.source == str(source)
    assert ours.source == name
    assert theirs.bytes_in == end
    for plan in (ours, theirs):
        plan.ClearField("source")
    assert ours == theirs


@pytest.mark.parametrize("scan", ["true", "false"])
def test_the_plan_of_what_recast_would_have_written_is_that_of_what_it_wrote(
    scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = checkpoints.CONFIGS["llama3_rope"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=5)
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    like = catalog.find("llama3.1-8b")
    assert like is not None
    tiny = dataclasses.replace(like, name="llama3.1-tiny", config=json.loads((source / "config.json").read_text()))
    find = catalog.find
    monkeypatch.setattr(catalog, "find", lambda name, root=None: tiny if name == tiny.name else find(name, root))
    written = tmp_path / "written"
    converted("convert", str(source), str(written), to="maxtext", scan_layers=scan, model_name=tiny.name)
    theirs = planned(tmp_path / "a.json", str(written), to="hf", model_name=tiny.name)
    ours = planned(tmp_path / "b.json", to="hf", model_name=tiny.name, scan_layers=scan, **{"from": "maxtext"})
    assert {report_pb2.Exactness.Name(array.exactness) for array in ours.array} == {"EXACT"}
    for plan in (ours, theirs):
        plan.ClearField("source")
    assert ours == theirs


# ---- grids of others


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the grid that MaxText writes: each of 16 chunks of an array spans all layers."""
    folder = tmp_path_factory.mktemp("foreign")
    synthetic.make(folder / "hf", synthetic.Size(layers=8, heads=4, vocabulary=512))
    converted(
        "hf-to-maxtext", hf_model_path=folder / "hf", base_output_directory=folder / "ours", model_name="llama3.1"
    )
    default_grid.rewrite(folder / "ours", folder / "theirs")
    return folder


@pytest.mark.parametrize(("budget", "amplified"), [("64MiB", False), ("1MiB", True)])
def test_a_budget_too_small_for_a_grid_shows_what_is_decoded_again(
    budget: str, amplified: bool, foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: dict[str, object] = {
        "to": "hf",
        "model_name": "llama3.1",
        "hf_config_path": foreign / "hf",
        "memory_budget": budget,
    }
    plan = planned(tmp_path / "plan.json", str(foreign / "theirs"), **flags)
    assert (plan.read_amplification > 1) == amplified
    assert plan.bytes_decoded == pytest.approx(plan.bytes_in * plan.read_amplification, rel=1e-3)
    assert plan.groups < plan.units
    decoded = []
    real = OrbaxSource.read
    running: list[int] = []
    run = execute.Executor.run

    def read(self: OrbaxSource, name: str, region: Any) -> Any:
        if running:
            shape = self.tensors[name].shape
            chunk = default_grid.chunk_of(shape)
            touched = [
                [min(size, (at + 1) * step) - at * step for at in range(start // step, -(-stop // step))]
                for (start, stop), size, step in zip(region, shape, chunk, strict=True)
            ]
            decoded.append(math.prod(sum(sizes) for sizes in touched) * _WIDTHS[self.tensors[name].dtype])
        return real(self, name, region)

    def watched(self: execute.Executor) -> Any:
        running.append(1)
        try:
            return run(self)
        finally:
            running.clear()

    monkeypatch.setattr(OrbaxSource, "read", read)
    monkeypatch.setattr(execute.Executor, "run", watched)
    text = converted("convert", str(foreign / "theirs"), str(tmp_path / "out"), **flags).text
    assert sum(decoded) == plan.bytes_decoded
    assert ("times those read" in text) == amplified
    ours, theirs = (checkpoints.read_safetensors(place) for place in (tmp_path / "out", foreign / "hf"))
    assert {name: np.array(array).tobytes() for name, array in ours.items()} == {
        name: np.array(array).tobytes() for name, array in theirs.items()
    }


def test_a_plan_that_fits_no_budget_says_what_it_needs(foreign: Path) -> None:
    flags: dict[str, object] = {"to": "hf", "model_name": "llama3.1", "hf_config_path": foreign / "hf"}
    outcome = recast("plan", str(foreign / "theirs"), memory_budget="100kB", **flags)
    assert outcome.code == 4
    assert "RecastErrorId.MEMORY_PLAN" in outcome.text
    assert not outcome.text.startswith("PLAN: ")
