from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import pytest

from tools import build_files
from tools.build_files_pip import HUBS, TRANSFORMERS4, TRANSFORMERS4_HUB
from tools.build_files_testing import Make, faults, make_repository, rule

ROOT = Path(__file__).resolve().parent.parent

# Bazel shows a test what the test declares, and this one is about all files.
in_a_checkout = pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs the checkout")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return functools.partial(make_repository, tmp_path)


@in_a_checkout
def test_the_checked_in_files_are_as_derived() -> None:
    lines = build_files.differences(ROOT, build_files.derive(ROOT))
    assert not lines, "run `python -m tools.build_files --write`:\n" + "\n".join(lines)


@in_a_checkout
def test_nothing_is_wrong_in_the_repository() -> None:
    assert build_files.derive(ROOT).faults == ()


@in_a_checkout
def test_the_hubs_are_declared_with_the_locks_of_their_layers() -> None:
    parses = re.findall(r"pip\.parse\((.*?)\n\)", (ROOT / "MODULE.bazel").read_text(), re.DOTALL)
    declared = [re.findall(r'(?:hub_name|requirements_lock) = "([^"]+)"', parse) for parse in parses]
    hubs = {**HUBS, TRANSFORMERS4: TRANSFORMERS4_HUB}
    assert declared == [[hub, f"//requirements:{layer}.txt"] for layer, hub in hubs.items()]


def test_a_module_and_its_test_are_one_statement(make: Make) -> None:
    root = make(
        {
            "mappings/table.py": "import math\nimport numpy as np\nfrom mappings import rows\n",
            "mappings/table_test.py": "import pytest\nimport cv2\nfrom mappings import rows, table\n",
            "mappings/rows.py": "def lazily():\n    from google.protobuf import text_format\n",
        }
    )
    assert rule(root, "mappings", "table") == (
        "py_module(\n"
        '    name = "table",\n'
        "    test_deps = [\n"
        '        ":rows",\n'
        '        "@recast_pip//opencv_python_headless",\n'
        "    ],\n"
        "    deps = [\n"
        '        ":rows",\n'
        '        "@recast_pip//numpy",\n'
        "    ],\n"
        ")"
    )
    assert '    deps = ["@recast_pip//protobuf"],\n' in rule(root, "mappings", "rows")
    assert faults(root) == ()


def test_a_test_without_a_module_of_its_name_stands_alone(make: Make) -> None:
    root = make({"tools/all_test.py": "import pytest\n", "tests/all_test.py": "import hypothesis\n"})
    assert rule(root, "tools", "all_test").startswith('python_test(name = "all_test")')
    assert rule(root, "tests", "all_test") == (
        'python_test(\n    name = "all_test",\n    size = "medium",\n    deps = ["@recast_dev_pip//hypothesis"],\n)'
    )


def test_a_program_and_the_entrypoint_are_binaries(make: Make) -> None:
    root = make(
        {
            "converters/pair.py": "PROGRAM = Program('pair')\n",
            "converters/other.py": "PROGRAM = 'import math'\n",
            "container/entrypoint.py": "import importlib\nTABLE = {'pair': ('converters.pair', 'Pairs.')}\n",
        }
    )
    assert rule(root, "converters", "pair_bin") == (
        'py_binary(\n    name = "pair_bin",\n    srcs = ["pair.py"],\n    main = "pair.py",\n    deps = [":pair"],\n)'
    )
    assert "other_bin" not in build_files.derive(root).files["converters/BUILD.bazel"]
    assert rule(root, "container", "entrypoint_bin")
    assert 'deps = ["//converters:pair"]' in rule(root, "container", "entrypoint")


def test_each_proto_file_has_its_library_and_its_module(make: Make) -> None:
    imports = 'import "google/protobuf/descriptor.proto";\nimport "recast_proto/error.proto";\n'
    root = make(
        {
            "proto/error.proto": "",
            "proto/report.proto": f'syntax = "proto3";\n{imports}',
            "reporting/a.py": "from recast_proto import error_pb2\nimport recast_proto.report_pb2\n",
        }
    )
    assert rule(root, "proto", "report_proto") == (
        "proto_library(\n"
        '    name = "report_proto",\n'
        '    srcs = ["report.proto"],\n'
        '    import_prefix = "recast_proto",\n'
        '    strip_import_prefix = "/proto",\n'
        "    deps = [\n"
        '        ":error_proto",\n'
        '        "@protobuf//:descriptor_proto",\n'
        "    ],\n"
        ")"
    )
    assert 'deps = [":report_proto"]' in rule(root, "proto", "report_py_pb2")
    assert re.findall(r"//.*(?=\")", rule(root, "reporting", "a")) == [
        "//proto:error_py_pb2",
        "//proto:report_py_pb2",
    ]


def test_what_stands_below_the_line_by_hand_stays(make: Make) -> None:
    hand = 'py_binary(\n    name = "layer",\n    srcs = ["layer.py"],\n)\n'
    load = 'load("@rules_python//python:py_binary.bzl", "py_binary")\n'
    root = make(
        {"container/layer.py": "", "container/BUILD.bazel": f"# By hand:\n{load}\n{hand}", "container/a.py": ""}
    )
    assert build_files.main(["--write"], root) == 0
    text = (root / "container" / "BUILD.bazel").read_text()
    assert text.count("load(") == 2
    assert text.index(load) < text.index("py_module(") < text.index(f"\n\n# By hand:\n{hand}")
    assert text.count('"layer"') == 1
    assert build_files.main([], root) == 0


def test_a_file_that_was_never_derived_is_kept_whole(make: Make) -> None:
    root = make({"tools/a.py": "", "tools/BUILD.bazel": 'exports_files(["a.sh"])\n'})
    assert build_files.derive(root).files["tools/BUILD.bazel"].endswith('\n\n# By hand:\nexports_files(["a.sh"])\n')


def test_differences_are_shown_and_written(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = make({"tools/a.py": ""})
    assert build_files.main([], root) == 1
    assert '+py_module(name = "a")' in capsys.readouterr().out.splitlines()
    assert not (root / "tools" / "BUILD.bazel").exists()
    assert build_files.main(["--write"], root) == 0
    assert build_files.main([], root) == 0
    (root / "tools" / "a.py").unlink()
    (root / "tools" / "__init__.py").unlink()
    assert build_files.main([], root) == 1
    assert build_files.main(["--write"], root) == 0
    assert not (root / "tools" / "BUILD.bazel").exists()


def test_other_bazel_modules_are_left_alone(make: Make) -> None:
    root = make(
        {"tools/a.py": "", "tools/airgap/rules/MODULE.bazel": "", "tools/airgap/rules/b.py": "import nothing\n"}
    )
    (root / "tools" / "airgap" / "__init__.py").unlink()
    assert faults(root) == ()
    assert set(build_files.derive(root).files) == {"tools/BUILD.bazel"}
