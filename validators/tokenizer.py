"""What a checkpoint's tokenizer states, read from its files without the libraries that run it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mappings import strict_json
from reporting.diagnostics import Diagnostic, RecastError
from validators import plain_files, vocabulary_files
from validators.compatibility.facts import TokenizerFacts
from validators.plain_files import UnreadableError

FAST, SLOW, CONFIG, SPECIAL, ADDED = (
    "tokenizer.json",
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_LARGEST = 256 << 20
# In the order in which transformers adds those that the map does not have.
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
_SHOWN = 3


def read(folder: Path) -> tuple[TokenizerFacts | None, list[Diagnostic]]:
    """Reads the tokenizer of a checkpoint.

    Args:
        folder: of the checkpoint.

    Returns:
        What its files state, None if they state nothing; and TOKENIZER_INVALID for each file that is damaged.
    """
    found: list[Diagnostic] = []
    settings = _object(folder, CONFIG, found)
    special_map = _object(folder, SPECIAL, found)
    special = {**special_map, **settings}
    named = _tokens(folder, settings, special_map, found)
    tokens = named or _of_another_format(folder, settings, found)
    template = _template(folder, settings, found)
    if found:
        return None, found
    if not tokens and not settings:
        return None, []
    ids = {name: _id_of(special.get(name), tokens) for name in _SPECIAL_NAMES}
    class_name = settings.get("tokenizer_class")
    return (
        TokenizerFacts(
            vocabulary_size=max(tokens.values()) + 1 if tokens else None,
            token_count=len(tokens) if tokens else None,
            special_ids={f"{name}_id": number for name, number in ids.items() if number is not None},
            token_map_digest=digest(named) if named else None,
            chat_template=template,
            tokenizer_class=class_name if isinstance(class_name, str) else None,
            tokens=tokens,
        ),
        [],
    )


def token_map(folder: Path) -> dict[str, int]:
    """The id of each token, added ones included; empty where no JSON says it, or where `read` finds a damaged file."""
    found: list[Diagnostic] = []
    tokens = _tokens(folder, _object(folder, CONFIG, found), _object(folder, SPECIAL, found), found)
    return {} if found else tokens


def added_tokens(folder: Path) -> dict[str, int]:
    """The ids that tokenizer_config.json adds to a vocabulary, whatever file holds that."""
    return _added_by_settings(_object(folder, CONFIG, []))


def digest(tokens: Mapping[str, int]) -> str:
    """sha256 of a map from token to id, whatever its order."""
    text = json.dumps(sorted(tokens.items(), key=lambda pair: (pair[1], pair[0])), separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _tokens(
    folder: Path, settings: Mapping[str, Any], special_map: Mapping[str, Any], found: list[Diagnostic]
) -> dict[str, int]:
    """The map from token to id, added tokens included; empty if no file has it."""
    try:
        fast = _object(folder, FAST, found)
        if fast:
            tokens, name = _fast_tokens(fast, _wanted(settings, special_map)), FAST
        else:
            tokens = _checked(SLOW, _object(folder, SLOW, found))
            if tokens:
                tokens |= _checked(ADDED, _object(folder, ADDED, found)) | _added_by_settings(settings)
            name = SLOW
        _check_ids(name, tokens)
    except RecastError as error:
        found.extend(error.diagnostics)
        return {}
    return tokens


def _of_another_format(folder: Path, settings: Mapping[str, Any], found: list[Diagnostic]) -> dict[str, int]:
    """The tokens of a vocabulary that is not JSON, added ones in place of those whose ids they take.

    What the tokens of different formats are called cannot be compared; their number and ids can.
    """
    path = vocabulary_files.find(folder) if not found else None
    if path is None:
        return {}
    try:
        tokens = vocabulary_files.read(path)
        _check_ids(path.name, tokens)
        added = _checked(ADDED, _object(folder, ADDED, found)) | _added_by_settings(settings)
    except RecastError as error:
        found.extend(error.diagnostics)
        return {}
    except (UnreadableError, vocabulary_files.InvalidVocabularyError) as error:
        found.append(_fault(path.name, str(error)))
        return {}
    taken = set(added.values())
    return {token: number for token, number in tokens.items() if number not in taken} | added


def _wanted(settings: Mapping[str, Any], special_map: Mapping[str, Any]) -> list[str]:
    """The tokens that transformers adds if tokenizer.json does not have them, in its order.

    special_tokens_map.json is looked at only where tokenizer_config.json lists no added tokens.
    """
    listed = sorted(_added_by_settings(settings).items(), key=lambda pair: pair[1])
    named = settings if "added_tokens_decoder" in settings else {**settings, **special_map}
    more = [named.get(name) for name in _MORE_SPECIAL]
    lists = [list(value.values()) if isinstance(value, Mapping) else value for value in more]
    said = [named.get(name) for name in _SPECIAL_NAMES]
    said += [entry for entries in lists if isinstance(entries, list) for entry in entries]
    contents = [entry.get("content") if isinstance(entry, Mapping) else entry for entry in said]
    return [*(token for token, _ in listed), *(token for token in contents if isinstance(token, str) and token)]


def _fast_tokens(content: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, int]:
    """The tokens of tokenizer.json, and the wanted ones that it lacks behind the last of them."""
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, list):
        pieces = [entry[0] if isinstance(entry, list) and entry else None for entry in vocabulary]
        for number, piece in enumerate(pieces):
            if not isinstance(piece, str):
                raise _invalid(FAST, f"the token {json.dumps(piece)[:80]} has the id {number}")
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if not isinstance(vocabulary, Mapping) or not vocabulary:
        raise _invalid(FAST, "it has no vocabulary (model.vocab)")
    tokens = _checked(FAST, vocabulary)
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(
        isinstance(entry, Mapping) and isinstance(entry.get("content"), str) for entry in added
    ):
        raise _invalid(FAST, "added_tokens is no list of objects with a text each")
    known = _checked(FAST, {entry["content"]: entry.get("id") for entry in added})
    free = max([len(tokens), *(number + 1 for number in known.values())])
    tokens |= known
    for token in wanted:
        if token not in tokens:
            tokens[token] = free
            free += 1
    return tokens


def _is_id(text: object) -> bool:
    return isinstance(text, str) and text.isdecimal() and len(text) < 10


def _added_by_settings(settings: Mapping[str, Any]) -> dict[str, int]:
    decoder = settings.get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, Mapping) else ()
    return {
        entry["content"]: int(number)
        for number, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), str) and _is_id(number)
    }


def _checked(name: str, tokens: Mapping[Any, Any]) -> dict[str, int]:
    for token, number in tokens.items():
        if not isinstance(token, str) or type(number) is not int or number < 0:
            raise _invalid(name, f"the token {json.dumps(token)[:80]} has the id {json.dumps(number)[:40]}")
    return dict(tokens)


def _check_ids(name: str, tokens: Mapping[str, int]) -> None:
    holders: dict[int, str] = {}
    twice = []
    for token, number in tokens.items():
        first = holders.setdefault(number, token)
        if first != token:
            twice.append(f"{json.dumps(first)[:40]} and {json.dumps(token)[:40]} both have the id {number}")
    if twice:
        more = f"; and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise _invalid(name, "; ".join(twice[:_SHOWN]) + more)


def _id_of(said: object, tokens: Mapping[str, int]) -> int | None:
    content = said.get("content") if isinstance(said, Mapping) else said
    return tokens.get(content) if isinstance(content, str) else None


def _template(folder: Path, settings: Mapping[str, Any], found: list[Diagnostic]) -> str | None:
    try:
        return plain_files.read(folder / _TEMPLATES[0], _LARGEST).decode("utf-8")
    except UnreadableError as error:
        if not error.missing:
            found.append(_fault(_TEMPLATES[0], str(error)))
    except ValueError:
        found.append(_fault(_TEMPLATES[0], "it is no UTF-8"))
    for place in (_object(folder, _TEMPLATES[1], found), settings):
        if isinstance(place.get("chat_template"), str):
            return str(place["chat_template"])
    return None


def _object(folder: Path, name: str, found: list[Diagnostic]) -> dict[str, Any]:
    """A JSON object of the folder; an empty one if the file is not there, or is damaged, which is then told."""
    try:
        content = strict_json.loads(plain_files.read(folder / name, _LARGEST))
    except UnreadableError as error:
        if not error.missing:
            found.append(_fault(name, str(error)))
        return {}
    except ValueError as error:
        found.append(_fault(name, f"it is no JSON ({error})"))
        return {}
    if not isinstance(content, dict):
        found.append(_fault(name, "it is no JSON object"))
        return {}
    return content


def _fault(name: str, reason: str) -> Diagnostic:
    return Diagnostic("TOKENIZER_INVALID", f"{name} cannot be used: {reason}.", subject=name)


def _invalid(name: str, reason: str) -> RecastError:
    return RecastError([_fault(name, reason)])
