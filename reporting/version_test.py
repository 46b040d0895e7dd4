from __future__ import annotations

import re
import tomllib
from pathlib import Path

from reporting.version import VERSION

ROOT = Path(__file__).resolve().parent.parent


def test_the_version_is_the_same_in_all_its_places() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    module = re.search(r'^module\([^)]*version = "([^"]*)"', (ROOT / "MODULE.bazel").read_text(), re.MULTILINE)
    assert module is not None
    assert (project, module.group(1)) == (VERSION, VERSION)
