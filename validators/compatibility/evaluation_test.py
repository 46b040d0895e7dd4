"""The engine of the rules: what it says of rules that hold, that do not, and that cannot be evaluated."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.serving import catalog as serving
from recast_proto import model_manifest_pb2, serving_catalog_pb2
from validators.compatibility import testing
from validators.compatibility.evaluation import STEPS, Finding, evaluate
from validators.compatibility.facts import CheckpointFacts, TensorInfo, TokenizerFacts

EMBEDDED = serving.embedded()


def _model(name: str = "llama3-1b") -> model_manifest_pb2.ModelManifest:
    model = serving.find(EMBEDDED, name)
    assert model is not None
    return model


def _published(**changes: Any) -> CheckpointFacts:
    facts = testing.published(_model(), tensors=False)
    for path, value in changes.items():
        facts = testing.with_config(facts, path.replace("__", "."), value)
    return facts


def _rules(text: str) -> serving_catalog_pb2.ServingCatalog:
    return text_format.Parse(text, serving_catalog_pb2.ServingCatalog())


def _rule(subject: str, rest: str = "relation: EQUAL", error_id: str = "VOCAB_SIZE_MISMATCH") -> str:
    return f'rule {{ id: "r" step: "validate_compatibility" {subject} {rest} severity: ERROR error_id: "{error_id}" }}'


def _one(text: str, facts: CheckpointFacts | None = None) -> Finding:
    (finding,) = evaluate(_rules(text), _model(), facts or _published())
    return finding


FIELD = 'config_field { attribute: "vocab_size" source { path: "vocab_size" } }'


def _violated(facts: CheckpointFacts, *subjects: str) -> list[tuple[str, str]]:
    catalog = testing.only(EMBEDDED, *(subjects or ("config_field",)))
    return [(d.id, d.subject) for finding in evaluate(catalog, _model(), facts) for d in finding.diagnostics]


# ---- configs


def test_a_rule_that_holds_says_which_values_it_compared() -> None:
    finding = _one(_rule(FIELD))
    assert finding == Finding(
        "r", "validate_compatibility", True, "vocab_size is 128256 in config.json and in llama3-1b."
    )


def test_a_rule_that_does_not_hold_names_attribute_values_and_model() -> None:
    finding = _one(_rule(FIELD), _published(vocab_size=128257))
    assert not finding.passed
    assert finding.failed
    (said,) = finding.diagnostics
    assert (said.id, said.subject) == ("VOCAB_SIZE_MISMATCH", "vocab_size")
    assert said.reason == "vocab_size is 128257 in config.json, and 128256 in llama3-1b."
    assert said.suggestion.startswith("Bring the embedding")


def test_a_rule_may_have_words_of_its_own() -> None:
    own = 'relation: EQUAL message: "{model}: {attribute} {found}, {expected} {x}" suggestion: "Do."'
    (said,) = _one(_rule(FIELD, own), _published(vocab_size=7)).diagnostics
    assert (said.reason, said.suggestion) == ("llama3-1b: vocab_size 7, 128256 {x}", "Do.")


def test_a_value_that_is_left_out_is_a_violation() -> None:
    (said,) = _one(_rule(FIELD), _published(vocab_size=None)).diagnostics
    assert said.reason == "vocab_size is not stated in config.json, and 128256 in llama3-1b."


def test_a_rule_may_be_for_values_that_both_state() -> None:
    finding = _one(_rule(FIELD, "relation: EQUAL applies { where_both: true }"), _published(vocab_size=None))
    assert finding.passed
    assert finding.why == "vocab_size is not stated in config.json, and nothing is compared."


def test_what_neither_states_gives_no_finding() -> None:
    field = 'config_field { attribute: "x" source { path: "x" } }'
    assert evaluate(_rules(_rule(field)), _model(), _published()) == []


def test_a_warning_is_no_failure() -> None:
    assert _violated(_published(max_position_embeddings=4096)) == [("MAX_POSITIONS_DIFFER", "max_position_embeddings")]
    findings = evaluate(EMBEDDED, _model(), testing.published(_model()), steps=["validate_compatibility"])
    assert not any(finding.failed for finding in findings)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": None},
        {"rope_theta": 500000},
        {"rms_norm_eps": 9.999999747378752e-06},
        {"attention_bias": None, "mlp_bias": None, "attention_dropout": None},
        {"torch_dtype": None},
        {"torch_dtype": None, "dtype": "bfloat16"},
        {"use_cache": False, "eos_token_id": [1, 2], "initializer_range": 0.1},
        {"hidden_act": None, "hidden_activation": "silu"},
        {"architectures": ["LlamaForCausalLM", "Another"]},
    ],
)
def test_other_words_for_the_same_graph_are_accepted(changes: dict[str, Any]) -> None:
    assert _violated(_published(**changes)) == []


def test_the_rotary_embedding_is_understood_as_transformers_5_writes_it() -> None:
    scaling = serving.config_of(_model())["rope_scaling"]
    newer = {"rope_scaling": None, "rope_theta": None, "rope_parameters": {**scaling, "rope_theta": 500000.0}}
    assert _violated(_published(**newer)) == []
    assert _violated(_published(**newer, rope_parameters__rope_theta=1e6)) == [("ROPE_THETA_MISMATCH", "rope_theta")]
    assert _violated(_published(**newer, rope_parameters__rope_type="yarn")) == [("ROPE_TYPE_MISMATCH", "rope_type")]
    assert _violated(_published(**newer, rope_parameters__factor=8.0)) == [("ROPE_SCALING_MISMATCH", "rope_scaling")]


def test_of_two_objects_only_what_differs_is_shown() -> None:
    changed = _published(rope_scaling__factor=8.0)
    (said,) = (
        d for finding in evaluate(EMBEDDED, _model(), changed) for d in finding.diagnostics if "rope" in d.id.lower()
    )
    assert said.reason == 'rope_scaling is {"factor": 8.0} in config.json, and {"factor": 32.0} in llama3-1b.'


@pytest.mark.parametrize("value", ["128256", True, [128256], {"a": 1}, 1e400, -1])
def test_values_of_any_kind_are_judged(value: Any) -> None:
    assert ("VOCAB_SIZE_MISMATCH", "vocab_size") in _violated(_published(vocab_size=value))


def test_several_violations_are_all_found() -> None:
    changed = _published(vocab_size=1, num_attention_heads=64, hidden_act="gelu", rope_theta=1.0)
    assert {subject for _, subject in _violated(changed)} == {
        "vocab_size",
        "num_attention_heads",
        "hidden_act",
        "rope_theta",
    }


def test_a_catalogue_that_states_no_attributes_is_compared_by_its_config() -> None:
    model = model_manifest_pb2.ModelManifest()
    model.CopyFrom(_model())
    del model.static_attribute[:]
    (finding,) = evaluate(_rules(_rule(FIELD)), model, _published(vocab_size=1))
    assert "128256 in llama3-1b" in finding.why


def test_attributes_that_a_catalogue_states_go_before_its_config() -> None:
    model = model_manifest_pb2.ModelManifest()
    model.CopyFrom(_model())
    model.config_json = '{"vocab_size": 5}'
    (finding,) = evaluate(_rules(_rule(FIELD)), model, _published())
    assert finding.passed


@pytest.mark.parametrize(
    ("expected", "passes"),
    [
        ("literal_json: '[1, 128256]'", True),
        ("literal_json: '[1, 2]'", False),
        ('manifest_fact: "tokenizer.vocabulary_size"', True),
        ('manifest_fact: "transformers.deployment"', False),
        ('manifest_fact: "architecture"', False),
        ('manifest_fact: "tokenizer.special_id"', False),
    ],
)
def test_what_is_expected_may_stand_elsewhere(expected: str, passes: bool) -> None:
    assert _one(_rule(FIELD, f"relation: ONE_OF expected {{ {expected} }}")).passed is passes


@pytest.mark.parametrize(
    ("relation", "value", "passes"), [("PRESENT", 1, True), ("PRESENT", None, False), ("ABSENT", 1, False)]
)
def test_a_value_may_have_to_be_there_or_not(relation: str, value: Any, passes: bool) -> None:
    finding = _one(_rule(FIELD, f"relation: {relation}"), _published(vocab_size=value))
    assert finding.passed is passes
    assert "vocab_size is" in finding.why


# ---- steps, families


def test_only_rules_of_the_steps_that_are_asked_for_are_looked_at() -> None:
    findings = evaluate(EMBEDDED, _model(), _published(), steps=["validate_tokenizer"])
    assert {finding.step for finding in findings} == {"validate_tokenizer"}
    assert findings


def test_a_rule_of_a_step_that_there_is_not_is_left_out_by_nobody() -> None:
    catalog = _rules('rule { id: "r" step: "speculate" not_applicable {} }')
    (finding,) = (f for step in STEPS for f in evaluate(catalog, _model(), _published(), steps=[step]))
    assert finding.failed


def test_rules_of_other_families_are_not_looked_at() -> None:
    assert evaluate(_rules(_rule(FIELD, 'relation: EQUAL applies { family: "gemma" }')), _model(), _published()) == []


# ---- files and tokenizer


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"tokenizer.json": None}, [("CHECKPOINT_FILE_MISSING", "tokenizer.json")]),
        ({"tokenizer.json": None, "tokenizer.model": 1}, []),
        ({"tokenizer_config.json": None}, [("CHECKPOINT_FILE_MISSING", "tokenizer_config.json")]),
        ({"generation_config.json": None}, [("CHECKPOINT_FILE_ADVISED", "generation_config.json")]),
        ({"model.safetensors": None}, [("CHECKPOINT_FILE_MISSING", "*.safetensors")]),
        ({"model.safetensors": None, "pytorch_model.bin": 1}, []),
        ({"model.safetensors": None, "q4.gguf": 1}, [("FORMAT_NOT_ACCEPTED", "q4.gguf")]),
        ({"q4.gguf": 1}, []),
        (
            {"model.safetensors": None, "adapter_model.safetensors": 1, "adapter_config.json": 1},
            [("ADAPTER_NOT_MERGED", "adapter_config.json")],
        ),
        ({"adapter_config.json": 1}, []),
    ],
)
def test_files_that_must_be_there_and_that_must_not(
    files: dict[str, int | None], expected: list[tuple[str, str]]
) -> None:
    names = {**_published().files, **files}
    facts = dataclasses.replace(_published(), files={name: size for name, size in names.items() if size is not None})
    assert _violated(facts, "files") == expected


@pytest.mark.parametrize(("method", "accepted"), [("awq", False), ("gptq", False), ("fp8", True), ("mxfp4", True)])
def test_codes_that_are_not_decoded_are_named(method: str, accepted: bool) -> None:
    found = _violated(_published(quantization_config={"quant_method": method, "bits": 4}))
    assert found == ([] if accepted else [("QUANTIZATION_NOT_ACCEPTED", "quantization_config.quant_method")])


@pytest.mark.parametrize(("size", "fits"), [(128256, True), (128000, True), (128257, False), (None, True)])
def test_every_token_needs_a_row_of_the_embedding(size: int | None, fits: bool) -> None:
    facts = dataclasses.replace(_published(), tokenizer=TokenizerFacts(vocabulary_size=size))
    assert (_violated(facts, "tokenizer") == []) is fits


def test_a_token_that_the_model_publishes_without_a_row_is_not_counted() -> None:
    """google/gemma-3-1b-pt: ids up to 262144, and as many rows of the embedding."""
    catalog, tokens = testing.only(EMBEDDED, "tokenizer"), {"a": 262143, "<image_soft_token>": 262144}
    facts = dataclasses.replace(_published(), tokenizer=TokenizerFacts(vocabulary_size=262145, tokens=tokens))
    for name in ("gemma3-1b", "gemma3-270m"):
        assert [finding.passed for finding in evaluate(catalog, _model(name), facts)] == [True]
    renamed = TokenizerFacts(vocabulary_size=262145, tokens={"a": 262143, "<another>": 262144})
    (finding,) = evaluate(catalog, _model("gemma3-1b"), dataclasses.replace(facts, tokenizer=renamed))
    assert [d.id for d in finding.diagnostics] == ["TOKENIZER_TOO_LARGE"]


@pytest.mark.parametrize(
    ("fact", "stated", "wanted"),
    [
        ("vocabulary_size", 7, "7"),
        ("token_count", 5, "5"),
        ("special_ids", {"bos_token_id": 1}, '{"bos_token_id": 1}'),
        ("token_map_digest", "ab", '"ab"'),
        ("chat_template", "{{ x }}", '"{{ x }}"'),
        ("tokenizer_class", "GemmaTokenizer", '"GemmaTokenizer"'),
    ],
)
def test_a_platform_may_rule_over_any_fact_of_a_tokenizer(fact: str, stated: object, wanted: str) -> None:
    literal = wanted.replace('"', '\\"')
    rule = _rule(f'tokenizer {{ fact: "{fact}" }}', f'relation: EQUAL expected {{ literal_json: "{literal}" }}')
    right = TokenizerFacts(**{fact: stated})  # type: ignore[arg-type]
    wrong = TokenizerFacts(**{fact: {"eos_token_id": 2} if fact == "special_ids" else "another"})  # type: ignore[arg-type]
    assert _one(rule, dataclasses.replace(_published(), tokenizer=right)).passed
    assert not _one(rule, dataclasses.replace(_published(), tokenizer=wrong)).passed


def test_a_tokenizer_that_cannot_be_read_is_no_violation_of_a_rule() -> None:
    assert _violated(dataclasses.replace(_published(), tokenizer=None), "tokenizer") == []


# ---- headers


def test_tensors_that_differ_alike_are_one_violation() -> None:
    facts = testing.published(_model())
    wrong = {name: TensorInfo((1,), "BF16") for name in facts.tensors if name.endswith("up_proj.weight")}
    facts = dataclasses.replace(facts, tensors={**facts.tensors, **wrong})
    (said,) = (d for f in evaluate(testing.only(EMBEDDED, "tensors"), _model(), facts) for d in f.diagnostics)
    assert said.reason == (
        "model.layers.0.mlp.up_proj.weight has the shape [1], and in the model [8192, 2048]; likewise 15 more, up to "
        "model.layers.15.mlp.up_proj.weight."
    )


def test_a_rule_may_look_at_some_tensors_alone() -> None:
    facts = dataclasses.replace(_published(), tensors={})
    finding = _one(_rule('tensors { aspect: TENSOR_MISSING name_pattern: "model.norm*" }', ""), facts)
    assert [d.subject for d in finding.diagnostics] == ["model.norm.weight"]


# ---- rules that cannot be evaluated


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_rule(FIELD, error_id="MOON"), "there is no error id 'MOON'"),
        (_rule(FIELD, error_id="RECAST_ERROR_ID_UNSPECIFIED"), "there is no error id"),
        (_rule(FIELD, ""), "RELATION_UNSPECIFIED is no relation between values"),
        (_rule(FIELD, 'relation: NAMED relation_name: "moon"'), "there is no relation 'moon'"),
        (_rule('config_field { attribute: "x" source { reading: "moon" } }'), "there is no reading 'moon'"),
        (_rule('config_field { attribute: "x" source { json: "{" } }'), "Expecting"),
        (_rule(FIELD, 'relation: EQUAL expected { manifest_fact: "moon.phase" }'), "has no moon.phase"),
        (_rule(FIELD, 'relation: EQUAL expected { manifest_fact: "tokenizer" }'), "tokenizer of a model is no value"),
        (
            _rule(FIELD, 'relation: ONE_OF expected { manifest_fact: "deployment" }'),
            "deployment of a model is no value",
        ),
        (_rule(FIELD, 'relation: EQUAL expected { literal_json: "]" }'), "Expecting value"),
        (_rule(FIELD, f"relation: EQUAL expected {{ literal_json: '{'[' * 100_000}' }}"), "recursion"),
        (_rule("tensors { }"), "it names no aspect of tensors"),
        (_rule('files { name: "a" }'), "files can be PRESENT or ABSENT"),
        (_rule('tokenizer { fact: "moon" }'), "a tokenizer has no fact 'moon'"),
        (_rule(""), "it has no subject"),
        (_rule(FIELD, error_id="DTYPE_DIFFERS"), "DTYPE_DIFFERS is a warning, and its severity is not"),
        ('rule { id: "r" step: "validate_files" ' + FIELD + ' error_id: "DTYPE_DIFFERS" }', "it has no severity"),
        ('rule { id: "r" step: "validate_moon" not_applicable {} }', "there is no step 'validate_moon'"),
        (_rule('tokenizer { fact: "token_count" }'), "a rule over the tokenizer says what it expects"),
    ],
)
def test_a_rule_that_cannot_be_evaluated_never_passes(text: str, said: str) -> None:
    finding = _one(text)
    assert not finding.passed
    (diagnostic,) = finding.diagnostics
    assert (diagnostic.id, diagnostic.subject) == ("RULE_INVALID", "r")
    assert "The catalogue's rule r cannot be evaluated" in diagnostic.reason
    assert said in diagnostic.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "factor", "full_attention"]), inner)
    ),
    max_leaves=5,
)
KEYS = sorted({source.path for rule in EMBEDDED.rule for source in rule.config_field.source if source.path})


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from([*KEYS, "rope_scaling", "rope_parameters", "text_config", "vision_config"]), value=JSON)
def test_no_value_of_a_config_is_too_odd_to_be_judged(path: str, value: Any) -> None:
    config: dict[str, Any] = {**_published().config}
    place = config
    *parents, key = path.split(".")
    for parent in parents:
        place[parent] = dict(place[parent]) if isinstance(place.get(parent), dict) else {}
        place = place[parent]
    place[key] = value
    catalog = testing.only(EMBEDDED, "config_field")
    for finding in evaluate(catalog, _model(), dataclasses.replace(_published(), config=config)):
        assert finding.passed == (not finding.diagnostics)
        assert finding.why


@pytest.mark.parametrize("config", ["[]", "{", "[" * 100_000])
def test_a_model_without_a_config_is_told_once(config: str) -> None:
    model = model_manifest_pb2.ModelManifest(name="m", family="llama", config_json=config)
    (finding,) = evaluate(EMBEDDED, model, _published())
    assert [d.id for d in finding.diagnostics] == ["RULE_INVALID"]


def test_a_model_of_a_family_that_this_version_lacks_is_refused() -> None:
    model = model_manifest_pb2.ModelManifest(name="m", family="marsupial", config_json="{}")
    findings = evaluate(testing.only(EMBEDDED, "tensors"), model, _published())
    assert {d.id for finding in findings for d in finding.diagnostics} == {"RULE_INVALID"}
    assert "no mapping of the family marsupial" in findings[0].why
