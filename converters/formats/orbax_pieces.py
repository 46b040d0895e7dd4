"""Single arrays of an Orbax item that may be damaged: each is opened on its own, with or without `_METADATA`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from converters.formats.base import AnyArray, Region, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype
from converters.formats.orbax_arrays import check_files, open_arrays
from converters.formats.orbax_metadata import TREE_FILE, Tree, array_leaf, array_names, read_tree
from converters.formats.regions import check_inside, shape_of, slices
from converters.formats.tensorstore_io import new_context, unreadable
from reporting.diagnostics import Diagnostic, RecastError

# What NNX puts below the name of a parameter.
_VALUE = ".value"


class OrbaxPieces:
    """Arrays by their names; one that NNX wrapped in `value` goes by its name without that. Thread-safe.

    Attributes:
        tensors: those that could be opened.
        faults: why the others could not.
    """

    def __init__(self, items: Path, names: Sequence[str]) -> None:
        """Opens arrays.

        Args:
            items: the item's directory.
            names: of the arrays.
        """
        self.tensors: dict[str, TensorInfo] = {}
        self.faults: dict[str, Sequence[Diagnostic]] = {}
        self._stores: dict[str, Any] = {}
        self._context = new_context()
        try:
            check_files(items)
        except RecastError as error:
            self.faults.update(dict.fromkeys(names, error.diagnostics))
            return
        try:
            tree = read_tree(items / TREE_FILE)
        except RecastError:
            for zarr3 in (True, False):
                for end in ("", _VALUE):
                    self._open(items, Tree({}, None, zarr3, True, {}), {f"{n}{end}": n for n in self._left(names)})
            return
        known = {name: leaf.name for name, leaf in array_names(tree.leaves)}
        self._open(items, tree, {known[name]: name for name in names if name in known})
        for name in set(names) - set(known):
            reason = f"{name} is not in {TREE_FILE}"
            self.faults[name] = [Diagnostic("ORBAX_METADATA_INVALID", reason, subject=name)]

    def read(self, name: str, region: Region) -> AnyArray:
        """A region as a new array; raises RecastError ORBAX_ARRAY_UNREADABLE where it cannot be decoded."""
        info = self.tensors[name]
        check_inside(name, region, info.shape)
        out: AnyArray = np.empty(shape_of(region), numpy_dtype(info.dtype))
        try:
            ts.array(out).write(self._stores[name][slices(region)]).result()
        except (ValueError, OSError) as error:
            raise RecastError([unreadable(name, error)]) from error
        return out

    def release(self, name: str, region: Region) -> None:
        """Nothing is cached."""

    def close(self) -> None:
        """Closes the arrays."""
        self._stores = {}

    def _left(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.tensors]

    def _open(self, items: Path, tree: Tree, stored: Mapping[str, str]) -> None:
        """Opens arrays, given with their names by stored name, all at once or else one by one."""
        try:
            self._take(open_arrays(items, _only(tree, stored), self._context), stored)
            return
        except RecastError:
            pass
        for place, name in stored.items():
            try:
                self._take(open_arrays(items, _only(tree, [place]), self._context), stored)
            except RecastError as error:
                self.faults.setdefault(name, error.diagnostics)

    def _take(self, stores: Mapping[str, Any], stored: Mapping[str, str]) -> None:
        for place, store in stores.items():
            name, dtype = stored[place], store.dtype.name
            if dtype not in NAMES:
                reason = f"{name} has elements of type {dtype}"
                self.faults[name] = [Diagnostic("DTYPE_NOT_SUPPORTED", reason, subject=name)]
                continue
            self._stores[name] = store
            self.tensors[name] = TensorInfo(name, tuple(store.shape), dtype)
            self.faults.pop(name, None)


def _only(tree: Tree, places: Iterable[str]) -> Tree:
    """The tree with the arrays of these stored names alone."""
    leaves = {place: tree.leaves.get(place) or array_leaf(place) for place in places}
    return dataclasses.replace(tree, leaves={place: leaf for place, leaf in leaves.items() if leaf.is_array})
