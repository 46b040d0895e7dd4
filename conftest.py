"""What tests in every room share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Searches for cycles through the objects of torch and transformers would take a third of the time of all tests.
gc.set_threshold(20_000, 50)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --transformers4, which `./recast test` passes."""
    parser.addoption(
        "--transformers4",
        type=Path,
        metavar="DIRECTORY",
        help="where requirements/transformers4.txt is installed; tests that need transformers 4 are skipped without it",
    )


@pytest.fixture(scope="session")
def transformers4(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment variables of a subprocess in which `import transformers` gives version 4.

    It replaces transformers, tokenizers and huggingface_hub; everything else (torch, NumPy) is this interpreter's.
    """
    directory: Path | None = request.config.getoption("--transformers4")
    if directory is None:
        pytest.skip("needs --transformers4=DIRECTORY")
    if not (directory / "transformers").is_dir():
        pytest.fail(f"no transformers package in {directory}")
    path = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}
