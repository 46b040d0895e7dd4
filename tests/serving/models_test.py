"""`recast models`: what a catalogue holds, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.running import converted, recast
from tests.serving_checkpoints import CLOSED, PLAIN, catalogue


def _rows(text: str) -> dict[str, list[str]]:
    """The cells of each model's row."""
    lines = [line.split("  ") for line in text.splitlines() if "  " in line]
    return {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in lines}


def test_the_embedded_catalogue_is_shown_by_default() -> None:
    text = converted("models").text
    rows = _rows(text)
    assert rows["model"] == ["base model", "family", "import checkpoint", "transformers"]
    assert rows["llama3-8b"] == ["meta-llama/Llama-3.1-8B", "llama", "yes", "<=4.45.1"]
    assert rows["llama3-405b"][2] == "no"
    assert text.startswith("embedded")
    assert "FINAL REPORT" not in text


def test_another_platforms_catalogue_is_shown(tmp_path: Path) -> None:
    path = catalogue(tmp_path / "catalog.textproto")
    rows = _rows(converted("models", server=path).text)
    assert rows[PLAIN][2] == "yes"
    assert rows[CLOSED][2] == "no"
    assert "llama3-405b" not in rows


def test_json_says_what_a_checkpoint_must_share_and_how_it_is_deployed() -> None:
    content = json.loads(converted("models", "--json").text)
    assert content["digest"].startswith("sha256:")
    (model,) = (entry for entry in content["models"] if entry["name"] == "llama3-70b")
    assert model["base_model"] == "meta-llama/Llama-3.3-70B-Instruct"
    assert "llama3.3-70b" in model["aliases"]
    assert model["import_checkpoint"] is True
    assert model["transformers"] == {"supported": "<=4.45.1", "deployment": "4.45.1"}
    assert model["deployments"][-1] == {
        "sequence_length": 131072,
        "batch_sizes": [1],
        "speculative_decoding": True,
    }
    assert model["static_attributes"]["num_attention_heads"] == 64


def test_a_catalogue_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    outcome = recast("models", server=tmp_path / "nothing")
    assert outcome.code == 2
    assert "RecastErrorId.METADATA_NOT_FOUND" in outcome.text


def test_a_server_is_read_from_a_cache_alone() -> None:
    outcome = recast("models", server="https://models.example.com")
    assert outcome.code == 2
    assert "RecastErrorId.METADATA_NOT_FOUND" in outcome.text
