from __future__ import annotations

from pathlib import Path

from recast_proto import error_pb2
from reporting import error_table

ROOT = Path(__file__).resolve().parent.parent


def test_the_checked_in_table_is_the_one_that_is_made() -> None:
    assert (ROOT / "docs" / "errors.md").read_text("utf-8") == error_table.render()


def test_every_id_has_a_meaning_and_no_other_name_has() -> None:
    known = [value.name for value in error_pb2.RecastErrorId.DESCRIPTOR.values if value.number]
    assert sorted(error_table.MEANINGS) == sorted(known)


def test_every_row_has_all_of_its_cells() -> None:
    rows = [line for line in error_table.render().splitlines() if line.startswith("| `")]
    assert len(rows) == len(error_table.MEANINGS)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 5
        assert all(cells)


def test_rows_say_what_the_exit_codes_are() -> None:
    table = error_table.render()
    assert "| `MISSING_SHARD` | USAGE | 2 |" in table
    assert "| `INTERNAL` | LIBRARY | 3 |" in table
    assert "| `MEMORY_PLAN` | USAGE | 4 |" in table
    assert "| `DISK_FULL` | USAGE | 5 |" in table
    assert "| `TERMINATED` | USAGE | 143 |" in table
    assert "| `TENSOR_ALL_ZERO` | USAGE | 0 (warning) |" in table
