from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tools import release

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n\n### Added\n\n- A thing.\n\n## [1.2.2]\n\n- Old.\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a version, a changelog and locks, all committed."""
    files = {
        "reporting/version.py": 'VERSION = "1.2.3"\n',
        "CHANGELOG.md": CHANGELOG,
        "requirements/core.txt": "numpy==2\n",
        "container/base/debian_root.lock": "libc6=2\n",
    }
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    commit(tmp_path / "root")
    return tmp_path / "root"


def commit(root: Path) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message=x"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)


def build(checkout: Path, output_base: Path) -> Path:
    """Makes an image whose digest is that of the changelog."""
    digest = hashlib.sha256((checkout / "CHANGELOG.md").read_bytes()).hexdigest()
    (output_base / "bin").mkdir(parents=True)
    (output_base / "bin" / "recast.json.sha256").write_text(f"sha256:{digest}\n")
    (output_base / "bin" / "recast.spdx.json").write_text("{}\n")
    return output_base / "bin"


def build_differently(checkout: Path, output_base: Path) -> Path:
    built = build(checkout, output_base)
    (built / "recast.json.sha256").write_text(f"sha256:{output_base.name}\n")
    return built


def test_a_release_holds_digests_sboms_provenance_notes_and_checksums(root: Path, tmp_path: Path) -> None:
    assert release.main([str(tmp_path / "out")], root, build) == 0
    sums = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in sums] == [
        "NOTES.md",
        "digests.txt",
        "provenance.intoto.json",
        "recast.spdx.json",
    ]
    for line in sums:
        digest, name = line.split()
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    statement = json.loads((tmp_path / "out" / "provenance.intoto.json").read_bytes())
    image = hashlib.sha256(CHANGELOG.encode()).hexdigest()
    assert statement["subject"] == [{"name": "recast", "digest": {"sha256": image}}]
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert materials[0]["digest"] == {"gitCommit": head.stdout.strip()}
    assert [material["uri"] for material in materials[1:]] == [
        "file:requirements/core.txt",
        "file:container/base/debian_root.lock",
    ]
    notes = (tmp_path / "out" / "NOTES.md").read_text()
    assert "- A thing." in notes
    assert "Old" not in notes


def test_builds_that_differ_are_no_release(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([str(tmp_path / "out")], root, build_differently) == 1
    assert "recast: sha256:one.out and sha256:two.out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n", "CHANGELOG.md has no section [1.2.3]"),
        ("reporting/version.py", "", "reporting/version.py has no VERSION"),
    ],
)
def test_what_a_release_needs_is_checked_before_a_build(
    root: Path, tmp_path: Path, name: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / name).write_text(text)
    assert release.main([str(tmp_path / "out")], root) == 1
    assert f"M {name}" in capsys.readouterr().err
    commit(root)
    assert release.main([str(tmp_path / "out")], root) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_is_there_is_not_written_over(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main([str(tmp_path)], root, build) == 1
    assert "is already there" in capsys.readouterr().err
