"""The workflows in .github: they are what GitHub understands, their scripts parse, and what they run is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import check_jsonschema
import pytest
import yaml

from tools import release

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
SCHEMAS = ("vendor.github-workflows", "custom.github-workflows-require-timeout")

# Bazel has no target for folders with hidden names.
needs_workflows = pytest.mark.skipif(not WORKFLOWS, reason="needs .github")


def check(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", check_jsonschema.__name__, "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@needs_workflows
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_workflow_is_what_its_schema_says(path: Path, schema: str) -> None:
    ended = check(path, schema)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "text",
    [
        "on: push\njobs: {a: {runs-on: x, timeout-minutes: 1, steps: [{runs: ls}]}}\n",
        "on: pushed\njobs: {a: {runs-on: x, timeout-minutes: 1, steps: [{run: ls}]}}\n",
        "on: push\njobs: {a: {timeout-minutes: 1, steps: [{run: ls}]}}\n",
    ],
)
def test_the_schema_sees_faults(tmp_path: Path, text: str) -> None:
    (tmp_path / "workflow.yaml").write_text(text)
    assert check(tmp_path / "workflow.yaml", SCHEMAS[0]).returncode == 1


@needs_workflows
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_parse_and_run_what_is_there(path: Path) -> None:
    for step in steps(path):
        script = step.get("run", "")
        assert "${{" not in script, "a script gets values by its environment, where they cannot become code"
        parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert parsed.returncode == 0, parsed.stderr
        for name in re.findall(r"(?<![\w/.])(?:tools/[a-z_.]+|\.ci/run)", script):
            assert (ROOT / name).is_file(), name


@needs_workflows
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_commit_with_the_version_beside_it(path: Path) -> None:
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    for name in used:
        assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v?\d+\.\d+\.\d+", name), name


@needs_workflows
def test_the_release_pushes_the_indexes_of_all_images() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "release"]
    (script,) = [step["run"] for step in steps(path) if "_push" in step.get("run", "")]
    (listed,) = re.findall(r"for image in (.*); do", script)
    declared = re.findall(r'^    "([\w-]+)": struct\(', (ROOT / "container" / "images.bzl").read_text(), re.MULTILINE)
    assert sorted(listed.split()) == declared
    assert "${image}_index.json.sha256" in script


@needs_workflows
def test_the_release_is_told_flags_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        release.main(["--help"])
    help = capsys.readouterr().out
    scripts = [step.get("run", "") for path in WORKFLOWS for step in steps(path)]
    flags = [flag for script in scripts for flag in re.findall(r"tools/release.py (.*)", script)]
    given = re.findall(r"--[a-z_]+", " ".join(flags))
    assert given
    assert [flag for flag in given if flag not in help] == []
