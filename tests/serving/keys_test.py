"""Keys of servers: where they come from, and that nobody sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from absl import flags

from converters.serving import api_key
from reporting.diagnostics import RecastError, stack_of


def given(**named: str) -> api_key.ApiKey | None:
    values = flags.FlagValues()
    api_key.define(values, "the key")
    values([""] + [f"--{name}={value}" for name, value in named.items()])
    return api_key.given(values)


def refused(**named: str) -> RecastError:
    with pytest.raises(RecastError) as caught:
        given(**named)
    return caught.value


def test_a_file_gives_the_key_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("abc-DEF_1.2~3/+=\n")
    key = given(api_key_file=str(tmp_path / "key"))
    assert key is not None
    assert key.header == "Bearer abc-DEF_1.2~3/+="


def test_a_variable_gives_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_KEY", "abc")
    assert given(api_key_env="PLATFORM_KEY") == api_key.ApiKey("abc")


def test_without_flags_there_is_no_key() -> None:
    assert given() is None


def test_both_flags_exclude_each_other(tmp_path: Path) -> None:
    assert refused(api_key_file=str(tmp_path), api_key_env="X").diagnostics[0].id == "INVALID_FLAG"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"two words", "is no key"),
        (b"two\nlines", "is no key"),
        (b"inject\r\nHost: elsewhere", "is no key"),
        ("schlüssel".encode(), "is no key"),
        (b"x" * 8193, "is no key"),
        (b"\x00", "is no key"),
    ],
)
def test_a_file_that_holds_no_key_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    (found,) = refused(api_key_file=str(tmp_path / "key")).diagnostics
    assert found.id == "API_KEY_INVALID"
    assert said in found.reason


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (found,) = refused(api_key_file=str(tmp_path / "key")).diagnostics
    assert found.id == "API_KEY_INVALID"
    assert "No such file" in found.reason


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "no regular file" in refused(api_key_file=str(tmp_path)).diagnostics[0].reason


@pytest.mark.parametrize("name", ["UNSET_VARIABLE", "sk-given-by-mistake", "a=b"])
def test_a_variable_that_is_not_set_is_refused(name: str) -> None:
    (found,) = refused(api_key_env=name).diagnostics
    assert found.id == "API_KEY_INVALID"
    assert "no environment variable that is set" in found.reason


@pytest.mark.parametrize("flag", ["api_key_file", "api_key_env"])
def test_a_key_given_in_place_of_its_place_is_not_repeated(flag: str) -> None:
    error = refused(**{flag: "sk-given-by-mistake"})
    shown = [*stack_of(error), repr(error), error.diagnostics[0].subject, error.diagnostics[0].suggestion]
    assert not any("mistake" in text for text in shown)


def test_a_key_does_not_show_itself() -> None:
    assert "abc" not in repr(api_key.ApiKey("abc")) + str(api_key.ApiKey("abc"))
