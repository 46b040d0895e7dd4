"""The logs of prepare-ckpt are those of the serving platform's own tool, in every step that both have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import serving_checkpoints
from tests.end_to_end.running import converted, recast
from tests.serving_logs import FAILURE, RULE, SUCCESS, reduced

_FLAG = " --error_prefix=Byoc"


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
    tail = outcome.text[outcome.text.index(RULE) :]
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
