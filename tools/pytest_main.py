"""Runs pytest on the files named on the command line, as the main program of a Bazel test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

TRANSFORMERS4 = "*recast_transformers4_pip*"
HUBS = "*recast_*pip*"


def merged(runfiles: Path, target: Path) -> Path | None:
    """One folder with the packages of the transformers4 layer, or None if the test has none of them.

    Args:
        runfiles: where Bazel puts what the test needs.
        target: the folder to make.
    """
    found = _site_packages(runfiles, TRANSFORMERS4)
    for folder in found:
        for path in folder.iterdir():
            target.mkdir(exist_ok=True)
            (target / path.name).symlink_to(path.resolve())
    return target if found else None


def _site_packages(runfiles: Path, hub: str) -> list[Path]:
    return sorted([*runfiles.glob(f"{hub}/site-packages"), *runfiles.glob(f"{hub}/*/site-packages")])


def main() -> int:
    """Runs pytest.

    Returns:
        Its exit code.
    """
    scratch = Path(os.environ["TEST_TMPDIR"])
    here = os.path.dirname(os.path.abspath(__file__))
    # As for a checkout: not the folder of this program, and processes that a test starts find the same modules.
    sys.path[:] = [path for path in sys.path if path and os.path.abspath(path) != here]
    os.environ.setdefault("HOME", str(scratch))
    arguments = ["--config-file=pyproject.toml", f"--override-ini=cache_dir={scratch / 'pytest'}"]
    if "XML_OUTPUT_FILE" in os.environ:
        arguments.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    runfiles = Path(os.environ["TEST_SRCDIR"])
    transformers4 = merged(runfiles, scratch / "transformers4")
    inherited = list(sys.path)
    if transformers4 is not None:
        arguments.append(f"--transformers4={transformers4}")
        # What only transformers 4 needs; it comes last, for the processes that a test starts.
        rest = set(_site_packages(runfiles, HUBS)) - set(_site_packages(runfiles, TRANSFORMERS4))
        inherited += sorted({str(path) for path in rest} - set(inherited))
    os.environ["PYTHONPATH"] = os.pathsep.join(inherited)
    return int(pytest.main([*arguments, *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
