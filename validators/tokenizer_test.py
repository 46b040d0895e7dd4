from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from validators import tokenizer
from validators.vocabulary_samples import PIECES_24, ranks

VOCABULARY = {"a": 0, "b": 1, "ab": 2}


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), "utf-8")


def _fast(folder: Path, vocabulary: Any = VOCABULARY, added: Any = ()) -> None:
    _write(folder, "tokenizer.json", {"model": {"vocab": vocabulary}, "added_tokens": added})


def test_the_highest_id_counts_with_added_tokens(tmp_path: Path) -> None:
    _fast(tmp_path, added=[{"id": 9, "content": "<s>"}])
    facts, found = tokenizer.read(tmp_path)
    assert not found
    assert facts is not None
    assert (facts.vocabulary_size, facts.token_count) == (10, 4)


def test_a_list_of_pieces_has_its_places_for_ids(tmp_path: Path) -> None:
    _fast(tmp_path, [["<unk>", 0.0], ["a", -1.5]])
    facts, _ = tokenizer.read(tmp_path)
    assert facts is not None
    assert facts.token_map_digest == tokenizer.digest({"<unk>": 0, "a": 1})


def test_vocab_json_and_added_tokens_say_the_same_as_tokenizer_json(tmp_path: Path) -> None:
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    slow.mkdir()
    fast.mkdir()
    _write(slow, "vocab.json", VOCABULARY)
    _write(slow, "added_tokens.json", {"<s>": 3})
    _fast(fast, added=[{"id": 3, "content": "<s>"}])
    first, second = tokenizer.read(slow)[0], tokenizer.read(fast)[0]
    assert first is not None
    assert first == second


def test_special_tokens_have_the_ids_of_their_texts(tmp_path: Path) -> None:
    _fast(tmp_path)
    _write(tmp_path, "tokenizer_config.json", {"bos_token": {"content": "a"}, "eos_token": "b", "pad_token": None})
    facts, _ = tokenizer.read(tmp_path)
    assert facts is not None
    assert facts.special_ids == {"bos_token_id": 0, "eos_token_id": 1}


@pytest.mark.parametrize("file", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json"])
def test_the_chat_template_is_found_in_each_of_its_places(file: str, tmp_path: Path) -> None:
    _fast(tmp_path)
    content = "{{ messages }}" if file.endswith("jinja") else json.dumps({"chat_template": "{{ messages }}"})
    (tmp_path / file).write_text(content, "utf-8")
    facts, _ = tokenizer.read(tmp_path)
    assert facts is not None
    assert facts.chat_template == "{{ messages }}"


def test_the_digest_does_not_depend_on_the_order_of_tokens() -> None:
    assert tokenizer.digest({"a": 0, "b": 1}) == tokenizer.digest({"b": 1, "a": 0})
    assert tokenizer.digest({"a": 0, "b": 1}) != tokenizer.digest({"a": 1, "b": 0})


def test_a_folder_without_a_tokenizer_states_nothing(tmp_path: Path) -> None:
    assert tokenizer.read(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("vocabulary", "said"),
    [
        ({}, "no vocabulary"),
        ("a b", "no vocabulary"),
        ({"a": -1}, 'the token "a" has the id -1'),
        ({"a": True}, 'the token "a" has the id true'),
        ({"a": "0"}, 'the token "a" has the id "0"'),
        ({"a": 0, "b": 0}, '"a" and "b" both have the id 0'),
        ([["a", 0.0], []], "the token null has the id 1"),
    ],
)
def test_a_vocabulary_that_cannot_be_one_is_refused(vocabulary: Any, said: str, tmp_path: Path) -> None:
    _fast(tmp_path, vocabulary)
    facts, (found,) = tokenizer.read(tmp_path)
    assert facts is None
    assert found.id == "TOKENIZER_INVALID"
    assert said in found.reason


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    _fast(tmp_path)
    (tmp_path / name).write_bytes(content)
    _, found = tokenizer.read(tmp_path)
    assert [(d.id, d.subject) for d in found] == [("TOKENIZER_INVALID", name)]


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{", "utf-8")
    _, found = tokenizer.read(tmp_path)
    assert sorted(d.subject for d in found) == ["tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("content", [PIECES_24, ranks(24)], ids=["SentencePiece", "tiktoken"])
def test_a_vocabulary_of_another_format_is_counted_with_its_added_tokens(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    facts, found = tokenizer.read(tmp_path)
    assert (facts and facts.vocabulary_size, facts and facts.token_count, found) == (24, 24, [])
    _write(tmp_path, "added_tokens.json", {"<pad>": 24})
    _write(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": {"2": {"content": "<end>"}}})
    facts, found = tokenizer.read(tmp_path)
    assert (facts and facts.vocabulary_size, facts and facts.token_count, found) == (25, 25, [])


def test_added_tokens_under_what_is_no_number_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PIECES_24)
    added = {number: {"content": number} for number in ("²", "9" * 5000, "24")}
    _write(tmp_path, "tokenizer_config.json", {"added_tokens_decoder": added})
    facts, found = tokenizer.read(tmp_path)
    assert (facts and facts.token_count, found) == (25, [])


def test_special_tokens_have_the_ids_of_their_pieces(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PIECES_24)
    _write(tmp_path, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    facts, _ = tokenizer.read(tmp_path)
    assert facts is not None
    assert facts.special_ids == {"bos_token_id": 1, "eos_token_id": 2}


def test_tokens_of_another_format_are_no_map_that_could_be_compared(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PIECES_24)
    facts, _ = tokenizer.read(tmp_path)
    assert facts is not None
    assert facts.token_map_digest is None
    assert tokenizer.token_map(tmp_path) == {}


def test_json_goes_before_a_vocabulary_of_another_format(tmp_path: Path) -> None:
    _fast(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    facts, found = tokenizer.read(tmp_path)
    assert (facts and facts.vocabulary_size, found) == (3, [])


def test_a_damaged_vocabulary_of_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(PIECES_24[:-3])
    facts, (fault,) = tokenizer.read(tmp_path)
    assert facts is None
    assert (fault.id, fault.subject) == ("TOKENIZER_INVALID", "tokenizer.model")
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 0\n")
    _, (fault,) = tokenizer.read(tmp_path)
    assert '"IQ==" and "Ig==" both have the id 0' in fault.reason
