"""Tests of the table of conversions: what is covered is found by composing, and what is not says why."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mappings import catalog, coverage, peer_table
from mappings.coverage import Coverage, Direction
from mappings.language import loader
from mappings.peer_table import Row

# As the guide prints them, for MaxText's own converter.
PEER_ROWS = """\
Gemma2 2B, 9B, 27B
Gemma3 (Multimodal) 4B, 12B, 27B
Llama3.1 8B, 70B, 450B
Qwen2.5 7B, 14B
Qwen3 0.6B, 4B, 8B, 14B, 32B
Qwen3 MoE 30B, 235B, 480B
Mixtral 8x7B, 8x22B
GPT-OSS 20B, 120B
DeepSeek2 16B
DeepSeek3 671B
DeepSeek3.2 671B
Qwen3 Next 80B
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the family qwen2 and of nothing else, with one manifest."""
    for file in [
        *loader.mappings_root().glob("common/*.textproto"),
        *loader.mappings_root().glob("qwen2/*.textproto"),
        loader.mappings_root() / "manifests" / "qwen2.5-7b.textproto",
    ]:
        place = tmp_path / file.parent.name / file.name
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)
    return tmp_path


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def _faults(root: Path) -> dict[Direction, str]:
    manifest = catalog.find("qwen2.5-7b", root)
    assert manifest is not None
    return {direction: " ".join(found) for direction, found in coverage.faults_of(manifest, root).items()}


def test_the_rows_are_those_of_the_guide_in_its_order() -> None:
    assert "".join(f"{row.family} {', '.join(row.sizes)}\n" for row in peer_table.ROWS) == PEER_ROWS


@pytest.fixture(scope="module")
def rows() -> tuple[Coverage, ...]:
    return coverage.table()


def test_every_cell_of_the_guides_table_is_covered_and_so_is_every_other_model(rows: tuple[Coverage, ...]) -> None:
    assert [row.family for row in rows if row.in_peer_table] == [row.family for row in peer_table.ROWS]
    assert coverage.missing(rows) == ()
    assert all(row.covers(direction) for row in rows for direction in Direction)


def test_every_published_model_is_in_one_row(rows: tuple[Coverage, ...]) -> None:
    shown = [name for row in rows for name in row.models.values()]
    assert sorted(shown) == sorted(manifest.name for manifest in catalog.manifests())


def test_a_row_without_a_mapping_is_covered_in_no_direction(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_table, "ROWS", (Row("Qwen2.5", {"7B": "qwen2.5-7b", "14B": "qwen2.5-14b"}),))
    (row,) = coverage.table(root)
    assert not any(row.covers(direction) for direction in Direction)
    assert coverage.missing([row]) == ("qwen2.5-14b: there is no mapping of this model yet",)


def test_a_model_that_composes_has_no_faults(root: Path) -> None:
    assert set(_faults(root).values()) == {""}


def test_a_tensor_that_the_target_must_have_and_the_source_has_not_is_a_fault_of_that_direction(root: Path) -> None:
    layout = root / "qwen2" / "maxtext.textproto"
    _edit(layout, '"common/maxtext_norms.textproto"', "")
    _edit(layout, ", ]", "]")
    layout.write_text(
        layout.read_text("utf-8")
        + 'absent { tensor: "norms.attn" reason: "not kept" }\nabsent { tensor: "norms.mlp" reason: "not kept" }\n',
        encoding="utf-8",
    )
    faults = _faults(root)
    assert {direction for direction, found in faults.items() if not found} == {
        Direction.TO_SCANNED,
        Direction.TO_UNSCANNED,
    }


def test_a_layout_that_does_not_bind_is_a_fault_of_the_directions_that_need_it(root: Path) -> None:
    _edit(root / "qwen2" / "maxtext.textproto", 'when: "!scan" name: "decoder.layers_{l}."', 'when: "!scan" name: "x."')
    faults = _faults(root)
    assert [direction for direction, found in faults.items() if found] == [
        Direction.TO_UNSCANNED,
        Direction.FROM_UNSCANNED,
    ]


def test_a_config_that_does_not_bind_is_a_fault_of_every_direction(root: Path) -> None:
    _edit(root / "manifests" / "qwen2.5-7b.textproto", '"num_attention_heads": 28', '"num_attention_heads": 27')
    assert all("num_attention_heads" in found for found in _faults(root).values())


def test_a_family_without_the_other_format_is_covered_in_no_direction(root: Path) -> None:
    (root / "qwen2" / "maxtext.textproto").unlink()
    assert all("maxtext" in found for found in _faults(root).values())
