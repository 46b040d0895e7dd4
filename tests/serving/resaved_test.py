"""The config of every published model, read and saved again by transformers, states what the rules ask for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mappings.serving import catalog as catalogs
from validators.compatibility import testing
from validators.compatibility.evaluation import evaluate

CATALOG = catalogs.embedded()
# Its class is code beside its checkpoints, which is not run.
_FOREIGN = ("kimi_k2",)
MODELS = [model.name for model in CATALOG.model if model.family not in _FOREIGN]


@pytest.mark.parametrize("name", MODELS)
def test_a_config_that_transformers_saved_again_is_accepted(name: str, tmp_path: Path) -> None:
    import transformers

    model = catalogs.find(CATALOG, name)
    assert model is not None
    (tmp_path / "config.json").write_text(model.config_json, "utf-8")
    transformers.AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))
    facts = dataclasses.replace(testing.published(model, tensors=False), config=config)
    findings = evaluate(testing.only(CATALOG, "config_field"), model, facts)
    assert [d.reason for finding in findings for d in finding.diagnostics if not d.warning] == []
    assert len(findings) > 15
