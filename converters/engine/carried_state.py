"""What an Orbax output holds beside the weights of its layout: training state, step, and the keys of its tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from converters.formats.orbax_extended import Extended
from converters.formats.orbax_metadata import Leaf


@dataclasses.dataclass(frozen=True)
class CarriedState:
    """Everything of an output's tree that is no weight.

    Attributes:
        step: number of the output's directory.
        leaves: by name, the keys of every array of the output, and the leaves for which nothing is stored.
        dtypes: dtype of each array of the output that is no weight; its bytes move, or it is zero.
        read: names of the arrays of the source from which those are taken.
        scalars: 64-bit integers that the sink adds.
        extended: by name, what the source keeps of an array beside its values, such as the kind of a random key.
        metadata: what the source's writer added to the step's metadata.
        lines: what became of the training state, in words.
        undecided: options of the layouts that nothing decides; no move depends on them.
    """

    step: int
    leaves: Mapping[str, Leaf]
    dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    read: frozenset[str] = frozenset()
    scalars: Mapping[str, int] = dataclasses.field(default_factory=dict)
    extended: Extended = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()
    undecided: frozenset[str] = frozenset()
