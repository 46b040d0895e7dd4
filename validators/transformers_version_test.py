from __future__ import annotations

import pytest

from validators import transformers_version
from validators.transformers_version import check


def _ids(stated: object, supported: str = "4.45.1") -> list[str]:
    return [d.id for d in check({"transformers_version": stated}, supported).diagnostics]


@pytest.mark.parametrize("stated", ["4.45.1", "4.45.0", "4.9.0", "4.45.1.dev0", "4.45.1rc1", "4.45.1+cu124"])
def test_a_version_that_is_not_newer_is_accepted(stated: str) -> None:
    assert _ids(stated) == []


@pytest.mark.parametrize("stated", ["4.45.2", "4.52.4", "5.0.0", "4.46.0.dev0", "4.46.0rc1", "4.45.1.post1"])
def test_a_newer_version_is_refused(stated: str) -> None:
    assert _ids(stated) == ["TRANSFORMERS_VERSION_ERROR"]


def test_versions_are_no_texts() -> None:
    assert _ids("4.100.0", "4.99.0") == ["TRANSFORMERS_VERSION_ERROR"]
    assert _ids("4.99.0", "4.100.0") == []


def test_the_error_is_worded_as_the_platform_words_it() -> None:
    (found,) = check({"transformers_version": "4.52.4"}, "4.45.1").diagnostics
    assert found.reason == (
        "The transformers version of your checkpoint (4.52.4) is larger than the maximum supported transformers "
        "version (4.45.1)."
    )
    assert found.suggestion == (
        "To fix this, please save your checkpoint with a transformers environment <= 4.45.1. Alternatively, you can "
        "include the --ignore_transformers_version flag, but this may lead to errors due to transformers version "
        "compatibility issues."
    )


def test_a_config_without_a_version_gets_a_warning() -> None:
    (found,) = check({}, "4.45.1").diagnostics
    assert found.id == "TRANSFORMERS_VERSION_UNKNOWN"
    assert found.warning


@pytest.mark.parametrize("stated", ["newest", "", 4.45, ["4.45.1"], "4.45.1 " + "0" * 100])
def test_what_is_no_version_gets_a_warning(stated: object) -> None:
    assert _ids(stated) == ["TRANSFORMERS_VERSION_UNKNOWN"]


def test_a_state_of_development_is_explained() -> None:
    (_, remark) = check({"transformers_version": "4.45.0.dev0"}, "4.45.1").why
    assert remark == "4.45.0.dev0 is a state of development before 4.45.0, and is compared as such"


def test_fields_that_the_deployment_does_not_read_are_named() -> None:
    found = transformers_version.newer_fields({"rope_parameters": {}, "dtype": "bfloat16", "rope_theta": 1.0}, "4.45.1")
    assert [line.split(" ")[0] for line in found] == ["dtype", "rope_parameters"]
    assert transformers_version.newer_fields({"rope_parameters": {}}, "5.0.0") == []
