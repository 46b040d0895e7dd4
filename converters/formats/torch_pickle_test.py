from __future__ import annotations

import collections
import pickle
import tracemalloc
from typing import Any

import pytest

from converters.formats import torch_pickle
from converters.formats.torch_pickle import Described, PickleFault, Storage, tensors

_STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
_ORDERED = b"ccollections\nOrderedDict\n)R"


def _tensor(
    *, storage: bytes = _STORAGE, shape: bytes = b"(K\x04t", strides: bytes = b"(K\x01t", end: bytes = b""
) -> bytes:
    """A call that rebuilds a tensor, in parts that can be replaced."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00"
        + shape
        + strides
        + b"\x89"
        + _ORDERED
        + end
        + b"tR"
    )


def _dictionary(value: bytes, key: bytes = b"X\x01\x00\x00\x00w") -> bytes:
    return b"\x80\x02}" + key + value + b"s."


_DESCRIBED = Described(Storage("float32", "0", 4), 0, (4,), (1,))


def test_a_dictionary_of_tensors_is_described() -> None:
    assert tensors(_dictionary(_tensor())) == {"w": _DESCRIBED}


def test_the_attributes_of_a_state_dict_are_left_out() -> None:
    state = b"}X\x09\x00\x00\x00_metadata}X\x00\x00\x00\x00}X\x07\x00\x00\x00versionK\x01sss"
    content = b"\x80\x02" + _ORDERED + b"X\x01\x00\x00\x00w" + _tensor() + b"s" + state + b"b."
    assert tensors(content) == {"w": _DESCRIBED}


def test_a_parameter_is_its_tensor() -> None:
    for name, end in ((b"_rebuild_parameter", b""), (b"_rebuild_parameter_with_state", b"}X\x01\x00\x00\x00xK\x01s")):
        content = _dictionary(b"ctorch._utils\n" + name + b"\n(" + _tensor() + b"\x88" + _ORDERED + end + b"tR")
        assert tensors(content) == {"w": _DESCRIBED}


def test_attributes_of_a_tensor_are_refused() -> None:
    with pytest.raises(PickleFault, match="a dict lacks"):
        tensors(_dictionary(_tensor() + b"(" + _STORAGE + b"J\xf8\xff\xff\xff(K\x04t(K\x01ttb"))


@pytest.mark.parametrize("number", [1 << 26, (1 << 32) - 1])
def test_a_large_number_of_a_kept_value_takes_no_memory(number: int) -> None:
    content = _dictionary(_tensor() + b"r" + number.to_bytes(4, "little"))
    tracemalloc.start()
    try:
        assert tensors(content) == {"w": _DESCRIBED}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_key_that_takes_for_ever_to_hash_is_refused() -> None:
    doubled = b")" + b"".join(
        b"r" + n.to_bytes(4, "little") + b"j" + n.to_bytes(4, "little") + b"\x86" for n in range(60)
    )
    with pytest.raises(PickleFault, match="keys that are no names"):
        tensors(_dictionary(_tensor(), key=doubled))


def test_more_instructions_than_any_checkpoint_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "_MOST_STEPS", 100)
    with pytest.raises(PickleFault, match="more than 100 instructions"):
        tensors(b"\x80\x02" + b"}" * 99 + b".")


class _Calls:
    def __reduce__(self) -> Any:
        return print, ("called",)


class _Plain:
    """Neither a tensor nor a dictionary."""


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a call": (pickle.dumps({"a": _Calls()}), "builtins.print, which is not called"),
    "a call of what is no function": (_dictionary(b"K\x01)R"), "calls what is no function"),
    "a class": (pickle.dumps({"a": _Plain()}, 2), "_Plain, which is not called"),
    "a set": (pickle.dumps({"a": {1}}, 4), "instruction EMPTY_SET"),
    "a dictionary with content": (
        pickle.dumps(collections.OrderedDict(a=1), 2).replace(b")R", b"K\x01\x85R"),
        "a dictionary is described in an unknown way",
    ),
    "a number": (b"\x80\x02K\x01.", "no dictionary of tensors"),
    "an empty dictionary": (b"\x80\x02}.", "no dictionary of tensors"),
    "a count of steps": (pickle.dumps({"epoch": 3}), "epoch is no tensor"),
    "the state of an optimizer": (pickle.dumps({"state": {0: 1}}), "keys that are no names"),
    "a name that is no text": (_dictionary(_tensor(), key=b"X\x03\x00\x00\x00\xed\xa0\x80"), "is no tensor"),
    "a storage of another kind": (
        _dictionary(_tensor(storage=_STORAGE.replace(b"storage", b"another"))),
        "storage is of",
    ),
    "a negative size": (_dictionary(_tensor(shape=b"(J\xff\xff\xff\xfft")), "tensor is described"),
    "a size that is true": (_dictionary(_tensor(shape=b"(\x88t")), "tensor is described"),
    "a size of 72 bits": (_dictionary(_tensor(shape=b"(\x8a\x09" + b"\x01" * 9 + b"t")), "tensor is described"),
    "65 axes": (
        _dictionary(_tensor(shape=b"(" + b"K\x01" * 65 + b"t", strides=b"(" + b"K\x01" * 65 + b"t")),
        "tensor is",
    ),
    "fewer strides than axes": (_dictionary(_tensor(strides=b")")), "tensor is described"),
    "negated elements": (_dictionary(_tensor(end=b"}X\x03\x00\x00\x00neg\x88s")), "marked as negative"),
    "a value that was not kept": (b"\x80\x02h\x00.", "did not keep"),
    "a mark that lacks": (b"\x80\x02t.", "a mark lacks"),
    "a value that lacks": (b"\x80\x02\x85.", "a value lacks"),
    "half of a pair": (b"\x80\x02}(X\x01\x00\x00\x00wu.", "a value lacks"),
    "a list that lacks": (b"\x80\x02}K\x01a.", "a list lacks"),
    "an unknown instruction": (b"\x80\x02\xff.", "damaged"),
    "no end": (b"\x80\x02}", "exhausted"),
    "a text of 4 GiB": (b"\x80\x02X\xff\xff\xff\xffw.", "damaged"),
    "nothing": (b"", "exhausted"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_of_anything_else_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = HOSTILE[kind]
    with pytest.raises(PickleFault, match=said):
        tensors(content)
    assert capsys.readouterr().out == ""
