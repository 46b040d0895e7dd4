from __future__ import annotations

from pathlib import Path

import pytest

from tools import pytest_main


@pytest.mark.parametrize(
    "place", ["x~recast_transformers4_pip/{}/site-packages", "recast_transformers4_pip_311_{}/site-packages"]
)
def test_the_packages_of_transformers_4_are_merged_however_they_are_stored(tmp_path: Path, place: str) -> None:
    for name in ("transformers", "tokenizers"):
        folder = tmp_path / "runfiles" / place.format(name) / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(name)
    (tmp_path / "runfiles" / "recast_pip" / "numpy" / "site-packages" / "numpy").mkdir(parents=True)
    target = pytest_main.merged(tmp_path / "runfiles", tmp_path / "merged")
    assert target is not None
    assert {path.name: (path / "__init__.py").read_text() for path in target.iterdir()} == {
        "transformers": "transformers",
        "tokenizers": "tokenizers",
    }


def test_a_test_without_those_packages_gets_none(tmp_path: Path) -> None:
    assert pytest_main.merged(tmp_path, tmp_path / "merged") is None
