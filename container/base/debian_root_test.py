from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from container.base import debian_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root as packages leave it."""
    files = {
        "bin/bash": "",
        "usr/bin/perl": "",
        "usr/bin/python3.11": "",
        "usr/lib/python3.11/os.py": "x = 1\n",
        "usr/lib/python3.11/test/support.py": "",
        "usr/share/ca-certificates/mozilla/B.crt": "b\n",
        "usr/share/ca-certificates/mozilla/A.crt": "a\n",
        "usr/share/doc/zlib1g/changelog": "",
        "usr/share/doc/zlib1g/copyright": "",
        "usr/share/man/man1/x.1": "",
        "var/cache/apt/a.deb": "",
    }
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    (tmp_path / "root" / "etc").mkdir()
    return tmp_path / "root"


def test_a_root_holds_an_interpreter_and_no_shell(root: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        debian_root.remove(root)
        debian_root.make_users(root)
        if number == 1:
            debian_root.make_certificates(root)
        debian_root.make_python(root)
        debian_root.make_folders(root)
        debian_root.write(root, tmp_path / f"{number}.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert [name for name in members if name.startswith(("bin/", "usr/bin/"))] == [
        "usr/bin/python3",
        "usr/bin/python3.11",
    ]
    assert members["usr/bin/python3"].linkname == "python3.11"
    assert {name for name in members if "doc/" in name} == {"usr/share/doc/zlib1g", "usr/share/doc/zlib1g/copyright"}
    assert members["tmp"].mode == 0o1777
    assert "usr/lib/python3.11/__pycache__/os.cpython-311.pyc" in members or len(list(root.rglob("*.pyc"))) == 1
    assert not {"usr/share/man", "usr/lib/python3.11/test", "var/cache"} & members.keys()
    assert {(member.mtime, member.uid, member.gid) for member in members.values()} == {(0, 0, 0)}


def test_users_and_certificates_are_what_the_packages_would_have_made(root: Path) -> None:
    debian_root.make_users(root)
    debian_root.make_certificates(root)
    assert "nonroot:x:65532:65532:" in (root / "etc/passwd").read_text()
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text() == "a\nb\n"
