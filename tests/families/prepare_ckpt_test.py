"""prepare-ckpt on headers of published sizes: every family is accepted as it is, and refused with what was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappings.serving import catalog as catalogs
from tests import serving_checkpoints
from tests.bad_input.judging import unchanged
from tests.bad_input.running import Run, recast


def _smallest() -> dict[str, str]:
    """A model of each family: the one of the fewest layers."""
    found: dict[str, tuple[int, str]] = {}
    for model in catalogs.embedded().model:
        config = catalogs.config_of(model)
        layers = {**config, **config.get("text_config", {})}["num_hidden_layers"]
        found[model.family] = min(found.get(model.family, (layers, model.name)), (layers, model.name))
    return {family: name for family, (_, name) in found.items()}


MODELS = _smallest()


def _dry_run(source: Path, model: str) -> Run:
    words = ("--model", model, "--original_checkpoint_path", source, "--output_checkpoint_path", source.parent / "out")
    with unchanged(source.parent / "out"):
        return recast("prepare-ckpt", *words, "--dry_run")


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_checkpoint_as_it_is_published_is_accepted(family: str, tmp_path: Path) -> None:
    source = serving_checkpoints.write_published(tmp_path / "in", MODELS[family])
    run = _dry_run(source, MODELS[family])
    assert run.code == 0, run.summary
    assert not run.warnings, run.summary


@pytest.mark.parametrize("family", ["gemma3", "llama", "mixtral", "qwen3"])
def test_another_models_checkpoint_is_refused_with_more_than_one_reason(family: str, tmp_path: Path) -> None:
    other = "llama3-8b" if family != "llama" else "gemma-2b"
    source = serving_checkpoints.write_published(tmp_path / "in", other)
    run = _dry_run(source, MODELS[family])
    assert run.code == 2, run.summary
    assert run.steps["validate_compatibility"] == "Failed"
    assert len(run.failures) > 1, run.summary
