from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from converters.prepare import deployment
from converters.prepare.deployment import Deployed
from recast_proto import model_manifest_pb2
from validators.compatibility.facts import TokenizerFacts

URI = "gs://bucket/checkpoints/my-llama"
_SCHEMAS = Path(__file__).resolve().parent / "schemas"


def _deployed(**changes: Any) -> Deployed:
    lengths = [
        model_manifest_pb2.Deployment(sequence_length=16384, batch_size=[2, 1]),
        model_manifest_pb2.Deployment(sequence_length=4096, batch_size=[8, 1, 4]),
    ]
    base = model_manifest_pb2.ModelManifest(name="llama3-8b", architecture=["LlamaForCausalLM"], deployment=lengths)
    fields: dict[str, Any] = {
        "uri": URI,
        "serving_name": "My Llama_8B",
        "base": base,
        "config": {"architectures": ["LlamaForCausalLM"]},
        "tokenizer": TokenizerFacts(chat_template="{% if tools %}{{ tools }}{% endif %}"),
    }
    return Deployed(**(fields | changes))


def _resource(name: str, deployed: Deployed) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        deployment.files(deployed, legacy_bundle=True)[f"recast/deployment/{name}.yaml"]
    )
    return found


def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", ["model", "model_bundle", "bundle"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"tokenizer": None}, {"serving_name": "--Ünder_score.8B--" + "x" * 80}, {"config": {"vision_config": {}}}],
    ids=["usual", "without a tokenizer", "an odd name", "vision"],
)
def test_every_resource_is_valid_by_its_schema(name: str, changes: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(_schema(name)).validate(_resource(name, _deployed(**changes)))


@pytest.mark.parametrize("name", ["model", "model_bundle", "bundle"])
def test_the_schemas_are_schemas_and_refuse_what_they_do_not_know(name: str) -> None:
    schema = _schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    resource = _resource(name, _deployed())
    for damaged in (resource | {"kind": "Pod"}, resource | {"spec": {**resource["spec"], "chekpoints": {}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate(damaged)


def test_the_model_says_where_the_checkpoint_lies() -> None:
    spec = _resource("model", _deployed(uri=URI + "/"))["spec"]
    assert spec["name"] == "My Llama_8B"
    assert spec["checkpoints"]["llama3-8b"]["versions"]["1"]["source"] == URI
    assert spec["tokenizer"]["path"] == URI


def test_tools_are_supported_where_the_chat_template_has_a_place_for_them() -> None:
    assert _version(_deployed())["tool_support"] is True
    assert _version(_deployed(tokenizer=TokenizerFacts(chat_template="{{ messages }}")))["tool_support"] is False


def test_the_model_bundle_has_the_lengths_and_batch_sizes_of_the_catalogue() -> None:
    (entry,) = _resource("model_bundle", _deployed())["spec"]["modelConfigs"]
    assert entry["model"] == "my-llama-8b:llama3-8b:1"
    assert entry["batchingConfig"] == {
        "4k": {"batch_sizes": [1, 4, 8], "is_default": True},
        "16k": {"batch_sizes": [1, 2]},
    }


def test_the_bundle_of_older_platforms_is_made_when_asked_for_alone() -> None:
    assert _resource("bundle", _deployed())["spec"]["models"]["llama3-8b"]["checkpoint"] == "MY_LLAMA_8B_CKPT"
    assert "recast/deployment/bundle.yaml" not in deployment.files(_deployed(), legacy_bundle=False)


@pytest.mark.parametrize("uri", ["gs://bucket", "gs://my.bucket-1/a/b_c/", URI])
def test_a_folder_of_a_bucket_is_a_destination(uri: str) -> None:
    assert deployment.check_uri(uri) == []


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a",
        "/data/a",
        "gs://",
        "gs://B/a",
        "gs://bucket//a",
        "gs://bucket/../a",
        "gs://b k/a",
        "gs://bucket/a?k=1",
    ],
)
def test_anything_else_is_not(uri: str) -> None:
    (found,) = deployment.check_uri(uri)
    assert found.id == "INVALID_FLAG"
    assert "k=1" not in found.reason


def _version(deployed: Deployed) -> dict[str, Any]:
    found: dict[str, Any] = _resource("model", deployed)["spec"]["checkpoints"]["llama3-8b"]["versions"]["1"]
    return found
