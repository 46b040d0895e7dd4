"""docs/serving.md says of models and rules what the embedded catalogue has."""

from __future__ import annotations

import re

from google.protobuf import text_format

from mappings.serving import catalog as serving
from recast_proto import model_manifest_pb2, serving_catalog_pb2
from tests.docs.pages import blocks_of, text_of

PAGE = text_of("serving.md")
SECTION = PAGE[PAGE.index("## Models and rules") :]


def test_names_stand_for_the_models_that_the_table_says() -> None:
    rows = re.findall(r"^\| (`llama3[^|]*) \| ([^|;]+)", SECTION, re.MULTILINE)
    said = {name: base.strip() for names, base in rows for name in re.findall(r"`([^`]+)`", names)}
    assert len(said) == 7
    for name, base in said.items():
        model = serving.find(serving.embedded(), name)
        assert model is not None
        assert model.name == name
        if base.startswith("Llama"):
            assert base.split()[1] in model.hub_id


def test_the_table_of_fields_has_fields_that_there_are() -> None:
    fields = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", SECTION[: SECTION.index("| name |")], re.MULTILINE)
    names = {name for cell in fields for name in re.findall(r"`(\w+)`", cell)}
    assert len(names) > 8
    assert names <= set(model_manifest_pb2.ModelManifest.DESCRIPTOR.fields_by_name)


def test_the_rule_that_is_shown_is_one_of_the_catalogue() -> None:
    (shown,) = blocks_of("serving.md", "textproto")
    (rule,) = text_format.Parse(shown, serving_catalog_pb2.ServingCatalog()).rule
    (real,) = [other for other in serving.embedded().rule if other.id == rule.id]
    assert rule.config_field == real.config_field
    assert (rule.relation, rule.severity, rule.error_id) == (real.relation, real.severity, real.error_id)


def test_every_attribute_that_must_be_the_same_has_a_rule() -> None:
    listed = SECTION[SECTION.index("What must be the same") : SECTION.index("The optimizer type")]
    names = set(re.findall(r"`(\w+)`", listed))
    ruled = {rule.config_field.attribute for rule in serving.embedded().rule}
    assert len(names) > 15
    assert names <= ruled
