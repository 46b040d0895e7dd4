"""The pair that tests copy and change; saving it imports torch, so it is done once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.speculative import pairs


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`target`, `draft` and the heads `eagle`, `eagle3` and `medusa`; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    pairs.save_pair(folder)
    pairs.save_eagle(folder / "eagle")
    pairs.save_eagle3(folder / "eagle3")
    pairs.save_medusa(folder / "medusa")
    return folder


@pytest.fixture
def pair(saved: Path, tmp_path: Path) -> Path:
    """A copy of the pair and the heads, to change."""
    return pairs.copy_of(saved, tmp_path / "pair")
