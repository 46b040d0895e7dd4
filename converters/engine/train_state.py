"""Training state on the way from one MaxText layout to the other: what mirrors the weights moves as they do.

The moments of an optimizer have the names and shapes of the weights, so the moves of the weights hold for them, byte
for byte. All else of the tree (step, counts, keys of random numbers, empty nodes) is carried over as it is.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from converters.engine import maxtext_roots, mirrors
from converters.engine.binding import Sides
from converters.engine.carried_state import CarriedState
from converters.engine.kept import own_of
from converters.engine.mirrors import Mirror
from converters.formats.base import TensorInfo
from converters.formats.dtypes import NAMES, unsupported
from converters.formats.json_files import printable
from converters.formats.orbax_extended import Extended
from converters.formats.orbax_metadata import DICT_KEY, SEQUENCE_KEY, Leaf
from mappings.language.arrays import Array
from mappings.language.composition import Note
from mappings.language.keeping import is_kept
from mappings.language.layout import Layout
from mappings.language.regions import Dim, Move
from reporting.diagnostics import Diagnostic, RecastError, raise_all

_OPTIMIZER = "opt_state"
_STEP = "step"
_ARRAY = "np.ndarray"
_SHOWN = 3
# Orbax writes an empty named tuple as None unless it is asked for rich types.
_MASKS = ("None", "NamedTuple")
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Tree:
    """The tree of a source.

    Attributes:
        tensors: its arrays.
        leaves: all its leaves by name.
        step: number of its step, None where neither its path nor the tree says.
        metadata: what its writer added.
        extended: by stored name, what it keeps of arrays beside their values.
    """

    tensors: Mapping[str, TensorInfo]
    leaves: Mapping[str, Leaf]
    step: int | None
    metadata: Mapping[str, Any]
    extended: Extended = dataclasses.field(default_factory=dict)

    @property
    def has_state(self) -> bool:
        """Whether there is anything below `opt_state`; an optimizer without moments leaves empty nodes there."""
        return any(_OPTIMIZER in leaf.keys[:-1] for leaf in self.leaves.values())

    @property
    def empty(self) -> Iterator[tuple[str, Leaf]]:
        """The leaves without data."""
        return ((name, leaf) for name, leaf in self.leaves.items() if name not in self.tensors)


def keep(sides: Sides, tree: Tree, step: int | None = None) -> Sides:
    """Carries the whole tree over, mirrors restacked.

    Args:
        sides: the layouts and the moves of the weights.
        tree: of the source.
        step: number of the output's directory, if not the source's.

    Raises:
        RecastError: TRAIN_STATE_INCOMPLETE, TRAIN_STATE_NOT_RESTACKABLE, CANNOT_STACK, DTYPE_NOT_SUPPORTED.
    """
    weights = _weights(sides, tree)
    others = [name for name in tree.tensors if name not in weights]
    found = mirrors.find(weights, sides.source.source.node.root, others, _nodes(tree.leaves, tree.tensors))
    raise_all([*_incomplete(found), *_unsupported(tree.tensors[name] for name in others)])
    extension = _Extension(sides, tree, weights)
    extension.add_weights(own_root=True)
    placed: set[str] = set()
    for mirror in found:
        placed |= extension.add_mirror(mirror)
    for name in others:
        if name not in placed:
            extension.carry(name)
    for name, leaf in tree.empty:
        if name not in placed:
            extension.add_leaf(name, leaf)
    extension.raise_any()
    return extension.result(_number(step, tree), {})


def strip(sides: Sides, tree: Tree, step: int | None = None) -> Sides:
    """Leaves the weights and the step only; all else is named as dropped."""
    weights = _weights(sides, tree)
    number = _number(step, tree)
    extension = _Extension(sides, tree, weights)
    extension.add_weights()
    own = tree.tensors.get(_STEP)
    keeps_step = own is not None and not own.shape and own.dtype in NAMES
    if keeps_step:
        extension.carry(_STEP)
    extension.add_leaf(_OPTIMIZER, Leaf((_OPTIMIZER,), (DICT_KEY,), "Dict", skip=True))
    kept = {*weights, _STEP} if keeps_step else weights
    extension.drop([name for name in tree.tensors if name not in kept], "training state, left out as asked")
    return extension.result(number, {} if keeps_step else {_STEP: number})


def initialise(sides: Sides, tree: Tree, dtypes: Mapping[str, str], step: int | None = None) -> Sides:
    """Gives the weights the training state with which optax.adamw starts, in the tree that MaxText saves.

    Args:
        sides: the layouts and the moves of the weights.
        tree: of the source; what it holds beside the weights is dropped.
        dtypes: dtype of each weight of the output, which is that of its moments.
        step: number of the output's directory, if not 0.
    """
    weights = _weights(sides, tree)
    extension = _Extension(sides, tree, weights)
    extension.add_weights()
    first = ((_OPTIMIZER, DICT_KEY), ("0", SEQUENCE_KEY))
    for moment in ("mu", "nu"):
        for name in sides.composition.produced:
            if is_kept(name):
                continue
            below = tuple((key, DICT_KEY) for key in name.split(".")[1:])
            extension.add_zeros(_leaf((*first, (moment, DICT_KEY), *below)), sides.target.arrays[name], dtypes[name])
    extension.add_zeros(_leaf((*first, ("count", DICT_KEY))), None, "int32")
    extension.add_leaf(f"{_OPTIMIZER}.1", Leaf((_OPTIMIZER, "1"), (DICT_KEY, SEQUENCE_KEY), "None", skip=True))
    extension.add_zeros(_leaf(((_OPTIMIZER, DICT_KEY), ("2", SEQUENCE_KEY), ("count", DICT_KEY))), None, "int32")
    extension.add_zeros(_leaf(((_STEP, DICT_KEY),)), None, "int32")
    dropped = [name for name in tree.tensors if name not in weights and name != _STEP]
    extension.drop(dropped, "training state, replaced by a new one")
    extension.note("INITIALISED", f"{_OPTIMIZER}.0.mu.*", "zeros, in the dtype of each weight, as optax.adam starts")
    extension.note("INITIALISED", f"{_OPTIMIZER}.0.nu.*", "zeros, in the dtype of each weight, as optax.adam starts")
    extension.note("INITIALISED", _STEP, "0, and the optimizer's counts too")
    return extension.result(step or 0, {})


def looks_new(new: Sides, tree: Tree, count: Callable[[str], int]) -> bool:
    """Whether a tree has the arrays of a new training state and no others, and its counts are zero.

    Args:
        new: the sides with a new training state.
        tree: the one in question.
        count: reads a scalar of it.
    """
    dtypes = new.state.dtypes if new.state is not None else {}
    found = {name: info.dtype for name, info in tree.tensors.items() if name in dtypes or not _is_weight(new, name)}
    shapes = {name: new.target.arrays[name].shape for name in dtypes}
    if found != dtypes or any(tree.tensors[name].shape != shape for name, shape in shapes.items()):
        return False
    return not any(count(name) for name, shape in shapes.items() if not shape)


def masked(source: Layout, header: Mapping[str, TensorInfo], leaves: Mapping[str, Leaf]) -> frozenset[str]:
    """Names in a training state for which an empty node stands, since an optimizer was given other weights only."""
    own = own_of(header)
    weights = {name for name, array in source.arrays.items() if not array.mirror and name in own}
    others = (name for name in own if name not in weights)
    found = mirrors.find(weights, source.source.node.root, others, _nodes(leaves, header))
    return frozenset(mirror.name_of(weight) for mirror in found for weight in mirror.masked)


class _Extension:
    """Sides that grow by arrays which are no weights."""

    def __init__(self, sides: Sides, tree: Tree, weights: Mapping[str, tuple[int, ...]]):
        self._sides = sides
        self._tree = tree
        self._weights = weights
        self._feeds: dict[str, list[Move]] = defaultdict(list)
        for move in sides.composition.moves:
            self._feeds[move.target].append(move)
        self._arrays = dict(sides.target.arrays)
        self._moves: list[Move] = []
        self._produced: list[str] = []
        self._notes: list[Note] = []
        self._leaves: dict[str, Leaf] = {}
        self._dtypes: dict[str, str] = {}
        self._extended: dict[str, Mapping[str, Any]] = {}
        self._found: list[Diagnostic] = []

    def add_weights(self, own_root: bool = False) -> None:
        """Gives the weights of the output the keys that those of the source have, by name and beyond it.

        Args:
            own_root: whether they lie where the source has them, else below `params` and `params`, as MaxText's do.
        """
        root = maxtext_roots.own_root(self._tree.leaves)
        if root is not None and not own_root:
            place = ".".join((*(key for key, _ in root), "*"))
            self.note("RENAMED", place, f"written as {maxtext_roots.ROOT}*, where MaxText's own runs keep parameters")
        for target in self._sides.composition.produced:
            if is_kept(target):
                continue
            moves = self._feeds[target]
            origin, name = (moves[0].source, target) if moves else ("", target)
            leaf = self._tree.leaves.get(origin)
            head: maxtext_roots.Keys = ()
            if root is not None and own_root:
                head, name, origin = root, _path(target), _path(origin)
                leaf = maxtext_roots.below(leaf, root) if leaf is not None else None
            tail = _tail(origin, leaf) if root is None or own_root else ()
            self._leaves[target] = _leaf((*head, *((key, DICT_KEY) for key in name.split(".")), *tail))

    def add_mirror(self, mirror: Mirror) -> set[str]:
        """Moves a mirror as the weights move; returns the names of the source that this accounts for."""
        placed = {*mirror.arrays.values(), *mirror.masked.values()}
        misshapen = self._misshapen(mirror)
        wrong = misshapen or self._dotted(mirror)
        if wrong and not self._same_places(mirror):
            self._found.append(wrong)
            return placed
        if wrong:
            for name in mirror.arrays.values():
                self.carry(name, quiet=True)
            what = "in other shapes" if misshapen else "with dots in its keys"
            self.note("CARRIED", f"{mirror.prefix}.*", f"as it is: it is named like the weights, {what}")
            for name in set(mirror.masked.values()):
                self.add_leaf(name, self._tree.leaves[name])
            return placed
        for target, moves in self._feeds.items():
            self._mirror_one(mirror, target, moves)
        changed = any(_is_restacked(move) for moves in self._feeds.values() for move in moves)
        kind, how = ("RESTACKED", "as the weights") if changed else ("CARRIED", "as it is")
        self.note(kind, f"{mirror.prefix}.*", f"{len(mirror.arrays)} arrays that mirror the weights, {how}")
        return placed

    def carry(self, name: str, quiet: bool = False) -> None:
        """Carries an array over as it is."""
        info = self._tree.tensors[name]
        dims = tuple(Dim(size, axis, 1, axis, 1) for axis, size in enumerate(info.shape))
        base = (0,) * len(info.shape)
        self._moves.append(Move(name, name, name, info.shape, info.shape, base, base, dims, (), ()))
        self._add_array(name, info.shape, (), info.dtype)
        leaf = self._tree.leaves.get(name) or _dict_leaf(name)
        self._leaves[name] = _stored(leaf)
        if leaf.name in self._tree.extended:
            self._extended[name] = self._tree.extended[leaf.name]
        if not quiet:
            self.note("CARRIED", name, "as it is")

    def add_zeros(self, leaf: Leaf, like: Array | None, dtype: str) -> None:
        """Adds an array of zeros, of the shape of another one or a scalar."""
        shape, stacked = (like.shape, like.stack_axes) if like is not None else ((), ())
        self._add_array(leaf.name, shape, stacked, dtype)
        self._leaves[leaf.name] = leaf

    def add_leaf(self, name: str, leaf: Leaf) -> None:
        """Adds a leaf without data."""
        if leaf.value_type == "string" and not leaf.skip:
            self.note("DROPPED", name, "a text, which cannot be written")
            return
        self._leaves[name] = leaf

    def drop(self, names: Iterable[str], reason: str) -> None:
        """Names what is left out, mirrors as one."""
        for name, count in _grouped(names, self._weights, self._sides.source.source.node.root):
            self.note("DROPPED", name, f"{reason} ({count} arrays)" if count > 1 else reason)

    def note(self, kind: str, name: str, reason: str) -> None:
        """Adds a line to the report."""
        self._notes.append(Note(kind, "", name, reason))

    def raise_any(self) -> None:
        """Raises what was found wrong."""
        raise_all(self._found)

    def result(self, step: int, scalars: Mapping[str, int]) -> Sides:
        """The sides with all that was added."""
        composition = self._sides.composition
        own = self._tree.tensors.get(_STEP)
        if step != self._tree.step and own is not None and self._tree.step is not None:
            self.note("RENUMBERED", f"{self._tree.step}", f"the output is step {step}; what lies in it is unchanged")
        state = CarriedState(
            step=step,
            leaves=self._leaves,
            dtypes=self._dtypes,
            read=frozenset(move.source for move in self._moves),
            scalars=scalars,
            extended=self._extended,
            metadata=self._tree.metadata,
            lines=_lines(self._notes),
        )
        return dataclasses.replace(
            self._sides,
            target=dataclasses.replace(self._sides.target, arrays=self._arrays),
            composition=dataclasses.replace(
                composition,
                moves=(*composition.moves, *self._moves),
                produced=(*composition.produced, *self._produced),
                consumed=composition.consumed | {move.source for move in self._moves},
                notes=(*composition.notes, *self._notes),
            ),
            unmapped={},
            state=state,
        )

    def _mirror_one(self, mirror: Mirror, target: str, moves: list[Move]) -> None:
        there = [move for move in moves if move.source in mirror.arrays]
        name = mirror.name_of(target)
        if not there:
            for move in moves:
                node = mirror.masked.get(move.source)
                if node is not None:
                    self._mask(mirror, node, move)
            return
        if len(there) < len(moves):
            lacking = next(move.source for move in moves if move.source not in mirror.arrays)
            reason = f"{name} cannot be stacked: {mirror.prefix} has nothing for {lacking}, but for others of its kind."
            self._found.append(Diagnostic("CANNOT_STACK", reason, subject=lacking))
            return
        dtypes = {self._tree.tensors[mirror.arrays[move.source]].dtype for move in there}
        if len(dtypes) > 1:
            reason = f"{name} cannot be stacked: the parts are of different types, {', '.join(sorted(dtypes))}."
            self._found.append(Diagnostic("CANNOT_STACK", reason, subject=name))
            return
        for move in there:
            self._moves.append(
                dataclasses.replace(
                    move, tensor=name, source=mirror.arrays[move.source], target=name, source_ops=(), target_ops=()
                )
            )
        spec = self._sides.target.arrays[target]
        self._add_array(name, spec.shape, spec.stack_axes, dtypes.pop())
        self._leaves[name] = self._leaf_of(mirror, mirror.arrays[there[0].source], name)

    def _leaf_of(self, mirror: Mirror, origin: str, name: str) -> Leaf:
        """The keys of a restacked array: the prefix and what goes beyond the name as in one that it came from."""
        leaf = self._tree.leaves.get(origin) or _dict_leaf(origin)
        head = _head(leaf, mirror.prefix)
        path = name[len(mirror.prefix) + 1 :].split(".")
        return _leaf((*head, *((key, DICT_KEY) for key in path), *_tail(origin, leaf)), leaf.value_type)

    def _mask(self, mirror: Mirror, node: str, move: Move) -> None:
        """Puts the empty node of a weight, or of all below a path, where the weight goes."""
        source, target = mirror.name_of(move.source), mirror.name_of(move.target)
        rest = source[len(node) :]
        if source == target or (target.startswith(f"{node}.") and not target.endswith(rest)):
            goal = node
        else:
            goal = target.removesuffix(rest) if rest else target
        leaf = self._tree.leaves[node]
        head = _head(leaf, mirror.prefix)
        path = goal[len(mirror.prefix) + 1 :].split(".")
        keys = (*head, *((key, DICT_KEY) for key in path))
        self._leaves[goal] = dataclasses.replace(
            leaf, keys=tuple(key for key, _ in keys), key_types=tuple(kind for _, kind in keys)
        )

    def _same_places(self, mirror: Mirror) -> bool:
        return not any(
            _is_restacked(move) for moves in self._feeds.values() for move in moves if move.source in mirror.arrays
        )

    def _misshapen(self, mirror: Mirror) -> Diagnostic | None:
        for weight, name in mirror.arrays.items():
            shape, wanted = self._tree.tensors[name].shape, self._weights[weight]
            if shape != wanted:
                reason = (
                    f"{name} has the shape {list(shape)}, its weight {list(wanted)}: nothing says how {mirror.prefix} "
                    "goes with another stacking of the layers."
                )
                return Diagnostic("TRAIN_STATE_NOT_RESTACKABLE", reason, subject=mirror.prefix)
        return None

    def _dotted(self, mirror: Mirror) -> Diagnostic | None:
        """Names are keys with dots between them: of a key that has one itself, nothing says where it would go."""
        for name in (*mirror.arrays.values(), *mirror.masked.values()):
            leaf = self._tree.leaves.get(name)
            key = next((key for key in leaf.keys if "." in key), None) if leaf is not None else None
            if key is not None:
                reason = (
                    f"{name} has the key {printable(key)}, with a dot in it: nothing says how {mirror.prefix} goes "
                    "with another stacking of the layers."
                )
                return Diagnostic("TRAIN_STATE_NOT_RESTACKABLE", reason, subject=mirror.prefix)
        return None

    def _add_array(self, name: str, shape: tuple[int, ...], stacked: tuple[int, ...], dtype: str) -> None:
        if name in self._arrays and name in self._sides.composition.produced:
            raise RecastError.of("MAPPING_INVALID", f"{name} is a weight and part of a training state.", subject=name)
        self._arrays[name] = Array(
            name=name,
            part="",
            shape=shape,
            tensors=(),
            optional=False,
            keep_dtype=True,
            ops=(),
            peer_dtype="",
            mirror="state",
            stack_axes=stacked,
            location="training state",
            codec=None,
        )
        self._dtypes[name] = dtype
        self._produced.append(name)


def _is_weight(sides: Sides, name: str) -> bool:
    array = sides.target.arrays.get(name)
    return array is not None and not array.mirror


def _weights(sides: Sides, tree: Tree) -> dict[str, tuple[int, ...]]:
    return {
        name: tree.tensors[name].shape
        for name, array in sides.source.arrays.items()
        if not array.mirror and name in tree.tensors
    }


def _nodes(leaves: Mapping[str, Leaf], tensors: Container[str]) -> list[str]:
    """The leaves without data that may stand for weights which an optimizer was not given: empty named tuples."""
    return [name for name, leaf in leaves.items() if name not in tensors and leaf.value_type in _MASKS]


def _number(step: int | None, tree: Tree) -> int:
    return step if step is not None else tree.step or 0


def _incomplete(found: Iterable[Mirror]) -> list[Diagnostic]:
    out = []
    for mirror in found:
        if mirror.missing:
            listed = ", ".join(mirror.missing[:_SHOWN])
            more = f" and {len(mirror.missing) - _SHOWN} more" if len(mirror.missing) > _SHOWN else ""
            reason = f"{mirror.prefix} has arrays for some weights, but lacks {listed}{more}."
            out.append(Diagnostic("TRAIN_STATE_INCOMPLETE", reason, subject=mirror.prefix))
    return out


def _unsupported(infos: Iterable[TensorInfo]) -> Iterator[Diagnostic]:
    remedy = "`maxtext-to-maxtext --train_state=strip` leaves the training state out."
    return (unsupported(info.name, info.dtype, remedy) for info in infos if info.dtype not in NAMES)


def _grouped(names: Iterable[str], weights: Iterable[str], root: str) -> Iterator[tuple[str, int]]:
    """(name, 1) for each array, and (prefix.*, count) for each mirror of the weights."""
    listed = list(names)
    mirrored: set[str] = set()
    for mirror in mirrors.find(weights, root, listed, ()):
        mirrored.update(mirror.arrays.values())
        yield f"{mirror.prefix}.*", len(mirror.arrays)
    yield from ((name, 1) for name in listed if name not in mirrored)


def _lines(notes: Iterable[Note]) -> tuple[str, ...]:
    """The notes, those of a kind in one line."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        kinds[note.kind].append(note.array)
    return tuple(
        f"{kind.lower()}: {', '.join(names[:_LISTED])}" + (f" and {len(names) - _LISTED} more" * (len(names) > _LISTED))
        for kind, names in kinds.items()
        if kind != "RENUMBERED"
    )


def _is_restacked(move: Move) -> bool:
    return move.source != move.target or move.source_shape != move.target_shape


def _leaf(keys: Iterable[tuple[str, int]], value_type: str = _ARRAY) -> Leaf:
    listed = tuple(keys)
    return _stored(Leaf(tuple(key for key, _ in listed), tuple(kind for _, kind in listed), value_type))


def _dict_leaf(name: str) -> Leaf:
    return _leaf((key, DICT_KEY) for key in name.split("."))


def _stored(leaf: Leaf) -> Leaf:
    """The leaf of an array as it is written: without a device's sharding, which Orbax would need to restore it."""
    return leaf if leaf.value_type == "scalar" else dataclasses.replace(leaf, value_type=_ARRAY)


def _head(leaf: Leaf, prefix: str) -> tuple[tuple[str, int], ...]:
    """The keys of a leaf that make a prefix of its name."""
    for count in range(len(leaf.keys) + 1):
        if ".".join(leaf.keys[:count]) == prefix:
            return tuple(zip(leaf.keys[:count], leaf.key_types[:count], strict=True))
    raise AssertionError(f"{leaf.keys} does not begin with {prefix}")


def _path(name: str) -> str:
    return name.removeprefix(maxtext_roots.ROOT)


def _tail(name: str, leaf: Leaf | None) -> tuple[tuple[str, int], ...]:
    """The keys of a leaf beyond the name by which it is known, as NNX's `value`."""
    if leaf is None:
        return ()
    count = len(_head(leaf, name))
    return tuple(zip(leaf.keys[count:], leaf.key_types[count:], strict=True))
