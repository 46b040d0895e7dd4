"""docs/serving.md says what the commands do."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
from absl import flags

from container.entrypoint import SUBCOMMANDS
from converters.cli import usage
from converters.serving import cache, fetching, reference_server
from converters.serving.servers import CATALOG_PATH
from mappings.serving import text as catalogue_text
from recast_proto import error_pb2
from tests.docs.pages import blocks_of, table_of, text_of

PAGE = "serving.md"
COMMANDS = [line for block in blocks_of(PAGE, "sh") for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_has_only_flags_that_exist(line: str) -> None:
    program, subcommand, *arguments = shlex.split(line)
    assert program == "recast"
    values = flags.FlagValues()
    importlib.import_module(SUBCOMMANDS[subcommand][0]).PROGRAM.define(values)
    usage.define_common(values)
    given = [word.removeprefix("--").partition("=")[0] for word in arguments if word.startswith("--")]
    assert given
    assert set(given) <= set(values)


def test_the_limits_are_those_of_a_download() -> None:
    policy = fetching.POLICY
    values = (
        *(policy.attempts, policy.connect, policy.silence, policy.attempt),
        *(fetching.LIMIT, cache.LINE_LIMIT, catalogue_text.MODEL_LIMIT, catalogue_text.RULE_LIMIT),
    )
    assert [float(row[1]) for row in table_of(PAGE, "| limit |")] == list(values)
    assert f"at most {policy.longest_pause:g} seconds" in text_of(PAGE).replace("\n", " ")


def test_the_answers_that_are_tried_again_are_named() -> None:
    (named,) = re.findall(r"((?:\d{3}, )+\d{3}) and answers", text_of(PAGE).replace("\n", " "))
    assert {int(code) for code in named.split(", ")} == fetching._AGAIN


def test_the_paths_of_the_server_are_named() -> None:
    assert f"`{CATALOG_PATH}`" in text_of(PAGE)
    assert f"`GET {reference_server.HEALTH_PATH}`" in text_of(PAGE)


def test_every_error_id_of_servers_and_catalogues_is_explained() -> None:
    explained = {row[0].strip("`") for row in table_of(PAGE, "| error id |")}
    words = ("METADATA_", "SERVER_", "API_KEY_")
    assert explained == {name for name in error_pb2.RecastErrorId.keys() if name.startswith(words)}
