import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format

from converters.engine import plan_document
from converters.engine.plan import ArrayPlan, Group, Plan
from converters.engine.request import ConversionRequest
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo
from recast_proto import plan_pb2, report_pb2
from reporting.diagnostics import RecastError
from reporting.report import Report

REQUEST = ConversionRequest(Path("a"), Path("b"), "hf", "maxtext", "auto", memory_budget=5000)


def _array(name: str, shape: tuple[int, ...], chunk: tuple[int, ...], exactness: str = "EXACT") -> ArrayPlan:
    path = ValuePath("bfloat16", "bfloat16", "float32", exactness=exactness)
    return ArrayPlan(TensorInfo(name, shape, "float32"), chunk, path, ())


def _plan(*arrays: ArrayPlan, together: int = 0) -> Plan:
    """Args: how many units of the first array are one group."""
    units = tuple(unit for array in arrays for unit in array.units())
    return Plan(
        arrays={array.info.name: array for array in arrays},
        bytes_in=1000,
        bytes_out=sum(array.bytes for array in arrays),
        threads=3,
        peak_bytes=4096,
        bytes_decoded=1500,
        shared=(Group(units[:together]),) if together else (),
    )


def _document(*arrays: ArrayPlan, together: int = 0) -> plan_pb2.Plan:
    return plan_document.document(REQUEST, *_prepared(_plan(*arrays, together=together)))


def _text(*arrays: ArrayPlan) -> str:
    plan = _plan(*arrays)
    return plan_document.render(plan_document.Planned(plan_document.summary(REQUEST, *_prepared(plan)), plan))


def _prepared(plan: Plan) -> tuple[Any, Report]:
    report = Report("plan")
    report.source, report.options["maxtext.scan"] = "from", "true"
    return SimpleNamespace(plan=plan, naming=SimpleNamespace(model_name="tiny")), report


def test_the_text_says_how_much_of_the_disk_must_be_free() -> None:
    (line,) = [line for line in _text(_array("a", (5, 7), (2, 4))).split("\n") if line.startswith("  disk ")]
    assert line.endswith(" must be free at the destination")


def test_arrays_are_counted_in_units_and_bytes() -> None:
    found = _document(_array("a", (5, 7), (2, 4)), _array("b", (), (), "INVERTIBLE"), _array("c", (4,), (4,)))
    assert [(array.name, array.units, array.bytes) for array in found.array] == [
        ("a", 6, 140),
        ("b", 1, 4),
        ("c", 1, 16),
    ]
    assert [list(array.unit_shape) for array in found.array] == [[2, 4], [], [4]]
    assert (found.units, found.groups, found.bytes_out) == (8, 8, 160)
    assert dict(found.arrays_by_exactness) == {"EXACT": 2, "INVERTIBLE": 1}
    assert found.array[1].exactness == report_pb2.INVERTIBLE
    assert (found.source, found.source_format, found.target_format, found.model_name) == (
        "from",
        "hf",
        "maxtext",
        "tiny",
    )
    assert dict(found.options) == {"maxtext.scan": "true"}
    assert (found.memory_budget, found.peak_buffer_bytes, found.threads) == (5000, 4096, 3)
    assert found.peak_memory_bytes > found.peak_buffer_bytes
    assert found.disk_bytes > found.bytes_out
    assert found.read_amplification == 1.5


def test_units_that_are_made_together_are_one_group() -> None:
    assert _document(_array("a", (5, 7), (2, 4)), _array("b", (3,), (1,)), together=4).groups == 6


def test_plans_with_other_units_have_another_digest() -> None:
    first, second = _document(_array("a", (5, 7), (2, 4))), _document(_array("a", (5, 7), (4, 4)))
    assert first.digest == _document(_array("a", (5, 7), (2, 4))).digest
    assert first.digest != second.digest


def test_the_text_shows_the_largest_arrays_and_counts_the_rest() -> None:
    arrays = [_array(f"a{number:02}", (number + 1,), (1,)) for number in range(45)]
    lines = _text(*arrays).splitlines()
    assert "amplification 1.50" in "\n".join(lines)
    shown = [line.split()[0] for line in lines if line.startswith("a") and line[1:3].isdigit()]
    assert shown == [f"a{number:02}" for number in range(44, 4, -1)]
    assert lines[-1] == "and 5 smaller arrays (--plan_file lists all)"
    assert "smaller" not in _text(*arrays[:40])


def test_the_text_shows_arrays_that_differ_in_numbers_alone_as_one_line() -> None:
    experts = [_array(f"layers.{layer}.experts.{number}.w2", (6, 4), (3, 4)) for layer in (3, 4) for number in range(9)]
    others = [_array("layers.9.w2", (6, 4), (3, 4)), _array("layers.3.experts.0.w3", (6, 4), (6, 4), "INVERTIBLE")]
    rows = [line.split() for line in _text(*experts, *others).splitlines() if line.startswith("layers.")]
    assert rows == [
        ["layers.[3-4].experts.[0-8].w2", "18", "float32", *["6", "x", "4", "3", "x", "4", "36", "1728", "EXACT"]],
        ["layers.9.w2", "1", "float32", *["6", "x", "4", "3", "x", "4", "2", "96", "EXACT"]],
        ["layers.3.experts.0.w3", "1", "float32", *["6", "x", "4", "6", "x", "4", "1", "96", "INVERTIBLE"]],
    ]


def test_sums_are_what_the_message_with_all_arrays_says() -> None:
    plan = _plan(_array("a", (5, 7), (2, 4)), _array("b", (3,), (1,)), together=4)
    whole, sums = plan_document.document(REQUEST, *_prepared(plan)), plan_document.summary(REQUEST, *_prepared(plan))
    assert (len(whole.array), len(sums.array), sums.digest) == (2, 0, "")
    del whole.array[:]
    whole.ClearField("digest")
    assert whole == sums


def test_the_file_gives_the_message_back(tmp_path: Path) -> None:
    message = _document(_array("a", (5, 7), (2, 4)))
    path = tmp_path / "new" / "folder" / "plan.json"
    plan_document.write(message, path)
    assert json_format.Parse(path.read_text("utf-8"), plan_pb2.Plan()) == message
    assert '"bytes_in": "1000"' in path.read_text("utf-8")


def test_a_full_disk_is_named_and_the_earlier_plan_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_text("earlier")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RecastError) as caught:
        plan_document.write(_document(_array("a", (5,), (1,))), path)
    assert [found.id for found in caught.value.diagnostics] == ["DISK_FULL"]
    assert [(kept.name, kept.read_text()) for kept in tmp_path.iterdir()] == [("plan.json", "earlier")]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "plan.json").symlink_to("other")
    plan_document.write(_document(_array("a", (5,), (1,))), tmp_path / "plan.json")
    assert (tmp_path / "other").read_text() == "mine"
    assert not (tmp_path / "plan.json").is_symlink()
