import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.engine import binding, planning, verify
from converters.engine import residue as residue_lib
from converters.engine.binding import Sides
from converters.engine.execute import Budget, Executor
from converters.engine.memory_checkpoint import MemorySink, MemorySource
from converters.engine.plan import Plan
from converters.engine.planning import Grid
from converters.engine.precision import Precision
from converters.formats.base import Declared
from reporting.diagnostics import RecastError

BF16 = np.dtype(ml_dtypes.bfloat16)
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "vocab_size": 70,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 50,
    "tie_word_embeddings": False,
}
KEEP_NOTHING = residue_lib.Residue(residue_lib.EMPTY)


def _sides(source: str, target: str, options: dict[str, Any]) -> Sides:
    family = binding.family_for("llama", CONFIG)
    first, second = (binding.layout_for(family, "llama", name, options) for name in (source, target))
    header = {name: None for name, array in first.arrays.items() if not array.mirror and not array.optional}
    return Sides(family, first, second, binding.compose(first, second, header), {})  # type: ignore[arg-type]


def _weights(sides: Sides) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    out = {}
    for name, array in sides.source.arrays.items():
        if array.mirror or array.optional:
            continue
        count = math.prod(array.shape)
        bits = generator.integers(0, 0x7F00, count, dtype=np.uint16) | (
            generator.integers(0, 2, count, dtype=np.uint16) << 15
        )
        out[name] = bits.view(BF16).reshape(array.shape)
    return out


def _run(
    sides: Sides,
    source: MemorySource,
    *,
    dtype: str = "bfloat16",
    budget: int = 64 << 20,
    recorded: dict[str, str] | None = None,
    residue_in: residue_lib.Residue = KEEP_NOTHING,
    journal: residue_lib.Journal | None = None,
) -> tuple[MemorySink, Plan]:
    free = sides.target.format == "maxtext"
    plan = planning.make(sides, source, Precision(dtype), recorded or {}, Grid(free, 2, budget))
    sink = MemorySink()
    sink.declare([Declared(array.info, array.chunk) for array in plan.arrays.values()])
    Executor(plan, source, sink, budget=budget, residue_in=residue_in, residue_out=journal).run()
    return sink, plan


@pytest.mark.parametrize("scan", ["true", "false"])
@pytest.mark.parametrize("rope", ["half", "interleaved"])
def test_there_and_back_every_bit_is_the_source(tmp_path: Any, scan: str, rope: str) -> None:
    options = {"scan": scan, "rope": rope}
    forward, back = _sides("hf", "maxtext", options), _sides("maxtext", "hf", options)
    weights = _weights(forward)
    journal = residue_lib.Journal(tmp_path / "journal")
    middle, plan = _run(forward, MemorySource(weights), journal=journal)
    journal.join(tmp_path / "residue.safetensors")
    chunks = {name: array.chunk for name, array in plan.arrays.items()}
    recorded = {name: array.path.logical_dtype for name, array in plan.arrays.items() if array.path.target_ops}
    residue = residue_lib.read(tmp_path / "residue.safetensors")
    end, _ = _run(back, MemorySource(middle.arrays, chunks), recorded=recorded, residue_in=residue)
    assert set(end.arrays) == set(weights)
    for name, array in weights.items():
        assert np.array_equal(end.arrays[name].view(np.uint16), array.view(np.uint16)), name


def test_every_element_is_written_once() -> None:
    sides = _sides("hf", "maxtext", {"scan": "true"})
    sink, plan = _run(sides, MemorySource(_weights(sides)))
    assert set(sink.writes) == set(plan.arrays)
    assert all((count == 1).all() for count in sink.writes.values())


def test_a_small_budget_gives_the_same_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = _sides("hf", "maxtext", {"scan": "true", "rope": "interleaved"})
    weights = _weights(sides)
    whole, _ = _run(sides, MemorySource(weights))
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 256)
    monkeypatch.setattr("converters.engine.grids._SMALL_ARRAY", 0)
    small, plan = _run(sides, MemorySource(weights), budget=6000)
    assert sum(1 for _ in plan.units()) > 5 * len(plan.arrays)
    for name, array in whole.arrays.items():
        assert array.tobytes() == small.arrays[name].tobytes(), name


def test_each_read_lies_in_one_chunk_of_the_source() -> None:
    sides = _sides("maxtext", "hf", {"scan": "true", "rope": "half"})
    weights = _weights(sides)
    name = "params.params.decoder.layers.self_attention.query.kernel"
    source = MemorySource(weights, {name: (20, 1, 6, 32)})
    _run(sides, source)
    regions = [region for read, region in source.reads if read == name]
    assert sum(math.prod(stop - start for start, stop in region) for region in regions) == weights[name].size
    for region in regions:
        assert region[0][0] // 20 == (region[0][1] - 1) // 20
        assert region[1][1] - region[1][0] == 1


# Grids that others write, of the kernels [48, 3 layers, 50] and [48, 3, 6, 32] and their like: whole leaves, all layers
# in each of several parts, and chunks whose borders lie across heads.
FOREIGN: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "whole leaves": lambda shape: shape,
    "all layers in each part": lambda shape: (max(1, shape[0] // 4), *shape[1:]),
    "many small chunks": lambda shape: tuple(max(1, size // 3) for size in shape),
    "odd borders": lambda shape: tuple(min(size, 7) for size in shape),
}


@pytest.mark.parametrize("grid", FOREIGN)
@pytest.mark.parametrize("target", ["hf", "maxtext"])
def test_any_grid_gives_the_same_arrays(grid: str, target: str) -> None:
    sides = _sides("maxtext", target, {"scan": "true"})
    weights = _weights(sides)
    expected, _ = _run(sides, MemorySource(weights))
    chunks = {name: FOREIGN[grid](array.shape) for name, array in weights.items()}
    found, plan = _run(sides, MemorySource(weights, chunks))
    assert set(expected.arrays) == set(found.writes) == set(plan.arrays)
    assert all((count == 1).all() for count in found.writes.values())
    for name, array in expected.arrays.items():
        assert array.tobytes() == found.arrays[name].tobytes(), name


def _decoded(source: MemorySource, chunks: dict[str, tuple[int, ...]]) -> int:
    """Bytes of the chunks that the reads of a source touched, each as often as it was touched."""
    total = 0
    for name, region in source.reads:
        info, chunk = source.tensors[name], chunks[name]
        low = [start // size * size for (start, _), size in zip(region, chunk, strict=True)]
        high = [
            min(-(-stop // size) * size, whole)
            for (_, stop), size, whole in zip(region, chunk, info.shape, strict=True)
        ]
        total += 2 * math.prod(b - a for a, b in zip(low, high, strict=True))
    return total


@pytest.mark.parametrize("grid", ["whole leaves", "all layers in each part"])
def test_a_chunk_that_many_arrays_share_is_decoded_once(grid: str) -> None:
    sides = _sides("maxtext", "hf", {"scan": "true"})
    weights = _weights(sides)
    chunks = {name: FOREIGN[grid](array.shape) for name, array in weights.items()}
    source = MemorySource(weights, chunks)
    _, plan = _run(sides, source)
    assert plan.amplification == 1.0
    assert _decoded(source, chunks) == plan.bytes_in


@pytest.mark.parametrize("budget", [40_000, 64_000, 1 << 20])
def test_the_plan_says_how_much_is_decoded(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 256)
    sides = _sides("maxtext", "hf", {"scan": "true"})
    weights = _weights(sides)
    chunks = {name: FOREIGN["all layers in each part"](array.shape) for name, array in weights.items()}
    source = MemorySource(weights, chunks)
    _, plan = _run(sides, source, budget=budget)
    assert _decoded(source, chunks) == plan.bytes_decoded
    assert (plan.amplification > 1) == (budget < 64_000)


def test_no_group_holds_more_than_the_budget() -> None:
    sides = _sides("maxtext", "hf", {"scan": "true"})
    weights = _weights(sides)
    chunks = {name: FOREIGN["whole leaves"](array.shape) for name, array in weights.items()}
    plan = planning.make(sides, MemorySource(weights, chunks), Precision("bfloat16"), {}, Grid(False, 2, 200_000))
    assert plan.shared
    assert all(group.bytes <= 200_000 for group in plan.groups())
    assert sorted((u.array.info.name, u.box) for g in plan.groups() for u in g.units) == sorted(
        (u.array.info.name, u.box) for u in plan.units()
    )


@pytest.mark.parametrize(("cut", "parts"), [("rows", 5), ("columns", 2)])
def test_columns_of_a_file_are_written_in_wider_units_than_ranges(
    cut: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 70 * 12 * 2)
    monkeypatch.setattr(planning, "_COLUMNS_LIMIT", 70 * 24 * 2)
    sides = _sides("maxtext", "hf", {"scan": "true"})
    weights = _weights(sides)
    # Turned on its way: rows of the kernel are columns of the head's weight.
    chunk = (12, 70) if cut == "columns" else (48, 70)
    source = MemorySource(weights, {name: chunk for name in weights if name.endswith("logits_dense.kernel")})
    plan = planning.make(sides, source, Precision("bfloat16"), {}, Grid(False, 2, 64 << 20))
    assert len(list(plan.arrays["lm_head.weight"].boxes())) == parts


def test_a_signal_while_threads_start_ends_them_at_their_next_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Exception):
        pass

    def tell(*_: object) -> None:
        raise Told

    def submit(pool: ThreadPoolExecutor, work: Callable[[], None], real: Any = ThreadPoolExecutor.submit) -> Any:
        future = real(pool, work)
        signal.raise_signal(signal.SIGTERM)
        return future

    sides = _sides("hf", "maxtext", {"scan": "true"})
    source = MemorySource(_weights(sides))
    plan = planning.make(sides, source, Precision("bfloat16"), {}, Grid(True, 2, 64 << 20))
    sink, recorded = MemorySink(), list[object]()
    sink.declare([Declared(array.info, array.chunk) for array in plan.arrays.values()])
    write = sink.write

    def slow(*unit: Any) -> None:
        write(*unit)
        time.sleep(0.05)

    monkeypatch.setattr(sink, "write", slow)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    executor = Executor(
        plan, source, sink, budget=1 << 26, residue_in=KEEP_NOTHING, residue_out=None, recorded=recorded.append
    )
    before = signal.signal(signal.SIGTERM, tell)
    try:
        with pytest.raises(Told):
            executor.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert 0 < len(recorded) < len(list(plan.units()))


def test_samples_agree_with_what_was_written() -> None:
    sides = _sides("hf", "maxtext", {"scan": "true"})
    source = MemorySource(_weights(sides))
    sink, plan = _run(sides, source)
    target = MemorySource(sink.arrays)
    sampled = list(verify.sample(plan, source, seed=1))
    assert {array.info.name for array, _ in sampled} == set(plan.arrays)
    for array, points in sampled:
        assert len(points.source_at) > 0
        assert verify.compare(array, points, source, target, KEEP_NOTHING) == []


def test_samples_see_two_exchanged_rows() -> None:
    sides = _sides("hf", "maxtext", {"scan": "true"})
    source = MemorySource(_weights(sides))
    sink, plan = _run(sides, source)
    embedding = sink.arrays["params.params.token_embedder.embedding"]
    embedding[:] = embedding[::-1].copy()
    found = [
        d
        for array, points in verify.sample(plan, source, seed=1)
        for d in verify.compare(array, points, source, MemorySource(sink.arrays), KEEP_NOTHING)
    ]
    assert {d.subject for d in found} == {"params.params.token_embedder.embedding"}
    assert found[0].id == "VERIFICATION_FAILED"


def test_a_unit_that_cannot_fit_the_budget_is_refused_with_the_figure() -> None:
    sides = _sides("hf", "maxtext", {"scan": "true"})
    with pytest.raises(RecastError) as caught:
        planning.make(sides, MemorySource(_weights(sides)), Precision("bfloat16"), {}, Grid(True, 2, 100))
    assert caught.value.diagnostics[0].id == "MEMORY_PLAN"


def test_a_failing_write_stops_the_run() -> None:
    sides = _sides("hf", "maxtext", {"scan": "true"})
    source = MemorySource(_weights(sides))
    plan = planning.make(sides, source, Precision("bfloat16"), {}, Grid(True, 2, 64 << 20))
    sink = MemorySink()
    with pytest.raises(KeyError):
        Executor(plan, source, sink, budget=1 << 26, residue_in=KEEP_NOTHING, residue_out=None).run()


def test_more_than_the_whole_budget_takes_all_of_it() -> None:
    budget = Budget(10)
    assert budget.take(100) == 10
    budget.give_back(10)
    assert budget.take(4) == 4
