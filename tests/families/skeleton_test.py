"""What new-family writes after the pattern of any family: modules that import, and mappings that lint."""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path

import pytest

from converters import family_skeleton
from converters.family_skeleton import Names
from mappings import catalog
from mappings.language import loader
from tests.families.discovered import FAMILIES
from tests.families.harness import Config

# Bazel shows a test no other test's module.
pytestmark = pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs all modules of the folder")

ROOT = Path(__file__).parents[2]
PATTERNS = [name for name in loader.families() if not family_skeleton.is_alias(ROOT, name)]


def _files(like: str) -> dict[str, str]:
    names = Names("heron", like, "heron", "heron-1b", "example/Heron-1B")
    pattern = next(manifest.config for manifest in catalog.manifests() if manifest.family == like)
    return {str(path.relative_to(ROOT)): text for path, text in _made(names, pattern).items()}


def _made(names: Names, pattern: Config) -> dict[Path, str]:
    return family_skeleton.files(ROOT, names, None, pattern)


@pytest.mark.parametrize("like", PATTERNS)
def test_every_file_has_something_left_to_do_and_the_names_of_the_new_family(like: str) -> None:
    files = _files(like)
    layouts = {f"mappings/heron/{path.name}" for path in (ROOT / "mappings" / like).glob("*.textproto")}
    others = {"mappings/manifests/heron-1b.textproto", "tests/oracles/heron.py", "tests/families/heron_test.py"}
    assert files.keys() == layouts | others
    assert all(family_skeleton.MARK in text for text in files.values())
    assert '\nname: "heron"\nmodel_type: "heron"\n' in files["mappings/heron/family.textproto"]
    for name in layouts - {"mappings/heron/family.textproto"}:
        assert '\nfamily: "heron"\n' in files[name]


@pytest.mark.parametrize("like", PATTERNS)
def test_the_test_module_has_the_patterns_configs_and_none_of_its_figures(
    like: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _files(like)
    oracle = importlib.import_module(FAMILIES[like][0].oracle.__module__)
    monkeypatch.setitem(sys.modules, "tests.oracles.heron", oracle)
    module = types.ModuleType("heron_test")
    exec(compile(files["tests/families/heron_test.py"], "heron_test.py", "exec"), module.__dict__)
    made, pattern = module.TestHeron.family, FAMILIES[like][0]
    assert (made.folder, made.published, made.golden) == ("heron", {"heron-1b": 0}, "")
    assert made.configs.keys() == pattern.configs.keys()
    own = loader.load_family(like).node.model_type
    for name, config in made.configs.items():
        expected = pattern.configs[name]
        assert config["model_type"] == ("heron" if expected["model_type"] in own else expected["model_type"])
        assert config.keys() == expected.keys()
    for field in ("state_options", "own_dtypes", "targets", "not_in_model", "square", "loads", "auto_class"):
        assert getattr(made, field) == getattr(pattern, field)
