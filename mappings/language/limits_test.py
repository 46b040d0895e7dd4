import time

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.limits import MAX_INDEX_VALUES
from mappings.language.testing import family_of, layout_of

FAMILY = """name: "toy"
atom { name: "l" size: "layers" index: true }
atom { name: "x" size: "experts" }
atom { name: "e" size: "hidden" }
tensor { id: "w" axes: "l x e" }
"""
NAMED = 'format: "f" scope { at { name: "{l}." } rule { tensor: "w" name: "{x}" axes: "e" } }'
STACKED = """format: "f" stack_axis: "0"
scope { at { map: "l = b*5 + j" over: "b: blocks, j: 5" stack: "b j" } rule { tensor: "w" name: "w" axes: "x e" } }"""
SIZES = {"layers": 10, "experts": 3, "hidden": 4, "blocks": 2}


def issues(layout: str = NAMED, **config: object) -> list[str]:
    started = time.process_time()
    with pytest.raises(MappingErrors) as error:
        layout_of(family_of(FAMILY, {**SIZES, **config}), layout)
    assert time.process_time() - started < 1, "an absurd size must be refused before anything is enumerated"
    assert {issue.kind for issue in error.value.issues} == {"size"}
    return [str(issue) for issue in error.value.issues]


def test_the_unchanged_sizes_bind() -> None:
    family = family_of(FAMILY, SIZES)
    assert len(layout_of(family, NAMED).arrays) == 30
    assert layout_of(family, STACKED).arrays["w"].shape == (2, 5, 3, 4)


@pytest.mark.parametrize("layers", [10**9, MAX_INDEX_VALUES + 1])
def test_too_many_layers_are_refused_before_they_are_enumerated(layers: int) -> None:
    (message,) = issues(layers=layers)
    assert message == f"family.textproto:2: values of the index 'l': {layers:,}, more than the limit of 10,000"


def test_a_number_that_cannot_be_printed_is_refused() -> None:
    (message,) = issues(layers=10**5000)
    assert message.startswith("family.textproto:2: atom 'l' has size an integer of 16610 bits")


def test_too_many_arrays_are_refused_before_they_are_named() -> None:
    (message,) = issues(experts=10**9)
    assert message == "layout.textproto:1: arrays of the layout: 10,000,000,000, more than the limit of 2,000,000"


def test_arrays_beyond_64_bits_are_refused() -> None:
    (message,) = issues(layout=STACKED, experts=2**35, hidden=2**35)
    assert message.startswith("layout.textproto:2: elements of one array: more than 10^15")


def test_too_many_digits_of_a_map_are_refused() -> None:
    (message,) = issues(layout=STACKED, blocks=10**12)
    assert message.startswith("layout.textproto:2: places of 'l': 5,000,000,000,000")


def test_a_negative_number_of_blocks_is_refused() -> None:
    assert issues(layout=STACKED, blocks=-1) == ["layout.textproto:2: digit 'b' has size -1"]


def test_the_most_layers_that_are_allowed_bind_quickly() -> None:
    started = time.process_time()
    layout = layout_of(family_of(FAMILY, {**SIZES, "layers": MAX_INDEX_VALUES}), NAMED)
    assert len(layout.arrays) == 30_000
    assert time.process_time() - started < 5
