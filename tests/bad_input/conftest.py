"""Good checkpoints for each test to damage, and a destination that is not there yet."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bad_input import checkpoints
from tests.bad_input.running import Convert, hf_to_maxtext, maxtext_to_hf


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


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """A directory to convert into that does not exist, nor do its parents."""
    return tmp_path / "new" / "folder" / "out"


@pytest.fixture(params=["hf-to-maxtext", "maxtext-to-hf"])
def convert(request: pytest.FixtureRequest) -> Convert:
    """Either direction, from a good source: takes the destination and flags."""
    if request.param == "hf-to-maxtext":
        hf: Path = request.getfixturevalue("hf")
        return lambda destination, *flags: hf_to_maxtext(hf, destination, *flags)
    maxtext: Path = request.getfixturevalue("maxtext")
    return lambda destination, *flags: maxtext_to_hf(maxtext, destination, *flags)


def _copy(templates: Path, tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(templates / name, tmp_path / name))
