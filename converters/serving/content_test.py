"""What a catalogue may say of its models."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from converters.serving import content
from mappings.serving import catalog
from recast_proto import serving_catalog_pb2


def _said(model: str) -> list[str]:
    """What is said of one model, without its name."""
    text = f'model {{ name: "tiny" {model} }}'
    beginning = "The model tiny of the catalogue cannot be used: "
    found = content.faults(text_format.Parse(text, serving_catalog_pb2.ServingCatalog()))
    assert all(fault.startswith(beginning) for fault in found)
    return [fault.removeprefix(beginning) for fault in found]


def test_the_embedded_catalogue_can_be_used() -> None:
    assert content.faults(catalog.embedded()) == []


@pytest.mark.parametrize(
    "model",
    [
        "",
        'config_json: "{}"',
        'static_attribute { name: "a" value_json: "[1, null]" }',
        'transformers { supported: ">=4.40,<=4.45.1" deployment: "4.46.0.dev0+cu124" }',
        "legalising { tied_embeddings: UNTIE weights_form: 9 }",
        "deployment { sequence_length: 1 batch_size: 1 }",
        "deployment { sequence_length: 4096 }",
    ],
)
def test_what_can_be_used_is_taken(model: str) -> None:
    assert _said(model) == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ('config_json: "{"', "config_json is no JSON (Expecting property name"),
        ('config_json: "[]"', "config_json is no JSON object."),
        ('config_json: "{\\"a\\": 1, \\"a\\": 2}"', "the key 'a' stands twice"),
        ('static_attribute { name: "a" }', "value_json of the attribute a is no JSON (Expecting value"),
        ('static_attribute { name: "a" value_json: "NaN" }', "value_json of the attribute a is no JSON (NaN is not"),
        ('static_attribute { name: "a" value_json: "1e999" }', "the number 1e999 is too large"),
        ('transformers { deployment: "four" }', "transformers.deployment is 'four', which is no version"),
        ('transformers { deployment: "4.45.1\\nx" }', "transformers.deployment is '4.45.1 x', which is no version"),
        ('transformers { supported: "4.45.1" }', "transformers.supported is '4.45.1', which is no specifier"),
        ("legalising { tied_embeddings: 7 }", "legalising.tied_embeddings is 7, which this version does not know."),
        ("legalising { max_shard_bytes: -1 }", "legalising.max_shard_bytes is -1."),
        ("deployment { batch_size: 1 }", "a deployment has the length 0 and the batch sizes 1."),
        (
            "deployment { sequence_length: 8 batch_size: [1, -2] }",
            "a deployment has the length 8 and the batch sizes 1, -2.",
        ),
    ],
)
def test_what_nothing_can_be_done_with_is_named(model: str, said: str) -> None:
    (found,) = _said(model)
    assert said in found


@pytest.mark.parametrize("digits", ["deployment", "supported"])
def test_numbers_of_thousands_of_digits_are_no_versions(digits: str) -> None:
    (found,) = _said(f'transformers {{ {digits}: "<={"9" * 5000}" }}')
    assert f"transformers.{digits} is '<={'9' * 38}...', which is no " in found


def test_values_without_an_end_to_their_nesting_are_named() -> None:
    (found,) = _said(f'static_attribute {{ name: "a" value_json: "{"[" * 90_000}" }}')
    assert found == "value_json of the attribute a is no JSON (it is nested too deeply)."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('version: "1\\nSucceeded"', "The catalogue's version cannot be printed on a line."),
        ('provenance { source: "\\033[2J" }', "The catalogue's provenance.source cannot be printed on a line."),
    ],
)
def test_what_reports_quote_is_one_line(given: str, said: str) -> None:
    assert content.faults(text_format.Parse(given, serving_catalog_pb2.ServingCatalog())) == [said]


@pytest.mark.parametrize("field", ["hub_id", "family"])
def test_what_tables_show_of_a_model_is_one_line(field: str) -> None:
    assert _said(f'{field}: "a\\nb"') == [f"its {field} cannot be printed on a line."]


@pytest.mark.parametrize("name", ["", " ", "a\\nb", "\\033[2J"])
def test_a_model_without_a_name_that_can_be_shown_is_counted(name: str) -> None:
    (found,) = content.faults(text_format.Parse(f'model {{ name: "{name}" }}', serving_catalog_pb2.ServingCatalog()))
    assert found.endswith(("cannot be used: it has no name.", "cannot be used: its name cannot be printed on a line."))
    assert found.isprintable()
