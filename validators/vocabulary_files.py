"""Vocabularies that are not JSON: pieces of SentencePiece, and tiktoken's lines. Read without their libraries.

Both may be called tokenizer.model, and the content says which one it is.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from validators import plain_files

NAMES = ("tokenizer.model", "tiktoken.model", "tokenizer.tiktoken")
"""Files by these names are looked at in this order, then others that end in .tiktoken."""

_OTHERS = "*.tiktoken"
_LARGEST = 16 << 20
_MOST_TOKENS = 1 << 21
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")


class InvalidVocabularyError(ValueError):
    """A file that is no vocabulary; the text says why, without the file's name."""


def find(folder: Path) -> Path | None:
    """The file of a checkpoint's folder that holds such a vocabulary; None for none."""
    named = (folder / name for name in NAMES)
    return next((path for path in (*named, *sorted(folder.glob(_OTHERS))) if path.exists() or path.is_symlink()), None)


def read(path: Path) -> dict[str, int]:
    """The id of each token: a piece's text, or the base64 text of a token's bytes.

    Raises:
        UnreadableError: the file cannot be read, or is larger than any vocabulary.
        InvalidVocabularyError: it is in neither format, or damaged.
    """
    content = plain_files.read(path, _LARGEST)
    if not content:
        raise InvalidVocabularyError("it is empty")
    # A model of SentencePiece begins with a line break, the tag of its first piece.
    return _ranks(content) if _LINE.match(content) else _pieces(content)


def _ranks(content: bytes) -> dict[str, int]:
    lines = content.splitlines()
    if len(lines) > _MOST_TOKENS:
        raise InvalidVocabularyError(f"it has {len(lines)} lines, more than any vocabulary")
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None or not _is_base64(match[1]):
            raise InvalidVocabularyError(f"line {number} is not a token's bytes in base64 and a rank")
        token = match[1].decode()
        if token in found:
            raise InvalidVocabularyError(f"line {number} has the token {token[:40]} a second time")
        found[token] = int(match[2])
    return found


def _is_base64(text: bytes) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _pieces(content: bytes) -> dict[str, int]:
    from google.protobuf.message import DecodeError

    from recast_proto import sentencepiece_pb2

    try:
        pieces = sentencepiece_pb2.Model.FromString(content).piece
        if len(pieces) > _MOST_TOKENS:
            raise InvalidVocabularyError(f"it has {len(pieces)} pieces, more than any vocabulary")
        texts = [sentencepiece_pb2.Piece.FromString(piece).text for piece in pieces]
    except DecodeError:
        raise InvalidVocabularyError("it is neither a model of SentencePiece nor lines of tiktoken") from None
    if not texts:
        raise InvalidVocabularyError("it is neither a model of SentencePiece nor lines of tiktoken: it has no pieces")
    found: dict[str, int] = {}
    for number, text in enumerate(texts):
        if not text or text in found:
            what = f"is {text[:40]!r}, as piece {found[text]} is" if text else "has no text"
            raise InvalidVocabularyError(f"piece {number} {what}")
        found[text] = number
    return found
