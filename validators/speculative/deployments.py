"""Checks of a pair against the platform's catalogue: lengths and batch sizes at which both models can be deployed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from recast_proto import model_manifest_pb2
from validators.speculative.rows import Row, accepted, not_applicable, refused, warned
from validators.speculative.sides import Kind, Side

_LENGTHS, _BATCHES, _IMPORT = "sequence lengths", "batch sizes", "import checkpoint"
_NO_MODEL_OF_A_HEAD = "A head runs within the target's deployments."


@dataclasses.dataclass(frozen=True)
class Models:
    """What the catalogue says of both sides; None for a side whose model was not named."""

    target: model_manifest_pb2.ModelManifest | None = None
    draft: model_manifest_pb2.ModelManifest | None = None


def check(target: Side, draft: Side, kind: Kind, models: Models) -> Iterator[Row]:
    """All rows about the deployment of a pair."""
    yield _imported(models)
    yield from _shared(kind, models)
    yield from _positions(target, draft, kind, models)


def lengths(models: Models, kind: Kind) -> tuple[int, ...]:
    """The sequence lengths at which the pair can be deployed, rising; none where no model was named."""
    named = [_batches(model) for model in _concerned(models, kind) if model is not None]
    return tuple(sorted(set.intersection(*map(set, named)))) if named else ()


def _concerned(models: Models, kind: Kind) -> list[model_manifest_pb2.ModelManifest | None]:
    return [models.target, models.draft if kind is Kind.MODEL else None]


def _batches(model: model_manifest_pb2.ModelManifest) -> dict[int, frozenset[int]]:
    """Of each sequence length with speculative decoding, the batch sizes."""
    found: dict[int, frozenset[int]] = {}
    for deployment in model.deployment:
        if deployment.speculative_decoding:
            length = deployment.sequence_length
            found[length] = found.get(length, frozenset()) | frozenset(deployment.batch_size)
    return found


def _imported(models: Models) -> Row:
    named = [model for model in (models.target, models.draft) if model is not None]
    if not named:
        return not_applicable(_IMPORT, "Neither --target_model nor --draft_model was given.")
    shown = [_yes(model) for model in (models.target, models.draft)]
    closed = [model.name for model in named if not model.import_checkpoint]
    if closed:
        reason = f"The platform takes no custom checkpoints of {' and '.join(closed)}, only its own one."
        return warned(_IMPORT, reason, *shown)
    return accepted(_IMPORT, "The platform takes custom checkpoints of the named models.", *shown)


def _yes(model: model_manifest_pb2.ModelManifest | None) -> str:
    return "" if model is None else "yes" if model.import_checkpoint else "no"


def _shared(kind: Kind, models: Models) -> Iterator[Row]:
    ours = _batches(models.target) if models.target is not None else {}
    theirs = _batches(models.draft) if models.draft is not None else {}
    shown = _listed(ours), _listed(theirs)
    without = [
        model.name
        for model, found in ((models.target, ours), (models.draft, theirs))
        if model is not None and not found
    ]
    if without:
        reason = f"The catalogue has no deployment of {' and '.join(without)} with speculative decoding."
        yield refused("DRAFT_DEPLOYMENT", _LENGTHS, reason, *shown)
        yield not_applicable(_BATCHES, "There is no sequence length to look at.")
        return
    if kind is not Kind.MODEL:
        yield not_applicable(_LENGTHS, _NO_MODEL_OF_A_HEAD, *shown)
        yield not_applicable(_BATCHES, _NO_MODEL_OF_A_HEAD)
        return
    unnamed = [flag for flag, model in (("target", models.target), ("draft", models.draft)) if model is None]
    if unnamed:
        flags = " and ".join(f"--{flag}_model" for flag in unnamed)
        reason = f"{flags} {'were' if len(unnamed) > 1 else 'was'} not given."
        yield not_applicable(_LENGTHS, reason, *shown)
        yield not_applicable(_BATCHES, reason)
        return
    yield from _both(ours, theirs, shown)


def _both(ours: dict[int, frozenset[int]], theirs: dict[int, frozenset[int]], shown: tuple[str, str]) -> Iterator[Row]:
    common = sorted({*ours} & {*theirs})
    if not common:
        reason = "The models share no sequence length with speculative decoding."
        yield refused("DRAFT_DEPLOYMENT", _LENGTHS, reason, *shown)
        yield not_applicable(_BATCHES, "There is no sequence length to look at.")
        return
    alone = sorted({*ours} - {*theirs})
    if alone:
        reason = f"The pair can be deployed at {_listed(common)}; the draft has no deployment at {_listed(alone)}."
        yield warned(_LENGTHS, reason, *shown, suggestion=_deploy(common))
    else:
        yield accepted(_LENGTHS, "The draft has a deployment at every length of the target.", *shown)
    shared = {length: ours[length] & theirs[length] for length in common}
    cells = ["; ".join(f"{length}: {_listed(found[length])}" for length in common) for found in (ours, theirs)]
    if not any(shared.values()):
        reason = f"The models share no batch size at {_listed(common)}."
        yield refused("DRAFT_DEPLOYMENT", _BATCHES, reason, *cells)
    elif any(shared[length] != ours[length] for length in common):
        said = "; ".join(f"{length}: {_listed(sizes)}" for length, sizes in shared.items())
        reason = f"The draft lacks batch sizes of the target; shared are {said}."
        yield warned(_BATCHES, reason, *cells, suggestion="Deploy the pair with the batch sizes that both have.")
    else:
        yield accepted(_BATCHES, "The draft has every batch size of the target at the shared lengths.", *cells)


def _positions(target: Side, draft: Side, kind: Kind, models: Models) -> Iterator[Row]:
    common = lengths(models, kind)
    for name, side in (("target", target), ("draft", draft)):
        check = f"positions of the {name}"
        reached = side.positions
        shown = (reached or "", "") if name == "target" else ("", reached or "")
        if name == "draft" and kind is not Kind.MODEL:
            yield not_applicable(check, "A head takes over the target's positions.", *shown)
        elif reached is None:
            yield warned(check, "config.json states no max_position_embeddings.", *shown)
        elif common:
            yield _against_lengths(check, reached, common, shown)
        elif name == "draft" and target.positions is not None and reached < target.positions:
            reason = f"The pair is limited to {reached} tokens; the target alone reaches {target.positions}."
            yield warned(check, reason, *shown, suggestion=f"Deploy the pair at no more than {reached} tokens.")
        else:
            yield accepted(check, "The catalogue names no sequence length of the pair that they must reach.", *shown)


def _against_lengths(check: str, reached: int, common: tuple[int, ...], shown: tuple[object, object]) -> Row:
    fitting = [length for length in common if length <= reached]
    if not fitting:
        reason = f"max_position_embeddings is {reached}, and the shortest sequence length of the pair is {common[0]}."
        return refused("DRAFT_POSITIONS", check, reason, *shown)
    if len(fitting) < len(common):
        beyond = _listed(set(common) - set(fitting))
        reason = f"max_position_embeddings is {reached}: not enough for sequence lengths of {beyond}."
        return warned(check, reason, *shown, suggestion=_deploy(fitting))
    return accepted(check, f"They are enough for the longest sequence length of the pair, {common[-1]}.", *shown)


def _deploy(fitting: list[int]) -> str:
    return f"Deploy the pair at a sequence length of {_listed(fitting)}."


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"
