"""The engine that the tests of a module share, and the image that most of them run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.images import engine
from tests.images.engine import Container, Engine


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine.started(tmp_path_factory.mktemp("engine")) as podman:
        yield podman


@pytest.fixture(scope="module")
def slim(podman: Engine) -> Container:
    return Container(podman, podman.pull("recast-slim"))
