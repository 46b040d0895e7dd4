"""Catalogues as text, and their digest."""

from __future__ import annotations

import pytest

from mappings.serving import catalog, text
from mappings.serving.text import CatalogError, Fault
from recast_proto import serving_catalog_pb2


def _small() -> serving_catalog_pb2.ServingCatalog:
    small = serving_catalog_pb2.ServingCatalog(schema_version=1, version="7")
    small.model.add(name="a", alias=["b", "c"], config_json='{"é": 1}').tokenizer.special_id["bos_token_id"] = 3
    return small


def _fault(content: str) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        text.parse(content)
    return caught.value


def test_a_catalogue_is_the_same_after_its_text_is_read() -> None:
    assert text.parse(text.dump(_small())) == text.sealed(_small())


def test_the_embedded_catalogue_is_the_same_after_its_text_is_read() -> None:
    assert text.parse(text.dump(catalog.embedded())) == catalog.embedded()


def test_the_text_is_for_people() -> None:
    assert 'special_id {\n      key: "bos_token_id"' in text.dump(_small())
    assert "é" in text.dump(_small())


def test_the_digest_is_that_of_the_content_and_not_of_the_text() -> None:
    content = text.dump(_small())
    assert text.parse("# kept on a Monday\n" + content.replace("\n", "\n\n")).digest == text.digest(_small())


def test_the_digest_stays_what_it_was() -> None:
    assert text.digest(_small()) == "sha256:9e5a6ec70acb3e1d899deab43890141f77b4ceefb31da32772e55a3d61981113"


def test_a_digest_that_is_stated_does_not_count() -> None:
    assert text.digest(text.sealed(_small())) == text.digest(_small())


def test_content_that_was_changed_is_found() -> None:
    fault = _fault(text.dump(_small()).replace('"c"', '"d"'))
    assert fault.fault is Fault.DIGEST
    assert text.digest(_small()) in fault.reason


def test_a_catalogue_must_state_its_digest() -> None:
    fault = _fault('schema_version: 1 version: "7"')
    assert fault.fault is Fault.DIGEST
    assert "states no digest" in fault.reason


@pytest.mark.parametrize(("field", "limit"), [("model", text.MODEL_LIMIT), ("rule", text.RULE_LIMIT)])
def test_a_catalogue_of_absurd_length_is_refused_before_its_digest_is_made(field: str, limit: int) -> None:
    full = f"schema_version: 1 {field} {{}} " + f"{field} {{}} " * (limit - 1)
    assert _fault(full).fault is Fault.DIGEST
    fault = _fault(f"{full} {field} {{}}")
    assert fault.fault is Fault.TOO_LARGE
    assert fault.reason == f"the catalogue has {limit + 1} {field}s; it may have {limit}"


def test_a_newer_schema_is_told_whatever_else_it_brings() -> None:
    fault = _fault('schema_version: 2 moon { phase: "full" } version: "7"')
    assert fault.fault is Fault.NEWER_SCHEMA
    assert "schema version 2" in fault.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<html>", "the text is no catalogue"),
        ("", "states no schema_version"),
        ('schema_version: 1 moon: "full"', "moon"),
        ("schema_version: -3", "states no schema_version"),
    ],
)
def test_what_is_no_catalogue_is_refused(content: str, said: str) -> None:
    fault = _fault(content)
    assert fault.fault is Fault.SYNTAX
    assert said in str(fault)
