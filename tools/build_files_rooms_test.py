from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tools import build_files
from tools.build_files_testing import Make, faults, make_repository, rule


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return functools.partial(make_repository, tmp_path)


def test_a_mapping_that_imports_a_converter_goes_against_an_arrow(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make({"mappings/table.py": "from converters.pair import go\n", "converters/pair.py": "go = 1\n"})
    assert build_files.main(["--write"], root) == 1
    assert capsys.readouterr().out == (
        "mappings.table imports converters.pair, but mappings may use proto, and not converters\n"
    )


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("mappings", "reporting"),
        ("mappings", "validators"),
        ("reporting", "mappings"),
        ("reporting", "converters/formats"),
        ("converters/formats", "mappings/language"),
        ("converters/formats", "converters/engine"),
        ("converters/engine", "converters"),
        ("converters/engine", "converters/cli"),
        ("validators", "converters/engine"),
        ("converters", "container"),
        ("converters", "tests"),
        ("converters", "tools"),
    ],
)
def test_rooms_below_do_not_use_rooms_above_lazily_or_in_a_test(make: Make, importer: str, imported: str) -> None:
    module = f"{imported}/used".replace("/", ".")
    root = make(
        {
            f"{imported}/used.py": "",
            f"{importer}/lazy.py": f"def f():\n    import {module}\n",
            f"{importer}/lazy_test.py": f"import {module}\n",
        }
    )
    assert [fault.split(", but ")[0] for fault in faults(root)] == [
        f"{importer}/lazy imports {module}".replace("/", "."),
        f"{importer}/lazy_test imports {module}".replace("/", "."),
    ]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("validators", "reporting"),
        ("validators", "mappings/language"),
        ("converters/formats", "reporting"),
        ("converters/engine", "validators"),
        ("converters/cli", "converters/engine"),
        ("converters", "converters/cli"),
        ("container", "converters"),
        ("tests/end_to_end", "container"),
    ],
)
def test_rooms_above_use_rooms_below(make: Make, importer: str, imported: str) -> None:
    module = f"{imported}/used".replace("/", ".")
    root = make({f"{imported}/used.py": "", f"{importer}/user.py": f"import {module}\n"})
    assert faults(root) == ()
    assert f'deps = ["//{imported}:used"]' in rule(root, importer, "user")


def test_a_package_is_visible_to_the_rooms_that_may_use_it_alone(make: Make) -> None:
    root = make({f"{package}/a.py": "" for package in ("converters", "converters/cli", "converters/formats")})
    files = build_files.derive(root).files
    assert (
        "package(default_visibility = [\n"
        '    "//converters:__pkg__",\n'
        '    "//converters/cli:__subpackages__",\n'
        '    "//converters/engine:__subpackages__",\n'
        '    "//converters/quantized:__subpackages__",\n'
        '    "//tests:__subpackages__",\n'
        "])\n"
    ) in files["converters/formats/BUILD.bazel"]
    assert '"//converters/formats' not in files["converters/BUILD.bazel"]


def test_a_folder_outside_all_rooms_is_a_fault(make: Make) -> None:
    assert faults(make({"attic/old.py": ""})) == ("attic is in no room",)
