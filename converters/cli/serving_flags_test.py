from __future__ import annotations

from pathlib import Path

import pytest
from absl import flags

from converters import models, prepare_ckpt, validate_speculative_decoding
from converters.cli import arguments, serving_flags
from converters.cli.program import Program


def _parsed(program: Program, *words: str) -> flags.FlagValues:
    values = flags.FlagValues()
    program.define(values)
    arguments.parse(values, [program.name, *words])
    return values


@pytest.mark.parametrize(
    "program", [models.PROGRAM, prepare_ckpt.PROGRAM, validate_speculative_decoding.PROGRAM], ids=lambda each: each.name
)
def test_every_command_reads_the_embedded_catalogue_unless_told_otherwise(program: Program) -> None:
    left_out = _parsed(program)
    assert (left_out.server, serving_flags.cache_location(left_out)) == ("embedded", None)
    given = _parsed(program, "--server=https://models.example.com", "--cache_location=kept")
    assert (given.server, serving_flags.cache_location(given)) == ("https://models.example.com", Path("kept"))


def test_an_empty_cache_location_is_none() -> None:
    assert serving_flags.cache_location(_parsed(models.PROGRAM, "--cache_location=")) is None
