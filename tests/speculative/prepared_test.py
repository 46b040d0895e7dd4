"""Checkpoints that prepare-ckpt wrote are validated like those that it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import serving_checkpoints
from tests.bad_input.running import recast
from tests.serving_checkpoints import PLAIN, TIED, TIED_CONFIG
from tests.speculative.validating import Judged, judge


@pytest.mark.parametrize("prepared", [False, True])
def test_a_draft_whose_head_was_written_out_is_still_its_model(prepared: bool, tmp_path: Path) -> None:
    judged = _judged(tmp_path, prepared, tied_config=True)
    assert judged.run.steps["validate_draft"] == "Succeeded", judged.run.summary
    assert judged.table["lm_head rows"].outcome == ("accepted" if prepared else "not applicable")


def test_a_model_whose_head_stays_tied_must_have_it_so(tmp_path: Path) -> None:
    judged = _judged(tmp_path, False, tied_config=False)
    assert judged.run.steps["validate_draft"] == "Failed"
    assert "TIED_EMBEDDINGS_MISMATCH" in judged.run.ids


def _judged(folder: Path, prepared: bool, *, tied_config: bool) -> Judged:
    """A large target, and a draft with tied embeddings that is said to be TIED, or falsely PLAIN."""
    catalogue = serving_checkpoints.catalogue(folder / "catalog.textproto")
    serving_checkpoints.write(folder / "target")
    serving_checkpoints.write(folder / "draft", TIED_CONFIG)
    name = TIED if tied_config else PLAIN
    if prepared:
        run = recast(
            "prepare-ckpt",
            *("--model", name, "--server", str(catalogue)),
            *("--original_checkpoint_path", str(folder / "draft")),
            *("--output_checkpoint_path", str(folder / "prepared")),
        )
        assert run.code == 0, run.summary
    return judge(folder, f"--server={catalogue}", f"--draft_model={name}", draft="prepared" if prepared else "draft")
