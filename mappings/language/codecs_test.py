import pytest

from mappings.language.codecs import BoundCodec, StoredArray


@pytest.mark.parametrize(
    ("kind", "block", "shape", "arrays"),
    [
        (
            "mxfp4",
            (),
            (3, 5, 64),
            [
                StoredArray("blocks", "w_blocks", (3, 5, 2, 16), "uint8"),
                StoredArray("scales", "w_scales", (3, 5, 2), "uint8"),
            ],
        ),
        (
            "fp8_block",
            (128, 128),
            (200, 256),
            [
                StoredArray("values", "w", (200, 256), "float8_e4m3fn"),
                StoredArray("scales", "w_scale_inv", (2, 2), "float32"),
            ],
        ),
        (
            "int8_channel",
            (),
            (5, 4, 6),
            [StoredArray("values", "w", (5, 4, 6), "int8"), StoredArray("scales", "w_scaler", (5, 4), "bfloat16")],
        ),
        (
            "int8_block",
            (4,),
            (5, 12),
            [StoredArray("values", "w", (3, 4, 5), "int8"), StoredArray("scales", "w_scaler", (3, 5), "bfloat16")],
        ),
    ],
)  # fmt: skip
def test_physical_arrays_follow_from_name_and_shape(
    kind: str, block: tuple[int, ...], shape: tuple[int, ...], arrays: list[StoredArray]
) -> None:
    codec = BoundCodec(kind, block, ())
    codec.check()
    assert list(codec.stored("w", shape)) == arrays


def test_a_layout_may_name_the_arrays() -> None:
    codec = BoundCodec("int8_channel", (), (("values", "q/{name}"), ("scales", "{name}.s")))
    assert [stored.name for stored in codec.stored("w", (2, 3))] == ["q/w", "w.s"]


@pytest.mark.parametrize(
    ("kind", "block", "shape"),
    [
        ("mxfp4", (), (3, 33)),
        ("mxfp4", (), ()),
        ("fp8_block", (4, 4), (8,)),
        ("fp8_block", (4, 4), (8, 8, 8)),
        ("int8_channel", (), ()),
        ("int8_block", (4,), (5, 13)),
        ("int8_block", (4,), (2, 5, 12)),
    ],
)
def test_a_shape_that_cannot_be_coded_is_an_error(kind: str, block: tuple[int, ...], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        BoundCodec(kind, block, ()).stored("w", shape)


@pytest.mark.parametrize(
    "codec",
    [
        BoundCodec("zip", (), ()),
        BoundCodec("mxfp4", (32,), ()),
        BoundCodec("fp8_block", (4,), ()),
        BoundCodec("int8_block", (0,), ()),
        BoundCodec("mxfp4", (), (("values", "x"),)),
    ],
)
def test_a_codec_that_does_not_exist_or_takes_other_parts_is_an_error(codec: BoundCodec) -> None:
    with pytest.raises(ValueError, match="codec"):
        codec.check()
