"""The versions of transformers that the embedded catalogue names know the models that they are named for."""

from __future__ import annotations

import json
import subprocess
import sys

from packaging.version import Version

from mappings.serving import catalog as catalogs

CATALOG = catalogs.embedded()
# Its class is code beside its checkpoints, and derived from that of DeepSeek 3.
_FOREIGN = {"kimi_k2"}
_KNOWN = "import json, transformers; from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES; "
_SHOW = "print(json.dumps([transformers.__version__, sorted(CONFIG_MAPPING_NAMES)]))"


def model_types() -> dict[str, Version]:
    """The model types of the catalogue, with the version that is deployed for each."""
    return {
        catalogs.config_of(model)["model_type"]: Version(model.transformers.deployment)
        for model in CATALOG.model
        if model.family not in _FOREIGN
    }


def test_models_are_deployed_with_the_default_version_if_and_only_if_it_knows_them(
    transformers4: dict[str, str],
) -> None:
    shown = subprocess.run([sys.executable, "-c", _KNOWN + _SHOW], env=transformers4, check=True, capture_output=True)
    version, known = json.loads(shown.stdout.splitlines()[-1])
    assert version == "4.45.1"
    found = model_types()
    assert len(found) > 15
    assert {name for name, deployed in found.items() if deployed <= Version(version)} == set(found) & set(known)


def test_the_newest_version_knows_all_models_that_older_ones_are_named_for() -> None:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    newest = Version(transformers.__version__)
    found = model_types()
    assert set(found) <= set(CONFIG_MAPPING_NAMES)
    assert all(deployed <= newest for deployed in found.values())


def test_no_model_is_taken_from_a_newer_version_than_the_one_that_is_deployed() -> None:
    assert {
        model.name for model in CATALOG.model if model.transformers.supported != f"<={model.transformers.deployment}"
    } == set()
