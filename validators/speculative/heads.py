"""Checks of drafts that are heads on the target's hidden states: EAGLE, EAGLE-3 and Medusa."""

from __future__ import annotations

from collections.abc import Iterator

from validators.speculative.rows import Row, accepted, not_applicable, refused
from validators.speculative.sides import Kind, Side

_ID = "DRAFT_HEAD"
_HIDDEN, _FEATURES, _MAP, _BLOCKS = "hidden size", "feature projection", "vocabulary map", "Medusa blocks"
# EAGLE joins one hidden state with the token's embedding; EAGLE-3 joins the states of three layers.
_JOINED = {Kind.EAGLE: 2, Kind.EAGLE3: 3}
_AUXILIARY = ("eagle_aux_hidden_state_layer_ids", "eagle_config.eagle_aux_hidden_state_layer_ids")
_INTEGERS = ("I64", "I32", "I16", "U16", "U32", "U64")
_MEDUSA_HEADS = ("medusa_num_heads", "num_heads")


def check(target: Side, draft: Side, kind: Kind) -> Iterator[Row]:
    """All rows that only heads have; none for a draft that is a model of its own."""
    if kind is Kind.MODEL:
        return
    yield _hidden(target, draft)
    if kind is Kind.MEDUSA:
        yield _medusa(target, draft)
    else:
        yield _features(target, draft, kind)
        yield _vocabulary_map(target, draft)


def heads_of(draft: Side) -> int | None:
    """How many Medusa heads there are, each of which proposes one token."""
    return draft.size(*_MEDUSA_HEADS)


def _hidden(target: Side, draft: Side) -> Row:
    ours, theirs = target.size("hidden_size"), draft.size("target_hidden_size", "hidden_size")
    if ours is None:
        return refused(_ID, _HIDDEN, "config.json of the target states no hidden_size.", "", theirs or "")
    if theirs is None:
        return not_applicable(_HIDDEN, "config.json of the head states none; its tensors show it.", ours)
    if ours != theirs:
        reason = f"The head reads hidden states of size {theirs}, and the target's have {ours}."
        return refused(_ID, _HIDDEN, reason, ours, theirs)
    return accepted(_HIDDEN, "The head reads hidden states of the target's size.", ours, theirs)


def _features(target: Side, draft: Side, kind: Kind) -> Row:
    ours, theirs = target.size("hidden_size"), draft.size("hidden_size") or target.size("hidden_size")
    if draft.tensors is None:
        return not_applicable(_FEATURES, "The headers of the head cannot be read.")
    found = draft.tensor("fc.weight")
    if found is None:
        return refused(_ID, _FEATURES, f"There is no tensor fc.weight, which {kind.value} needs.")
    name, info = found
    layers = next((value for value in map(draft.stated, _AUXILIARY) if isinstance(value, list) and value), None)
    joined = len(layers) if layers is not None and kind is Kind.EAGLE3 else _JOINED[kind]
    if ours is None or theirs is None:
        return not_applicable(_FEATURES, "No hidden_size is stated to compare it with.", "", _shape(info.shape))
    wanted = (theirs, joined * ours)
    if info.shape != wanted:
        reason = f"{name} is {_shape(info.shape)}; for this target it must be {_shape(wanted)}, {joined} x {ours} wide."
        return refused(_ID, _FEATURES, reason, joined * ours, _shape(info.shape))
    reason = f"{name} takes {joined} x {ours} numbers of the target."
    return accepted(_FEATURES, reason, joined * ours, _shape(info.shape))


def _vocabulary_map(target: Side, draft: Side) -> Row:
    """A head with fewer tokens than the target needs d2t: for each of its own the distance to the target's id."""
    whole, head, d2t, t2d = target.vocabulary_size, draft.output_head, draft.tensor("d2t"), draft.tensor("t2d")
    own = draft.size("draft_vocab_size") or (head[1].shape[0] if head and head[1].shape else None)
    if whole is None or draft.tensors is None:
        return not_applicable(_MAP, "A side cannot be read.", whole or "", own or "")
    if own is None:
        return not_applicable(_MAP, "The head makes its logits with the target's lm_head.", whole)
    found = []
    if own > whole:
        found.append(f"the head has {own} tokens, more than the target's {whole}")
    if head is not None and head[1].shape[:1] != (own,):
        found.append(f"{head[0]} has {head[1].shape[0] if head[1].shape else 0} rows for {own} tokens")
    if own < whole and d2t is None:
        found.append(f"it proposes {own} of the target's {whole} tokens, and no tensor d2t says which")
    for tensor, length, dtypes, what in ((d2t, own, _INTEGERS, "integers"), (t2d, whole, ("BOOL",), "truth values")):
        if tensor is not None and (tensor[1].shape != (length,) or tensor[1].dtype not in dtypes):
            stated = f"{tensor[1].dtype} {_shape(tensor[1].shape)}"
            found.append(f"{tensor[0]} is {stated}, not {length} {what}")
    if found:
        return refused(_ID, _MAP, f"The head does not fit: {'; '.join(found)}.", whole, own)
    if own == whole:
        return accepted(_MAP, "The head has every token of the target.", whole, own)
    return accepted(_MAP, f"d2t maps the head's {own} tokens to the target's.", whole, own)


def _medusa(target: Side, draft: Side) -> Row:
    """Blocks map hidden states to hidden states, the last matrix of each head to logits."""
    ours, vocabulary = target.size("hidden_size"), target.vocabulary_size
    matrices = {name: info.shape for name, info in (draft.tensors or {}).items() if len(info.shape) == 2}
    if not matrices or ours is None or vocabulary is None:
        return not_applicable(_BLOCKS, "There are no headers, or nothing to compare them with.")
    own = draft.size("truncated_vocab_size") or vocabulary
    wrong = [
        f"{name} is {_shape(shape)}" for name, shape in matrices.items() if shape not in ((ours, ours), (own, ours))
    ]
    if wrong:
        reason = f"{wrong[0]}{f', and {len(wrong) - 1} more do not fit' if len(wrong) > 1 else ''}; for this target "
        return refused(_ID, _BLOCKS, f"{reason}matrices are {ours} x {ours} or {own} x {ours}.", ours)
    return accepted(_BLOCKS, f"All {len(matrices)} matrices fit the target's hidden states and vocabulary.", ours)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
