"""py_module: one library for each module, and a test when the module has a *_test.py beside it.

python_test: a test that is about no single module. The BUILD.bazel files that use both are derived by build_files.py.
"""

load("@rules_python//python:py_library.bzl", "py_library")
load("@rules_python//python:py_test.bzl", "py_test")

def _package_files():
    """The __init__.py of the package and of those that it lies in.

    Without one a folder is a namespace package, and a wheel's package of the same name wins.
    """
    folders = native.package_name().split("/")
    return ["//{}:__init__.py".format("/".join(folders[:end + 1])) for end in range(len(folders))]

def python_test(name, size = "small", deps = [], data = []):
    """Declares NAME.py as a test that pytest runs.

    Args:
        name: the test's name.
        size: which decides how long it may take.
        deps: what the test imports beside pytest.
        data: files that the test reads.
    """
    py_test(
        name = name,
        size = size,
        srcs = _package_files() + [
            name + ".py",
            "//:conftest.py",
            "//tools:pytest_main.py",
        ],
        args = ["$(rootpath " + name + ".py)"],
        data = ["//:pyproject.toml"] + [label for label in data if label != "//:pyproject.toml"],
        main = "//tools:pytest_main.py",
        deps = ["@recast_dev_pip//pytest"] + deps,
    )

def py_module(name, size = "small", deps = [], data = [], test_deps = [], test_data = [], visibility = None):
    """Declares NAME.py as a library, and NAME_test.py, where there is one, as a test.

    Args:
        name: the module's name.
        size: of the test, which decides how long it may take.
        deps: what the module imports.
        data: files that the module reads.
        test_deps: what the test imports beside the module and pytest.
        test_data: files that the test reads.
        visibility: of the library.
    """
    py_library(
        name = name,
        srcs = _package_files() + [name + ".py"],
        data = data,
        visibility = visibility,
        deps = deps,
    )
    if native.glob([name + "_test.py"], allow_empty = True):
        python_test(
            name = name + "_test",
            size = size,
            data = test_data,
            deps = [":" + name] + test_deps,
        )
