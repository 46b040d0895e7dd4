"""Third-party packages: from the name in an import statement to the label of the package in one of the pip hubs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

HUBS: Mapping[str, str] = {"core": "recast_pip", "verify": "recast_verify_pip", "dev": "recast_dev_pip"}
"""The hub of each requirements/LAYER.in. A package that several name is taken from the first."""

TRANSFORMERS4 = "transformers4"
"""A layer that no module imports: it replaces packages of another one, for tests that take the fixture of its name."""

TRANSFORMERS4_HUB = "recast_transformers4_pip"

DISTRIBUTIONS: Mapping[str, str] = {
    "absl": "absl-py",
    "cv2": "opencv-python-headless",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
    "grpc_tools": "grpcio-tools",
    "orbax": "orbax-checkpoint",
    "yaml": "pyyaml",
}
"""Distributions that are not called as their modules are, by the start of the modules' names."""

UNLOCKED = ("maxtext", "pip")
"""Modules that no lock holds: of a system that a campaign compares with, which says how to install it, and of the
installer that comes with the interpreter."""


class UnknownDistributionError(Exception):
    """No requirements/LAYER.in asks for a distribution."""


class Requirements:
    """What the .in files ask for."""

    def __init__(self, directory: Path) -> None:
        self._layer_of: dict[str, str] = {}
        for layer in HUBS:
            for name in _asked(directory / f"{layer}.in"):
                self._layer_of.setdefault(name, layer)
        separate = directory / f"{TRANSFORMERS4}.in"
        self._transformers4 = tuple(_asked(separate)) if separate.exists() else ()

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
        return _label(HUBS[self.layer(distribution)], _canonical(distribution))

    def transformers4(self) -> tuple[str, ...]:
        """The labels of the packages that the fixture of that name puts in front of others."""
        return tuple(_label(TRANSFORMERS4_HUB, name) for name in self._transformers4)


def distribution_of(imported: str) -> str | None:
    """The distribution that an import needs, or None for the standard library and for what no lock holds."""
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names or top in UNLOCKED:
        return None
    starts = [start for start in DISTRIBUTIONS if f"{imported}.".startswith(f"{start}.")]
    return DISTRIBUTIONS[max(starts, key=len)] if starts else top


def _asked(file: Path) -> Iterator[str]:
    for line in file.read_text("utf-8").splitlines():
        name = re.match(r"[A-Za-z0-9][\w.-]*", line)
        if name:
            yield _canonical(name.group())


def _label(hub: str, canonical: str) -> str:
    return f"@{hub}//{canonical.replace('-', '_')}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
