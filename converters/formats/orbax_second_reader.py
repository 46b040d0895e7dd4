"""Reads single elements of an Orbax checkpoint back as a later process would: from `_METADATA`, nothing cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.base import AnyArray
from converters.formats.orbax_arrays import check_files, open_arrays
from converters.formats.orbax_metadata import TREE_FILE, array_names, read_tree
from converters.formats.tensorstore_io import new_context, unreadable
from reporting.diagnostics import RecastError


class OrbaxElements:
    """Elements by coordinate, through a TensorStore context of its own that starts from `_METADATA` alone.

    Attributes:
        stored: the stored name of each array by the name of `orbax_metadata.array_names`.
    """

    def __init__(self, items: Path) -> None:
        """Opens all arrays.

        Args:
            items: the directory with `_METADATA`.

        Raises:
            RecastError: as OrbaxSource.
        """
        tree = read_tree(items / TREE_FILE)
        self.stored = {name: leaf.name for name, leaf in array_names(tree.leaves)}
        check_files(items)
        self._stores: dict[str, Any] = open_arrays(items, tree, new_context())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array by its stored name."""
        return {name: tuple(store.shape) for name, store in self._stores.items()}

    def read(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The elements at coordinates; each chunk that holds some of them is decoded once, one after the other.

        Args:
            name: the stored name.
            coordinates: integers, shape (points, rank).

        Returns:
            Shape (points,), in the stored type.

        Raises:
            RecastError: ORBAX_ARRAY_UNREADABLE.
            ValueError: a coordinate lies outside of the array.
        """
        store = self._stores[name]
        points = np.asarray(coordinates, np.int64)
        if points.ndim != 2 or points.shape[1] != len(store.shape):
            raise ValueError(f"{name}: {points.shape} is no shape of coordinates in {tuple(store.shape)}")
        if np.any(points < 0) or np.any(points >= np.asarray(store.shape, np.int64)):
            raise ValueError(f"{name}: coordinates outside of {tuple(store.shape)}")
        values = np.empty(len(points), store.dtype.numpy_dtype)
        try:
            if not store.shape:
                values[:] = store.read().result()
                return values
            for members in _by_chunk(points, store.chunk_layout.read_chunk.shape):
                values[members] = store.vindex[tuple(points[members].T)].read().result()
        except (ValueError, OSError) as error:
            raise RecastError([unreadable(name, error)]) from error
        return values


def _by_chunk(points: AnyArray, chunk: tuple[int, ...]) -> list[AnyArray]:
    """Positions of the points in each chunk."""
    if not len(points):
        return []
    _, group = np.unique(points // np.asarray(chunk, np.int64), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    bounds = np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1
    return np.split(order, bounds)
