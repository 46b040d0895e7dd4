from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tools.build_files_scan import scan


@pytest.mark.parametrize(
    ("expression", "path"),
    [
        ("Path(__file__)", "a/b/c.py"),
        ("pathlib.Path(__file__).resolve().parent", "a/b"),
        ("Path(__file__).parents[1] / 'x' / 'y'", "a/x/y"),
        ("Path(__file__).parent.joinpath(name)", "a/b"),
        ("Path(__file__).parent / name / 'z'", "a/b"),
        ("Path(__file__).parents[9]", "a/b/c.py"),
        ("Path('/tmp') / 'x'", None),
    ],
)
def test_a_path_is_followed_as_far_as_it_is_constant(expression: str, path: str | None) -> None:
    found = scan(f"def f(name):\n    return {expression}\n", PurePosixPath("a/b/c.py")).paths
    assert found == ({PurePosixPath(path)} if path else set())
