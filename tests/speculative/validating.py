"""Runs validate-speculative-decoding and reads its table from report.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tests.bad_input.running import Run, recast


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the table."""

    outcome: str
    target: str
    draft: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """A run and its table by the names of checks."""

    run: Run
    table: dict[str, Line]

    def outcomes(self, *wanted: str) -> dict[str, str]:
        """The outcomes of the rows that have one of these."""
        return {check: line.outcome for check, line in self.table.items() if line.outcome in wanted}


def judge(folder: Path, *arguments: str, draft: str = "draft") -> Judged:
    """Validates `target` and a draft of a folder."""
    reports = folder / "reports"
    run = recast(
        "validate-speculative-decoding",
        f"--target_checkpoint_path={folder / 'target'}",
        f"--draft_checkpoint_path={folder / draft}",
        f"--report_directory={reports}",
        *arguments,
    )
    said = json.loads((reports / "report.json").read_text("utf-8"))
    table = {
        row["check"]: Line(row["outcome"], row.get("target", ""), row.get("draft", ""), row["reason"])
        for row in said.get("comparison", [])
    }
    return Judged(run, table)
