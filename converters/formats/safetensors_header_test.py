import json
import os
import struct
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from converters.formats.safetensors_header import Header, scan_header
from reporting.diagnostics import Diagnostic

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = bytes(16)


def file_of(header: bytes | dict[str, Any], data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def found_in(tmp_path: Path, content: bytes) -> list[Diagnostic]:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    _, found = scan_header(path, "f.safetensors")
    return found


def good(path: Path) -> Header:
    header, found = scan_header(path, path.name)
    assert found == []
    assert header is not None
    return header


def only(found: list[Diagnostic]) -> Diagnostic:
    assert len(found) == 1, found
    return found[0]


def test_a_good_header_gives_each_tensor_its_place(tmp_path: Path) -> None:
    text = (
        b'{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[3],"data_offsets":[4,10]},'
        b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"s":{"dtype":"F64","shape":[],"data_offsets":[10,18]}}  '
    )
    path = tmp_path / "f.safetensors"
    path.write_bytes(file_of(text, bytes(18)))
    header = good(path)
    start = 8 + len(text)
    assert header.data_start == start
    assert header.size == start + 18
    assert dict(header.metadata) == {"format": "pt"}
    places = {e.name: (e.dtype, e.shape, e.offset, e.nbytes) for e in header.entries.values()}
    assert places == {
        "b": ("bfloat16", (3,), start + 4, 6),
        "a": ("uint8", (4,), start, 4),
        "s": ("float64", (), start + 10, 8),
    }


@pytest.mark.parametrize(
    ("code", "dtype", "size"),
    [
        ("F64", "float64", 8),
        ("F32", "float32", 4),
        ("F16", "float16", 2),
        ("BF16", "bfloat16", 2),
        ("F8_E4M3", "float8_e4m3fn", 1),
        ("F8_E5M2", "float8_e5m2", 1),
        ("I64", "int64", 8),
        ("I32", "int32", 4),
        ("I16", "int16", 2),
        ("I8", "int8", 1),
        ("U8", "uint8", 1),
        ("U16", "uint16", 2),
        ("U32", "uint32", 4),
        ("U64", "uint64", 8),
        ("BOOL", "bool", 1),
    ],
)
def test_each_element_type_has_its_name_and_size(tmp_path: Path, code: str, dtype: str, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(file_of({"x": {"dtype": code, "shape": [3], "data_offsets": [0, 3 * size]}}, bytes(3 * size)))
    assert good(path).entries["x"].dtype == dtype


def test_a_tensor_without_elements_may_lie_between_others(tmp_path: Path) -> None:
    header = {
        "a": GOOD,
        "e": {"dtype": "F32", "shape": [0, 2**40], "data_offsets": [16, 16]},
        "z": {"dtype": "U8", "shape": [1], "data_offsets": [16, 17]},
    }
    assert found_in(tmp_path, file_of(header, bytes(17))) == []


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_length_field_is_truncated(tmp_path: Path, size: int) -> None:
    assert only(found_in(tmp_path, b"\x10" * size)).id == "FILE_TRUNCATED"


def test_a_header_longer_than_the_file_is_truncated(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, struct.pack("<Q", 1000) + b"{}"))
    assert found.id == "FILE_TRUNCATED"
    assert "1000 bytes and has 2" in found.reason


@pytest.mark.parametrize("length", [100_000_001, 2**63, 2**64 - 1])
def test_a_header_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    assert only(found_in(tmp_path, struct.pack("<Q", length) + b"{}")).id == "HEADER_INVALID"


def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"))
    assert found.id == "HEADER_INVALID"
    assert "git lfs pull" in found.suggestion


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff\xff", b"null"])
def test_a_header_that_is_no_json_object_is_invalid(tmp_path: Path, text: bytes) -> None:
    assert only(found_in(tmp_path, file_of(text))).id == "HEADER_INVALID"


def test_a_name_that_appears_twice_is_invalid(tmp_path: Path) -> None:
    entry = json.dumps(GOOD).encode()
    found = only(found_in(tmp_path, file_of(b'{"a": %b, "a": %b}' % (entry, entry))))
    assert found.id == "HEADER_INVALID"
    assert "the key a appears twice" in found.reason


@pytest.mark.parametrize("metadata", [[], "text", {"a": 1}, {"a": None}, {"a": {"b": "c"}}, 0, False])
def test_metadata_that_is_no_map_of_strings_is_invalid(tmp_path: Path, metadata: object) -> None:
    assert only(found_in(tmp_path, file_of({"__metadata__": metadata, "a": GOOD}))).id == "HEADER_INVALID"


@pytest.mark.parametrize("entry", [[], 1, None, "F32"])
def test_an_entry_that_is_no_object_is_invalid(tmp_path: Path, entry: object) -> None:
    found = only(found_in(tmp_path, file_of({"a": GOOD, "x": entry})))
    assert (found.id, found.subject) == ("HEADER_INVALID", "f.safetensors: x")


@pytest.mark.parametrize("shape", [None, 4, "4", [4.0], [True], [-4], ["4"], [2**63], [[4]], [1] * 65])
def test_a_shape_that_is_no_list_of_sizes_is_invalid(tmp_path: Path, shape: object) -> None:
    assert only(found_in(tmp_path, file_of({"a": {**GOOD, "shape": shape}}))).id == "HEADER_INVALID"


@pytest.mark.parametrize("shape", [[2**62, 2**62], [0, 2**62, 2**62], [2**62]])
def test_a_shape_whose_product_overflows_is_invalid(tmp_path: Path, shape: list[int]) -> None:
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    assert only(found_in(tmp_path, file_of(header, b""))).id == "HEADER_INVALID"


@pytest.mark.parametrize("dtype", [None, 4, ["F32"]])
def test_a_type_that_is_no_string_is_invalid(tmp_path: Path, dtype: object) -> None:
    assert only(found_in(tmp_path, file_of({"a": {**GOOD, "dtype": dtype}}))).id == "HEADER_INVALID"


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "C64", "f32", "FLOAT\x1b[0m"])
def test_an_unknown_type_is_named(tmp_path: Path, dtype: str) -> None:
    found = only(found_in(tmp_path, file_of({"a": {**GOOD, "dtype": dtype}})))
    assert (found.id, found.subject) == ("DTYPE_NOT_SUPPORTED", "f.safetensors: a")
    assert "\x1b" not in found.reason


@pytest.mark.parametrize(
    "offsets", [None, 0, [0], [0, 8, 16], [0.0, 16.0], [False, 16], ["0", "16"], [-16, 0], [0, 2**63]]
)
def test_offsets_that_are_no_pair_of_positions_are_invalid(tmp_path: Path, offsets: object) -> None:
    assert only(found_in(tmp_path, file_of({"a": {**GOOD, "data_offsets": offsets}}))).id == "OFFSETS_INVALID"


def test_offsets_that_end_before_they_begin_are_invalid(tmp_path: Path) -> None:
    assert only(found_in(tmp_path, file_of({"a": {**GOOD, "data_offsets": [16, 0]}}))).id == "OFFSETS_INVALID"


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of({"a": {**GOOD, "shape": [3]}})))
    assert found.id == "OFFSETS_INVALID"
    assert "takes 12 bytes, data_offsets span 16" in found.reason


def test_tensors_that_overlap_are_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of({"a": GOOD, "b": {**GOOD, "data_offsets": [8, 24]}}, bytes(24))))
    assert (found.id, found.subject) == ("OFFSETS_INVALID", "f.safetensors: b")


def test_a_gap_between_tensors_is_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of({"a": GOOD, "b": {**GOOD, "data_offsets": [20, 36]}}, bytes(36))))
    assert "leaves 4 bytes" in found.reason


def test_a_gap_before_the_first_tensor_is_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of({"a": {**GOOD, "data_offsets": [8, 24]}}, bytes(24))))
    assert found.id == "OFFSETS_INVALID"


def test_bytes_after_the_last_tensor_are_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of({"a": GOOD}, bytes(17))))
    assert found.id == "OFFSETS_INVALID"
    assert "1 bytes after its last tensor" in found.reason


def test_a_truncated_file_is_one_error_however_many_tensors_it_cuts(tmp_path: Path) -> None:
    header = {str(i): {**GOOD, "data_offsets": [16 * i, 16 * i + 16]} for i in range(5)}
    found = only(found_in(tmp_path, file_of(header, bytes(40))))
    assert found.id == "FILE_TRUNCATED"
    assert "40 of 80 bytes" in found.reason
    assert "2 and 2 more tensors" in found.reason


def test_a_name_that_is_no_text_is_invalid(tmp_path: Path) -> None:
    found = only(found_in(tmp_path, file_of(b'{"\\ud800": ' + json.dumps(GOOD).encode() + b"}")))
    assert found.id == "HEADER_INVALID"
    found.reason.encode()


def test_all_violations_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    header = {
        "__metadata__": 1,
        "a": {**GOOD, "dtype": "C64"},
        "b": {**GOOD, "shape": [5], "data_offsets": [16, 32]},
        "c": {**GOOD, "data_offsets": [40, 56]},
        "d": {**GOOD, "data_offsets": [56, 72]},
    }
    assert [(d.id, d.subject) for d in found_in(tmp_path, file_of(header, bytes(60)))] == [
        ("HEADER_INVALID", "f.safetensors"),
        ("DTYPE_NOT_SUPPORTED", "f.safetensors: a"),
        ("OFFSETS_INVALID", "f.safetensors: b"),
        ("OFFSETS_INVALID", "f.safetensors: c"),
        ("FILE_TRUNCATED", "f.safetensors"),
    ]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    _, found = scan_header(tmp_path / "pipe", "pipe")
    assert only(found).id == "HEADER_INVALID"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "C64"]) | JSON,
        "shape": st.lists(st.integers(-1, 5) | st.integers(), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40) | st.integers(), min_size=1, max_size=3) | JSON,
    },
)


def scan_bytes(directory: Path, content: bytes) -> None:
    path = directory / "f"
    path.write_bytes(content)
    header, found = scan_header(path, "f")
    assert header is not None or found
    if header is not None and not found:
        assert sum(e.nbytes for e in header.entries.values()) == len(content) - header.data_start
    for diagnostic in found:
        diagnostic.reason.encode()


FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FUZZ
@given(content=st.binary(max_size=64))
def test_random_bytes_are_only_ever_diagnosed(tmp_path: Path, content: bytes) -> None:
    scan_bytes(tmp_path, content)


@FUZZ
@given(header=st.dictionaries(st.text(max_size=5), ENTRY | JSON, max_size=4), data=st.binary(max_size=40))
def test_random_headers_are_only_ever_diagnosed(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    scan_bytes(tmp_path, file_of(header, data))


@FUZZ
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 200))
def test_a_changed_byte_and_a_cut_are_only_ever_diagnosed(tmp_path: Path, position: int, byte: int, cut: int) -> None:
    good = bytearray(
        file_of({"__metadata__": {"format": "pt"}, "a": GOOD, "b": {**GOOD, "data_offsets": [16, 32]}}, bytes(32))
    )
    good[position % len(good)] = byte
    scan_bytes(tmp_path, bytes(good[: len(good) - cut]))
