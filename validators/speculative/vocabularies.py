"""Checks of a pair's vocabularies: sizes, the token that each id stands for, special ids, chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from validators.speculative.rows import Row, accepted, not_applicable, refused, warned
from validators.speculative.sides import SPECIAL_IDS, Kind, Side, Vocabulary

_SHOWN = 3
_LONGEST = 40
_MAP = "token -> id map"
_HEADS_TOKENIZER = "a head proposes ids of the target's tokenizer, and has none of its own"


def check(target: Side, draft: Side, kind: Kind) -> Iterator[Row]:
    """All rows about vocabularies."""
    yield _sizes(target, draft, kind)
    yield from _matrices(target, draft, kind)
    yield _token_map(target.vocabulary, draft.vocabulary, kind)
    for field in SPECIAL_IDS:
        yield _special_id(field, target, draft, kind)
    yield _template(target.vocabulary.template, draft.vocabulary.template, kind)


def _sizes(target: Side, draft: Side, kind: Kind) -> Row:
    check, ours, theirs = "vocabulary size", target.vocabulary_size, draft.vocabulary_size
    if theirs is None and kind is not Kind.MODEL:
        return not_applicable(check, "config.json of the head states none.", ours or "")
    if ours is None or theirs is None:
        sides = " and ".join(name for name, size in (("target", ours), ("draft", theirs)) if size is None)
        reason = f"config.json of the {sides} states no vocab_size, and no embedding shows it."
        return refused("DRAFT_VOCABULARY_SIZE", check, reason, ours or "", theirs or "")
    if ours != theirs:
        reason = f"vocab_size is {ours} in the target and {theirs} in the draft; they must be equal."
        return refused("DRAFT_VOCABULARY_SIZE", check, reason, ours, theirs)
    return accepted(check, "vocab_size is equal.", ours, theirs)


def _matrices(target: Side, draft: Side, kind: Kind) -> Iterator[Row]:
    for check, ours, theirs in (
        ("embedding rows", target.embedding, draft.embedding),
        ("lm_head rows", target.output_head, draft.output_head),
    ):
        if target.tensors is None or draft.tensors is None:
            yield not_applicable(check, "The headers of a side cannot be read.")
        elif kind is not Kind.MODEL and (theirs is None or check == "lm_head rows"):
            reason = (
                "The head takes the target's." if theirs is None else "The vocabulary map decides about a head's rows."
            )
            yield not_applicable(check, reason, _rows(ours), _rows(theirs))
        elif ours is None or theirs is None:
            yield _one_matrix(check, ours, theirs)
        elif _rows(ours) != _rows(theirs):
            reason = f"{ours[0]} of the target has {_rows(ours)} rows, {theirs[0]} of the draft {_rows(theirs)}."
            yield refused("DRAFT_VOCABULARY_SIZE", check, reason, _rows(ours), _rows(theirs))
        else:
            yield accepted(check, "The headers state equal numbers of rows.", _rows(ours), _rows(theirs))


def _one_matrix(check: str, ours: object, theirs: object) -> Row:
    """Where a side has no such matrix: the embedding makes its logits, or there is nothing to compare."""
    if check == "lm_head rows":
        sides = " and ".join(name for name, one in (("target", ours), ("draft", theirs)) if one is None)
        plural = "s" if " and " in sides else ""
        return not_applicable(check, f"The embedding{plural} of {sides} make{'' if plural else 's'} the logits.")
    return not_applicable(check, "A side has no embedding of a name that is known.")


def _rows(matrix: object) -> str:
    shape = matrix[1].shape if isinstance(matrix, tuple) else ()
    return str(shape[0]) if shape else ""


def _token_map(ours: Vocabulary, theirs: Vocabulary, kind: Kind) -> Row:
    if kind is not Kind.MODEL and not theirs.known:
        return not_applicable(_MAP, f"{_HEADS_TOKENIZER.capitalize()}.")
    without = [name for name, one in (("target", ours), ("draft", theirs)) if not one.known]
    if without:
        reason = f"The {' and the '.join(without)} {'have' if len(without) > 1 else 'has'} no tokenizer: nothing says "
        return refused("DRAFT_TOKEN_MAP", _MAP, f"{reason}what the ids stand for.", _map(ours), _map(theirs))
    if ours.tokens and theirs.tokens:
        return _maps(ours.tokens, theirs.tokens)
    if ours.tokens or theirs.tokens:
        reason = "One side's tokenizer is tokenizer.json, the other's is in a format that is compared by its bytes."
        suggestion = "Save both tokenizers as tokenizer.json, so that the maps can be compared."
        return refused("DRAFT_TOKEN_MAP", _MAP, reason, _map(ours), _map(theirs), suggestion)
    return _digests(ours.digests, theirs.digests)


def _digests(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Row:
    names = sorted({*ours, *theirs})
    differing = [name for name in names if ours.get(name) != theirs.get(name)]
    compared = "There is no tokenizer.json; compared by digest,"
    shown = _short(ours), _short(theirs)
    if differing:
        reason = f"{compared} {_all(differing, 'differs', 'differ')} between the sides."
        suggestion = "Save both tokenizers as tokenizer.json, so that the maps themselves can be compared."
        return refused("DRAFT_TOKEN_MAP", _MAP, reason, *shown, suggestion)
    return accepted(_MAP, f"{compared} {_all(names, 'is', 'are')} equal.", *shown)


def _all(names: list[str], one: str, several: str) -> str:
    return f"{' and '.join(names)} {several if len(names) > 1 or names[0].endswith('s') else one}"


def _maps(ours: Mapping[str, int], theirs: Mapping[str, int]) -> Row:
    counts = len(ours), len(theirs)
    if ours == theirs:
        return accepted(_MAP, "Every token has the same id, added tokens included.", *counts)
    conflicts = _conflicts(ours, theirs)
    if conflicts:
        more = f"; and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
        shown = [
            f"{number} is {_text(mine)} in the target, {_text(yours)} in the draft"
            for number, mine, yours in conflicts[:_SHOWN]
        ]
        stand = "id stands" if len(conflicts) == 1 else "ids stand"
        reason = f"{len(conflicts)} {stand} for different tokens: {'; '.join(shown)}{more}."
        return refused("DRAFT_TOKEN_MAP", _MAP, reason, *counts)
    parts = []
    for name, tokens, other in (("target", ours, theirs), ("draft", theirs, ours)):
        alone = sorted((number, token) for token, number in tokens.items() if token not in other)
        if alone:
            shown = [f"{_text(token)} ({number})" for number, token in alone[:_SHOWN]]
            more = ", ..." if len(alone) > _SHOWN else ""
            parts.append(f"{len(alone)} in the {name} alone: {', '.join(shown)}{more}")
    reason = f"No id stands for two tokens, but some tokens are on one side only: {'; '.join(parts)}."
    return warned(_MAP, reason, *counts)


def _conflicts(ours: Mapping[str, int], theirs: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """Ids that stand for one token here and another one there, and tokens that have different ids, by the id."""
    holders = {number: token for token, number in theirs.items()}
    found = {
        number: (token, holders.get(number, ""))
        for token, number in ours.items()
        if (number in holders and holders[number] != token) or theirs.get(token, number) != number
    }
    return [(number, *found[number]) for number in sorted(found)]


def _special_id(field: str, target: Side, draft: Side, kind: Kind) -> Row:
    (ours, our_place), (theirs, their_place) = target.special_id(field), draft.special_id(field)
    shown = _listed(ours), _listed(theirs)
    if kind is not Kind.MODEL:
        return not_applicable(field, "The target's ids begin and end the sequences that a head proposes.", *shown)
    if not ours and not theirs:
        return not_applicable(field, "Neither side states one.")
    if not ours or not theirs:
        stating, silent = ("target", "draft") if ours else ("draft", "target")
        return warned(field, f"The {stating} states {_listed(ours or theirs)}, the {silent} none.", *shown)
    places = f"{_listed(ours)} in the target ({our_place}), {_listed(theirs)} in the draft ({their_place})"
    if ours == theirs:
        return accepted(field, f"It is equal (target: {our_place}, draft: {their_place}).", *shown)
    if field == "eos_token_id" and ours & theirs:
        reason = f"{field} is {places}: the draft goes on where the target ends, or ends where it goes on."
        return warned(field, reason, *shown)
    return refused("DRAFT_SPECIAL_IDS", field, f"{field} is {places}.", *shown)


def _template(ours: str | None, theirs: str | None, kind: Kind) -> Row:
    check = "chat template"
    if kind is not Kind.MODEL and theirs is None:
        return not_applicable(check, f"{_HEADS_TOKENIZER.capitalize()}.")
    if ours is None and theirs is None:
        return not_applicable(check, "Neither side has one.")
    shown = _characters(ours), _characters(theirs)
    if ours is None or theirs is None:
        side = "target" if theirs is None else "draft"
        return warned(check, f"Only the {side} has one; the draft may be of another kind of training.", *shown)
    if ours != theirs:
        return warned(check, "They differ: the draft was trained on another form of conversation.", *shown)
    return accepted(check, "They are equal.", *shown)


def _characters(template: str | None) -> str:
    return "none" if template is None else f"{len(template)} characters"


def _map(one: Vocabulary) -> str:
    return str(len(one.tokens)) if one.tokens else _short(one.digests)


def _short(digests: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {digest[:8]}" for name, digest in sorted(digests.items())) or "none"


def _listed(ids: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(ids))) or "none"


def _text(token: str) -> str:
    if not token:
        return "no token"
    text = json.dumps(token)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
