"""Runs pytest on the files named on the command line, as the main program of a Bazel test."""

from __future__ import annotations

import os
import sys

import pytest

if __name__ == "__main__":
    cache = os.path.join(os.environ.get("TEST_TMPDIR", "."), "pytest")
    sys.exit(pytest.main(["--config-file=pyproject.toml", f"--override-ini=cache_dir={cache}", *sys.argv[1:]]))
