from __future__ import annotations

import pytest
from absl import flags

from converters.cli import command_line

SECRET = "sk-SECRET123"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("model_name", "", "", flag_values=values)
    flags.DEFINE_string("server", "", "", flag_values=values)
    flags.DEFINE_string("api_key_file", "", "", flag_values=values)
    flags.DEFINE_integer("num_speculative_tokens", None, "", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "", flag_values=values)
    return values


@pytest.mark.parametrize(
    "given",
    [
        f"--hf_token={SECRET}",
        f"-hf_token={SECRET}",
        f"hf_token={SECRET}",
        f"--hf_token {SECRET}",
        f"--hf_token -{SECRET}",
        f"--hf_token --{SECRET}",
        f"--hf_token --{SECRET}=x",
        f"--hf_token {SECRET}==",
        "--hf_token c2stU0VDUkVUMTIz==",
        "--hf_token SECRET123=x",
        f"--hf_token -- {SECRET}",
        f"--api_key_file={SECRET}",
        f"--api_key_file {SECRET}",
        f"--api_key_file -{SECRET}",
        "--api_key_file SECRET123=x",
        f"--model_name=https://user:{SECRET}@host",
        f"--model_name https://user:{SECRET}@host",
        f"https://user:{SECRET}@host",
        f"-- https://user:{SECRET}@host",
    ],
)
def test_what_could_be_a_secret_is_masked_however_it_is_given(given: str) -> None:
    shown = command_line.masked([*given.split(), "--overwrite"], _values())
    assert "***" in " ".join(shown)
    assert "SECRET" not in " ".join(shown)
    assert "c2stU0VDUkVUMTIz" not in " ".join(shown)
    assert shown[-1] == "--overwrite"


@pytest.mark.parametrize(
    "given",
    [
        "a b --overwrite --model_name=x",
        "--model_name -x a",
        "model_name=x --nooverwrite a",
        "--num_speculative_tokens=3",
        "--num_speculative_tokens 3",
        "--overwrite a -- --b --",
        "--nope --overwrite a",
    ],
)
def test_nothing_else_is_masked(given: str) -> None:
    assert command_line.masked(given.split(), _values()) == given.split()


def test_a_line_break_ends_no_url() -> None:
    assert command_line.masked(["https://a\nb"], _values()) == ["https://***"]


@pytest.mark.parametrize(
    ("given", "text", "left"),
    [
        (f"--api_key_file={SECRET}", f"{SECRET!r} is no name, {SECRET}x is.", f"'***' is no name, {SECRET}x is."),
        ("--model_name=https://u:pw@x", "no https://u:pw@x here", "no https://*** here"),
        ("--model_name=https://u:pw@x", "no https:/u:pw@x here", "no https:/*** here"),
        ("--model_name=a,https://u:pw@x", "no https://u:pw@x here", "no https://*** here"),
        ("--model_name=x", "a scheme is https:// or http://.", "a scheme is https:// or http://."),
    ],
)
def test_what_is_masked_does_not_stand_in_an_error_of_the_flags(given: str, text: str, left: str) -> None:
    assert command_line.conceal([given], _values(), parsed=False)(text) == left


def test_a_server_is_named_once_its_address_was_checked() -> None:
    given, said = ["--server=https://host", "--model_name=https://u:pw@x"], "https://host and https://u:pw@x"
    assert command_line.conceal(given, _values(), parsed=False)(said) == "https://*** and https://***"
    assert command_line.conceal(given, _values(), parsed=True)(said) == "https://host and https://***"
