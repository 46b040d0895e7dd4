"""Where the entries of a residue go when the elements that they are about move."""

import numpy as np

from converters.engine import moved_residue
from converters.engine.residue import Part, Residue
from mappings.language.regions import Dim, Move

STACKED = (5, 3, 2)


def _unstacking(layer: int) -> Move:
    return Move(
        tensor="w",
        source="stacked",
        target=f"layer_{layer}",
        source_shape=STACKED,
        target_shape=(5, 2),
        source_base=(0, layer, 0),
        target_base=(0, 0),
        dims=(Dim(5, 0, 1, 0, 1), Dim(2, 2, 1, 1, 1)),
        source_ops=(),
        target_ops=(),
    )


def _residue(array: str, shape: tuple[int, ...], index: list[int]) -> Residue:
    box = tuple((0, size) for size in shape)
    number = np.arange(len(index), dtype=np.uint32)
    part = Part(array, shape, box, "float32", "float32", np.array(index, np.int64), number, number + 100)
    return Residue({array: (part,)})


def test_entries_of_a_stacked_array_go_to_their_layers() -> None:
    everything = list(range(30))
    residue = _residue("stacked", STACKED, everything)
    for layer in range(3):
        (part,) = moved_residue.parts(residue, [_unstacking(layer)])
        assert (part.array, part.shape) == (f"layer_{layer}", (5, 2))
        values = np.arange(30).reshape(STACKED)[:, layer, :].reshape(-1)
        assert part.index.tolist() == list(range(10))
        assert part.stored.tolist() == values.tolist()
        assert part.original.tolist() == (values + 100).tolist()


def test_entries_of_layers_come_together_in_one_part() -> None:
    moves = [
        Move(
            "w",
            f"layer_{i}",
            "stacked",
            (5, 2),
            STACKED,
            (0, 0),
            (0, i, 0),
            (Dim(5, 0, 1, 0, 1), Dim(2, 1, 1, 2, 1)),
            (),
            (),
        )
        for i in range(3)
    ]
    second = _residue("layer_1", (5, 2), [0, 9])
    third = _residue("layer_2", (5, 2), [3])
    residue = Residue({"layer_1": second.parts("layer_1"), "layer_2": third.parts("layer_2")})
    (part,) = moved_residue.parts(residue, moves)
    expected = [np.ravel_multi_index(at, STACKED) for at in ((0, 1, 0), (4, 1, 1), (1, 2, 1))]
    assert part.index.tolist() == expected
    assert part.stored.tolist() == [0, 1, 0]


def test_a_split_axis_is_followed_digit_by_digit() -> None:
    swap = Move("w", "a", "b", (6,), (6,), (0,), (0,), (Dim(2, 0, 3, 0, 1), Dim(3, 0, 1, 0, 2)), (), ())
    (part,) = moved_residue.parts(_residue("a", (6,), [0, 1, 2, 3, 4, 5]), [swap])
    assert part.index.tolist() == [0, 2, 4, 1, 3, 5]


def test_what_does_not_move_gives_no_part() -> None:
    assert moved_residue.parts(_residue("other", (5,), [1]), [_unstacking(0)]) == []
    only_first = _residue("stacked", STACKED, [0, 1])
    assert moved_residue.parts(only_first, [_unstacking(1)]) == []
