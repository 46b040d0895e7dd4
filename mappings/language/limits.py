"""Bounds on what a config can make binding enumerate: sizes come from files that nobody vouches for."""

from __future__ import annotations

from mappings.language.errors import MappingErrors

MAX_SIZE = 2**40
"""The largest size of one axis."""

MAX_ELEMENTS = 2**60
"""The largest number of elements of one array, so that offsets fit into 64 bits."""

MAX_INDEX_VALUES = 10_000
"""The most values that an enumerated axis (layers) may have; the deepest published models have about 150."""

MAX_ARRAYS = 2_000_000
"""The most arrays that one layout may make; DeepSeek-V3 has 46,183."""

MAX_COMBINATIONS = 512
"""The most combinations of option values that detection and linter try."""


def check_enumerable(count: int, limit: int, what: str, location: str) -> None:
    """Refuses to enumerate more than a limit.

    Raises:
        MappingErrors: count is above limit.
    """
    if count > limit:
        shown = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise MappingErrors.of(location, f"{what}: {shown}, more than the limit of {limit:,}", "size")
