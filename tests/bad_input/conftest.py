"""Good checkpoints for each test to damage, and a destination that is absent or empty."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bad_input import checkpoints
from tests.bad_input.running import hf_to_maxtext


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in one file, in several, and what MaxText's layout makes of it."""
    root = tmp_path_factory.mktemp("templates")
    checkpoints.write(root / "hf")
    checkpoints.write_sharded(root / "sharded")
    run = hf_to_maxtext(root / "hf", root / "maxtext")
    assert run.code == 0, run.output
    return root


@pytest.fixture
def hf(templates: Path, tmp_path: Path) -> Path:
    """A good Hugging Face checkpoint in one file."""
    return _copy(templates, tmp_path, "hf")


@pytest.fixture
def sharded(templates: Path, tmp_path: Path) -> Path:
    """A good Hugging Face checkpoint in several files with an index."""
    return _copy(templates, tmp_path, "sharded")


@pytest.fixture
def maxtext(templates: Path, tmp_path: Path) -> Path:
    """A good MaxText checkpoint that Recast wrote."""
    return _copy(templates, tmp_path, "maxtext")


@pytest.fixture(params=["absent", "empty"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory to convert into: one that does not exist, nor its parents, or an empty one."""
    place = tmp_path / "new" / "folder" / "out"
    if request.param == "empty":
        place.mkdir(parents=True)
    return place


def _copy(templates: Path, tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(templates / name, tmp_path / name))
