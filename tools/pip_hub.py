"""Fills a Bazel repository with the packages of one hash-locked file: what the airgap's `pip.parse` runs.

    python3 tools/pip_hub.py LOCK [HUB=LOCK...]

It works in the current directory and needs the standard library and pip. Each package becomes a folder with its wheel's
files in site-packages/ and a BUILD.bazel with a py_library, under the label that the published rules give it. A package
that an earlier hub holds in the same version becomes an alias of that one. Of two locks NAME_cpu.txt and NAME.txt the
first is taken where pip finds what only it pins. pip takes its index, links and certificates from the machine's
configuration.
"""

from __future__ import annotations

import dataclasses
import email.parser
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

UNPACK = Path(__file__).resolve().parent / "unpack_wheel.py"
WHEELS = Path("wheels")
RULES = "@rules_python//python:py_library.bzl"


class HubError(Exception):
    """The hub cannot be filled; the text is for the user."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """One requirement of a lock.

    Attributes:
        requirement: name, version, extras and marker.
        text: its lines, with the hashes.
    """

    requirement: Requirement
    text: str

    @property
    def name(self) -> str:
        """The canonical name."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version, with what a local build adds."""
        return str(self.requirement.specifier)


def pins(lock: str) -> dict[str, Pin]:
    """What a lock pins for this machine, by canonical name.

    Args:
        lock: its text.
    """
    found = {}
    for text in re.findall(r"^[A-Za-z0-9][^\n]*\\\n(?:[ ]+--hash[^\n]*\n?)+", lock, re.MULTILINE):
        requirement = Requirement(text.partition(" \\\n")[0])
        if requirement.marker is None or requirement.marker.evaluate():
            pin = Pin(requirement, text if text.endswith("\n") else f"{text}\n")
            found[pin.name] = pin
    return found


def metadata(wheel: Path) -> tuple[str, list[Requirement]]:
    """The canonical name and the requirements of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        headers = email.parser.Parser().parsestr(archive.read(name).decode())
    return canonicalize_name(headers["Name"]), [Requirement(text) for text in headers.get_all("Requires-Dist") or []]


def dependencies(
    requires: Mapping[str, Sequence[Requirement]], pinned: Mapping[str, Pin]
) -> dict[str, tuple[str, ...]]:
    """What each package needs here, with the extras that the lock or another package asks for.

    Args:
        requires: the requirements of each wheel.
        pinned: the lock.
    """
    extras = {name: {"", *(pinned[name].requirement.extras if name in pinned else ())} for name in requires}

    def needed(name: str) -> Iterator[Requirement]:
        for requirement in requires[name]:
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras[name]):
                yield requirement

    changed = True
    while changed:  # an extra may bring another one
        changed = False
        for requirement in [requirement for name in requires for requirement in needed(name)]:
            wanted = extras.get(canonicalize_name(requirement.name))
            if wanted is not None and not requirement.extras <= wanted:
                wanted |= requirement.extras
                changed = True
    return {
        name: tuple(sorted({str(canonicalize_name(requirement.name)) for requirement in needed(name)} - {name}))
        for name in requires
    }


def _label_name(name: str) -> str:
    return name.replace("-", "_")


def build_file(name: str, deps: Sequence[str]) -> str:
    """The BUILD.bazel of a package whose files are here.

    The files are one input, a folder: a test of what needs torch would else have tens of thousands.

    Args:
        name: its canonical name.
        deps: labels.
    """
    shown = "".join(f'        "{dep}",\n' for dep in deps)
    return f"""\
load("{RULES}", "py_library")

package(default_visibility = ["//visibility:public"])

py_library(
    name = "{_label_name(name)}",
    data = ["site-packages"],
    imports = ["site-packages"],
    deps = [
{shown}    ],
)
"""


def alias_file(name: str, hub: str) -> str:
    """The BUILD.bazel of a package that an earlier hub holds."""
    label = f"@{hub}//{_label_name(name)}"
    return f"""\
alias(
    name = "{_label_name(name)}",
    actual = "{label}",
    visibility = ["//visibility:public"],
)
"""


def download(chosen: Sequence[Pin]) -> bool:
    """Downloads wheels, checked against their hashes.

    Returns:
        Whether pip found them all.
    """
    WHEELS.mkdir(exist_ok=True)
    lines = WHEELS / "requirements.txt"
    lines.write_text("".join(pin.text for pin in chosen))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", "download"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--dest={WHEELS}", f"--requirement={lines}"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def choose(lock: Path) -> dict[str, Pin]:
    """The pins of the lock, or of its variant for machines without accelerators if pip finds what only that pins."""
    general = pins(lock.read_text("utf-8"))
    special = lock.with_name(f"{lock.stem}_cpu.txt")
    if not special.exists():
        return general
    pinned = pins(special.read_text("utf-8"))
    only = [pin for pin in pinned.values() if pin.name in general and pin.version != general[pin.name].version]
    return pinned if download(only) else general


def fill(lock: Path, earlier: Mapping[str, Path]) -> None:
    """Fills the current directory.

    Args:
        lock: the locked file.
        earlier: the locks of the hubs that come before, by hub.

    Raises:
        HubError: pip failed, or a wheel needs what no lock holds.
    """
    pinned = choose(lock)
    elsewhere: dict[str, str] = {}
    for hub, other in earlier.items():
        for name, pin in pins(other.read_text("utf-8")).items():
            elsewhere.setdefault(name, hub)
            if name in pinned and pinned[name].version == pin.version:
                del pinned[name]
                _write(name, alias_file(name, hub))
    if not download(list(pinned.values())):
        raise HubError(f"pip could not download what {lock.name} pins")
    wheels = sorted(WHEELS.glob("*.whl"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for problem in pool.map(_unpack, wheels):
            if problem:
                raise HubError(problem)
    requires = dict(metadata(wheel) for wheel in wheels)
    for name, needed in dependencies(requires, pinned).items():
        deps = []
        for dep in needed:
            if dep not in requires and dep not in elsewhere:
                raise HubError(f"{name} needs {dep}, which neither {lock.name} nor an earlier lock holds")
            deps.append(f"//{_label_name(dep)}" if dep in requires else f"@{elsewhere[dep]}//{_label_name(dep)}")
        _write(name, build_file(name, deps))
    for path in (*wheels, WHEELS / "requirements.txt"):
        path.unlink()
    WHEELS.rmdir()


def _unpack(wheel: Path) -> str:
    """Unpacks a wheel in a process of its own, so that what is compiled depends on that wheel alone."""
    name, _ = metadata(wheel)
    command = [sys.executable, "-s", str(UNPACK), str(wheel), f"{_label_name(name)}/site-packages"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return f"{wheel.name}: {ended.stderr}" if ended.returncode else ""


def _write(name: str, text: str) -> None:
    folder = Path(_label_name(name))
    folder.mkdir(exist_ok=True)
    (folder / "BUILD.bazel").write_text(text, "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Fills the current directory.

    Returns:
        0; 1 if that failed.
    """
    lock, *earlier = arguments
    try:
        fill(Path(lock), {hub: Path(other) for hub, _, other in (text.partition("=") for text in earlier)})
    except HubError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
