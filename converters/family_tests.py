"""Runs the tests of a model family in a process of their own, and says what each of them showed."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from reporting.diagnostics import RecastError

_ID = "FAMILY_INCOMPLETE"
_HARNESS = Path("tests") / "families" / "harness.py"
_CLASS = "FamilyTests"
# For families of which MaxText's own output is recorded, and for those whose plans do not take long.
_OPTIONAL = (
    "test_maxtexts_own_tools_write_the_same_bits",
    "test_the_smallest_published_model_is_planned_in_every_direction",
)
_LAST_LINES = 15
_LONGEST = 400


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one test function showed.

    Attributes:
        sentence: its name, as people say it.
        cases: how many cases it ran.
        skipped: how many of them it left out.
        failures: name and reason of each case that failed.
    """

    sentence: str
    cases: int
    skipped: int
    failures: tuple[tuple[str, str], ...]


def run(root: Path, family: str) -> tuple[Outcome, ...]:
    """Runs `tests/families/FAMILY_test.py`.

    Args:
        root: the checkout.
        family: its folder.

    Returns:
        What each test function showed, in their order.

    Raises:
        RecastError: FAMILY_INCOMPLETE if the tests do not start, or lack what the tests of every family have.
    """
    if importlib.util.find_spec("pytest") is None:
        reason = "pytest is not installed, which the tests of a family need."
        raise RecastError.of(_ID, reason, suggestion="Run ./recast check-family, which installs it.")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        ended = _pytest(root, family, results)
        if ended.returncode not in (0, 1) or not results.is_file():
            last = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-_LAST_LINES:])
            raise RecastError.of(_ID, f"The tests of {family} do not run:\n{last}")
        outcomes = _outcomes(results)
    _check_complete(root, family, outcomes)
    return outcomes


def _pytest(root: Path, family: str, results: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "pytest", "--quiet", "--tb=short", f"--junit-xml={results}"]
    arguments += [f"--rootdir={root}", f"--config-file={root / 'pyproject.toml'}"]
    return subprocess.run(
        [sys.executable, *arguments, str(Path("tests") / "families" / f"{family}_test.py")],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _outcomes(results: Path) -> tuple[Outcome, ...]:
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        full = case.get("name", "")
        name = full.partition("[")[0]
        before = found.get(name, Outcome(_sentence(name), 0, 0, ()))
        failed = [child for child in case if child.tag in ("failure", "error")]
        reasons = tuple((full, _first_line(child.get("message", ""))) for child in failed)
        skipped = sum(child.tag == "skipped" for child in case)
        found[name] = Outcome(before.sentence, before.cases + 1, before.skipped + skipped, before.failures + reasons)
    return tuple(found.values())


def _check_complete(root: Path, family: str, outcomes: tuple[Outcome, ...]) -> None:
    """A module without the tests that every family has shows nothing, however green it is."""
    tree = ast.parse((root / _HARNESS).read_text(encoding="utf-8"))
    (common,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == _CLASS)
    expected = [node.name for node in common.body if isinstance(node, ast.FunctionDef)]
    expected = [name for name in expected if name.startswith("test_") and name not in _OPTIONAL]
    ran = {outcome.sentence for outcome in outcomes}
    missing = [name for name in expected if _sentence(name) not in ran]
    if missing:
        shown = "; ".join(_sentence(name) for name in missing)
        raise RecastError.of(_ID, f"tests/families/{family}_test.py does not run what is run of every family: {shown}.")


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


def _first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "it failed")
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."
