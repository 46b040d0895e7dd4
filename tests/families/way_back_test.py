"""Of every family, in every form: what MaxText has no place for is kept, or must be zero, so that all comes back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from mappings.language import loader
from mappings.language.composition import compose
from mappings.language.errors import MappingErrors
from mappings.language.family import Family, bind_family
from mappings.language.keeping import extended, lost
from mappings.language.layout import Layout, bind_layout
from mappings.language.options import listed_values


@pytest.mark.parametrize("name", loader.families())
def test_every_array_comes_back_from_maxtext_and_only_what_must_be_zero_is_made_up(name: str) -> None:
    tried = 0
    for example in loader.load_family(name).node.example:
        family = bind_family(loader.load_family(name), json.loads(example.config))
        for hf, maxtext in itertools.product(_forms(family, name, "hf"), _forms(family, name, "maxtext")):
            there = extended(maxtext, [each.name for each in lost(hf, maxtext, hf.arrays)])
            back = compose(there, hf, there.arrays, wanted=hf.arrays)
            assert set(back.produced) == set(hf.arrays), (example.name, hf.options, maxtext.options)
            zero = {absence.tensor for absence in maxtext.absent if absence.must_be_zero}
            assert {fill.tensor for fill in back.fills} <= zero, (example.name, hf.options, maxtext.options)
            tried += 1
    assert tried


def _forms(family: Family, name: str, format: str) -> Iterator[Layout]:
    """The layouts of a format with each combination of the values that its options list."""
    source = loader.load_layout(name, format)
    listed = {option.name: listed_values(option) for option in source.node.option if option.value}
    for values in itertools.product(*listed.values()):
        try:
            yield bind_layout(family, source, dict(zip(listed, values, strict=True)))
        except MappingErrors as errors:
            # A combination that the example's sizes do not allow.
            if any(issue.kind != "size" for issue in errors.issues):
                raise
