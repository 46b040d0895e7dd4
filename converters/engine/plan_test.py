from converters.engine.plan import ArrayPlan
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo


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
