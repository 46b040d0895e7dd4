from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tools import build_files
from tools.build_files_needs import rings
from tools.build_files_testing import Make, faults, make_repository, rule


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return functools.partial(make_repository, tmp_path)


def test_an_import_that_nothing_provides_is_a_fault(make: Make) -> None:
    root = make(
        {
            "tools/a.py": "import scipy.linalg\nimport tools.gone\nfrom . import b\n",
            "tools/b.py": "from recast_proto import gone_pb2\nimport recast_proto\nimport maxtext.layers\n",
        }
    )
    assert faults(root) == (
        "tools.a imports .b, which does not exist",
        "tools.a imports scipy.linalg, but scipy is in none of requirements/: core.in, verify.in, dev.in",
        "tools.a imports tools.gone, which does not exist",
        "tools.b imports recast_proto.gone_pb2, but proto/ has no gone.proto",
    )


def test_what_only_developers_install_is_for_tests_and_tools(make: Make) -> None:
    root = make(
        {f"{room}/a{end}.py": "import hypothesis\n" for room in ("reporting", "tools") for end in ("", "_test")}
    )
    assert faults(root) == ("reporting.a imports hypothesis, which only developers install",)


def test_a_package_of_the_verify_layer_comes_from_its_hub_and_its_tests_take_longer(make: Make) -> None:
    root = make({"reporting/a.py": "", "reporting/a_test.py": "import orbax.checkpoint as ocp\nimport numpy\n"})
    text = rule(root, "reporting", "a")
    assert 'size = "medium"' in text
    assert re.findall(r"@.*(?=\")", text) == ["@recast_pip//numpy", "@recast_verify_pip//orbax_checkpoint"]


def test_modules_in_a_ring_are_a_fault(make: Make) -> None:
    root = make({"tools/a.py": "import tools.b\n", "tools/b.py": "def f():\n    from tools import a\n"})
    assert faults(root) == ("modules import each other in a ring: tools.a -> tools.b -> tools.a",)
    assert rings({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == []


def test_a_test_is_not_imported(make: Make) -> None:
    root = make({"tools/a_test.py": "", "tools/b_test.py": "from tools.a_test import helper\n"})
    assert faults(root) == ("tools.b_test imports tools.a_test, which is a test",)


def test_a_folder_without_a_mark_and_a_mark_that_imports_arefaults(make: Make) -> None:
    root = make({"tools/a.py": "", "tools/__init__.py": "import math\n", "tests/b.py": ""})
    (root / "tests" / "__init__.py").unlink()
    assert faults(root) == (
        "tests/b.py is in a folder without __init__.py",
        "tools/__init__.py imports something; it may only mark the folder",
    )


def test_what_a_python_process_is_told_to_run_counts(make: Make) -> None:
    root = make(
        {
            "tests/a_test.py": "import sys\nrun([sys.executable, '-m', 'tools.one'])\nshown = ['-m', 'tools.two']\n",
            "tests/b_test.py": "import sys\nCODE = 'import torch, tools.two'\nrun([sys.executable, '-c', CODE])\n",
            "tests/c_test.py": "NOT_RUN = 'import torch'\n",
            "tools/one.py": "",
            "tools/two.py": "",
        }
    )
    assert re.findall(r"[/@].*(?=\")", rule(root, "tests", "a_test")) == ["//tools:one"]
    assert re.findall(r"[/@].*(?=\")", rule(root, "tests", "b_test")) == ["//tools:two", "@recast_verify_pip//torch"]
    assert "torch" not in rule(root, "tests", "c_test")


def test_fixtures_of_the_folders_above_go_to_their_tests(make: Make) -> None:
    root = make({"conftest.py": "", "tests/conftest.py": "", "tests/deep/conftest.py": "", "tests/deep/a_test.py": ""})
    assert '[\n        ":conftest",\n        "//tests:conftest",\n    ]' in rule(root, "tests/deep", "a_test")


def test_files_that_a_program_reads_are_its_data(make: Make) -> None:
    root = make(
        {
            "mappings/loader.py": "from pathlib import Path\ndef root():\n    return Path(__file__).resolve().parent\n",
            "mappings/toy/hf.textproto": "",
            "mappings/README.md": "",
            "tests/golden/a.py": "from pathlib import Path\nFILE = Path(__file__).with_name('a.json')\n",
            "tests/golden/a.json": "{}",
            "tests/a_test.py": "import pathlib\nHERE = pathlib.Path(__file__).parent\nJ = HERE / 'golden' / 'a.json'\n",
        }
    )
    assert rule(root, "mappings", "loader") == 'py_module(\n    name = "loader",\n    data = [":files"],\n)'
    assert rule(root, "mappings", "files").endswith('srcs = glob(["**/*.textproto"]),\n)')
    assert 'data = ["a.json"]' in rule(root, "tests/golden", "a")
    assert 'data = ["//tests/golden:a.json"]' in rule(root, "tests", "a_test")
    assert 'exports_files(["a.json"])' in build_files.derive(root).files["tests/golden/BUILD.bazel"]


def test_the_files_of_a_folder_include_those_of_the_packages_in_it(make: Make) -> None:
    root = make(
        {
            "mappings/loader.py": "from pathlib import Path\ndef root():\n    return Path(__file__).parent\n",
            "mappings/common/hf.textproto": "",
            "mappings/toy/hf.textproto": "",
            "mappings/toy/toy_test.py": "",
            "mappings/language/names.py": "",
        }
    )
    assert rule(root, "mappings", "files").endswith('srcs = glob(["**/*.textproto"]) + ["//mappings/toy:files"],\n)')
    assert rule(root, "mappings/toy", "files").endswith('srcs = glob(["**/*.textproto"]),\n)')
    (root / "mappings" / "common" / "hf.textproto").unlink()
    assert rule(root, "mappings", "files").endswith('srcs = ["//mappings/toy:files"],\n)')
    assert 'data = [":files"]' in rule(root, "mappings", "loader")


def test_a_file_of_a_folder_kept_by_hand_has_to_be_exported_there(make: Make) -> None:
    text = "from pathlib import Path\nLOCK = Path(__file__).parents[1] / 'pyproject.toml'\n"
    root = make({"tools/a_test.py": text, "pyproject.toml": "", "BUILD.bazel": ""})
    assert faults(root) == ("BUILD.bazel has no pyproject.toml, which tools.a_test reads",)
    (root / "BUILD.bazel").write_text('exports_files(["pyproject.toml"])\n')
    assert faults(root) == ()
    assert 'data = ["//:pyproject.toml"]' in rule(root, "tools", "a_test")
