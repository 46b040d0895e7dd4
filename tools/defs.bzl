"""py_module: one library for each module, and a test when the module has a *_test.py beside it."""

load("@rules_python//python:py_library.bzl", "py_library")
load("@rules_python//python:py_test.bzl", "py_test")

def py_module(name, deps = [], data = [], test_deps = [], test_data = [], visibility = None):
    """Declares NAME.py as a library, and NAME_test.py, where there is one, as a test that pytest runs.

    Args:
        name: the module's name.
        deps: what the module imports.
        data: files that the module reads.
        test_deps: what the test imports beside the module and pytest.
        test_data: files that the test reads.
        visibility: of the library.
    """
    py_library(
        name = name,
        # Without __init__.py the folder is a namespace package, and a wheel's package of the same name wins.
        srcs = ["__init__.py", name + ".py"],
        data = data,
        visibility = visibility,
        deps = deps,
    )
    if native.glob([name + "_test.py"], allow_empty = True):
        py_test(
            name = name + "_test",
            size = "small",
            srcs = [
                name + "_test.py",
                "//:conftest.py",
                "//tools:pytest_main.py",
            ],
            args = ["$(rootpath " + name + "_test.py)"],
            data = ["//:pyproject.toml"] + test_data,
            main = "//tools:pytest_main.py",
            deps = [":" + name, "@recast_dev_pip//pytest"] + test_deps,
        )
