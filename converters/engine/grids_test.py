import math

import pytest

from converters.engine import grids
from mappings.language.regions import Dim, Move

ROWS, WIDTH, LAYERS = 8192, 2048, 16
MIB = 1 << 20


def _transpose(layer: int, *, stacked_source: bool) -> Move:
    """One layer of a kernel [WIDTH, LAYERS, ROWS] and its matrix [ROWS, WIDTH], in either direction."""
    kernel, matrix = (WIDTH, LAYERS, ROWS), (ROWS, WIDTH)
    base = (0, layer, 0)
    if stacked_source:
        dims = (Dim(ROWS, 2, 1, 0, 1), Dim(WIDTH, 0, 1, 1, 1))
        return Move("w", "kernel", f"layer.{layer}", kernel, matrix, base, (0, 0), dims, (), ())
    dims = (Dim(ROWS, 0, 1, 2, 1), Dim(WIDTH, 1, 1, 0, 1))
    return Move("w", f"layer.{layer}", "kernel", matrix, kernel, (0, 0), base, dims, (), ())


def test_an_unchunked_source_may_be_cut_anywhere() -> None:
    assert grids.cuts((WIDTH, LAYERS, ROWS), [_transpose(0, stacked_source=False)], lambda _: None) == (1, 1, 1)


def test_a_target_is_cut_where_the_chunks_of_its_source_end() -> None:
    moves = [_transpose(3, stacked_source=True)]
    assert grids.cuts((ROWS, WIDTH), moves, lambda _: (512, 1, ROWS)) == (ROWS, 512)
    assert grids.cuts((ROWS, WIDTH), moves, lambda _: (512, 1, 2048)) == (2048, 512)
    assert grids.cuts((ROWS, WIDTH), moves, lambda _: (WIDTH, LAYERS, ROWS)) == (ROWS, WIDTH)


@pytest.mark.parametrize(
    ("chunk", "rows"),
    [((64, 2, 32), 2 * 32), ((64, 8, 32), 8 * 32), ((64, 1, 8), 8), ((64, 8, 8), 8 * 32), ((64, 1, 32), 32)],
)
def test_heads_that_are_cut_cut_the_rows_they_make(chunk: tuple[int, ...], rows: int) -> None:
    # [64, 8 heads, 32] becomes [(8 32), 64].
    dims = (Dim(8, 1, 1, 0, 32), Dim(32, 2, 1, 0, 1), Dim(64, 0, 1, 1, 1))
    move = Move("q", "q", "q_proj", (64, 8, 32), (256, 64), (0, 0, 0), (0, 0), dims, (), ())
    assert grids.cuts((256, 64), [move], lambda _: chunk) == (rows, 64)


def test_layers_that_come_from_arrays_of_their_own_share_no_chunk() -> None:
    moves = [_transpose(layer, stacked_source=False) for layer in range(LAYERS)]
    assert grids.cuts((WIDTH, LAYERS, ROWS), moves, lambda _: (ROWS, 512)) == (512, 1, ROWS)


def test_layers_that_share_a_chunk_are_counted() -> None:
    move = [_transpose(0, stacked_source=True)]
    assert grids.sharing(move, lambda _: (512, 1, ROWS)) == 1
    assert grids.sharing(move, lambda _: (128, LAYERS, ROWS)) == LAYERS
    assert grids.sharing(move, lambda _: None) == 1


def _free(shape: tuple[int, ...], stacked: tuple[int, ...], rows: int | None, limit: int = 16 * MIB) -> tuple[int, ...]:
    return grids.free_chunk(shape, stacked, rows, [1] * len(shape), 2, limit)


def test_a_stacked_array_gets_one_layer_per_chunk() -> None:
    assert _free((4096, 32, 14336), (1,), None, 64 * MIB) == (2048, 1, 14336)


def test_a_small_array_stays_whole() -> None:
    assert _free((4096, 32), (1,), None) == (4096, 32)


def test_the_rows_of_the_source_fit_a_slab_of_few_chunks() -> None:
    chunk = _free((16384, 126, 53248), (1,), 2)
    assert chunk[1] == 1
    assert 2 * math.prod(chunk) <= 16 * MIB
    assert 2 * 16384 * chunk[2] <= 32 * MIB


def test_a_chunk_is_cut_on_later_axes_only_when_the_first_is_used_up() -> None:
    assert grids.free_chunk((2, 10, 1000), (), None, (1, 1, 1), MIB, 100 * MIB) == (1, 1, 100)


def test_a_chunk_ends_where_that_of_the_source_does() -> None:
    # The source's chunks end at every 96: the nearest size that fits is 96 itself, or a divisor of it.
    assert grids.free_chunk((960, 4096), (), None, (96, 4096), 2, MIB)[0] == 96
    assert grids.free_chunk((960, 65536), (), None, (96, 65536), 2, 2 * MIB)[0] == 16


def test_slabs_are_contiguous_ranges() -> None:
    assert grids.slab((128256, 2048), (1, 1), 2, 64 * MIB) == (16384, 2048)
    assert grids.slab((7,), (1,), 2, 64 * MIB) == (7,)
    assert grids.slab((), (), 8, 64) == ()


def test_a_slab_takes_whole_chunks_before_it_takes_whole_rows() -> None:
    assert grids.slab((ROWS, WIDTH), (2048, 512), 2, 10 * MIB) == (2048, WIDTH)
    assert grids.slab((ROWS, WIDTH), (ROWS, 128), 2, 4 * MIB) == (ROWS, 256)


def test_a_slab_that_cannot_hold_a_chunk_holds_a_part_of_it() -> None:
    assert math.prod(grids.slab((ROWS, WIDTH), (ROWS, WIDTH), 2, MIB)) * 2 <= MIB
