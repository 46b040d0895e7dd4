"""What the tests of families share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.families.harness")

from tests.families import harness  # noqa: E402


@pytest.fixture(scope="module")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> harness.Saved:
    """A tiny checkpoint that transformers saved; made once for all tests of a module that read it."""
    family, name = request.param
    saved = harness.save(family, name, tmp_path_factory.mktemp(name) / "hf")
    assert len(list(saved.directory.glob("*.safetensors"))) > 1
    return saved
