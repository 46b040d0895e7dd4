"""The version of transformers that saved a checkpoint, held against the one that a serving platform runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reporting.diagnostics import Diagnostic

if TYPE_CHECKING:
    from packaging.version import Version

BACKEND = "4.45.1"
"""The version that a platform runs where neither a flag nor its catalogue says another."""

FIELD = "transformers_version"
_TEXT = "text_config"
_LONGEST = 60
# Fields that are read only from this version on, with what older versions read instead.
_NEWER_FIELDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dtype": ("4.56.0", ("torch_dtype",)),
    "rope_parameters": ("5.0.0", ("rope_theta", "rope_scaling")),
    "layer_types": ("4.53.0", ()),
}


@dataclasses.dataclass(frozen=True)
class Judged:
    """What is to be said of a checkpoint's version.

    Attributes:
        diagnostics: an error, or a warning where nothing can be compared.
        why: how the judgement came about, a sentence each.
    """

    diagnostics: tuple[Diagnostic, ...]
    why: tuple[str, ...]


def parsed(text: str) -> Version | None:
    """A version by PEP 440; None for any other text, and for one that is too long to be one."""
    from packaging.version import InvalidVersion, Version

    if len(text) > _LONGEST:
        return None
    try:
        return Version(text)
    except InvalidVersion:
        return None


def check(config: Mapping[str, Any], supported: str) -> Judged:
    """Whether a checkpoint was saved with at most the supported version.

    By PEP 440: 4.46.0.dev0 comes before 4.46.0 and after every 4.45; what stands behind a "+" names a build and is not
    compared.

    Args:
        config: the checkpoint's config.json.
        supported: the largest version that may have saved it, a valid one.

    Returns:
        TRANSFORMERS_VERSION_ERROR if a newer version saved it, TRANSFORMERS_VERSION_UNKNOWN, a warning, if config.json
        does not say which one did.
    """
    limit = parsed(supported)
    if limit is None:
        raise ValueError(f"{supported} is no version")
    stated = config.get(FIELD)
    if stated is None:
        return _unknown(f"config.json has no {FIELD}, so nothing says which version saved the checkpoint.")
    version = parsed(stated) if isinstance(stated, str) else None
    if version is None:
        shown = json.dumps(stated)[:_LONGEST]
        return _unknown(f"config.json says {FIELD}: {shown}, which is no version by PEP 440 and cannot be compared.")
    remarks = tuple(_remarks(version))
    if _release(version) > _release(limit):
        return Judged((_too_new(version, supported),), remarks)
    return Judged((), (f"the checkpoint was saved with {version}, which is at most {supported}", *remarks))


def newer_fields(config: Mapping[str, Any], deployment: str, written: Mapping[str, Any]) -> list[str]:
    """A sentence for each field of a config that the deployment's version of transformers does not read.

    Args:
        config: the checkpoint's config.json.
        deployment: a version; nothing is said of what is none.
        written: the config.json that is made of it.
    """
    limit = parsed(deployment)
    if limit is None:
        return []
    sections = [("", config, written), (f"{_TEXT}.", _section(config), _section(written))]
    return [
        f"{place}{field} is read from transformers {since} on, and not by {deployment}{_made_of(instead, carried)}"
        for place, stated, carried in sections
        for field, (since, instead) in _NEWER_FIELDS.items()
        if stated.get(field) is not None and _before(limit, since)
    ]


def _section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = config.get(_TEXT)
    return nested if isinstance(nested, Mapping) else {}


def _made_of(instead: tuple[str, ...], written: Mapping[str, Any]) -> str:
    older = [field for field in instead if written.get(field) is not None]
    return f"; it is written as {' and '.join(older)} too" if older else ", which assumes its own default"


def _before(version: Version, since: str) -> bool:
    first = parsed(since)
    return first is not None and version < first


def _release(version: Version) -> Version:
    """A version without the name of its build."""
    from packaging.version import Version

    return Version(version.public)


def _remarks(version: Version) -> list[str]:
    remarks = []
    if version.is_devrelease:
        remarks.append(f"{version} is a state of development before {version.base_version}, and is compared as such")
    elif version.is_prerelease:
        remarks.append(f"{version} came before {version.base_version}, and is compared as such")
    if version.local:
        remarks.append(f"the name of the build, {version.local}, is not compared")
    return remarks


def _too_new(version: Version, supported: str) -> Diagnostic:
    # The platform's own tool words it so, and scripts look for it.
    return Diagnostic(
        "TRANSFORMERS_VERSION_ERROR",
        f"The transformers version of your checkpoint ({version}) is larger than the maximum supported transformers "
        f"version ({supported}).",
        suggestion=f"To fix this, please save your checkpoint with a transformers environment <= {supported}. "
        "Alternatively, you can include the --ignore_transformers_version flag, but this may lead to errors due to "
        "transformers version compatibility issues.",
    )


def _unknown(reason: str) -> Judged:
    return Judged((Diagnostic("TRANSFORMERS_VERSION_UNKNOWN", reason, subject=FIELD),), (reason,))
