"""Names of many arrays at once, against each by itself."""

from __future__ import annotations

import pytest

from mappings.language.naming import BoundName, _Number, _Word

_LAYER = _Number((("l", 3),), 0)
_EXPERT = _Number((("x", 4),), 1)
_BOTH = _Number((("l", 3), ("x", 4)), 0)
_WORD = _Word((("w", 2),), ("gate", "up"))


@pytest.mark.parametrize(
    "parts",
    [
        ("layers.", _LAYER, ".experts.", _EXPERT, ".weight"),
        (_EXPERT, _LAYER),
        ("layers.", _LAYER, ".experts.", _EXPERT, ".", _WORD),
        ("layers.", _LAYER, ".", _WORD),
        ("experts.", _BOTH, ".weight"),
        ("x", _EXPERT, ".and.", _EXPERT),
        ("layers.", _LAYER),
        ("norm",),
    ],
)
def test_names_for_all_pairs_of_values_are_those_of_each_pair(parts: tuple[str | _Number | _Word, ...]) -> None:
    digits = {digit: size for part in parts if not isinstance(part, str) for digit, size in part.digits}
    name = BoundName(parts, digits)
    outer = [{"l": layer} for layer in range(3)]
    inner = [{"x": expert, "w": word} for expert in range(4) for word in range(2)]
    assert list(name.texts(outer, inner)) == [name.text({**ours, **theirs}) for ours in outer for theirs in inner]


def test_names_without_inner_digits_are_one_for_each_outer_value() -> None:
    name = BoundName(("layers.", _LAYER), {"l": 3})
    assert list(name.texts([{"l": 2}, {"l": 0}], [{}])) == ["layers.2", "layers.0"]
    assert list(name.texts([{"l": 2}], [])) == []
