"""Small repositories for the tests of build_files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tools import build_files

LAYERS = {
    "core": "# What all need.\nabsl-py==2\nnumpy==2\nopencv-python-headless==5\nprotobuf==7\n",
    "verify": "-r core.in\nOrbax_Checkpoint\ntorch==2\n",
    "dev": "pytest\nhypothesis<7\n",
}

Make = Callable[[Mapping[str, str]], Path]


def make_repository(root: Path, files: Mapping[str, str]) -> Path:
    """Makes a repository of files, by path; each folder with Python files, and each above, becomes a package."""
    for name, text in {**{f"requirements/{layer}.in": text for layer, text in LAYERS.items()}, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.suffix == ".py":
            for folder in path.relative_to(root).parents[:-1]:
                (root / folder / "__init__.py").touch()
    return root


def rule(root: Path, package: str, name: str) -> str:
    """The statement of a derived file that has a name."""
    statements = build_files.derive(root).files[f"{package}/BUILD.bazel"].split("\n\n")
    return next(statement.strip() for statement in statements if f'name = "{name}"' in statement)


def faults(root: Path) -> tuple[str, ...]:
    """What is wrong in a repository."""
    return build_files.derive(root).faults
