from converters.engine import plan
from converters.engine.plan import ArrayPlan
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo


def test_a_stacked_array_gets_one_layer_per_chunk() -> None:
    assert plan.whole_chunks((4096, 32, 14336), (1,), 2, 64 << 20) == (2048, 1, 14336)


def test_a_small_array_stays_whole() -> None:
    assert plan.whole_chunks((4096, 32), (1,), 2, 64 << 20) == (4096, 32)


def test_a_chunk_is_cut_on_later_axes_only_when_the_first_is_used_up() -> None:
    assert plan.whole_chunks((2, 10, 1000), (), 1 << 20, 100 << 20) == (1, 1, 100)


def test_slabs_are_contiguous_ranges() -> None:
    assert plan.leading_slabs((128256, 2048), 2, 64 << 20) == (16032, 2048)
    assert plan.leading_slabs((7,), 2, 64 << 20) == (7,)
    assert plan.leading_slabs((), 8, 64) == ()


def test_units_cover_the_array_without_overlap() -> None:
    path = ValuePath("bfloat16", "bfloat16", "bfloat16")
    array = ArrayPlan(TensorInfo("a", (5, 7), "bfloat16"), (2, 4), path, ())
    seen = [[0] * 7 for _ in range(5)]
    for unit in array.units():
        for i in range(*unit.box[0]):
            for j in range(*unit.box[1]):
                seen[i][j] += 1
    assert all(count == 1 for row in seen for count in row)


def test_a_scalar_is_one_unit() -> None:
    path = ValuePath("float32", "float32", "float32")
    (unit,) = ArrayPlan(TensorInfo("a", (), "float32"), (), path, ()).units()
    assert unit.box == ()
