"""Whether a draft can propose tokens for a target: every check, each with its reason."""

from __future__ import annotations

from collections.abc import Collection

from mappings import catalog
from reporting.diagnostics import Diagnostic
from validators import hf_config
from validators.speculative import deployments, heads, vocabularies
from validators.speculative.deployments import Models
from validators.speculative.rows import Row, accepted, not_applicable, refused, warned
from validators.speculative.sides import Kind, Side, kind_of

POOR_RATIO = 4
"""A draft should have at most the target's parameters by this: a draft of 5 tokens costs 5 of its passes."""

_WIDTHS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
_SPECULATED = "num_speculative_tokens"


def check_side(side: Side, kind: Kind = Kind.MODEL, without_row: Collection[str] = ()) -> list[Diagnostic]:
    """What is wrong with one side by itself, whatever the other one is.

    Args:
        side: target or draft.
        kind: what it is; of heads, families say nothing.
        without_row: tokens that are published without a row of the embedding, and need none.

    Returns:
        What `hf_config.check_config` finds, CONFIG_CONTRADICTS_TENSORS for an embedding of another size than the
        config states, TOKENIZER_TOO_LARGE for token ids beyond the vocabulary.
    """
    found = hf_config.check_config(side.config) if kind is Kind.MODEL else []
    size, embedding = side.vocabulary_size, side.embedding
    if size is not None and embedding is not None and embedding[1].shape[:1] != (size,):
        rows = embedding[1].shape[0] if embedding[1].shape else 0
        reason = f"{embedding[0]} has {rows} rows, and vocab_size is {size}."
        found.append(Diagnostic("CONFIG_CONTRADICTS_TENSORS", reason, subject="vocab_size"))
    highest = max((id for token, id in side.vocabulary.tokens.items() if token not in without_row), default=None)
    if size is not None and highest is not None and highest >= size:
        reason = f"The tokenizer has token ids up to {highest}, and vocab_size is {size}."
        found.append(Diagnostic("TOKENIZER_TOO_LARGE", reason, subject="tokenizer.json"))
    return found


def compare(target: Side, draft: Side, models: Models, speculated: int | None = None) -> list[Row]:
    """The compatibility table of a pair.

    Args:
        target: the model whose tokens count.
        draft: what proposes them.
        models: what the catalogue says of either.
        speculated: tokens that are proposed at a time; None if nothing was said.
    """
    kind, shown = kind_of(draft)
    return [
        accepted("draft", f"{kind.value[0].upper()}{kind.value[1:]}, by {shown}."),
        _family(target, draft, kind),
        *vocabularies.check(target, draft, kind),
        *heads.check(target, draft, kind),
        *deployments.check(target, draft, kind, models),
        _dtype(target, draft),
        _smaller(target, draft),
        _ratio(target, draft),
        _speculated(draft, kind, models, speculated, target),
    ]


def _family(target: Side, draft: Side, kind: Kind) -> Row:
    check, ours, theirs = "architecture family", target.family, draft.family
    if kind is not Kind.MODEL:
        return not_applicable(check, "A head has an architecture of its own beside any target.", ours)
    if not ours or not theirs:
        return not_applicable(check, "The architecture of a side is unknown.", ours, theirs)
    if ours == theirs:
        return accepted(check, "It is the same.", ours, theirs)
    series = [name for name, families in catalog.layout_names().items() if {ours, theirs} <= {*families}]
    if series:
        return accepted(check, f"Both belong to the series {series[0]}.", ours, theirs)
    reason = f"The target is of the family {ours}, the draft of {theirs}."
    suggestion = "A draft of the target's own family is accepted more often; this pair can be deployed all the same."
    return warned(check, reason, ours, theirs, suggestion=suggestion)


def _dtype(target: Side, draft: Side) -> Row:
    check, ours, theirs = "dtype class", target.dtype, draft.dtype
    shown = _stored(target), _stored(draft)
    unknown = [
        f"{side} ({value or 'not stated'})"
        for side, value in (("target", ours), ("draft", theirs))
        if value not in _WIDTHS
    ]
    if unknown:
        reason = f"Neither config.json nor the headers state a known dtype: {', '.join(unknown)}."
        return warned(check, reason, *shown)
    if _WIDTHS[ours] != _WIDTHS[theirs]:
        reason = f"The target computes in {_WIDTHS[ours]} bits ({ours}), the draft in {_WIDTHS[theirs]} ({theirs})."
        return refused("DRAFT_DTYPE", check, reason, *shown)
    if ours != theirs:
        reason = f"Both compute in {_WIDTHS[ours]} bits, the target in {ours}, the draft in {theirs}."
        return warned(check, reason, *shown)
    return accepted(check, f"Both compute in {ours}.", *shown)


def _stored(side: Side) -> str:
    return f"{side.dtype}, stored as {side.stored_as}" if side.stored_as else side.dtype


def _smaller(target: Side, draft: Side) -> Row:
    check, ours, theirs = "parameters", target.parameters, draft.parameters
    if not ours or not theirs:
        return not_applicable(check, "The headers of a side cannot be read.", ours or "", theirs or "")
    if theirs >= ours:
        reason = f"The draft has {theirs} parameters, the target {ours}; a draft must be smaller."
        return refused("DRAFT_NOT_SMALLER", check, reason, ours, theirs)
    return accepted(check, "The draft is smaller.", ours, theirs)


def _ratio(target: Side, draft: Side) -> Row:
    check, ours, theirs = "parameters for a token", target.active_parameters, draft.active_parameters
    if not ours or not theirs:
        return not_applicable(check, "The headers of a side cannot be read.", ours or "", theirs or "")
    ratio = ours / theirs
    if ratio < POOR_RATIO:
        reason = (
            f"The target takes {ratio:.1f} times the draft's parameters for a token; {POOR_RATIO} times or more pay."
        )
        return warned(check, reason, ours, theirs, suggestion="Take a smaller draft.")
    return accepted(check, f"The target takes {ratio:.1f} times the draft's.", ours, theirs)


def _speculated(draft: Side, kind: Kind, models: Models, number: int | None, target: Side) -> Row:
    period = draft.size("n_predict")
    most = heads.heads_of(draft) if kind is Kind.MEDUSA else None
    shown = str(most or period or "")
    if number is None:
        return not_applicable(_SPECULATED, "--num_speculative_tokens was not given.", "", shown)
    if number < 1:
        return refused("DRAFT_TOKENS", _SPECULATED, f"{number} is no number of tokens to propose.", "", number)
    if most is not None and number > most:
        reason = f"{number} tokens cannot be proposed by {most} heads, one each."
        return refused("DRAFT_TOKENS", _SPECULATED, reason, "", most)
    if period is not None and number > period and number % period:
        reason = f"The draft proposes {period} tokens at a time, and {number} is no multiple of that."
        return refused("DRAFT_TOKENS", _SPECULATED, reason, "", period)
    common = deployments.lengths(models, kind)
    longest = max((*common, *([target.positions] if target.positions and not common else [])), default=None)
    if longest is not None and number >= longest:
        reason = f"{number} tokens do not fit into a sequence of {longest}."
        return refused("DRAFT_TOKENS", _SPECULATED, reason, longest, number)
    return accepted(_SPECULATED, f"The draft can propose {number} tokens at a time.", "", shown or number)
