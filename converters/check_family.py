"""check-family: the checklist of a model family, from its files to its tests, with a line for each step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from converters import family_skeleton, family_tests
from converters.cli.program import Program, main
from mappings import catalog, coverage
from mappings.language import loader
from mappings.language.errors import MappingErrors
from mappings.language.lint import lint_family
from reporting import console
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report
from validators import hf_config

_ID = "FAMILY_INCOMPLETE"
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Family:
    """The family to check: its folder, and the checkout."""

    name: str
    root: Path


def define(_: flags.FlagValues) -> None:
    """The binary has no flags of its own."""


def prepare(_: flags.FlagValues, positional: Sequence[str]) -> Family:
    """Checks that there is such a family, in a checkout."""
    (name,) = positional
    root = loader.mappings_root().parent
    known = loader.families()
    if name not in known:
        reason = f"There is no family {name}; known: {', '.join(known)}."
        raise RecastError.of("INVALID_FLAG", reason, subject="NAME")
    if not (root / "tests" / "families").is_dir():
        reason = f"{root} is no checkout of Recast: it has no tests/families, where the proof of a family lies."
        raise RecastError.of("INVALID_FLAG", reason, suggestion="Run this in a checkout.", subject=str(root))
    return Family(name, root)


def execute(family: Family, report: Report) -> str:
    """Goes through the checklist; what comes before the tests is checked to its end, whatever fails."""
    found: list[Diagnostic] = []
    with report.step("checklist"):
        for name, check in _STEPS:
            found += _step(name, functools.partial(check, family))
        if found:
            _line("not run", "tests", "they start when the steps above are ok")
            raise RecastError(found)
        for outcome in family_tests.run(family.root, family.name):
            found += _step(outcome.sentence, functools.partial(_outcome, outcome))
        raise_all(found)
    return f"\n{family.name} is whole.\n"


def _step(name: str, check: Callable[[], str]) -> tuple[Diagnostic, ...]:
    """Does one check, prints its line, and says what is wrong."""
    try:
        said = check()
    except RecastError as error:
        _line("FAILED", name, "")
        return tuple(error.diagnostics)
    _line("ok", name, said)
    return ()


def _line(state: str, name: str, said: str) -> None:
    console.show(f"{state:<8} {name}" + (f": {said}" if said else ""))


def _check_files(family: Family) -> str:
    places = family_skeleton.paths_of(family.root, family.name)
    if loader.load_family(family.name).folder == family.name:
        folder = family.root / "mappings" / family.name
        places |= {format: folder / f"{format}.textproto" for format in ("hf", "maxtext")}
    missing = sorted({path for path in places.values() if not path.is_file()})
    raise_all([_fault(f"{path.relative_to(family.root)} is not there.", path) for path in missing])
    return f"{len(set(places.values()))} besides the manifests"


def _check_marks(family: Family) -> str:
    places = [path for path in family_skeleton.paths_of(family.root, family.name).values() if path.is_file()]
    places += [family.root / "mappings" / m.location.rpartition(":")[0] for m in _manifests(family)]
    left = family_skeleton.marks(sorted(set(places)))
    raise_all([_fault(f"{p.relative_to(family.root)}:{n} is left to do: {text}", p) for p, n, text in left[:_SHOWN]])
    return f"no {family_skeleton.MARK} is left"


def _check_lint(family: Family) -> str:
    issues = lint_family(family.name)
    raise_all([_fault(str(issue), family.root / "mappings" / family.name) for issue in issues[:_SHOWN]])
    return "every layout is a bijection"


def _check_manifests(family: Family) -> str:
    manifests = _manifests(family)
    if not manifests:
        raise RecastError([_fault("No manifest is of this family.", family.root / "mappings" / "manifests")])
    found = []
    for manifest in manifests:
        place = family.root / "mappings" / manifest.location.rpartition(":")[0]
        owner = catalog.family_of(manifest.config)
        if owner != family.name:
            found.append(_fault(f"The config of {manifest.name} belongs to {owner or 'no family'}.", place))
        found += [
            _fault(f"{manifest.name}: {fault.reason}", place) for fault in hf_config.check_config(manifest.config)
        ]
        faults = dict.fromkeys(fault for faults in coverage.faults_of(manifest).values() for fault in faults)
        found += [_fault(f"{manifest.name}: {fault}", place) for fault in list(faults)[:_SHOWN]]
    raise_all(found)
    return f"{', '.join(m.name for m in manifests)}: each composes in all four directions"


def _outcome(outcome: family_tests.Outcome) -> str:
    raise_all([Diagnostic(_ID, reason, subject=case) for case, reason in outcome.failures])
    skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
    return f"{outcome.cases} {'case' if outcome.cases == 1 else 'cases'}{skipped}"


def _manifests(family: Family) -> list[catalog.Manifest]:
    try:
        return [manifest for manifest in catalog.manifests() if manifest.family == family.name]
    except MappingErrors as errors:
        raise RecastError([_fault(str(issue), family.root / "mappings") for issue in errors.issues]) from errors


def _fault(reason: str, path: Path) -> Diagnostic:
    return Diagnostic(_ID, reason, subject=str(path))


_STEPS: tuple[tuple[str, Callable[[Family], str]], ...] = (
    ("files", _check_files),
    ("todo", _check_marks),
    ("linter", _check_lint),
    ("manifests", _check_manifests),
)

PROGRAM = Program(
    name="check-family",
    summary="Goes through the checklist of a model family in a checkout and prints a line for each step: its files, "
    "what is left to do, the linter, its published models, then its tests, which hold the mapping against an oracle, "
    "Orbax and transformers. Exit code 0 says that all of it is true.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("name",),
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
