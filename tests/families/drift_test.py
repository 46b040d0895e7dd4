"""No family is without its proof, and transformers' models keep the dtypes that the layouts say."""

from __future__ import annotations

import os
from typing import Any

import pytest

from mappings import catalog
from mappings.language import loader
from tests import checkpoints
from tests.families import harness
from tests.families.discovered import FAMILIES, MODULES

# Bazel shows a test no other test's module.
pytestmark = pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs all modules of the folder")


@pytest.mark.parametrize("folder", loader.families())
def test_every_family_has_a_module_an_oracle_and_manifests(folder: str) -> None:
    assert folder in MODULES, f"there is no tests/families/{folder}_test.py"
    assert FAMILIES[folder], f"tests/families/{folder}_test.py proves another family"
    for family in FAMILIES[folder]:
        module = family.oracle.__module__
        assert module.startswith(("tests.oracles.", f"tests.families.{folder}_test")), module
    published = {name for family in FAMILIES[folder] for name in family.published}
    assert published
    assert published == {manifest.name for manifest in catalog.manifests() if manifest.family == folder}


def test_every_family_that_is_proven_is_there() -> None:
    assert set(FAMILIES) == set(loader.families())


@pytest.mark.parametrize("folder", sorted(FAMILIES))
def test_what_transformers_itself_keeps_in_another_dtype_keeps_its_own_in_the_layout(folder: str) -> None:
    import torch
    import transformers

    for family in FAMILIES[folder]:
        # transformers has no class for a published name or two; their modules say which one they take.
        for config in (c for c in family.configs.values() if c["model_type"] in transformers.CONFIG_MAPPING):
            layout = harness.layout_of(folder, "hf", config, family.state_options)
            found = {name: str(dtype) for name, dtype in _dtypes(config, family.auto_class, torch.bfloat16).items()}
            own = {name for name, dtype in found.items() if dtype != "torch.bfloat16" and name in layout.arrays}
            assert own <= {name for name, array in layout.arrays.items() if array.keep_dtype}, own


def _dtypes(config: harness.Config, auto_class: str, dtype: Any) -> dict[str, Any]:
    """The dtypes in which transformers' model of a config holds its state when it is made in one dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = checkpoints.transformers_model(config, auto_class)
    finally:
        torch.set_default_dtype(before)
    return {name: values.dtype for name, values in model.state_dict().items()}
