"""Where a format's own tool makes a mistake that is not repeated: rules with `peer_differs`."""

from __future__ import annotations

from mappings.language.layout import Layout
from mappings.language.static_lint import rules_of


def differences(layout: Layout) -> tuple[tuple[str, str], ...]:
    """For each rule that says so and places something: the name of its first array, and the reason."""
    first: dict[str, str] = {}
    for name, array in layout.arrays.items():
        if not array.mirror:
            first.setdefault(array.location, name)
    return tuple(
        (first[rule.location], rule.peer_differs.reason)
        for rule in rules_of(layout.source.node)
        if rule.peer_differs is not None
        and rule.location in first
        and layout.symbols.holds(rule.peer_differs.when, rule.peer_differs.location)
    )
