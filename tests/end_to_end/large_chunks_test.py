"""`verify --level=full` and `diff` on checkpoints that store whole arrays as one compressed chunk, as trainers do."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from converters.formats.base import AnyArray, Declared, Region, TensorInfo
from converters.formats.orbax_sink import OrbaxSink
from converters.formats.orbax_source import OrbaxSource
from tests import checkpoints
from tests.end_to_end.running import Outcome, converted, recast

CONFIG = {**checkpoints.CONFIGS["grouped"], "num_hidden_layers": 3, "hidden_size": 256, "intermediate_size": 512}
UP = "params.params.decoder.layers.mlp.wi_1.kernel"
BUDGET = "6MiB"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf`, `stacked` and `unstacked` of it, and of both one whose arrays are one chunk each."""
    root = tmp_path_factory.mktemp("large_chunks")
    tensors = checkpoints.element_coded_llama(CONFIG, "bfloat16", seed=5)
    checkpoints.write_safetensors(root / "hf", tensors, CONFIG)
    for name, scan in (("stacked", True), ("unstacked", False)):
        converted("convert", str(root / "hf"), str(root / name), to="maxtext", scan_layers=scan)
        _in_one_chunk(root / name, root / f"{name}_whole", scan)
    return root


def _in_one_chunk(origin: Path, folder: Path, scan: bool, change: str = "") -> Path:
    source = OrbaxSource(origin)
    folder.mkdir()
    sink = OrbaxSink(folder, compression="zstd:1", custom_metadata={"scan_layers": scan})
    infos = [info for name, info in source.tensors.items() if name != "step"]
    sink.declare([Declared(TensorInfo(info.name, info.shape, info.dtype), info.shape) for info in infos])
    for info in infos:
        region = tuple((0, size) for size in info.shape)
        values = np.array(source.read(info.name, region), order="C")
        if info.name == change:
            values.reshape(-1)[[7, -1]] += 1
        sink.write(info.name, region, values)
    sink.commit()
    shutil.copytree(origin / "recast", folder / "recast")
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each array that is one chunk was read, which decodes it."""
    found: Counter[str] = Counter()
    plain = OrbaxSource.read_into

    def counted(self: OrbaxSource, name: str, region: Region, out: AnyArray) -> None:
        if "_whole/" in str(self.location.items):
            found[f"{self.location.items} {name}"] += 1
        plain(self, name, region, out)

    monkeypatch.setattr(OrbaxSource, "read_into", counted)
    return found


def _once(outcome: Outcome, decoded: Counter[str]) -> None:
    assert outcome.code == 0, outcome.text
    assert decoded
    assert set(decoded.values()) == {1}


@pytest.mark.parametrize("source", ["hf", "stacked", "unstacked"])
def test_full_verification_decodes_each_chunk_of_the_destination_once(
    made: Path, decoded: Counter[str], source: str
) -> None:
    _once(
        recast("verify", str(made / source), str(made / "stacked_whole"), level="full", memory_budget=BUDGET), decoded
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hf", "stacked_whole"),
        ("stacked_whole", "hf"),
        ("stacked", "stacked_whole"),
        ("stacked_whole", "stacked"),
        ("unstacked_whole", "stacked_whole"),
        ("stacked_whole", "unstacked_whole"),
    ],
)
def test_diff_decodes_each_chunk_of_either_side_once(
    made: Path, decoded: Counter[str], first: str, second: str
) -> None:
    _once(recast("diff", str(made / first), str(made / second), memory_budget=BUDGET), decoded)


def test_a_change_in_a_large_chunk_is_found_by_its_coordinates(made: Path, tmp_path: Path) -> None:
    changed = _in_one_chunk(made / "stacked", tmp_path / "changed", True, change=UP)
    for first, second in ((made / "stacked", changed), (made / "hf", changed)):
        text = recast("diff", str(first), str(second), memory_budget=BUDGET).text
        assert f"2 of {256 * 3 * 512} elements of {UP}" in text
        assert "the first is [0, 0, 7]" in text


@pytest.mark.parametrize("arguments", [("diff",), ("verify", "level")])
def test_a_chunk_that_no_thread_can_hold_is_refused_before_anything_is_compared(
    made: Path, decoded: Counter[str], arguments: tuple[str, ...]
) -> None:
    flags = dict.fromkeys(arguments[1:], "full")
    outcome = recast(arguments[0], str(made / "hf"), str(made / "stacked_whole"), memory_budget="1MiB", **flags)
    assert outcome.code == 4
    assert "Id: RecastErrorId.MEMORY_PLAN" in outcome.text
    assert "the memory budget is 1048576 bytes" in outcome.text
    assert not decoded


def test_headers_and_samples_are_compared_whatever_the_budget(made: Path) -> None:
    for level in ("headers", "sample"):
        outcome = recast("verify", str(made / "hf"), str(made / "stacked_whole"), level=level, memory_budget="1MiB")
        assert outcome.code == 0, outcome.text
