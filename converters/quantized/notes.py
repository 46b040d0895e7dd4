"""What is known of encoded regions and cannot be found from the output: digests and losses, noted line by line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.formats.base import Region
from converters.quantized.encoding import Loss
from converters.quantized.forms import SCALES_DTYPE, Form
from validators.quantization import FLOAT8


@dataclasses.dataclass(frozen=True)
class Written:
    """What is known of a region that was written.

    Attributes:
        codes: digest of its codes, `scales` of its scales.
        loss: what encoding lost.
    """

    codes: str
    scales: str
    loss: Loss


def line(name: str, region: Region, written: Written) -> bytes:
    """What to note of a region."""
    loss = dataclasses.astuple(written.loss)
    return json.dumps([name, region, written.codes, written.scales, loss]).encode() + b"\n"


class Notes:
    """What was noted of an output's encoded arrays."""

    def __init__(self, path: Path):
        """Args: the file; the last line on a region counts."""
        self._written = dict(_read(path))

    def loss(self) -> Mapping[str, Loss]:
        """What was lost, by array."""
        found: dict[str, Loss] = {}
        for (name, _), written in self._written.items():
            found[name] = found.get(name, Loss()).joined(written.loss)
        return found

    def entries(self, plain: Mapping[str, Mapping[str, Any]], form: Form) -> dict[str, Mapping[str, Any]]:
        """For a manifest: dtype, shape and digests of what is stored, from those of the plain arrays."""
        out: dict[str, Mapping[str, Any]] = {}
        for name, entry in plain.items():
            if name not in form.names:
                out[name] = entry
                continue
            boxes = [tuple(zip(unit["start"], unit["stop"], strict=True)) for unit in entry["units"]]
            written = [(box, self._written[name, box]) for box in boxes]
            codes = [_unit(box, one.codes) for box, one in written]
            # Regions of an array may share a scale.
            of_scales = {form.region(box): one.scales for box, one in written}
            scales = [_unit(box, digest) for box, digest in of_scales.items()]
            shape = entry["shape"]
            out[name] = {"dtype": FLOAT8, "shape": shape, "units": codes}
            out[name + form.ending] = {"dtype": SCALES_DTYPE, "shape": list(form.grid(shape)), "units": scales}
        return out


def _read(notes: Path) -> Iterator[tuple[tuple[str, Region], Written]]:
    for line in notes.read_bytes().split(b"\n") if notes.is_file() else ():
        try:
            name, box, codes, scales, loss = json.loads(line)
            region = tuple((int(start), int(stop)) for start, stop in box)
            yield (name, region), Written(codes, scales, Loss(*(float(number) for number in loss)))
        except (ValueError, TypeError):
            # The last line of a run that was killed.
            continue


def _unit(box: Region, digest: str) -> dict[str, Any]:
    return {"start": [start for start, _ in box], "stop": [stop for _, stop in box], "blake3": digest}
