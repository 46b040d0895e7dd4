"""new-family: writes the files of a model family after the pattern of an existing one, for a person to complete."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from converters import family_skeleton
from converters.cli.program import Program, main
from converters.family_skeleton import Names
from mappings import catalog
from mappings.language import loader
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report

_FAMILY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_RESERVED = ("common", "language", "manifests", "families", "oracles")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The family to write.

    Attributes:
        names: of it.
        config: the config.json of its first published model, if it was given.
    """

    names: Names
    config: Mapping[str, Any] | None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_string("like", None, "The family whose files are the pattern. Must be given.", flag_values=values)
    flags.DEFINE_string(
        "model", "", "Name of the first published model (heron-1b). Default: NAME-1b.", flag_values=values
    )
    flags.DEFINE_string("hub_id", "", "Where that model is published: ORGANISATION/NAME.", flag_values=values)
    flags.DEFINE_string("config", "", "Its config.json, or the directory that holds it.", flag_values=values)


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Wanted:
    """Checks names and places, all at once."""
    (name,) = positional
    root = _root()
    found = _check_name(name, root) + _check_like(values.like or "", root) + _check_place(root)
    config: Mapping[str, Any] | None = None
    if values.config:
        from validators import hf_config

        config = hf_config.load(Path(values.config))
    model_type = config.get("model_type") if config is not None else name
    if not isinstance(model_type, str) or not model_type:
        found.append(_fault("The config.json has no model_type.", "--config"))
    elif model_type in catalog.known_model_types():
        owner = catalog.known_model_types()[model_type]
        found.append(_fault(f"Configs with the model_type {model_type} are the family {owner}'s already.", "--config"))
    model = values.model or f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-') or 'family'}-1b"
    if not _MODEL.fullmatch(model):
        found.append(_fault(f"{model!r} is no name of a model: small letters, digits, '.' and '-'.", "--model"))
    elif (taken := catalog.find(model)) is not None:
        found.append(_fault(f"{model} is taken by {taken.location}.", "--model"))
    if values.hub_id and not _HUB_ID.fullmatch(values.hub_id):
        found.append(_fault(f"{values.hub_id!r} is not ORGANISATION/NAME.", "--hub_id"))
    raise_all(found)
    hub_id = values.hub_id or f"{family_skeleton.MARK}/{model}"
    return Wanted(Names(name, values.like, str(model_type), model, hub_id), config)


def execute(wanted: Wanted, report: Report) -> str:
    """Writes the files; none is there before."""
    with report.step("new-family"):
        root, names = _root(), wanted.names
        pattern = next(m.config for m in catalog.manifests() if m.family == names.like)
        files = family_skeleton.files(root, names, wanted.config, pattern)
        raise_all([_exists(path) for path in files if path.exists()])
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    written = "\n".join(f"  {path.relative_to(root)}" for path in files)
    return (
        f"Written, after the pattern of {names.like}:\n{written}\n\n"
        f"docs/adding_a_family.md says what to do with each. When no {family_skeleton.MARK} is left:\n"
        f"  ./recast check-family {names.family}\n"
    )


def _root() -> Path:
    return loader.mappings_root().parent


def _check_name(name: str, root: Path) -> list[Diagnostic]:
    if not _FAMILY.fullmatch(name) or name in _RESERVED:
        reason = f"{name!r} is no name of a family: small letters, digits and '_', and none of {', '.join(_RESERVED)}."
        return [_fault(reason, "NAME")]
    taken = [path for path in (root / "mappings" / name, *_tests_of(root, name)) if path.exists()]
    return [_exists(path) for path in taken]


def _check_like(like: str, root: Path) -> list[Diagnostic]:
    known = loader.families()
    if not like:
        return [_fault(f"--like was not given; it takes one of {', '.join(known)}.", "--like")]
    if like not in known:
        near = f"There is no family {like}; known: {', '.join(known)}."
        return [_fault(near, "--like")]
    target = family_skeleton.is_alias(root, like)
    if target:
        return [_fault(f"{like} is {target} under another name; take --like={target}.", "--like")]
    missing = [path for path in _tests_of(root, like) if not path.is_file()]
    return [_fault(f"{like} has no {path.relative_to(root)} to take as a pattern.", "--like") for path in missing]


def _tests_of(root: Path, family: str) -> tuple[Path, Path]:
    return root / "tests" / "families" / f"{family}_test.py", family_skeleton.oracle_of(root, family)


def _check_place(root: Path) -> list[Diagnostic]:
    if (root / "tests" / "families").is_dir():
        return []
    reason = f"{root} is no checkout of Recast: it has no tests/families, where the proof of a family lies."
    return [Diagnostic("DESTINATION_NOT_WRITABLE", reason, suggestion="Run this in a checkout.", subject=str(root))]


def _exists(path: Path) -> Diagnostic:
    suggestion = "Choose another name, or remove it first."
    return Diagnostic("DESTINATION_EXISTS", f"{path} is there already.", suggestion=suggestion, subject=str(path))


def _fault(reason: str, subject: str) -> Diagnostic:
    return Diagnostic("INVALID_FLAG", reason, subject=subject)


PROGRAM = Program(
    name="new-family",
    summary="Writes the files of a new model family into a checkout: mapping, manifest, oracle and test module, each "
    "made from those of the family that --like names, and each with a TODO. check-family says what is left to do; "
    "docs/adding_a_family.md says how.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("name",),
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
