"""What an earlier conversion left in recast/: damaged, contradictory, or of other bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf
from tests.checkpoints import differing, read_safetensors

RECORD = "recast/conversion.json"
RESIDUE = "recast/residue.safetensors"
LIST = "checkpoint-manifest.json"
QUERY = "params.params.decoder.layers.self_attention.query.kernel"
Columns = dict[str, Any]


@pytest.fixture(scope="session")
def with_residue(templates: Path) -> Path:
    """A MaxText checkpoint in bfloat16 throughout, with a residue file."""
    out = templates / "residue"
    completed(hf_to_maxtext(templates / "hf", out, "--exactness=as_requested", "--residue=keep"))
    assert (out / RESIDUE).is_file()
    return out


@pytest.fixture
def kept(with_residue: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_residue, tmp_path / "kept"))


def record(**fields: object) -> cp.Edit:
    return cp.with_fields(RECORD, **fields)


def values_of(table: str, value: object) -> cp.Edit:
    """Sets every value of a table of the record."""
    return cp.changed_json(RECORD, lambda content: content.update({table: dict.fromkeys(content[table], value)}))


def invalid(*says: str) -> tuple[Fault, ...]:
    return (Fault("RESIDUE_INVALID", RECORD, *says),)


CASES = (
    Case("cut", cp.with_bytes(RECORD, lambda data: data[:50]), invalid("not JSON")),
    Case("empty", cp.with_text(RECORD, ""), invalid("not JSON")),
    Case("not_utf_8", lambda directory: (directory / RECORD).write_bytes(b"\xff\xfe{}"), invalid()),
    Case("a_list", cp.with_text(RECORD, "[]"), invalid()),
    Case("nested_without_end", cp.with_text(RECORD, "[" * 200_000), invalid()),
    Case("a_later_schema", record(schema=2), invalid("schema")),
    Case("without_a_field", cp.without_fields("logical_dtypes", file=RECORD), invalid("logical_dtypes")),
    Case("with_another_field", record(secret=1), invalid("secret")),
    Case("a_table_that_is_a_list", record(source_dtypes=[]), invalid()),
    Case("a_name_that_is_a_number", record(model_name=3), invalid()),
    Case("a_step_that_is_a_truth_value", record(step=True), invalid()),
    Case("an_unknown_model_name", record(model_name="nobody"), invalid("nobody")),
    Case("a_model_name_of_another_family", record(model_name="mistral"), invalid("mistral")),
    Case("another_family", record(family="../../tmp"), invalid("../../tmp")),
    Case("an_option_without_such_a_value", record(target_options={"rope": "spiral"}), invalid("spiral")),
    Case("an_option_that_is_an_object", record(target_options={"rope": {}}), invalid("target_options")),
    Case("another_order_of_rotary_pairs", record(target_options={"rope": "interleaved"}), invalid("rope")),
    *(
        Case(
            f"{table}_of_{value}",
            values_of(table, value),
            (Fault("RESIDUE_INVALID"),),
            ("--weight_dtype=auto",),
        )
        for table in ("logical_dtypes", "source_dtypes")
        for value in ("float99", "int8", "float8_e5m2", "complex64", 3, None, ["float32"])
    ),
)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_record_is_refused(
    listed: bool, case: Case, maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    if not listed:
        # Without the digests beside it only its content can tell.
        (maxtext / LIST).unlink()
    case.damage(maxtext)
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, *case.arguments)
    refused(run, *case.faults)


@pytest.mark.parametrize("name", [RECORD, RESIDUE])
@triggers("RESIDUE_INVALID")
def test_a_file_of_the_record_that_is_gone_is_noticed(name: str, kept: Path, destination: Path, tmp_path: Path) -> None:
    (kept / name).unlink()
    with unchanged(tmp_path):
        run = maxtext_to_hf(kept, destination)
    refused(run, Fault("RESIDUE_INVALID", name))


def columns(change: Callable[[Columns, list[dict[str, Any]]], object]) -> cp.Edit:
    """Changes the columns and the heads of the residue file."""

    def apply(directory: Path) -> None:
        path = directory / RESIDUE
        with safe_open(path, framework="numpy") as file:
            arrays: Columns = {name: file.get_tensor(name) for name in file.keys()}
            heads = json.loads(file.metadata()["parts"])
        change(arrays, heads)
        save_file(arrays, path, {"parts": json.dumps(heads)})

    return apply


def first_head(**fields: object) -> cp.Edit:
    return columns(lambda _, heads: heads[0].update(fields))


def set_column(name: str, change: Callable[[Any], Any]) -> cp.Edit:
    return columns(lambda arrays, _: arrays.update({name: np.ascontiguousarray(change(arrays[name]))}))


RESIDUE_CASES = (
    Case("cut", cp.with_bytes(RESIDUE, lambda data: data[:-1]), ()),
    Case("empty", cp.with_bytes(RESIDUE, lambda _: b""), ()),
    Case("not_safetensors", cp.with_text(RESIDUE, "no"), ()),
    Case("without_heads", lambda directory: save_file({"a": np.zeros(1)}, directory / RESIDUE), ()),
    Case("a_column_of_another_length", set_column("0.index", lambda values: values[:-1]), ()),
    Case("an_index_outside_of_its_array", set_column("0.index", lambda values: values + 10**6), ()),
    Case("a_negative_index", set_column("0.index", lambda values: values - 10**6), ()),
    Case("an_index_of_another_type", set_column("0.index", lambda values: values.astype(np.int32)), ()),
    Case("bits_of_another_width", set_column("0.original", lambda values: values.astype(np.uint64)), ()),
    Case("an_array_that_is_not_there", first_head(array="params.params.nobody"), ()),
    Case("another_shape", first_head(shape=[16, 3, 4, 11]), ()),
    Case("an_impossible_shape", first_head(shape=[2**40, 2**40, 1, 1]), ()),
    Case("a_negative_shape", first_head(shape=[-16, 3, -4, 10]), ()),
    Case("a_box_of_another_rank", first_head(box=[[0, 1]]), ()),
    Case("a_shape_and_box_of_another_rank", first_head(shape=[1920], box=[[0, 1920]]), ()),
    Case("an_unknown_dtype", first_head(stored_dtype="float99"), ()),
    Case("a_dtype_that_is_no_text", first_head(original_dtype=[3]), ()),
)


SILENT_CASES = (
    Case("no_heads", columns(lambda _, heads: heads.clear()), (Fault("RESIDUE_INVALID", RESIDUE, LIST),)),
    Case(
        "one_bit_of_an_original",
        set_column("0.original", lambda values: values ^ np.uint16(1)),
        (Fault("RESIDUE_INVALID", RESIDUE, LIST),),
    ),
    Case(
        "another_step_in_the_record",
        cp.with_fields(RECORD, step=7),
        (Fault("RESIDUE_INVALID", RECORD, LIST),),
    ),
)


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
@pytest.mark.parametrize("case", RESIDUE_CASES, ids=lambda case: case.name)
@triggers("RESIDUE_INVALID")
def test_a_damaged_residue_file_is_refused(
    listed: bool, case: Case, kept: Path, destination: Path, tmp_path: Path
) -> None:
    if not listed:
        (kept / LIST).unlink()
    case.damage(kept)
    with unchanged(tmp_path):
        run = maxtext_to_hf(kept, destination, "--weight_dtype=auto")
    refused(run, Fault("RESIDUE_INVALID", "residue"))


@pytest.mark.parametrize("case", SILENT_CASES, ids=lambda case: case.name)
@triggers("RESIDUE_INVALID")
def test_damage_that_only_a_digest_can_tell_is_refused(
    case: Case, kept: Path, destination: Path, tmp_path: Path
) -> None:
    case.damage(kept)
    with unchanged(tmp_path):
        run = maxtext_to_hf(kept, destination, "--weight_dtype=auto")
    refused(run, *case.faults)


def test_the_residue_brings_every_bit_back(kept: Path, hf: Path, destination: Path) -> None:
    run = maxtext_to_hf(kept, destination, "--weight_dtype=auto")
    completed(run)
    assert "elements restored from the residue" in run.output
    assert differing(read_safetensors(destination), read_safetensors(hf)) == []


def trained(directory: Path) -> None:
    """Turns the signs of the query kernel, so that no element has its recorded bits."""
    import tensorstore as ts

    kvstore = {"driver": "ocdbt", "base": f"file://{directory / '0' / 'items'}/", "path": f"{QUERY}/"}
    store = ts.open({"driver": "zarr3", "kvstore": kvstore}).result()
    store.write(-store.read().result()).result()


@triggers("RESIDUE_STALE")
def test_residue_of_weights_that_were_trained_since_is_a_warning(kept: Path, destination: Path) -> None:
    trained(kept)
    run = maxtext_to_hf(kept, destination, "--weight_dtype=auto")
    completed(run, Fault("RESIDUE_STALE", "no longer apply", "residue.safetensors"))


def test_a_checkpoint_without_a_record_is_read_by_its_config(maxtext: Path, hf: Path, destination: Path) -> None:
    shutil.rmtree(maxtext / "recast")
    completed(maxtext_to_hf(maxtext, destination, f"--hf_config_path={hf}", "--weight_dtype=bfloat16"))
    assert differing(read_safetensors(destination), read_safetensors(hf)) == []
