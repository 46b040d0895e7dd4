"""The locks in requirements/ fit together."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
TOGETHER = [("core", "verify", "dev"), ("core", "verify_cpu", "dev")]
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;]+)(?: ; (.*?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


MACHINE = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def pins(lock: str) -> dict[str, str]:
    """The versions that a lock gives to one machine, by package."""
    found = PIN.findall((REQUIREMENTS / f"{lock}.txt").read_text())
    return {name: version for name, version, marker, _ in found if not marker or Marker(marker).evaluate(MACHINE)}


@pytest.mark.parametrize("lock", [path.stem for path in sorted(REQUIREMENTS.glob("*.txt"))])
def test_a_lock_holds_nothing_but_pins_with_hashes(lock: str) -> None:
    text = (REQUIREMENTS / f"{lock}.txt").read_text()
    rest = [line for line in PIN.sub("", text).splitlines() if not line.lstrip().startswith("#")]
    assert rest == []
    assert pins(lock)


@pytest.mark.parametrize("locks", TOGETHER)
def test_layers_of_one_environment_agree_on_versions(locks: tuple[str, ...]) -> None:
    versions = defaultdict(set)
    for lock in locks:
        for name, version in pins(lock).items():
            versions[name].add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_cpu_lock_differs_in_the_build_of_torch_only() -> None:
    public, cpu = pins("verify"), pins("verify_cpu")
    assert {name for name in cpu if cpu[name] != public.get(name)} == {"torch"}
    assert cpu["torch"] == public["torch"] + "+cpu"
    assert not [name for name in cpu if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("name", [path.stem for path in sorted(REQUIREMENTS.glob("*.in"))])
def test_a_lock_holds_the_versions_that_its_in_file_asks_for(name: str) -> None:
    asked = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", (REQUIREMENTS / f"{name}.in").read_text(), re.MULTILINE)
    locked = pins(name)
    for package, version in asked:
        assert locked[canonicalize_name(package)] == version
