"""Vocabularies as SentencePiece and tiktoken write them, and what only looks like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from validators import vocabulary_files
from validators.vocabulary_files import InvalidVocabularyError
from validators.vocabulary_samples import PIECES_24, PIECES_25, ranks


def _read(folder: Path, content: bytes) -> dict[str, int]:
    (folder / "tokenizer.model").write_bytes(content)
    return vocabulary_files.read(folder / "tokenizer.model")


def _refused(folder: Path, content: bytes) -> str:
    with pytest.raises(InvalidVocabularyError) as caught:
        _read(folder, content)
    return str(caught.value)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, written by hand."""
    return bytes([number << 3 | 2, len(content)]) + content


def test_pieces_of_sentencepiece_have_their_places_for_ids(tmp_path: Path) -> None:
    found = _read(tmp_path, PIECES_24)
    assert sorted(found.values()) == list(range(24))
    # As SentencePieceProcessor.id_to_piece names them.
    assert [found[piece] for piece in ("<unk>", "<s>", "</s>", "\u2581t", "are", "\u2581", "w")] == [
        0,
        1,
        2,
        3,
        5,
        6,
        23,
    ]
    assert len(_read(tmp_path, PIECES_25)) == 25


def test_fields_that_are_not_read_are_skipped(tmp_path: Path) -> None:
    piece = _field(1, _field(1, b"a") + bytes([2 << 3 | 5, 0, 0, 0, 0, 3 << 3, 1]) + _field(9, b"new"))
    assert _read(tmp_path, piece + _field(2, b"\xff\xff") + _field(1, _field(1, b"b"))) == {"a": 0, "b": 1}


def test_lines_of_tiktoken_have_their_ranks_for_ids(tmp_path: Path) -> None:
    assert _read(tmp_path, b"IQ== 0\nIg== 1\nISI= 7\n") == {"IQ==": 0, "Ig==": 1, "ISI=": 7}
    assert len(_read(tmp_path, ranks(300))) == 300


def test_empty_lines_of_tiktoken_hold_nothing(tmp_path: Path) -> None:
    assert _read(tmp_path, b"IQ== 0\n\nIg== 1") == {"IQ==": 0, "Ig==": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n", "neither a model of SentencePiece nor lines of tiktoken"),
        (b"pieces", "neither a model of SentencePiece nor lines of tiktoken"),
        (b"version https://git-lfs.github.com/spec/v1\n", "neither a model of SentencePiece nor lines of tiktoken"),
        (PIECES_24[:100], "neither a model of SentencePiece nor lines of tiktoken"),
        (_field(5, b"a"), "it has no pieces"),
        (_field(1, _field(1, b"\xff")), "neither a model of SentencePiece nor lines of tiktoken"),
        (_field(1, _field(1, b"a")) * 2, "piece 1 is 'a', as piece 0 is"),
        (_field(1, _field(1, b"")), "piece 0 has no text"),
        (b"IQ== 0\nIg==\n", "line 2 is not a token's bytes in base64 and a rank"),
        (b"IQ== 0\nIg== -1\n", "line 2 is not a token's bytes in base64 and a rank"),
        (b"IQ== 0\nIg== 99999999999\n", "line 2 is not a token's bytes in base64 and a rank"),
        (b"IQ== 0\nIgg== 1\n", "line 2 is not a token's bytes in base64 and a rank"),
        (b"IQ== 0\nIg== 1\nIQ== 2\n", "line 3 has the token IQ== a second time"),
    ],
)
def test_what_is_no_vocabulary_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in _refused(tmp_path, content)


def test_a_list_without_an_end_is_refused(tmp_path: Path) -> None:
    assert "2097153 pieces" in _refused(tmp_path, _field(1, b"") * ((1 << 21) + 1))
    assert "lines, more than any vocabulary" in _refused(tmp_path, b"IQ== 0\n" + b"\n" * (1 << 21))


def test_a_file_that_is_larger_than_any_vocabulary_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "tokenizer.model", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(vocabulary_files.plain_files.UnreadableError, match="more than 16777216"):
        vocabulary_files.read(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("name", ["tokenizer.model", "tiktoken.model", "tokenizer.tiktoken", "qwen.tiktoken"])
def test_a_vocabulary_is_found_by_each_of_its_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("words", "utf-8")
    assert vocabulary_files.find(tmp_path) is None
    (tmp_path / name).write_bytes(PIECES_24)
    assert vocabulary_files.find(tmp_path) == tmp_path / name
