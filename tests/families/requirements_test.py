"""What every family says of a config that it refuses: the field, what is known, and the value that was found."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mappings.language import loader
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.requirements import check
from mappings.language.scopes import MISSING, Symbols

_FAMILIES = loader.families()


@pytest.mark.parametrize("family", _FAMILIES)
def test_each_requirement_names_a_field_that_it_reads(family: str) -> None:
    source = loader.load_family(family)
    assert source.node.require
    for require in source.node.require:
        read = [
            _symbols(family, example.config).reads(require.that, require.location) for example in source.node.example
        ]
        fields = {name.rpartition(".")[2] for each in read for name in each}
        assert any(field in require.say for field in fields), (require.location, require.say, sorted(fields))


@pytest.mark.parametrize("family", _FAMILIES)
def test_each_requirement_that_does_not_hold_shows_what_the_config_has(family: str) -> None:
    source = loader.load_family(family)
    for require in source.node.require:
        for example in source.node.example:
            symbols = _symbols(family, example.config)
            broken = dataclasses.replace(require, that=f"!({require.that})")
            with pytest.raises(MappingErrors) as error:
                check(broken, symbols)
            (issue,) = error.value.issues
            assert issue.text.startswith(require.say)
            found = symbols.reads(require.that, require.location)
            given = [name for name, value in found.items() if not isinstance(value, dict) and value is not MISSING]
            shown = issue.text.removeprefix(require.say)
            assert all(name in shown for name in given or found), (require.location, shown)


def _symbols(family: str, config: str) -> Symbols:
    return bind_family(loader.load_family(family), json.loads(config)).symbols
