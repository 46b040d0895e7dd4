"""The logs of prepare-ckpt are those of the serving platform's own tool, in every step that both have."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pytest

from tests import serving_checkpoints
from tests.end_to_end.running import converted, recast

SUCCESS = """-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: legalizer - Succeeded
-----------------------------------------------


> Errors (None)

***************************************************
YYYY-MM-DDTHH:MM:SSUTC - byoc_lib - INFO - The process is completed without any errors.
"""

FAILURE = """FINAL REPORT FOR: `prepare-ckpt --model llama3-1b --original_checkpoint_path /data/Llama-3.2-1B \
--output_checkpoint_path /data/outputs/llama3-1b --transformers_version 4.45.1`
***************************************************

-----------------------------------------------
[1] STEP: parse_args - Succeeded
-----------------------------------------------


> Errors (None)

-----------------------------------------------
[2] STEP: validate_transformer - Failed
-----------------------------------------------


> Errors
  Id: ByocErrorId.TRANSFORMERS_VERSION_ERROR
  Responsible: ByocErrorOwner.USAGE
  Reason: The transformers version of your checkpoint (4.52.4) is larger than the maximum supported transformers \
version (4.45.1).
  Suggestion: To fix this, please save your checkpoint with a transformers environment <= 4.45.1. Alternatively, you \
can include the --ignore_transformers_version flag, but this may lead to errors due to transformers version \
compatibility issues.

  Stack Trace:
    Traceback (most recent call last):
    File "/byoc_core/main.runfiles/_main/byoc_core/byoc.py", line 46, in _byoc
    warning = validate_transformer(convert_checkpoint_path,
    (<Version('4.52.4')>, '4.45.1')


***************************************************
2025-08-25T17:49:10UTC - byoc_lib - ERROR - One or more failures have occurred. Do not deploy
"""

_RULE = "-" * 47
_STARS = "*" * 51
_STEP = re.compile(r"\[\d+\] STEP: (\w+) - \w+")
_FLAG = " --error_prefix=Byoc"
_TIME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|YYYY-MM-DDTHH:MM:SS)UTC", re.MULTILINE)
_TRACE = re.compile(r"(?<=  Stack Trace:\n)(    .*\n)+")


def reduced(log: str, steps: Collection[str]) -> str:
    """A log without the other steps, numbers of steps, times and stack traces."""
    lines = log.split("\n")
    starts = [number - 1 for number, line in enumerate(lines) if _STEP.fullmatch(line)]
    stars = len(lines) - 1 - lines[::-1].index(_STARS)
    # A log of a failure has an empty line before its end.
    end = stars - 1 if " - ERROR - " in log else stars
    kept = lines[: starts[0]]
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        step = _STEP.fullmatch(lines[start + 1])
        if step is not None and step[1] in steps:
            kept += [lines[start], re.sub(r"\d+", "#", lines[start + 1], count=1), *lines[start + 2 : stop]]
    return _TRACE.sub("", _TIME.sub("", "\n".join([*kept, *lines[end:]])))


def test_a_success_is_logged_as_the_platform_logs_it(tmp_path: Path) -> None:
    catalogue = serving_checkpoints.catalogue(tmp_path / "catalog.textproto")
    source = serving_checkpoints.write(tmp_path / "in", serving_checkpoints.TIED_CONFIG)
    outcome = converted(
        "prepare-ckpt",
        "--model",
        serving_checkpoints.TIED,
        "--original_checkpoint_path",
        str(source),
        "--output_checkpoint_path",
        str(tmp_path / "out"),
        "--transformers_version",
        "4.45.1",
        f"--server={catalogue}",
        "--error_prefix=Byoc",
    )
    tail = outcome.text[outcome.text.index(_RULE) :]
    assert reduced(tail, ("parse_args", "legalizer")) == reduced(SUCCESS, ("parse_args", "legalizer"))


def test_a_failure_is_logged_as_the_platform_logs_it(tmp_path: Path) -> None:
    serving_checkpoints.write_published(tmp_path / "data" / "Llama-3.2-1B", "llama3-1b", transformers_version="4.52.4")
    outcome = recast(
        "prepare-ckpt",
        "--model",
        "llama3-1b",
        "--original_checkpoint_path",
        f"{tmp_path}/data/Llama-3.2-1B",
        "--output_checkpoint_path",
        f"{tmp_path}/data/outputs/llama3-1b",
        "--transformers_version",
        "4.45.1",
        _FLAG.strip(),
    )
    ours = outcome.text.replace(_FLAG, "", 1).replace(str(tmp_path), "")
    assert reduced(ours, ("parse_args", "validate_transformer")) == reduced(
        FAILURE, ("parse_args", "validate_transformer")
    )
    assert not (tmp_path / "data" / "outputs").exists()
    assert outcome.code == 2


@pytest.mark.parametrize(("flag", "prefix"), [("Byoc", "Byoc"), ("Recast", "Recast")])
def test_names_and_logger_follow_the_prefix_even_where_flags_are_wrong(flag: str, prefix: str) -> None:
    outcome = recast("prepare-ckpt", f"--error_prefix={flag}")
    assert f"  Id: {prefix}ErrorId.INVALID_FLAG\n  Responsible: {prefix}ErrorOwner.USAGE\n" in outcome.text
    assert outcome.text.endswith(f"{prefix.lower()}_lib - ERROR - One or more failures have occurred. Do not deploy\n")


def test_the_steps_are_those_of_the_platform_in_its_order(tmp_path: Path) -> None:
    catalogue = serving_checkpoints.catalogue(tmp_path / "catalog.textproto")
    source = serving_checkpoints.write(tmp_path / "in")
    outcome = converted(
        "prepare-ckpt",
        model=serving_checkpoints.PLAIN,
        original_checkpoint_path=source,
        output_checkpoint_path=tmp_path / "out",
        server=catalogue,
    )
    assert re.findall(r"STEP: (\w+) - Succeeded", outcome.text) == [
        "parse_args",
        "load_serving_metadata",
        "validate_files",
        "validate_transformer",
        "validate_compatibility",
        "validate_tokenizer",
        "legalizer",
        "verify",
    ]
    # What the output keeps is what was printed, but for the steps that name them.
    assert (tmp_path / "out" / "report.txt").read_text("utf-8") == outcome.text
