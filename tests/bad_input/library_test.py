"""Faults of Recast itself: found before the output appears, reported as such, nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from container import entrypoint
from converters import quickstart
from converters.formats import orbax_sink, safetensors_sink
from mappings import catalog
from mappings.language import loader
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import environment, hf_to_maxtext, maxtext_to_hf, process, recast


def spoiling(real: Callable[..., Any]) -> Callable[..., Any]:
    """A write that changes one bit of each array, as a fault of the writer would."""

    def write(self: Any, name: str, region: Any, values: Any) -> None:
        spoilt = values.copy()
        bits = spoilt.reshape(-1).view(f"u{spoilt.dtype.itemsize}")
        bits[...] ^= 1
        real(self, name, region, spoilt)

    return write


@triggers("VERIFICATION_FAILED")
def test_a_writer_that_spoils_values_is_found_out(
    hf: Path, maxtext: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orbax_sink.OrbaxSink, "write", spoiling(orbax_sink.OrbaxSink.write))
    monkeypatch.setattr(safetensors_sink.SafetensorsSink, "write", spoiling(safetensors_sink.SafetensorsSink.write))
    with unchanged(tmp_path):
        forward = hf_to_maxtext(hf, destination)
        back = maxtext_to_hf(maxtext, destination)
    for run, arrays, name in ((forward, 12, "self_attention.query.kernel"), (back, 30, "self_attn.q_proj.weight")):
        assert len({entry.subject for entry in run.failures}) == arrays, run.summary
        refused(run, *(Fault("VERIFICATION_FAILED", "Element (") for _ in run.failures))
        assert any(name in entry.subject for entry in run.failures), run.summary
        assert all("Do not use the output" in entry.suggestion for entry in run.failures)


@triggers("VERIFICATION_FAILED")
def test_a_writer_that_swaps_rows_is_found_out(
    maxtext: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = safetensors_sink.SafetensorsSink.write

    def write(self: Any, name: str, region: Any, values: Any) -> None:
        turned = values[::-1].copy() if name.endswith("k_proj.weight") else values
        real(self, name, region, turned)

    monkeypatch.setattr(safetensors_sink.SafetensorsSink, "write", write)
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination)
    assert {entry.subject for entry in run.failures} == {
        f"model.layers.{layer}.self_attn.k_proj.weight" for layer in range(3)
    }
    refused(run, *(Fault("VERIFICATION_FAILED", "k_proj") for _ in run.failures))


@pytest.fixture
def mappings_copy(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mappings of this installation, in a place where they may be damaged."""
    root = tmp_path_factory.mktemp("rules") / "mappings"
    shutil.copytree(loader.mappings_root(), root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(loader, "mappings_root", lambda: root)
    assert catalog.manifests()
    return root


@triggers("MAPPING_INVALID")
def test_a_fault_in_the_rules_is_one_of_the_library(
    mappings_copy: Path, hf: Path, destination: Path, tmp_path: Path
) -> None:
    rules = mappings_copy / "common" / "hf_mlp.textproto"
    rules.write_text(rules.read_text("utf-8").replace('axes: "f e"', 'axes: "f nowhere"'), "utf-8")
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, *(Fault("MAPPING_INVALID", "nowhere", "common/hf_mlp.textproto:") for _ in run.failures))
    assert len(run.failures) == 2, run.summary


@triggers("MAPPING_INVALID")
def test_rules_that_cannot_be_read_are_a_fault_of_the_library(
    mappings_copy: Path, hf: Path, destination: Path, tmp_path: Path
) -> None:
    (mappings_copy / "llama" / "maxtext.textproto").write_text("rule {", "utf-8")
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, Fault("MAPPING_INVALID", "maxtext.textproto:1"))
    refused(recast("explain", "llama", "hf", "maxtext"), Fault("MAPPING_INVALID", "maxtext.textproto:1"))


@triggers("INTERNAL")
def test_what_nobody_foresaw_is_reported_with_its_stack_trace(
    hf: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Path) -> Any:
        raise ZeroDivisionError("division by zero\n\nTraceback (most recent call last):\nis only a text")

    monkeypatch.setattr("validators.hf_config.load", load)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, Fault("INTERNAL", "ZeroDivisionError: division by zero"))
    assert "ZeroDivisionError: division by zero" in run.failures[0].stack
    assert "report.json" in run.failures[0].suggestion


@triggers("INTERNAL")
def test_what_nobody_foresaw_outside_of_any_step_is_reported(
    hf: Path, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(*_: Any) -> str:
        raise TypeError("not serialisable")

    monkeypatch.setattr("converters.engine.request.ConversionRequest.digest", digest)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, Fault("INTERNAL", "TypeError: not serialisable"))


@triggers("QUICKSTART_FAILED")
def test_a_tour_that_comes_back_with_other_bytes_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = quickstart.compare

    def compare(first: Path, second: Path, step: Any) -> None:
        weights = second / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
        real(first, second, step)

    monkeypatch.setattr(quickstart, "compare", compare)
    run = recast("quickstart", f"--directory={tmp_path / 'tour'}")
    refused(run, Fault("QUICKSTART_FAILED", "differs from the source"))
    assert run.steps["compare_stacked"] == "Failed"


@triggers("DESTINATION_EXISTS")
def test_the_tour_does_not_write_into_a_directory_that_is_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with unchanged(tmp_path):
        run = recast("quickstart", f"--directory={tmp_path}")
    refused(run, Fault("DESTINATION_EXISTS", "not empty"))


_UNWANTED = ("jax", "torch", "transformers", "orbax", "flax", "huggingface_hub", "google.cloud")
_IMPORTS = """
import json, sys
from container import entrypoint
try:
    entrypoint.main(["recast", *sys.argv[2:]])
finally:
    with open(sys.argv[1], "w") as file:
        json.dump(sorted(sys.modules), file)
"""


@pytest.mark.parametrize("name", ["hf-to-maxtext", "maxtext-to-hf", "convert", "verify", "diff", "inspect", "families"])
def test_a_run_imports_no_framework(name: str, hf: Path, maxtext: Path, tmp_path: Path) -> None:
    words = {
        "hf-to-maxtext": [f"--hf_model_path={hf}", f"--base_output_directory={tmp_path / 'out'}"],
        "maxtext-to-hf": [f"--load_parameters_path={maxtext}", f"--base_output_directory={tmp_path / 'out'}"],
        "convert": [str(hf), str(tmp_path / "out"), "--to=maxtext"],
        "verify": [str(hf), str(maxtext), "--level=full"],
        "diff": [str(hf), str(maxtext)],
        "inspect": [str(maxtext)],
        "families": ["--models"],
    }[name]
    listed = tmp_path / "modules.json"
    run = process(name, *words, script=_IMPORTS, before=[str(listed)])
    assert run.code == 0, run.output + run.errors
    modules = json.loads(listed.read_text("utf-8"))
    assert "converters.cli.program" in modules
    assert [module for module in modules if f"{module}.".startswith(tuple(f"{name}." for name in _UNWANTED))] == []


@triggers("MISSING_SHARD")
def test_a_process_reports_as_the_tests_in_this_process_do(sharded: Path, destination: Path, tmp_path: Path) -> None:
    words = ["hf-to-maxtext", f"--hf_model_path={sharded}", f"--base_output_directory={destination}"]
    completed(process(*words))
    shutil.rmtree(destination)
    (sharded / "model-00002-of-00004.safetensors").unlink()
    with unchanged(sharded):
        run = process(*words)
    refused(run, Fault("MISSING_SHARD", "model-00002-of-00004.safetensors"))
    inside = recast(*words)
    assert [(entry.id, entry.reason) for entry in inside.failures] == [(e.id, e.reason) for e in run.failures]


@pytest.mark.parametrize("name", entrypoint.SUBCOMMANDS)
def test_help_in_a_process_of_its_own(name: str) -> None:
    run = process(name, "--help")
    assert (run.code, run.errors) == (0, "")
    assert run.output.startswith(f"usage: recast {name} ")


def test_a_reader_that_goes_away_is_no_fault(hf: Path, tmp_path: Path) -> None:
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={tmp_path / 'out'}"]
    with subprocess.Popen(
        [sys.executable, "-m", "container.entrypoint", *words],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        child.stdout = None
        _, errors = child.communicate(timeout=60)
    assert (tmp_path / "out" / "DONE").is_file()
    assert errors == b""
    assert child.returncode == 0
