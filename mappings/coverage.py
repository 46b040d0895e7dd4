"""Which conversions of which published models the mappings give: each one is bound and composed, nothing is listed."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mappings import catalog, peer_table
from mappings.catalog import Manifest
from mappings.language import loader, static_lint
from mappings.language.composition import compose
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout

_HF, _MAXTEXT = "hf", "maxtext"


class Direction(enum.Enum):
    """The four conversions between Hugging Face's format and MaxText's; the value is what a table's head says."""

    TO_SCANNED = "HF -> Orbax (scan)"
    TO_UNSCANNED = "HF -> Orbax (unscan)"
    FROM_SCANNED = "Orbax (scan) -> HF"
    FROM_UNSCANNED = "Orbax (unscan) -> HF"

    @property
    def scan(self) -> bool:
        """Whether MaxText's layers are stacked."""
        return self in (Direction.TO_SCANNED, Direction.FROM_SCANNED)

    @property
    def forward(self) -> bool:
        """Whether the target is MaxText's format."""
        return self in (Direction.TO_SCANNED, Direction.TO_UNSCANNED)


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """What one row of a table says.

    Attributes:
        family: its title.
        models: the published name behind each size, by the size as the row writes it.
        in_peer_table: whether MaxText's table has this row.
        remark: for the reader.
        faults: for each direction why it is not covered; none where every size composes.
    """

    family: str
    models: Mapping[str, str]
    in_peer_table: bool
    remark: str
    faults: Mapping[Direction, tuple[str, ...]]

    def covers(self, direction: Direction) -> bool:
        """Whether all models of the row are converted in a direction."""
        return not self.faults[direction]


def table(root: Path | None = None) -> tuple[Coverage, ...]:
    """The rows of MaxText's table, then one for each layout name with published models that it does not have.

    Args:
        root: folder of the mappings; that of this installation if not given.

    Raises:
        MappingErrors: a manifest cannot be read.
    """
    checker = _Checker(root)
    rows = [checker.row(row.family, row.sizes, in_peer_table=True, remark=row.remark) for row in peer_table.ROWS]
    listed = {name for row in peer_table.ROWS for name in row.sizes.values()}
    further: dict[tuple[str, str], dict[str, str]] = {}
    for manifest in catalog.manifests(root):
        if manifest.name not in listed:
            size = manifest.name.removeprefix(manifest.layout).lstrip("-") or manifest.name
            further.setdefault((manifest.layout, manifest.family), {})[size] = manifest.name
    return (*rows, *(checker.row(layout, sizes, in_peer_table=False) for (layout, _), sizes in further.items()))


def faults_of(manifest: Manifest, root: Path | None = None) -> Mapping[Direction, tuple[str, ...]]:
    """Why a published model is not converted, for each direction; nothing where it is."""
    try:
        family = bind_family(loader.load_family(manifest.family, root), manifest.config)
        hf = bind_layout(family, loader.load_layout(manifest.family, _HF, root))
    except MappingErrors as errors:
        return dict.fromkeys(Direction, _texts(errors))
    found: dict[Direction, tuple[str, ...]] = {}
    for scan in (True, False):
        directions = [direction for direction in Direction if direction.scan is scan]
        try:
            source = loader.load_layout(manifest.family, _MAXTEXT, root)
            known = {option.name for option in source.node.option}
            given = {**manifest.options.get(_MAXTEXT, {}), "scan": "true" if scan else "false"}
            maxtext = bind_layout(family, source, {name: value for name, value in given.items() if name in known})
        except MappingErrors as errors:
            found |= dict.fromkeys(directions, _texts(errors))
            continue
        for direction in directions:
            found[direction] = _faults(*((hf, maxtext) if direction.forward else (maxtext, hf)))
    return found


class _Checker:
    def __init__(self, root: Path | None):
        self._root = root
        self._found: dict[str, Mapping[Direction, tuple[str, ...]]] = {}

    def row(self, family: str, sizes: Mapping[str, str], *, in_peer_table: bool, remark: str = "") -> Coverage:
        faults: dict[Direction, tuple[str, ...]] = dict.fromkeys(Direction, ())
        for name in sizes.values():
            for direction, found in self._faults(name).items():
                faults[direction] += tuple(f"{name}: {fault}" for fault in found)
        return Coverage(family, dict(sizes), in_peer_table, remark, faults)

    def _faults(self, name: str) -> Mapping[Direction, tuple[str, ...]]:
        manifest = catalog.find(name, self._root)
        if manifest is None:
            return dict.fromkeys(Direction, ("there is no mapping of this model yet",))
        key = self._key(manifest)
        if key not in self._found:
            self._found[key] = faults_of(manifest, self._root)
        return self._found[key]

    def _key(self, manifest: Manifest) -> str:
        """What the outcome depends on: models of one shape are composed once."""
        read = _fields(manifest.family, self._root)
        config = {field: value for field, value in manifest.config.items() if field in read}
        options = {format: dict(values) for format, values in manifest.options.items()}
        return json.dumps([manifest.family, config, options], sort_keys=True)


def _fields(family: str, root: Path | None) -> frozenset[str]:
    """All names in the texts of a mapping, among them those of the config's fields that it reads."""
    try:
        source = loader.load_family(family, root)
        layouts = [loader.load_layout(family, format, root) for format in loader.formats_of(family, root)]
    except MappingErrors:
        return frozenset()
    texts = [text.text for text in static_lint.family_texts(source.node)]
    texts += [text.text for layout in layouts for text in static_lint.layout_texts(layout.node)]
    return frozenset([*source.node.config_root, *re.findall(r"\w+", " ".join(texts))])


def _faults(source: Layout, target: Layout) -> tuple[str, ...]:
    try:
        compose(source, target, present=source.arrays)
    except MappingErrors as errors:
        return _texts(errors)
    return ()


def _texts(errors: MappingErrors) -> tuple[str, ...]:
    return tuple(str(issue) for issue in errors.issues)


def missing(rows: Iterable[Coverage]) -> tuple[str, ...]:
    """Every reason for which a cell is empty, each once."""
    return tuple(dict.fromkeys(fault for row in rows for found in row.faults.values() for fault in found))
