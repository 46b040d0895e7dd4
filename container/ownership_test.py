from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from container import ownership


@pytest.mark.parametrize(
    ("line", "directories"),
    [
        ("hf-to-maxtext --base_output_directory=/a/b --hf_model_path=/m", ["/a/b"]),
        ("hf-to-maxtext base_output_directory=/a model_name=x", ["/a"]),
        ("prepare-ckpt --model m --output_checkpoint_path /data/out --server embedded", ["/data/out"]),
        ("hf-to-maxtext --report_directory=/r --base-output-directory=/a", ["/a", "/r"]),
        ("convert /from /to --to=hf", ["/to"]),
        ("verify /from /to", []),
        ("hf-to-maxtext --base_output_directory", []),
        ("", []),
    ],
)
def test_the_place_of_the_output_is_seen_in_the_command_line(line: str, directories: list[str]) -> None:
    assert ownership.outputs(line.split()) == directories


def test_the_owner_is_that_of_the_nearest_parent_that_exists(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", os.geteuid(), os.getegid())
    assert ownership.owner([str(tmp_path / "mine" / "a" / "b")]) == (os.geteuid(), os.getegid())
    assert ownership.owner(["gs://bucket/a", str(tmp_path)]) == (os.geteuid(), tmp_path.stat().st_gid)
    assert ownership.owner(["gs://bucket/a"]) is None


PROGRAM = """
import os, sys
from container import ownership
ownership.drop(sys.argv[1:])
print(os.getuid(), os.getgid(), os.getgroups())
"""


def test_root_becomes_that_owner(tmp_path: Path) -> None:
    try:
        os.chown(tmp_path, 1000, 1001)
    except OSError:
        pytest.skip("needs a root that may give files away")
    command = [sys.executable, "-c", PROGRAM, "hf-to-maxtext", f"--base_output_directory={tmp_path}/new"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1000 1001 []"
