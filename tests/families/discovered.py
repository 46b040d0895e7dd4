"""What the modules of this folder prove: the families that they describe, by folder of the mappings."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mappings.language import loader
from tests.families import harness
from tests.families.harness import Family

MODULES = tuple(name for name in loader.families() if (Path(__file__).parent / f"{name}_test.py").is_file())
"""Families with a module of their own name."""


def _described() -> Iterator[Family]:
    for name in MODULES:
        module = importlib.import_module(f"tests.families.{name}_test")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, harness.FamilyTests) and value is not harness.FamilyTests:
                yield value.family


def _by_folder() -> Mapping[str, list[Family]]:
    found: dict[str, list[Family]] = {}
    for family in _described():
        found.setdefault(family.folder, []).append(family)
    return found


FAMILIES = _by_folder()
"""Each once for every class that describes it: some have one for each part of the model."""
