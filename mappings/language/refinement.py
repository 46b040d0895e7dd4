"""Common refinement: the digits that two spellings of one atom have in common."""

from __future__ import annotations

import dataclasses
import functools
import itertools

from mappings.language.naming import Digits


@dataclasses.dataclass(frozen=True, slots=True)
class CommonDigit:
    """A digit that is a digit, or a part of one, on both sides.

    Attributes:
        count: its size.
        source: the digit of the source spelling that it belongs to.
        source_factor: what a step of it adds to that digit.
        target: the digit of the target spelling that it belongs to.
        target_factor: what a step of it adds to that digit.
    """

    count: int
    source: str
    source_factor: int
    target: str
    target_factor: int


class NoChainError(Exception):
    """Two spellings that do not refine each other.

    Attributes:
        source_cut: where one side cuts the atom.
        target_cut: where the other does.
    """

    def __init__(self, source_cut: int, target_cut: int):
        super().__init__(f"cut at {source_cut} by one side and at {target_cut} by the other")
        self.source_cut = source_cut
        self.target_cut = target_cut


@functools.lru_cache(maxsize=4096)
def refine(source: Digits, target: Digits) -> tuple[CommonDigit, ...]:
    """The common digits of two spellings of one atom, major first, without those of size 1.

    The suffix products of both are sorted; each must divide the next, and the quotients are the common digits.

    Raises:
        NoChainError: the products form no chain, such as cuts into 3 and into 2.
    """
    cuts = sorted({*_suffix_products(source), *_suffix_products(target)})
    common: list[CommonDigit] = []
    for low, high in itertools.pairwise(cuts):
        if high % low:
            raise NoChainError(low, high)
        common.append(CommonDigit(high // low, *_owner(source, low), *_owner(target, low)))
    return tuple(reversed(common))


def _suffix_products(digits: Digits) -> list[int]:
    products = [1]
    for _, size in reversed(digits):
        products.append(products[-1] * size)
    return products


def _owner(digits: Digits, weight: int) -> tuple[str, int]:
    """The digit that a weight of the whole atom lies in, and that weight within it."""
    low = 1
    for name, size in reversed(digits):
        if low <= weight < low * size:
            return name, weight // low
        low *= size
    raise ValueError(f"weight {weight} is beyond the digits {digits}")
