"""The pickle inside of a file of `torch.save`: which tensors it describes, found by a machine that knows nothing else.

A pickle is a program for a stack machine. This one has the instructions that `torch.save` writes for dictionaries of
tensors and plain values, and of all that a program may call only what rebuilds tensors, which here makes descriptions
of them. It takes time and memory in proportion to the program, of which it runs a bounded number of instructions.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from converters.formats.json_files import is_count, is_text, printable

_MOST_STEPS = 2 << 20
_MOST_AXES = 64
_LARGEST = (1 << 62) - 1
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class PickleFault(Exception):
    """What is wrong with a pickle, as a clause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in a file.

    Attributes:
        dtype: NumPy's name of their type.
        key: by which the archive names it.
        elements: how many they are.
    """

    dtype: str
    key: str
    elements: int


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """A tensor as a pickle describes it.

    Attributes:
        storage: where its elements lie.
        within: its first element there.
        shape: sizes of its axes.
        strides: distance of neighbours along each axis, in elements.
    """

    storage: Storage
    within: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def tensors(content: bytes) -> dict[str, Described]:
    """The tensors of a pickled dictionary by name, in its order; raises PickleFault."""
    try:
        held = _Machine().run(content)
    except ValueError as error:
        raise PickleFault(f"its data.pkl is damaged ({printable(str(error))})") from None
    if not isinstance(held, dict) or not held:
        raise PickleFault("it holds no dictionary of tensors")
    for name, value in held.items():
        if not is_text(name) or not isinstance(value, Described):
            raise PickleFault(f"{printable(name)} is no tensor: it is the state of a training, or of another program")
    return held


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Function:
    call: Callable[[tuple[Any, ...]], Any]


class _Machine:
    """Runs a pickle. What it holds are texts, numbers, tuples, lists and dictionaries of texts, and the above."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """What the pickle makes; raises PickleFault, and ValueError where it cannot be decoded."""
        for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
            if count == _MOST_STEPS:
                raise PickleFault(f"its data.pkl has more than {_MOST_STEPS} instructions")
            step = _STEPS.get(instruction.name)
            if step is None:
                raise PickleFault(f"its data.pkl has the instruction {instruction.name}, which torch.save does not use")
            step(self, argument)
        return self._pop()

    def nothing(self, _: Any) -> None:
        """Frames and versions, and the end."""

    def push(self, value: Any) -> None:
        """A number, a text or a truth value."""
        self._stack.append(value)

    def push_none(self, _: Any) -> None:
        """None."""
        self._stack.append(None)

    def push_true(self, _: Any) -> None:
        """True."""
        self._stack.append(True)

    def push_false(self, _: Any) -> None:
        """False."""
        self._stack.append(False)

    def empty_tuple(self, _: Any) -> None:
        """A tuple of nothing."""
        self._stack.append(())

    def empty_list(self, _: Any) -> None:
        """A list to add to."""
        self._stack.append([])

    def empty_dictionary(self, _: Any) -> None:
        """A dictionary to add to."""
        self._stack.append({})

    def mark(self, _: Any) -> None:
        """Begins a run of values."""
        self._below.append(self._stack)
        self._stack = []

    def tuple_of_one(self, _: Any) -> None:
        """A tuple of the last value."""
        self._stack.append((self._pop(),))

    def tuple_of_two(self, _: Any) -> None:
        """A tuple of the last two values."""
        last = self._pop()
        self._stack.append((self._pop(), last))

    def tuple_of_three(self, _: Any) -> None:
        """A tuple of the last three values."""
        last, middle = self._pop(), self._pop()
        self._stack.append((self._pop(), middle, last))

    def tuple_of_run(self, _: Any) -> None:
        """A tuple of all values since the mark."""
        values = self._pop_run()
        self._stack.append(tuple(values))

    def append(self, _: Any) -> None:
        """The last value at the end of a list."""
        value = self._pop()
        self._top(list).append(value)

    def append_run(self, _: Any) -> None:
        """All values since the mark at the end of a list."""
        values = self._pop_run()
        self._top(list).extend(values)

    def set(self, _: Any) -> None:
        """The last value into a dictionary, by the text before it."""
        value, key = self._pop(), self._pop()
        self._put([key, value])

    def set_run(self, _: Any) -> None:
        """All pairs since the mark into a dictionary."""
        self._put(self._pop_run())

    def name(self, argument: str) -> None:
        """What is known by the name of a module and one in it."""
        module, _, name = argument.partition(" ")
        self._stack.append(_known(module, name))

    def stacked_name(self, _: Any) -> None:
        """The same, by the last two values."""
        name, module = self._pop(), self._pop()
        self._stack.append(_known(module, name))

    def call(self, _: Any) -> None:
        """Calls a known function with a tuple."""
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise PickleFault("its data.pkl calls what is no function")
        self._stack.append(function.call(arguments))

    def build(self, _: Any) -> None:
        """Attributes of a dictionary, as those of a state_dict: they are left out."""
        self._pop()
        self._top(dict)

    def storage(self, _: Any) -> None:
        """A storage by its key."""
        self._stack.append(_storage(self._pop()))

    def remember(self, number: int | None) -> None:
        """Keeps the last value under a number, the next one where none is given."""
        value = self._pop()
        self._stack.append(value)
        self._memo[len(self._memo) if number is None else number] = value

    def recall(self, number: int) -> None:
        """A value that was kept."""
        if number not in self._memo:
            raise PickleFault("its data.pkl is damaged (it uses a value that it did not keep)")
        self._stack.append(self._memo[number])

    def _pop(self) -> Any:
        if not self._stack:
            raise PickleFault("its data.pkl is damaged (a value lacks)")
        return self._stack.pop()

    def _pop_run(self) -> list[Any]:
        if not self._below:
            raise PickleFault("its data.pkl is damaged (a mark lacks)")
        values, self._stack = self._stack, self._below.pop()
        return values

    def _top(self, kind: type[Any]) -> Any:
        value = self._pop()
        if type(value) is not kind:
            raise PickleFault(f"its data.pkl is damaged (a {kind.__name__} lacks)")
        self._stack.append(value)
        return value

    def _put(self, pairs: list[Any]) -> None:
        held = self._top(dict)
        if len(pairs) % 2:
            raise PickleFault("its data.pkl is damaged (a value lacks)")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Of other keys the hash may take for ever: that of a tuple of tuples of tuples doubles with each.
            if type(key) is not str:
                raise PickleFault("it has keys that are no names: it is the state of a training, or of another program")
            held[key] = value


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "STOP": _Machine.nothing,
    "MARK": _Machine.mark,
    "NONE": _Machine.push_none,
    "NEWTRUE": _Machine.push_true,
    "NEWFALSE": _Machine.push_false,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BINUNICODE": _Machine.push,
    "SHORT_BINUNICODE": _Machine.push,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dictionary,
    "TUPLE": _Machine.tuple_of_run,
    "TUPLE1": _Machine.tuple_of_one,
    "TUPLE2": _Machine.tuple_of_two,
    "TUPLE3": _Machine.tuple_of_three,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_run,
    "SETITEM": _Machine.set,
    "SETITEMS": _Machine.set_run,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stacked_name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
}


def _known(module: object, name: object) -> _Function | _StorageType:
    if isinstance(module, str) and isinstance(name, str):
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise PickleFault(f"its data.pkl asks for {printable(module)}.{printable(name)}, which is not called")
    raise PickleFault("its data.pkl is damaged (a name lacks)")


def _storage(identity: object) -> Storage:
    if isinstance(identity, tuple) and len(identity) == 5:
        kind, type_, key, _, elements = identity
        if kind == "storage" and isinstance(type_, _StorageType) and is_text(key) and is_count(elements, _LARGEST):
            return Storage(type_.dtype, key, elements)
    raise PickleFault("a storage is of an unknown kind")


def _rebuild(arguments: tuple[Any, ...]) -> Described:
    """(storage, offset, sizes, strides, whether it needs gradients, hooks, and since PyTorch 1.13 marks)."""
    if not 6 <= len(arguments) <= 7:
        raise _unknown()
    storage, within, shape, strides, *_ = arguments
    if not isinstance(storage, Storage) or not is_count(within, _LARGEST):
        raise _unknown()
    if not _are_counts(shape) or not _are_counts(strides) or len(shape) != len(strides):
        raise _unknown()
    if arguments[6:] not in ((), (None,), ({},)):
        raise PickleFault("a tensor is marked as negative or conjugate, so its elements are not its values")
    return Described(storage, within, shape, strides)


def _parameter(arguments: tuple[Any, ...]) -> Described:
    """(tensor, whether it needs gradients, hooks, and maybe attributes)."""
    if not 3 <= len(arguments) <= 4 or not isinstance(arguments[0], Described):
        raise _unknown()
    return arguments[0]


def _ordered(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise PickleFault("a dictionary is described in an unknown way")
    return {}


def _are_counts(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) > _MOST_AXES:
        return False
    return all(is_count(value, _LARGEST) for value in values)


def _unknown() -> PickleFault:
    return PickleFault("a tensor is described in an unknown way")


_FUNCTIONS: Mapping[tuple[str, str], _Function] = {
    ("collections", "OrderedDict"): _Function(_ordered),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild),
    ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_parameter),
}
