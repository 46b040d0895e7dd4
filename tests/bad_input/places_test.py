"""Where the output may go, what is already there, and who else is writing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.running import Convert, hf_to_maxtext, maxtext_to_hf, process
from tests.checkpoints import differing, read_safetensors


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


REFUSALS = {
    "open_source": cp.without("model.safetensors"),
    "validate_config": cp.with_fields(hidden_size="16"),
    "bind": cp.changed_tensors(lambda held: held.pop("model.norm.weight")),
    "plan": lambda directory: cp.write(directory, "float32"),
    "convert": lambda directory: cp.write(directory, attention_bias=True),
}


@pytest.mark.parametrize("step", REFUSALS)
@pytest.mark.parametrize("kind", ["empty", "absent", "left over"])
def test_a_refusal_in_any_step_leaves_the_destination_as_it_was(
    step: str, kind: str, hf: Path, out: Path, tmp_path: Path
) -> None:
    if kind != "absent":
        out.mkdir()
    if kind == "left over" and step != "convert":
        (out / ".recast-staging").mkdir()
        (out / ".recast-staging" / "old").write_text("of a killed run", "utf-8")
    REFUSALS[step](hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, out, "--require_exact")
    run.check_form()
    assert run.code == 2, run.summary
    assert [name for name, outcome in run.steps.items() if outcome == "Failed"] == [step]


@triggers("DESTINATION_EXISTS")
def test_a_destination_with_files_is_not_touched(convert: Convert, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", "not empty", str(out)))
    assert "nothing but a checkpoint" in run.failures[0].suggestion


@triggers("DESTINATION_EXISTS")
def test_overwrite_is_advised_where_it_replaces_a_checkpoint(convert: Convert, out: Path, hf: Path) -> None:
    shutil.copytree(hf, out)
    run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", "not empty", str(out)))
    assert "pass --overwrite to replace this one" in run.failures[0].suggestion
    completed(convert(out, "--overwrite"))


@triggers("DESTINATION_EXISTS")
def test_overwrite_does_not_replace_what_is_no_checkpoint(convert: Convert, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine", "utf-8")
    with unchanged(tmp_path):
        run = convert(out, "--overwrite")
    refused(run, Fault("DESTINATION_EXISTS", "no checkpoint", str(out)))
    assert "--overwrite" not in run.failures[0].suggestion


@pytest.mark.parametrize("name", ["config.json", "0", "recast"])
@triggers("DESTINATION_EXISTS")
def test_overwrite_does_not_replace_a_project_with_one_familiar_name(
    name: str, convert: Convert, out: Path, tmp_path: Path
) -> None:
    (out / "src").mkdir(parents=True)
    (out / "src" / "main.py").write_text("print()", "utf-8")
    if "." in name:
        (out / name).write_text("{}", "utf-8")
    else:
        (out / name).mkdir()
    with unchanged(tmp_path):
        run = convert(out, "--overwrite")
    refused(run, Fault("DESTINATION_EXISTS", str(out)))


@triggers("DESTINATION_EXISTS")
def test_a_file_in_place_of_the_destination(convert: Convert, out: Path, tmp_path: Path) -> None:
    out.write_text("mine", "utf-8")
    for flags in ((), ("--overwrite",)):
        with unchanged(tmp_path):
            run = convert(out, *flags)
        refused(run, Fault("DESTINATION_EXISTS", "no directory", str(out)))


@triggers("DESTINATION_EXISTS")
def test_a_link_to_nothing_in_place_of_the_destination(convert: Convert, out: Path, tmp_path: Path) -> None:
    out.symlink_to(tmp_path / "gone")
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", "no directory", str(out)))


@triggers("DESTINATION_NOT_WRITABLE")
def test_a_file_above_the_destination(convert: Convert, out: Path, tmp_path: Path) -> None:
    out.write_text("mine", "utf-8")
    with unchanged(tmp_path):
        run = convert(out / "deeper" / "still")
    refused(run, Fault("DESTINATION_NOT_WRITABLE", "no directory", str(out)))


@pytest.mark.parametrize("kind", ["link", "file"])
@triggers("DESTINATION_EXISTS")
def test_a_staging_folder_that_is_none_of_ours_is_not_followed(
    kind: str, convert: Convert, out: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letters.txt").write_text("mine", "utf-8")
    out.mkdir()
    if kind == "link":
        (out / ".recast-staging").symlink_to(precious)
    else:
        (out / ".recast-staging").write_text("mine", "utf-8")
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", str(out)))


def test_a_link_to_a_directory_is_a_destination(convert: Convert, out: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    out.symlink_to(tmp_path / "disk")
    completed(convert(out))
    assert out.is_symlink()
    assert (tmp_path / "disk" / "DONE").is_file()


@triggers("DESTINATION_INSIDE_SOURCE")
def test_a_destination_inside_the_source(hf: Path, tmp_path: Path) -> None:
    for place in (hf, hf / "out", hf / "deep" / "er", tmp_path / "hf" / ".." / "hf" / "out"):
        with unchanged(tmp_path):
            run = hf_to_maxtext(hf, place)
        refused(run, Fault("DESTINATION_INSIDE_SOURCE", str(hf), str(place)))


@triggers("DESTINATION_INSIDE_SOURCE")
def test_a_destination_that_a_link_leads_into_the_source(hf: Path, tmp_path: Path) -> None:
    (hf / "sub").mkdir()
    (tmp_path / "elsewhere").symlink_to(hf / "sub")
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, tmp_path / "elsewhere")
    refused(run, Fault("DESTINATION_INSIDE_SOURCE", str(hf)))


@pytest.mark.parametrize("given", ["", "0", "0/items"])
@pytest.mark.parametrize("place", ["", "back", "0", "0/back", "0/items", "0/items/back", "recast", "recast/back"])
@triggers("DESTINATION_INSIDE_SOURCE")
def test_a_destination_inside_a_maxtext_checkpoint(given: str, place: str, maxtext: Path, tmp_path: Path) -> None:
    for flags in ((), ("--overwrite",)):
        with unchanged(tmp_path):
            run = maxtext_to_hf(maxtext / given, maxtext / place, *flags)
        refused(run, Fault("DESTINATION_INSIDE_SOURCE", str(maxtext)))


@triggers("DESTINATION_INSIDE_SOURCE")
def test_a_destination_that_holds_the_source_is_not_replaced(hf: Path, tmp_path: Path) -> None:
    parent = tmp_path / "models"
    parent.mkdir()
    source = Path(shutil.move(hf, parent / "hf"))
    (parent / "DONE").write_text("{}", "utf-8")
    with unchanged(tmp_path):
        run = hf_to_maxtext(source, parent, "--overwrite")
    refused(run, Fault("DESTINATION_INSIDE_SOURCE", "holds the input directory", str(source)))


def test_the_same_request_again_rewrites_nothing(convert: Convert, out: Path, tmp_path: Path) -> None:
    completed(convert(out))
    with unchanged(tmp_path):
        run = convert(out)
    completed(run)
    assert "is already complete for this request" in run.output
    assert "convert" not in run.steps


@triggers("DESTINATION_EXISTS")
def test_another_request_does_not_replace_a_checkpoint(hf: Path, out: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, out, "--scan_layers=false")
    refused(run, Fault("DESTINATION_EXISTS", "not empty"))


@triggers("DESTINATION_EXISTS")
def test_another_source_is_another_request(hf: Path, out: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    later = (hf / "model.safetensors").stat().st_mtime_ns + 10**9
    os.utime(hf / "model.safetensors", ns=(later, later))
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, out)
    refused(run, Fault("DESTINATION_EXISTS", "not empty"))


@triggers("DESTINATION_EXISTS")
def test_another_config_is_another_request(hf: Path, out: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    cp.with_fields(rope_theta=20000.0)(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, out)
    refused(run, Fault("DESTINATION_EXISTS", "not empty"))


def _weights_of(out: Path) -> Iterator[Path]:
    yield from out.glob("model*.safetensors")
    yield from (path for path in (out / "0" / "items" / "d").glob("*") if path.stat().st_size)


@pytest.mark.parametrize("kind", ["gone", "cut"])
@triggers("DESTINATION_EXISTS")
def test_a_checkpoint_that_lost_a_file_is_not_called_complete(
    kind: str, convert: Convert, out: Path, tmp_path: Path
) -> None:
    completed(convert(out))
    victim = next(_weights_of(out))
    if kind == "gone":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-1])
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", str(out)))
    completed(convert(out, "--overwrite"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"request": 3}', "\x00"])
@triggers("DESTINATION_EXISTS")
def test_a_damaged_done_file_is_not_believed(text: str, convert: Convert, out: Path, tmp_path: Path) -> None:
    completed(convert(out))
    (out / "DONE").write_text(text, "utf-8")
    with unchanged(tmp_path):
        run = convert(out)
    refused(run, Fault("DESTINATION_EXISTS", str(out)))


def test_overwrite_replaces_a_checkpoint_as_a_whole(hf: Path, out: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    old = {path.name for path in (out / "0" / "items" / "d").iterdir()}
    with unchanged(hf):
        completed(hf_to_maxtext(hf, out, "--overwrite", "--scan_layers=false"))
    assert old.isdisjoint(path.name for path in (out / "0" / "items" / "d").iterdir())
    assert not (out / ".recast-staging").exists()
    back = out.with_name("back")
    completed(maxtext_to_hf(out, back, "--weight_dtype=auto"))
    assert differing(read_safetensors(back), read_safetensors(hf)) == []


def test_overwrite_of_another_format_leaves_nothing_of_it(hf: Path, maxtext: Path, out: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    completed(maxtext_to_hf(maxtext, out, "--overwrite", "--weight_dtype=auto"))
    assert not (out / "0").exists()
    assert differing(read_safetensors(out), read_safetensors(hf)) == []


@triggers("MISSING_TENSOR")
def test_a_refused_overwrite_leaves_the_old_checkpoint(hf: Path, out: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    cp.changed_tensors(lambda held: held.pop("model.norm.weight"))(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, out, "--overwrite")
    refused(run, Fault("MISSING_TENSOR", "model.norm.weight"))


def test_what_a_killed_run_left_is_cleared_away(convert: Convert, out: Path, hf: Path) -> None:
    staging = out / ".recast-staging"
    (staging / "0" / "items" / "d").mkdir(parents=True)
    (staging / "0" / "items" / "d" / "old").write_bytes(b"old")
    (staging / "model.safetensors").write_bytes(b"old")
    (staging / "recast").mkdir()
    (staging / "recast" / "residue.journal").write_bytes(b"old")
    (staging / "lock").write_text("4194304", "utf-8")
    completed(convert(out))
    assert not staging.exists()
    assert not any(path.read_bytes() == b"old" for path in out.rglob("*") if path.is_file())


@pytest.fixture
def busy(out: Path) -> Iterator[Path]:
    """A destination that another run holds, half written."""
    staging = out / ".recast-staging"
    (staging / "0" / "items").mkdir(parents=True)
    (staging / "0" / "items" / "_METADATA").write_text("half", "utf-8")
    descriptor = os.open(staging / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, b"4711")
    yield out
    os.close(descriptor)


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
@triggers("DESTINATION_BUSY")
def test_a_second_run_does_not_disturb_the_first(
    flags: tuple[str, ...], convert: Convert, busy: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = convert(busy, *flags)
    refused(run, Fault("DESTINATION_BUSY", "4711", str(busy)))


@triggers("DESTINATION_BUSY")
def test_a_busy_destination_with_an_old_checkpoint_keeps_both(convert: Convert, out: Path, tmp_path: Path) -> None:
    completed(convert(out))
    (out / ".recast-staging").mkdir()
    descriptor = os.open(out / ".recast-staging" / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with unchanged(tmp_path):
            run = convert(out, "--overwrite")
    finally:
        os.close(descriptor)
    refused(run, Fault("DESTINATION_BUSY", str(out)))


def test_every_listed_file_of_an_output_is_there_with_its_digest(convert: Convert, out: Path) -> None:
    from blake3 import blake3

    completed(convert(out))
    listed = json.loads((out / "checkpoint-manifest.json").read_text("utf-8"))["files"]
    unlisted = {"checkpoint-manifest.json", "report.txt", "report.json", "DONE"}
    present = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert set(listed) == present - unlisted
    for name, said in listed.items():
        content = (out / name).read_bytes()
        assert said == {"bytes": len(content), "blake3": blake3(content).hexdigest()}


def test_the_report_in_the_output_is_the_one_that_was_printed(convert: Convert, out: Path) -> None:
    run = convert(out)
    completed(run)
    assert (out / "report.txt").read_text("utf-8") == run.output


def test_a_run_that_fails_after_a_good_one_does_not_touch_it(hf: Path, out: Path) -> None:
    completed(hf_to_maxtext(hf, out))
    before = snapshot(out)
    run = hf_to_maxtext(hf, out, "--overwrite", "--model_name=llama2-7b")
    assert run.code == 2
    assert_same(snapshot(out), before)


@pytest.mark.parametrize(
    "name", ["with space", "per%20cent", "hash#?query", "ünï¢ödé", "quote'\"", "{brace}", "-dash", "a:b"]
)
def test_paths_with_odd_characters(name: str, hf: Path, tmp_path: Path) -> None:
    source = hf.rename(tmp_path / name)
    completed(hf_to_maxtext(source, tmp_path / f"{name} out"))
    completed(maxtext_to_hf(tmp_path / f"{name} out", tmp_path / f"{name} back", "--weight_dtype=auto"))
    assert differing(read_safetensors(tmp_path / f"{name} back"), read_safetensors(source)) == []


def test_paths_that_are_no_text(hf: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    source = Path(shutil.move(hf, odd))
    run = process("hf-to-maxtext", f"--hf_model_path={source}", f"--base_output_directory={source}.out")
    assert run.errors == ""
    paths = ("--hf_model_path", "--base_output_directory")
    refused(run, *(Fault("INVALID_FLAG", f"{flag} is a path that is not UTF-8") for flag in paths))


def test_relative_paths(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    completed(hf_to_maxtext(Path(hf.name), Path("out/")))
    completed(maxtext_to_hf(Path("out"), Path("back")))
    with unchanged(tmp_path):
        refused(hf_to_maxtext(Path(hf.name), Path(hf.name, "..", hf.name)), Fault("DESTINATION_INSIDE_SOURCE"))


@pytest.mark.parametrize("where", ["source", "destination"])
def test_links_that_lead_in_a_circle(where: str, hf: Path, tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with unchanged(tmp_path):
        run = hf_to_maxtext(circle, tmp_path / "out") if where == "source" else hf_to_maxtext(hf, circle / "out")
    run.check_form()
    assert run.code == 2, run.summary
    assert set(run.ids) <= {"SOURCE_NOT_FOUND", "DESTINATION_NOT_WRITABLE", "DESTINATION_EXISTS"}, run.summary
    assert "circle" in run.failures[0].reason + run.failures[0].subject


@pytest.mark.parametrize("where", ["source", "destination", "shard"])
def test_names_that_are_too_long(where: str, hf: Path, tmp_path: Path) -> None:
    long = tmp_path / ("n" * 300)
    if where == "shard":
        cp.with_text(cp.INDEX, json.dumps({"weight_map": {"a": "n" * 300}}))(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(long, tmp_path / "out") if where == "source" else hf_to_maxtext(hf, long)
    run.check_form()
    assert run.code == 2, run.summary
    assert {entry.owner for entry in run.failures} == {"USAGE"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@triggers("DESTINATION_NOT_WRITABLE")
def test_a_file_system_that_takes_no_files(convert: Convert) -> None:
    refused(convert(Path("/proc/recast/out")), Fault("DESTINATION_NOT_WRITABLE", "/proc/recast/out"))
