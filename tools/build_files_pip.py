"""Third-party packages: from the name in an import statement to the label of the package in one of the pip hubs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

HUBS: Mapping[str, str] = {"core": "recast_pip", "verify": "recast_verify_pip", "dev": "recast_dev_pip"}
"""The hub of each requirements/LAYER.in. A package that several name is taken from the first."""

DISTRIBUTIONS: Mapping[str, str] = {
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "orbax": "orbax-checkpoint",
    "yaml": "PyYAML",
}
"""Distributions that are not called as their modules are, by the start of the modules' names."""

UNLOCKED = ("maxtext",)
"""Modules of systems that no lock holds: a campaign that compares with one says how to install it."""


class UnknownDistributionError(Exception):
    """No requirements/LAYER.in asks for a distribution."""


class Requirements:
    """What the .in files ask for."""

    def __init__(self, directory: Path) -> None:
        self._layer_of: dict[str, str] = {}
        for layer in HUBS:
            for line in (directory / f"{layer}.in").read_text("utf-8").splitlines():
                name = re.match(r"[A-Za-z0-9][\w.-]*", line)
                if name:
                    self._layer_of.setdefault(_canonical(name.group()), layer)

    def layer(self, distribution: str) -> str:
        """The first layer that asks for a distribution.

        Raises:
            UnknownDistributionError: none does.
        """
        try:
            return self._layer_of[_canonical(distribution)]
        except KeyError:
            files = ", ".join(f"{layer}.in" for layer in HUBS)
            raise UnknownDistributionError(f"{distribution} is in none of requirements/: {files}") from None

    def label(self, distribution: str) -> str:
        """The label of a distribution.

        Raises:
            UnknownDistributionError: no layer asks for it.
        """
        return f"@{HUBS[self.layer(distribution)]}//{_canonical(distribution).replace('-', '_')}"


def distribution_of(imported: str) -> str | None:
    """The distribution that an import needs, or None for the standard library and for what no lock holds."""
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names or top in UNLOCKED:
        return None
    starts = [start for start in DISTRIBUTIONS if f"{imported}.".startswith(f"{start}.")]
    return DISTRIBUTIONS[max(starts, key=len)] if starts else top


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
