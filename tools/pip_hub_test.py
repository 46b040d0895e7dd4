from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import pip_hub, unpack_wheel

MARKED = """\
# made by a tool
alpha==1.0 ; python_full_version >= '3.11' \\
    --hash=sha256:00 \\
    --hash=sha256:01
    # via beta
beta[fast]==2.0 \\
    --hash=sha256:02
gamma==3 ; sys_platform == 'nowhere' \\
    --hash=sha256:03
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose pip finds packages in a folder and nowhere else, with an empty repository to fill."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    for folder in ("index", "locks", "repository"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path


def wheel(machine: Path, name: str, version: str, *requires: str, **files: str) -> str:
    """Puts a wheel into the index, and gives the line that locks it."""
    path = machine / "index" / f"{name}-{version}-py3-none-any.whl"
    headers = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {text}" for text in requires)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "Metadata-Version: 2.1\n" + "\n".join(headers) + "\n")
        archive.writestr(
            f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-{version}.dist-info/RECORD", "")
        for file, text in (files or {f"{name}.py": f"version = {version!r}\n"}).items():
            archive.writestr(file, text)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def lock(machine: Path, name: str, *lines: str) -> Path:
    path = machine / "locks" / f"{name}.txt"
    path.write_text("".join(lines))
    return path


def deps(package: str) -> list[str]:
    return re.findall(r"^        \"([^\"]+)\"", Path(package, "BUILD.bazel").read_text(), re.MULTILINE)


def test_a_lock_is_read_for_this_machine() -> None:
    found = pip_hub.pins(MARKED)
    assert list(found) == ["alpha", "beta"]
    assert found["beta"].requirement.extras == {"fast"}
    assert found["alpha"].text.count("--hash") == 2


def test_each_package_becomes_a_folder_with_what_it_needs(machine: Path) -> None:
    lines = [
        wheel(machine, "top", "1", "under-score>=1", "nothing; sys_platform == 'nowhere'"),
        wheel(machine, "under_score", "1"),
    ]
    assert pip_hub.main([str(lock(machine, "core", *lines))]) == 0
    assert deps("top") == ["//under_score"]
    assert deps("under_score") == []
    assert Path("top/site-packages/top.py").exists()
    assert not Path("wheels").exists()
    build = Path("under_score/BUILD.bazel").read_text()
    assert 'name = "under_score"' in build
    assert 'imports = ["site-packages"]' in build


def test_an_extra_brings_what_it_needs_and_its_own_extras(machine: Path) -> None:
    lines = [
        wheel(machine, "top", "1", "middle[more]"),
        wheel(machine, "middle", "1", "low; extra == 'more'", "high; extra == 'other'"),
        wheel(machine, "low", "1"),
    ]
    assert pip_hub.main([str(lock(machine, "core", *lines))]) == 0
    assert deps("middle") == ["//low"]


def test_a_package_of_an_earlier_hub_is_that_one_in_the_same_version_only(machine: Path) -> None:
    one, two = wheel(machine, "both", "1"), wheel(machine, "both", "2")
    top, base = wheel(machine, "top", "1", "both", "base"), wheel(machine, "base", "1")
    core = lock(machine, "core", one, base)
    assert pip_hub.main([str(lock(machine, "dev", top, one)), f"core_hub={core}"]) == 0
    assert 'actual = "@core_hub//both"' in Path("both/BUILD.bazel").read_text()
    assert deps("top") == ["@core_hub//base", "@core_hub//both"]
    assert pip_hub.main([str(lock(machine, "other", top, two)), f"core_hub={core}"]) == 0
    assert Path("both/site-packages/both.py").read_text() == "version = '2'\n"
    assert deps("top") == ["@core_hub//base", "//both"]


def test_the_wheel_for_machines_without_accelerators_is_preferred(machine: Path) -> None:
    torch = wheel(machine, "torch", "2.1")
    cpu = "torch==2.1+cpu \\\n    --hash=sha256:" + "0" * 64 + "\n"
    both = lock(machine, "verify", torch)
    lock(machine, "verify_cpu", cpu)
    assert pip_hub.main([str(both)]) == 0
    assert Path("torch/site-packages/torch.py").read_text() == "version = '2.1'\n"
    lock(machine, "verify_cpu", wheel(machine, "torch", "2.1+cpu"))
    assert pip_hub.main([str(both)]) == 0
    assert Path("torch/site-packages/torch.py").read_text() == "version = '2.1+cpu'\n"


def test_a_wheel_with_another_hash_is_refused(machine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = wheel(machine, "top", "1")
    wheel(machine, "top", "1", **{"top.py": "changed = True\n"})
    assert pip_hub.main([str(lock(machine, "core", line))]) == 1
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


def test_a_need_that_no_lock_holds_is_named(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pip_hub.main([str(lock(machine, "core", wheel(machine, "top", "1", "absent")))]) == 1
    assert capsys.readouterr().err == "top needs absent, which neither core.txt nor an earlier lock holds\n"


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ("a/b.py", "a/b.py"),
        ("a/", None),
        ("a/BUILD", None),
        ("a-1.data/purelib/a/c.py", "a/c.py"),
        ("a-1.data/scripts/run", None),
        ("a-1.data/purelib", None),
    ],
)
def test_an_entry_of_a_wheel_has_one_place(entry: str, path: str | None) -> None:
    place = unpack_wheel.place(entry)
    assert (place and str(place)) == path


def test_what_is_compiled_has_the_same_bytes_wherever_it_is_unpacked(machine: Path) -> None:
    text = "names = {'b', 'a', 'c'}\ndef f(x): return x in {'one', 'two', 'three'}\n"
    wheel(machine, "top", "1", **{"top/__init__.py": text, "top/template.py": "{{ no python }}\n"})
    found = []
    for seed in ("1", "2"):
        folder = machine / seed
        program = [sys.executable, "-s", str(pip_hub.UNPACK), str(machine / "index" / "top-1-py3-none-any.whl")]
        subprocess.run([*program, str(folder)], env=os.environ | {"PYTHONHASHSEED": "0"}, check=True)
        found.append({path.name: path.read_bytes() for path in sorted(folder.rglob("*.pyc"))})
    assert found[0] == found[1]
    assert [name.partition(".")[0] for name in found[0]] == ["__init__"]
