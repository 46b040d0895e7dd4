from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from container import layer


def make(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def members(tar: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(tar) as opened:
        return {member.name: member for member in opened.getmembers()}


def test_the_bytes_depend_on_names_and_contents_alone(tmp_path: Path) -> None:
    files = {"b.py": b"names = {'x', 'y', 'z'}\n", "a/data": b"1", "a/run": b"#!/bin/sh\n"}
    results = []
    for number, order in enumerate((files, dict(reversed(files.items())))):
        root = make(tmp_path / str(number), order)
        for path in root.rglob("*"):
            path.chmod(0o755)
            os.utime(path, (number, number))
        parameters = tmp_path / f"{number}.params"
        output = tmp_path / f"{number}.tar.gz"
        parameters.write_text(f"{output}\n" + "".join(f"app/{name}\t{root / name}\n" for name in order))
        environment = os.environ | {"PYTHONHASHSEED": str(number + 1)}
        subprocess.run([sys.executable, layer.__file__, f"@{parameters}"], env=environment, check=True)
        results.append(output.read_bytes())
    assert results[0] == results[1]
    found = members(tmp_path / "0.tar.gz")
    assert list(found) == sorted(found)
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, 0, "")}
    assert {name: member.mode for name, member in found.items() if member.isfile()} == {
        f"app/__pycache__/b.{sys.implementation.cache_tag}.pyc": 0o644,
        "app/a/data": 0o644,
        "app/a/run": 0o755,
        "app/b.py": 0o644,
    }


def test_a_module_runs_as_it_was_compiled_without_its_cache_being_written(tmp_path: Path) -> None:
    root = make(tmp_path / "src", {"m.py": b"import sys\nprint(__cached__)\n", "template.py": b"{{ no python }}\n"})
    layer.write(tmp_path / "l.tar.gz", layer.read([f"app\t{root}"]))
    with tarfile.open(tmp_path / "l.tar.gz") as tar:
        tar.extractall(tmp_path / "out")
    os.utime(tmp_path / "out" / "app" / "m.py", (5, 5))
    (cached,) = (tmp_path / "out" / "app" / "__pycache__").iterdir()
    before = cached.read_bytes()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "out" / "app")}
    said = subprocess.run([sys.executable, "-m", "m"], env=environment, capture_output=True, check=True)
    assert said.stdout.decode().strip() == str(cached)
    assert cached.read_bytes() == before


def test_one_name_may_come_twice_if_it_is_the_same(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", {"n": b"1", "m": b""}), make(tmp_path / "two", {"n": b"1"})
    assert set(layer.read([f"a\t{one}", f"a\t{two}"])) == {"a/n", "a/m"}
    (two / "n").write_bytes(b"2")
    with pytest.raises(layer.LayerError, match=r"a/n is in two packages: .*one/n and .*two/n"):
        layer.read([f"a\t{one}", f"a\t{two}"])


def test_files_and_names_may_be_left_out(tmp_path: Path) -> None:
    root = make(tmp_path, {"in/a": b"", "in/test/b": b"", "in/tests": b"", "out/c": b""})
    listed = [f"x\t{root / 'in'}", f"x\t{root / 'out'}", f"-\t{root / 'out'}", "!\tx/test"]
    assert set(layer.read(listed)) == {"x/a", "x/tests"}


def test_what_is_unpacked_has_no_time_in_its_header(tmp_path: Path) -> None:
    layer.write(tmp_path / "l.tar.gz", {})
    assert (tmp_path / "l.tar.gz").read_bytes()[4:8] == bytes(4)
    assert gzip.decompress((tmp_path / "l.tar.gz").read_bytes()).strip(b"\0") == b""
