from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tools import release

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n\n### Added\n\n- A thing.\n\n## [1.2.2]\n\n- Old.\n"
)

BASE = "ab" * 32
MODULE = f"""module(
    name = "a",
    version = "1.2.3",
)
bazel_dep(name = "b", version = "9")
oci.pull(
    name = "base",
    digest = "sha256:{BASE}",
    image = "images.example.com/base",
)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a version, a changelog and locks, all committed."""
    files = {
        "reporting/version.py": 'VERSION = "1.2.3"\n',
        "MODULE.bazel": MODULE,
        ".bazelversion": "7.7.1\n",
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
    """Makes an image whose digest is that of the changelog, and an index with it."""
    built = output_base / "bin"
    built.mkdir(parents=True)
    digest = hashlib.sha256((checkout / "CHANGELOG.md").read_bytes()).hexdigest()
    (built / "recast.json.sha256").write_text(f"sha256:{digest}\n")
    entries = [{"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}]
    index = json.dumps({"manifests": entries}).encode()
    digest = hashlib.sha256(index).hexdigest()
    blobs = built / "recast_index" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest).write_bytes(index)
    (built / "recast_index.json.sha256").write_text(f"sha256:{digest}\n")
    (built / "recast.spdx.json").write_text("{}\n")
    return built


def build_differently(checkout: Path, output_base: Path) -> Path:
    built = build(checkout, output_base)
    (built / "recast.json.sha256").write_text(f"sha256:{output_base.name}\n")
    return built


def test_a_release_holds_digests_sboms_provenance_notes_and_checksums(root: Path, tmp_path: Path) -> None:
    assert release.main([f"--scratch={tmp_path}", str(tmp_path / "out")], root, build) == 0
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
    assert [subject["name"] for subject in statement["subject"]] == ["recast", "recast_index"]
    assert statement["subject"][0]["digest"] == {"sha256": image}
    index = statement["subject"][1]["digest"]["sha256"]
    assert f"sha256:{index}  recast_index\n" in (tmp_path / "out" / "digests.txt").read_text()
    notes = (tmp_path / "out" / "NOTES.md").read_text()
    assert "- A thing." in notes
    assert "Old" not in notes
    assert notes.endswith(f"- `recast` `sha256:{index}` (linux/amd64)\n")


@pytest.mark.parametrize(("rules", "base"), [("public", ["oci://images.example.com/base"]), ("airgap", [])])
def test_provenance_names_all_that_decides_about_the_bytes(
    root: Path, tmp_path: Path, rules: str, base: list[str]
) -> None:
    assert release.main([f"--rules={rules}", f"--scratch={tmp_path}", str(tmp_path / "out")], root, build) == 0
    statement = json.loads((tmp_path / "out" / "provenance.intoto.json").read_bytes())
    definition = statement["predicate"]["buildDefinition"]
    materials = definition["resolvedDependencies"]
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert materials[0]["digest"] == {"gitCommit": head.stdout.strip()}
    assert definition["externalParameters"]["source"] == materials[0]
    assert definition["externalParameters"]["rules"] == rules
    names = ["MODULE.bazel", ".bazelversion", "requirements/core.txt", "container/base/debian_root.lock"]
    assert [material["uri"] for material in materials[1:]] == [*base, *(f"file:{name}" for name in names)]
    pinned = {material["uri"]: material["digest"]["sha256"] for material in materials[1:]}
    for name in names:
        assert pinned[f"file:{name}"] == hashlib.sha256((root / name).read_bytes()).hexdigest()
    assert [pinned[name] for name in base] == [BASE] * len(base)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("linux/amd64,linux/arm64", "recast_index has no image for linux/arm64"),
        ("linux/amd64", ""),
    ],
)
def test_an_index_without_a_platform_is_no_release(
    root: Path, tmp_path: Path, wanted: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = release.main([f"--platforms={wanted}", f"--scratch={tmp_path}", str(tmp_path / "out")], root, build)
    assert code == int(bool(message))
    assert message in capsys.readouterr().err
    assert (tmp_path / "out").exists() == (not message)


def test_platforms_of_no_index_at_all_are_no_release(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_no_index(checkout: Path, output_base: Path) -> Path:
        built = build(checkout, output_base)
        (built / "recast_index.json.sha256").unlink()
        return built

    words = ["--platforms=linux/amd64", f"--scratch={tmp_path}", str(tmp_path / "out")]
    assert release.main(words, root, build_no_index) == 1
    assert "made no index of images" in capsys.readouterr().err


def test_builds_that_differ_are_no_release(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([f"--scratch={tmp_path}", str(tmp_path / "out")], root, build_differently) == 1
    assert "recast: sha256:one.out and sha256:two.out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "CHANGELOG.md",
            "# Changelog\n\n## [Unreleased]\n\n- A thing.\n\n## [1.2.30] - 2026-01-01\n\n- Other.\n",
            "CHANGELOG.md has no section [1.2.3]; rename [Unreleased] to `## [1.2.3] - YYYY-MM-DD`\n",
        ),
        ("CHANGELOG.md", "## [1.2.3]\n\n- A thing.\n", "CHANGELOG.md does not say when [1.2.3] is released"),
        ("CHANGELOG.md", "## [1.2.3] - 2026-01-01\n\n## [1.2.2]\n\n- Old.\n", "says nothing about [1.2.3]"),
        ("reporting/version.py", "", "reporting/version.py has no version"),
        ("MODULE.bazel", 'module(version = "1.2.4")\n', "MODULE.bazel says version 1.2.4"),
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
    said = capsys.readouterr().err
    assert said.startswith("tools/release.py: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_folder_that_is_there_is_not_written_over(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main([str(tmp_path)], root, build) == 1
    assert "is already there" in capsys.readouterr().err


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True)


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_nothing(checkout: Path, output_base: Path) -> Path:
        raise AssertionError("nothing is built")

    git(root, "tag", "v1.2.3")
    git(root, "remote", "add", "origin", "https://somebody:secret@git.example.com/recast.git")
    assert release.main(["--dry_run", "--tagged", str(tmp_path / "out")], root, build_nothing) == 0
    said = capsys.readouterr().out
    assert "version 1.2.3\n" in said
    assert "(v1.2.3)\nsource git+https://git.example.com/recast.git\n" in said
    assert "- A thing." in said
    assert "secret" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tags", "options", "message"),
    [
        (["v1.2.4"], [], "this commit has the tag v1.2.4, but its version is that of v1.2.3"),
        (["reviewed"], ["--tagged"], "this commit has no tag v1.2.3"),
        (["reviewed"], [], ""),
        (["v1.2.3", "v1"], ["--tagged"], ""),
    ],
)
def test_a_tag_must_be_that_of_the_version(
    root: Path, tmp_path: Path, tags: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in tags:
        git(root, "tag", tag)
    assert release.main(["--dry_run", *options, str(tmp_path / "out")], root) == int(bool(message))
    assert message in capsys.readouterr().err


def test_a_version_that_another_commit_had_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(root, "tag", "v1.2.3")
    (root / "more").touch()
    commit(root)
    assert release.main([f"--scratch={tmp_path}", str(tmp_path / "out")], root, build) == 1
    assert "v1.2.3 is the tag of another commit" in capsys.readouterr().err


def test_what_is_no_checkout_and_what_cannot_be_written_is_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    assert release.main([str(tmp_path / "out")], tmp_path / "plain", build) == 1
    assert "not a git repository" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert release.main([str(tmp_path / "file" / "out")], root, build) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_provenance_is_what_readers_of_in_toto_and_slsa_expect(root: Path, tmp_path: Path) -> None:
    builder, run = "https://ci.example.com/release", "https://ci.example.com/runs/7"
    words = [f"--builder_id={builder}", f"--invocation_id={run}", f"--scratch={tmp_path}", str(tmp_path / "out")]
    assert release.main(words, root, build) == 0
    statement = json.loads((tmp_path / "out" / "provenance.intoto.json").read_bytes())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    predicate = statement["predicate"]
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert set(predicate) == {"buildDefinition", "runDetails"}
    assert set(predicate["buildDefinition"]) == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    details = predicate["runDetails"]
    assert set(details) == {"builder", "metadata", "byproducts"}
    assert details["builder"] == {"id": builder, "version": {"bazel": "7.7.1"}}
    assert details["metadata"]["invocationId"] == run
    started, finished = (
        datetime.datetime.fromisoformat(details["metadata"][name]) for name in ("startedOn", "finishedOn")
    )
    assert started.tzinfo is not None
    assert started <= finished
    assert [entry["name"] for entry in details["byproducts"]] == ["recast.spdx.json"]
    materials = predicate["buildDefinition"]["resolvedDependencies"]
    for described in (*statement["subject"], *materials, *details["byproducts"]):
        assert described.get("uri") or described.get("name")
        for algorithm, digest in described["digest"].items():
            assert algorithm in ("gitCommit", "sha256")
            assert set(digest) <= set("0123456789abcdef")
            assert len(digest) == {"gitCommit": 40, "sha256": 64}[algorithm]


def test_the_builds_know_the_origin_of_the_checkout_without_its_secrets(root: Path, tmp_path: Path) -> None:
    seen = []

    def look(checkout: Path, output_base: Path) -> Path:
        seen.append(release.git(checkout, "config", "--get", "remote.origin.url"))
        return build(checkout, output_base)

    git(root, "remote", "add", "origin", "https://somebody:secret@git.example.com/recast.git")
    assert release.main([f"--scratch={tmp_path}", str(tmp_path / "out")], root, look) == 0
    assert seen == ["https://git.example.com/recast.git"] * 2
