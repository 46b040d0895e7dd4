"""The source of a conversion from Hugging Face: a directory, or what the local cache of the hub holds of a model."""

from __future__ import annotations

from pathlib import Path

from converters.formats import hub_cache
from mappings import catalog
from reporting.diagnostics import Diagnostic, RecastError

_ID = "HF_MODEL_PATH_REQUIRED"
_NOT_GIVEN = "--hf_model_path was not given"
_FILES = "config.json and the weights"


def of(path: str, model_name: str) -> tuple[Path, list[Diagnostic]]:
    """Where to read.

    Args:
        path: --hf_model_path as given: a directory, or the hub id of a model in the local cache; may be empty.
        model_name: --model_name as given, whose checkpoint is the default; may be empty.

    Returns:
        The directory, and what is wrong.
    """
    if path and (not hub_cache.is_hub_id(path) or Path(path).exists()):
        return Path(path), []
    found = (path,) if path else catalog.hub_ids_of(model_name) if model_name else ()
    if len(found) != 1:
        return Path(path), [_undecided(model_name, found)]
    try:
        snapshot = hub_cache.snapshot(found[0], hub_cache.root())
    except RecastError as error:
        return Path(path), list(error.diagnostics)
    if snapshot is None:
        return Path(path), [_neither(path) if path else _not_downloaded(model_name, found[0])]
    return snapshot, []


def _undecided(model_name: str, hub_ids: tuple[str, ...]) -> Diagnostic:
    if hub_ids:
        reason = f"{_NOT_GIVEN}, and {model_name} may stand for {' or '.join(hub_ids)}."
        suggestion = f"Pass one of these as --model_name, or --hf_model_path with a directory that holds {_FILES}."
        return Diagnostic(_ID, reason, suggestion=suggestion, subject="--hf_model_path")
    hint = f"; {model_name} is no published name, which would have a default" if model_name else ""
    return Diagnostic(_ID, f"{_NOT_GIVEN}{hint}.", subject="--hf_model_path")


def _neither(path: str) -> Diagnostic:
    """Of what may be a directory or a hub id."""
    return Diagnostic(
        "SOURCE_NOT_FOUND",
        f"{path} does not exist, and for a model of this id on the Hugging Face Hub the local cache "
        f"{hub_cache.root()} does not hold config and weights; Recast downloads nothing yet.",
        suggestion=f"Check the path; or, if the id is meant, run `hf download {path}`, which fills that cache, and "
        "repeat the command.",
        subject=path,
    )


def _not_downloaded(model_name: str, hub_id: str) -> Diagnostic:
    return Diagnostic(
        _ID,
        f"{_NOT_GIVEN}. For {model_name} it is {hub_id} on the Hugging Face Hub, of which the local cache "
        f"{hub_cache.root()} does not hold config and weights, and Recast downloads nothing yet.",
        suggestion=f"Run `hf download {hub_id}`, which fills that cache, and repeat the command; or pass "
        f"--hf_model_path with a directory that holds {_FILES}.",
        subject="--hf_model_path",
    )
