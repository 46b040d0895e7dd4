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


def test_a_number_of_thousands_of_digits_is_no_version() -> None:
    assert transformers_version.parsed("9" * 5000) is None
    assert str(transformers_version.parsed("9" * 50)) == "9" * 50


def test_a_state_of_development_is_explained() -> None:
    (_, remark) = check({"transformers_version": "4.45.0.dev0"}, "4.45.1").why
    assert remark == "4.45.0.dev0 is a state of development before 4.45.0, and is compared as such"


def test_fields_that_the_deployment_does_not_read_are_named_with_what_is_written_for_it() -> None:
    config = {"rope_parameters": {"rope_theta": 1.0}, "dtype": "bfloat16", "layer_types": ["full_attention"]}
    written = {**config, "rope_theta": 1.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
    assert transformers_version.newer_fields(config, "4.45.1", written) == [
        "dtype is read from transformers 4.56.0 on, and not by 4.45.1; it is written as torch_dtype too",
        "rope_parameters is read from transformers 5.0.0 on, and not by 4.45.1; it is written as rope_theta too",
        "layer_types is read from transformers 4.53.0 on, and not by 4.45.1, which assumes its own default",
    ]


def test_fields_of_a_nested_config_are_named_by_their_place() -> None:
    (found,) = transformers_version.newer_fields({"text_config": {"dtype": "float16"}}, "4.55.4", {})
    assert found.startswith("text_config.dtype is read from transformers 4.56.0 on, and not by 4.55.4, which")


def test_nothing_is_said_of_fields_that_the_deployment_reads_or_that_say_nothing() -> None:
    assert transformers_version.newer_fields({"rope_parameters": {"rope_theta": 1.0}}, "5.0.0", {}) == []
    assert transformers_version.newer_fields({"dtype": None, "rope_theta": 1.0}, "4.45.1", {}) == []
