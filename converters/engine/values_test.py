import dataclasses

import ml_dtypes
import numpy as np
import pytest

from converters.engine import precision, values
from converters.engine.precision import Precision


@dataclasses.dataclass(frozen=True)
class Op:
    kind: str
    value: float
    factor_dtype: str = ""


FOLDED = (Op("scale", 128**-0.5),)
EIGHTH = (Op("scale", 0.125),)
BF16 = np.dtype(ml_dtypes.bfloat16)


def _every_bfloat16() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16).view(BF16)


def test_every_normal_bfloat16_comes_back_from_a_float32_product() -> None:
    source = _every_bfloat16()
    stored = values.encode(source, FOLDED, "float32")
    lost = values.lost_elements(source, stored, FOLDED)
    finite = np.isfinite(source.astype(np.float32))
    normal = finite & (np.abs(source.astype(np.float32)) > 2.0**-120)
    assert not np.intersect1d(lost, np.flatnonzero(normal)).size


def test_a_bfloat16_product_loses_many_elements() -> None:
    source = _every_bfloat16()
    stored = values.encode(source, FOLDED, "bfloat16")
    assert values.lost_elements(source, stored, FOLDED).size > 5000


def test_tiny_values_that_underflow_are_found() -> None:
    source = np.array([0x0001, 0x8001, 0x8000, 0x0000, 0x3F80], np.uint16).view(BF16)
    stored = values.encode(source, FOLDED, "float32")
    back = values.decode(stored, FOLDED, "bfloat16")
    lost = values.lost_elements(source, stored, FOLDED)
    assert set(np.flatnonzero(back.view(np.uint16) != source.view(np.uint16))) == set(lost)
    assert 2 not in lost, "negative zero keeps its sign"


def test_the_product_is_float32_with_one_rounding() -> None:
    source = np.array([1.0, 3.0, -7.25], np.float32).astype(BF16)
    expected = (source.astype(np.float32) * np.float32(128**-0.5)).astype(BF16)
    got = values.encode(source, FOLDED, "bfloat16")
    assert got.view(np.uint16).tolist() == expected.view(np.uint16).tolist()


def test_a_factor_is_rounded_to_its_dtype_first() -> None:
    assert values.factor_of(Op("scale", 3072**0.5, "bf16")) == np.float32(55.5)


def test_operations_are_undone_in_the_other_order() -> None:
    ops = (Op("add", 1.0), Op("scale", 2.0))
    stored = values.encode(np.array([3.0], np.float32), ops, "float32")
    assert stored.tolist() == [8.0]
    assert values.decode(stored, ops, "float32").tolist() == [3.0]


@pytest.mark.parametrize("before", ["bfloat16", "float16"])
@pytest.mark.parametrize("asked", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ops", [FOLDED, (Op("add", 1.0),), (Op("scale", 8.0), Op("add", 1.0))], ids=["x", "+", "x+"])
def test_what_changed_is_undone_in_float32_and_the_rest_comes_back(
    ops: tuple[Op, ...], asked: str, before: str
) -> None:
    generator = np.random.default_rng(5)
    original = generator.uniform(0.01, 2, 600).astype(values.dtype_of(before))
    stored, expected = np.empty(600, np.float32), np.empty(600, values.dtype_of(asked))
    for i, value in enumerate(original):
        work = np.float32(value)
        for op in ops:
            work = work * np.float32(op.value) if op.kind == "scale" else work + np.float32(op.value)
        if i % 3:
            stored[i], expected[i] = work, np.float32(value)
            continue
        stored[i] = np.nextafter(work, np.float32(9)) if i % 2 else work * np.float32(1.0007)
        work = stored[i]
        for op in reversed(ops):
            work = work / np.float32(op.value) if op.kind == "scale" else work - np.float32(op.value)
        expected[i] = work
    path = _choose("float32", asked, undo=ops, recorded=before)
    found = values.decode(stored, path.source_ops, path.logical_dtype, path.recorded_dtype)
    assert values.encode(found, (), asked).tobytes() == expected.tobytes()


def test_in_float64_no_changed_element_looks_like_one_that_was_not() -> None:
    original = np.random.default_rng(6).uniform(0.01, 2, 4000).astype(BF16)
    stored = values.encode(original, FOLDED, "float32")
    changed = np.nextafter(stored, np.float32(9))
    plain = original.astype(np.float64)
    assert (values.decode(stored, FOLDED, "float64", "bfloat16") == plain).all()
    assert (values.decode(changed, FOLDED, "float64", "bfloat16") != plain).all()
    # In float32 some do.
    assert (values.decode(changed, FOLDED, "float32", "bfloat16") == plain).any()


def test_magnitudes_tell_zero_and_nan_from_the_rest() -> None:
    zero = np.array([0.0, -0.0], BF16)
    assert values.largest_bits(zero)[:2] == (0, 0)
    positive, negative, infinity = values.largest_bits(np.array([1.0, np.nan], BF16))
    assert positive > infinity
    assert negative == 0
    positive, negative, infinity = values.largest_bits(np.array([1.0, -3e38], np.float32))
    assert 0 < positive < negative < infinity


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["bfloat16"], "bfloat16"), (["bfloat16", "float16"], "float32"), (["float64", "bfloat16"], "float64")],
)
def test_mixed_dtypes_meet_in_the_narrowest_that_holds_both(names: list[str], expected: str) -> None:
    assert values.common(names) == expected


def _choose(
    source: str, asked: str, *, ops: tuple[Op, ...] = (), undo: tuple[Op, ...] = (), **more: object
) -> values.ValuePath:
    arguments = {"recorded": "", "keep_dtype": False, "peer_dtype": "", **more}
    settings = arguments.pop("settings", {})
    return precision.choose(
        target="t",
        source_dtype=source,
        source_ops=undo,
        target_ops=ops,
        precision=Precision(dtype=asked, **settings),  # type: ignore[arg-type]
        **arguments,  # type: ignore[arg-type]
    )


def test_an_inexact_constant_is_stored_in_float32() -> None:
    path = _choose("bfloat16", "bfloat16", ops=FOLDED)
    assert (path.logical_dtype, path.target_dtype, path.exactness, path.residue) == (
        "bfloat16",
        "float32",
        "INVERTIBLE",
        True,
    )


def test_a_power_of_two_is_stored_in_the_dtype_asked_for() -> None:
    path = _choose("bfloat16", "bfloat16", ops=EIGHTH)
    assert (path.target_dtype, path.exactness) == ("bfloat16", "INVERTIBLE")


def test_as_requested_rounds_once_to_the_dtype_asked_for() -> None:
    path = _choose("float32", "bfloat16", ops=FOLDED, settings={"as_requested": True, "residue": "drop"})
    assert (path.logical_dtype, path.target_dtype, path.exactness) == ("float32", "bfloat16", "ROUNDING")


def test_a_narrowing_cast_is_rounding_even_under_an_invertible_constant() -> None:
    assert _choose("float32", "bfloat16", ops=FOLDED).exactness == "ROUNDING"
    assert _choose("float32", "bfloat16").exactness == "ROUNDING"
    assert _choose("bfloat16", "float32").exactness == "EXACT"
    assert _choose("float16", "bfloat16").exactness == "ROUNDING"


def test_without_residue_an_invertible_path_is_not_promised() -> None:
    assert _choose("bfloat16", "bfloat16", ops=FOLDED, settings={"residue": "drop"}).exactness == "ROUNDING"


def test_the_way_back_is_exact_only_where_nothing_changed_since_the_record() -> None:
    untouched = {"untouched": True}
    assert _choose("float32", "float32", undo=FOLDED, recorded="bfloat16", settings=untouched).exactness == "EXACT"
    assert _choose("float32", "float32", undo=FOLDED, recorded="bfloat16").exactness == "ROUNDING"
    assert _choose("float32", "bfloat16", undo=FOLDED, recorded="bfloat16").exactness == "ROUNDING"
    assert _choose("float32", "float32", undo=FOLDED, settings=untouched).exactness == "ROUNDING"
    assert _choose("float32", "float16", undo=FOLDED, recorded="bfloat16", settings=untouched).exactness == "ROUNDING"


@pytest.mark.parametrize(
    ("recorded", "asked", "between"),
    [
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float16", "float32"),
        ("float32", "bfloat16", "float32"),
        ("", "bfloat16", "bfloat16"),
    ],
)
def test_the_way_back_is_rounded_once(recorded: str, asked: str, between: str) -> None:
    path = _choose("float32", asked, undo=FOLDED, recorded=recorded)
    assert (path.logical_dtype, path.target_dtype, path.recorded_dtype) == (between, asked, recorded)


def test_auto_takes_the_recorded_dtype_of_each_tensor() -> None:
    settings = {"original": {"t": "float16"}, "default": "bfloat16"}
    assert _choose("bfloat16", "auto", settings=settings).target_dtype == "float16"
    assert _choose("bfloat16", "auto", settings={"default": "bfloat16"}).target_dtype == "bfloat16"


def test_a_tensor_that_keeps_its_dtype_ignores_the_run() -> None:
    assert _choose("float32", "bfloat16", keep_dtype=True).target_dtype == "float32"
