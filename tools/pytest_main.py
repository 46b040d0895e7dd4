"""Runs pytest on the files named on the command line, as the main program of a Bazel test."""

from __future__ import annotations

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["--config-file=pyproject.toml", "-p", "no:cacheprovider", *sys.argv[1:]]))
