"""Makes a release of the committed files: python3 tools/release.py [--dry_run] FOLDER.

All images are built twice, from two clones with two output bases, and nothing is released if a digest differs. FOLDER
gets the digests, an SBOM of each image, the provenance of all, the notes and the checksums of these files. Images are
pushed afterwards, by `tools/bazel run --config=release //container:NAME_push`. Needs the standard library and git.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TARGETS = "//container:all"
DIGEST = ".json.sha256"
INDEX = "_index"
SBOM = ".spdx.json"
BUILDER = "file:tools/release.py"
RULES = ("public", "airgap")
"""Where the rules come from, as tools/bazel takes them: the public registry, or the repository itself."""

Builder = Callable[[Path, Path], Path]
"""Builds the images of a checkout with an output base; gives the folder with images, digests and SBOMs."""


class ReleaseError(Exception):
    """There can be no release; the text is for the user."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What is released.

    Attributes:
        root: the checkout.
        revision: its commit.
        version: of the project.
        tagged: whether the commit has the version's tag.
        origin: where the files come from, as provenance names it.
        rules: by which rules images are built, one of RULES.
    """

    root: Path
    revision: str
    version: str
    tagged: bool = False
    origin: str = "git+file:."
    rules: str = RULES[0]


@dataclasses.dataclass(frozen=True)
class Run:
    """The builds of a release.

    Attributes:
        builder: a URI that says who built.
        id: what the builder calls this run; "" where it has no name.
        started: when, as RFC 3339 writes it.
        finished: when.
    """

    builder: str
    id: str
    started: str
    finished: str


def git(root: Path, *words: str) -> str:
    """What a git command prints.

    Raises:
        ReleaseError: it failed.
    """
    try:
        ended = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ReleaseError("git is needed; install it") from error
    if ended.returncode != 0:
        raise ReleaseError(f"git {words[0]}: {ended.stderr.strip()}")
    return ended.stdout.strip()


def source(root: Path, rules: str = RULES[0]) -> Source:
    """What a checkout would release.

    Args:
        root: the checkout.
        rules: by which rules images are built, one of RULES.

    Raises:
        ReleaseError: it has changes that are in no commit, its version is not the same everywhere, or its tags say
            something else.
    """
    changed = git(root, "status", "--porcelain")
    if changed:
        raise ReleaseError(f"commit or remove these changes first:\n{changed}")
    version = _found(root, "reporting/version.py", r'^VERSION = "([^"]+)"')
    module = _found(root, "MODULE.bazel", r'^module\([^)]*\bversion = "([^"]+)"')
    if module != version:
        raise ReleaseError(f"MODULE.bazel says version {module}, and reporting/version.py {version}")
    revision = git(root, "rev-parse", "HEAD")
    return Source(root, revision, version, _tagged(root, revision, f"v{version}"), _origin(root), rules)


def _found(root: Path, name: str, pattern: str) -> str:
    path = root / name
    found = re.search(pattern, path.read_text("utf-8") if path.is_file() else "", re.MULTILINE)
    if found is None:
        raise ReleaseError(f"{name} has no version")
    return found.group(1)


def _tagged(root: Path, revision: str, tag: str) -> bool:
    """Whether the commit has its version's tag, where neither it nor the tag says anything else.

    Raises:
        ReleaseError: the commit has the tag of another version, or another commit has this one's.
    """
    here = [name for name in git(root, "tag", "--points-at", revision).splitlines() if re.match(r"v\d", name)]
    if here and tag not in here:
        raise ReleaseError(f"this commit has the tag {' and '.join(here)}, but its version is that of {tag}")
    if not here and git(root, "tag", "--list", tag):
        raise ReleaseError(f"{tag} is the tag of another commit; raise the version, or check that commit out")
    return tag in here


def _origin(root: Path) -> str:
    """The public address of the repository, without a user's name or a token, which it may hold."""
    remotes = git(root, "config", "--get", "--default", "", "remote.origin.url")
    found = re.fullmatch(r"https://(?:[^/@]*@)?([^?#\s]+)", remotes)
    return f"git+https://{found.group(1)}" if found else "git+file:."


def notes(changelog: str, version: str) -> str:
    """The part of the changelog about a version.

    Raises:
        ReleaseError: there is none, or it has no date or says nothing.
    """
    heading = rf"^## \[{re.escape(version)}\]([^\n]*)\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    wanted = f"## [{version}] - YYYY-MM-DD"
    if found is None:
        raise ReleaseError(f"CHANGELOG.md has no section [{version}]; rename [Unreleased] to `{wanted}`")
    if not re.fullmatch(r" - \d{4}-\d\d-\d\d", found.group(1)):
        raise ReleaseError(f"CHANGELOG.md does not say when [{version}] is released; its heading must be `{wanted}`")
    if not found.group(2).strip():
        raise ReleaseError(
            f"CHANGELOG.md says nothing about [{version}]; move what [Unreleased] lists below its heading"
        )
    return found.group(2).strip() + "\n"


def bazel(rules: str) -> Builder:
    """Builds with Bazel by these rules; the builder raises ReleaseError for a build that fails."""

    def build(checkout: Path, output_base: Path) -> Path:
        command = [str(checkout / "tools" / "bazel"), f"--output_base={output_base}"]
        variables = os.environ | {"RECAST_BAZEL_CONFIG": rules}
        build = [*command, "build", "--config=release", TARGETS]
        ended = subprocess.run(build, cwd=checkout, env=variables, check=False)
        subprocess.run([*command, "shutdown"], cwd=checkout, env=variables, check=False)
        if ended.returncode != 0:
            raise ReleaseError(f"the build in {checkout} failed")
        return checkout / "bazel-bin" / "container"

    return build


def digests(built: Path) -> dict[str, str]:
    """The digest of each image's manifest, by the image's name."""
    files = sorted(built.glob(f"*{DIGEST}"))
    return {path.name.removesuffix(DIGEST): path.read_text("utf-8").strip() for path in files}


def platforms(built: Path) -> dict[str, list[str]]:
    """The platforms that each index has an image for (linux/amd64), by the index's name."""
    found = {}
    for path in sorted(built.glob(f"*{INDEX}{DIGEST}")):
        name = path.name.removesuffix(DIGEST)
        blob = built / name / "blobs" / path.read_text("utf-8").strip().replace(":", "/")
        entries = json.loads(blob.read_bytes())["manifests"]
        found[name] = sorted(f"{entry['platform']['os']}/{entry['platform']['architecture']}" for entry in entries)
    return found


def check_platforms(found: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> None:
    """Refuses indexes that lack a platform.

    Raises:
        ReleaseError: one does, or there is no index where platforms are wanted.
    """
    lacking = {name: sorted(set(wanted) - set(has)) for name, has in found.items()}
    said = [f"{name} has no image for {', '.join(lacks)}" for name, lacks in lacking.items() if lacks]
    if wanted and not found:
        said = [f"{TARGETS} made no index of images"]
    if said:
        raise ReleaseError("; ".join(said))


def build_twice(released: Source, scratch: Path, build: Builder) -> Path:
    """Builds in two clones.

    Args:
        released: what is released.
        scratch: an empty folder.
        build: how.

    Returns:
        The folder that the first build made.

    Raises:
        ReleaseError: the builds differ, or made no image.
    """
    results = []
    for name in ("one", "two"):
        clone = scratch / name
        git(released.root, "clone", "--quiet", "--no-hardlinks", str(released.root), str(clone))
        git(clone, "checkout", "--quiet", "--detach", released.revision)
        # Images say where their files come from: what the checkout says, not the checkout itself.
        git(clone, "remote", "set-url", "origin", released.origin.removeprefix("git+"))
        results.append(build(clone, scratch / f"{name}.out"))
    first, second = map(digests, results)
    if not first:
        raise ReleaseError(f"{TARGETS} made no image")
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    if differing:
        shown = "".join(f"\n  {name}: {first.get(name)} and {second.get(name)}" for name in differing)
        raise ReleaseError(f"two builds of {released.revision} differ:{shown}")
    return results[0]


def provenance(released: Source, built: Path, run: Run) -> dict[str, Any]:
    """An in-toto statement of what the images were made from.

    Args:
        released: what is released.
        built: the folder with images, digests and SBOMs.
        run: the builds.
    """
    metadata = {"startedOn": run.started, "finishedOn": run.finished}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
            for name, digest in digests(built).items()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://bazel.build/",
                "externalParameters": {
                    "config": "release",
                    "rules": released.rules,
                    "source": {"uri": released.origin, "digest": {"gitCommit": released.revision}},
                    "targets": [TARGETS],
                    "version": released.version,
                },
                "internalParameters": {"builds": 2, "identical": True},
                "resolvedDependencies": _materials(released),
            },
            "runDetails": {
                "builder": {"id": run.builder, "version": {"bazel": _bazel_version(released.root)}},
                "metadata": metadata | ({"invocationId": run.id} if run.id else {}),
                "byproducts": [
                    {"name": path.name, "digest": {"sha256": _sha256(path)}, "mediaType": "application/spdx+json"}
                    for path in sorted(built.glob(f"*{SBOM}"))
                ],
            },
        },
    }


def _materials(released: Source) -> list[dict[str, Any]]:
    """What a build is made from: the commit, the base of the images, and the files that pin all else by digests."""
    found: list[dict[str, Any]] = [{"uri": released.origin, "digest": {"gitCommit": released.revision}}]
    module = released.root / "MODULE.bazel"
    pulled = re.search(r'digest = "sha256:([0-9a-f]{64})",\s+image = "([^"]+)"', module.read_text("utf-8"))
    if released.rules == "public" and pulled:
        found.append({"uri": f"oci://{pulled.group(2)}", "digest": {"sha256": pulled.group(1)}})
    pinning = [module, released.root / ".bazelversion", *sorted((released.root / "requirements").glob("*.txt"))]
    pinning += sorted((released.root / "container").rglob("*.lock"))
    for path in pinning:
        name = path.relative_to(released.root).as_posix()
        found.append({"uri": f"file:{name}", "digest": {"sha256": _sha256(path)}})
    return found


def _bazel_version(root: Path) -> str:
    return (root / ".bazelversion").read_text("utf-8").strip()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(released: Source, built: Path, target: Path, run: Run) -> None:
    """Writes what is released, the checksums last."""
    images, indexed = digests(built), platforms(built)
    target.mkdir(parents=True)
    (target / "digests.txt").write_text("".join(f"{digest}  {name}\n" for name, digest in images.items()))
    for path in sorted(built.glob(f"*{SBOM}")):
        shutil.copyfile(path, target / path.name)
    statement = json.dumps(provenance(released, built, run), indent=1, sort_keys=True)
    (target / "provenance.intoto.json").write_text(f"{statement}\n")
    changes = notes((released.root / "CHANGELOG.md").read_text("utf-8"), released.version)
    listed = "".join(
        f"- `{name.removesuffix(INDEX)}` `{images[name]}` ({', '.join(has)})\n" for name, has in indexed.items()
    )
    (target / "NOTES.md").write_text(f"# Recast {released.version}\n\n{changes}\n### Images\n\n{listed}")
    sums = [f"{_sha256(path)}  {path.name}\n" for path in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(sums))


def main(arguments: Sequence[str], root: Path | None = None, build: Builder | None = None) -> int:
    """Makes a release.

    Returns:
        0; 1 if there can be none.
    """
    parser = argparse.ArgumentParser(description="Builds all images twice and writes what a release consists of.")
    parser.add_argument("folder", type=Path, help="a new folder for digests, SBOMs, provenance, notes and checksums")
    parser.add_argument(
        "--dry_run", action="store_true", help="check everything, say what would be made, build nothing"
    )
    parser.add_argument("--tagged", action="store_true", help="refuse a commit without the version's tag")
    parser.add_argument("--builder_id", default=BUILDER, help="the URI of who builds, for the provenance")
    parser.add_argument("--invocation_id", default="", help="what the builder calls this run, for the provenance")
    parser.add_argument(
        "--rules", choices=RULES, default=RULES[0], help="build by the published rules or by the repository's own"
    )
    parser.add_argument(
        "--platforms",
        type=lambda text: text.split(","),
        default=[],
        help="refuse an image index that lacks one of these: linux/amd64,linux/arm64",
    )
    parser.add_argument("--scratch", default="/var/tmp", help="where clones and output bases go: 15 GB; not /tmp")
    options = parser.parse_args(arguments)
    try:
        released = source(root or Path(__file__).resolve().parent.parent, options.rules)
        changes = notes((released.root / "CHANGELOG.md").read_text("utf-8"), released.version)
        if options.tagged and not released.tagged:
            raise ReleaseError(f"this commit has no tag v{released.version}")
        _check_folder(options.folder)
        if options.dry_run:
            print(_announcement(released, changes, options.folder), end="")
            return 0
        with tempfile.TemporaryDirectory(dir=options.scratch, prefix="recast-release-") as scratch:
            started = _now()
            built = build_twice(released, Path(scratch), build or bazel(options.rules))
            check_platforms(platforms(built), options.platforms)
            run = Run(options.builder_id, options.invocation_id, started, _now())
            write(released, built, options.folder, run)
    except ReleaseError as error:
        print(f"tools/release.py: {error}", file=sys.stderr)
        return 1
    print((options.folder / "digests.txt").read_text(), end="")
    return 0


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _check_folder(folder: Path) -> None:
    if folder.exists():
        raise ReleaseError(f"{folder} is already there")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ReleaseError(f"{folder} cannot be made: {parent} cannot be written to")


def _announcement(released: Source, changes: str, folder: Path) -> str:
    tag = f"v{released.version}" if released.tagged else "no tag yet"
    return (
        f"version {released.version}\nrevision {released.revision} ({tag})\nsource {released.origin}\n"
        f"would build {TARGETS} twice by the {released.rules} rules and write {folder}: digests.txt, "
        f"NAME{SBOM} of each image, provenance.intoto.json, NOTES.md, SHA256SUMS\n\n{changes}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
