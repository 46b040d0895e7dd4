"""Damaged and contradictory config.json, in both directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import Run, hf_to_maxtext, maxtext_to_hf

_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclasses.dataclass(frozen=True)
class Side:
    """One direction: its binary, a good source for it, and where that keeps config.json."""

    run: Callable[..., Run]
    source: Path
    config: Path


@pytest.fixture(params=["hf-to-maxtext", "maxtext-to-hf"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "hf-to-maxtext":
        hf: Path = request.getfixturevalue("hf")
        return Side(hf_to_maxtext, hf, hf)
    maxtext: Path = request.getfixturevalue("maxtext")
    return Side(maxtext_to_hf, maxtext, maxtext / "recast" / "hf")


def field(name: str, value: object, *says: str) -> Case:
    """A field with an impossible value."""
    shown = "_".join(str(value).split()) or "empty"
    return Case(
        f"{name}_is_{shown[:20]}", cp.with_fields(**{name: value}), (Fault("CONFIG_FIELD_INVALID", name, *says),)
    )


def directory_instead(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / "config.json").mkdir()


CASES = (
    Case("absent", cp.without("config.json"), (Fault("CONFIG_MISSING", "config.json"),)),
    Case("cut", cp.with_bytes("config.json", lambda data: data[:-5]), (Fault("CONFIG_INVALID", "config.json"),)),
    Case("empty", cp.with_text("config.json", ""), (Fault("CONFIG_INVALID", "config.json"),)),
    Case("a_list", cp.with_text("config.json", "[1]"), (Fault("CONFIG_INVALID", "no JSON object"),)),
    Case("not_utf_8", lambda d: (d / "config.json").write_bytes(b"\xff"), (Fault("CONFIG_INVALID", "config.json"),)),
    Case("a_key_twice", cp.with_text("config.json", '{"a":1,"a":2}'), (Fault("CONFIG_INVALID", "config.json"),)),
    Case("not_a_number", cp.with_text("config.json", '{"rope_theta": NaN}'), (Fault("CONFIG_INVALID", "NaN"),)),
    Case(
        "nested_without_end",
        cp.with_text("config.json", '{"a":' + "[" * 200_000),
        (Fault("CONFIG_INVALID", "config.json"),),
    ),
    Case("larger_than_any", cp.with_text("config.json", " " * 10_000_001), (Fault("CONFIG_INVALID", "10000001"),)),
    Case("a_directory", directory_instead, (Fault("CONFIG_INVALID", "config.json", "no regular file"),)),
    *(
        Case(f"without_{name}", cp.without_fields(name), (Fault("CONFIG_FIELD_MISSING", f"no field {name}"),))
        for name in _NEEDED
    ),
    Case(
        "without_any_size",
        cp.without_fields(*_NEEDED),
        tuple(Fault("CONFIG_FIELD_MISSING", f"no field {name}") for name in _NEEDED),
    ),
    field("hidden_size", "16", '"16"', "positive integer"),
    field("hidden_size", 0, "positive integer"),
    field("num_hidden_layers", -1, "-1", "positive integer"),
    field("num_hidden_layers", True, "true", "positive integer"),
    field("vocab_size", 24.5, "24.5", "positive integer"),
    field("head_dim", "ten", '"ten"'),
    field("tie_word_embeddings", "yes", '"yes"', "true or false"),
    field("rms_norm_eps", "small", '"small"'),
    field("rope_theta", "big", '"big"'),
    field("dtype", "int8", '"int8"', "bfloat16"),
    field("mlp_bias", True, "no format that Recast writes"),
    field("partial_rotary_factor", 0.5, "0.5"),
    field("quantization_config", {"quant_method": "awq", "bits": 4}, "awq"),
    Case(
        "several_fields",
        cp.with_fields(hidden_size="16", vocab_size=-3, tie_word_embeddings=1, num_attention_heads=5),
        (
            Fault("CONFIG_FIELD_INVALID", "hidden_size", '"16"'),
            Fault("CONFIG_FIELD_INVALID", "vocab_size", "-3"),
            Fault("CONFIG_FIELD_INVALID", "tie_word_embeddings", "1"),
            Fault("CONFIG_FIELD_INVALID", "num_attention_heads", "5", "2"),
        ),
    ),
    Case(
        "heads_that_share_no_keys_evenly",
        cp.with_fields(num_key_value_heads=3),
        (Fault("CONFIG_FIELD_INVALID", "num_attention_heads is 4", "num_key_value_heads, which is 3"),),
    ),
    Case("an_odd_head", cp.with_fields(head_dim=9), (Fault("REQUIREMENT_NOT_MET", "head dimension must be even"),)),
    Case(
        "dtypes_that_contradict",
        cp.with_fields(dtype="bfloat16", torch_dtype="float32"),
        (Fault("CONFIG_FIELD_INVALID", "torch_dtype is float32", "dtype is bfloat16"),),
    ),
    Case(
        "thetas_that_contradict",
        cp.with_fields(rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
        (Fault("CONFIG_FIELD_INVALID", "500000.0", "10000.0", "rope_theta"),),
    ),
    Case(
        "a_misspelt_architecture",
        cp.with_fields(model_type="lama"),
        (Fault("UNKNOWN_ARCHITECTURE", '"lama"', "The nearest known one is llama.", "mistral"),),
    ),
    Case(
        "another_architecture",
        cp.with_fields(model_type="t5", architectures=["T5ForConditionalGeneration"]),
        (Fault("UNKNOWN_ARCHITECTURE", '"t5"', "Known are: ", "llama"),),
    ),
    Case(
        "another_head_on_the_same_model",
        cp.with_fields(architectures=["LlamaForSequenceClassification"]),
        (Fault("UNKNOWN_ARCHITECTURE", "LlamaForSequenceClassification", "nearest known one is LlamaForCausalLM"),),
    ),
    Case(
        "no_architecture",
        cp.without_fields("model_type", "architectures"),
        (Fault("UNKNOWN_ARCHITECTURE", "neither model_type nor architectures"),),
    ),
    Case(
        "an_architecture_that_is_no_text",
        cp.with_fields(model_type=["llama"]),
        (Fault("UNKNOWN_ARCHITECTURE", '["llama"]'),),
    ),
    Case(
        "an_unknown_rope_type",
        cp.with_fields(rope_scaling={"rope_type": "longrope", "factor": 4.0}),
        (Fault("UNKNOWN_ROPE_TYPE", "rope_scaling.rope_type", "'longrope'", "default, llama3"),),
    ),
    Case(
        "a_rope_without_its_parameters",
        cp.with_fields(rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        (
            Fault("CONFIG_FIELD_MISSING", "low_freq_factor"),
            Fault("CONFIG_FIELD_MISSING", "high_freq_factor"),
            Fault("CONFIG_FIELD_MISSING", "original_max_position_embeddings"),
        ),
    ),
    Case(
        "a_rope_that_is_a_list",
        cp.with_fields(rope_scaling=["linear"]),
        (Fault("CONFIG_FIELD_INVALID", "rope_scaling", '["linear"]'),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_config_that_says_too_little_or_nonsense_is_refused(
    case: Case, side: Side, destination: Path, tmp_path: Path
) -> None:
    case.damage(side.config)
    with unchanged(tmp_path):
        run = side.run(side.source, destination)
    refused(run, *case.faults)


def weights(*names: str) -> tuple[str, ...]:
    """Names of tensors in every layer."""
    return tuple(f"model.layers.{layer}.{name}.weight" for layer in range(3) for name in names)


def shapes(names: tuple[str, ...], *says: str) -> tuple[Fault, ...]:
    return tuple(Fault("TENSOR_SHAPE", name, *says) for name in names)


def layer(number: int) -> tuple[str, ...]:
    parts = (*(f"self_attn.{name}" for name in _ATTENTION), "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    norms = ("input_layernorm", "post_attention_layernorm")
    return tuple(f"model.layers.{number}.{name}.weight" for name in (*parts, *norms))


_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_ALL = (*(f"self_attn.{name}" for name in _ATTENTION), *_MLP, "input_layernorm", "post_attention_layernorm")

CONTRADICTIONS = (
    Case(
        "hidden_size",
        cp.with_fields(hidden_size=32),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "every layer"),
            *shapes(weights(*_ALL), "16", "32"),
            *shapes(("model.embed_tokens.weight", "lm_head.weight"), "[24, 16]", "[24, 32]"),
            *shapes(("model.norm.weight",), "[16]", "[32]"),
        ),
    ),
    Case(
        "intermediate_size",
        cp.with_fields(intermediate_size=21),
        (Fault("CONFIG_CONTRADICTS_TENSORS", "every layer"), *shapes(weights(*_MLP), "20", "21")),
    ),
    Case(
        "too_few_layers",
        cp.with_fields(num_hidden_layers=2),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "more layers than config.json says", "model.layers.2."),
            *(Fault("UNKNOWN_TENSOR", name) for name in layer(2)),
        ),
    ),
    Case(
        "too_many_layers",
        cp.with_fields(num_hidden_layers=4),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "fewer layers than config.json says", "model.layers.3."),
            *(Fault("MISSING_TENSOR", name) for name in layer(3)),
        ),
    ),
    Case(
        "vocabulary",
        cp.with_fields(vocab_size=32),
        shapes(("model.embed_tokens.weight", "lm_head.weight"), "[24, 16]", "[32, 16]"),
    ),
    Case(
        "key_heads_left_out",
        cp.without_fields("num_key_value_heads"),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "every layer"),
            *shapes(weights("self_attn.k_proj", "self_attn.v_proj"), "[20, 16]", "[40, 16]"),
        ),
    ),
    Case(
        "head_dim_left_out",
        cp.without_fields("head_dim"),
        (
            Fault("CONFIG_CONTRADICTS_TENSORS", "every layer"),
            *shapes(weights(*(f"self_attn.{name}" for name in _ATTENTION))),
        ),
    ),
    Case(
        "a_tied_head_left_out",
        cp.changed_tensors(lambda tensors: tensors.pop("lm_head.weight")),
        (Fault("MISSING_TENSOR", "lm_head.weight"),),
    ),
    Case(
        "biases_that_are_not_there",
        cp.with_fields(attention_bias=True),
        (
            *(Fault("CONFIG_CONTRADICTS_TENSORS", "no layer has", f"{name}.bias") for name in _ATTENTION),
            *(
                Fault("MISSING_TENSOR", f"model.layers.{number}.self_attn.{name}.bias")
                for number in range(3)
                for name in _ATTENTION
            ),
        ),
    ),
)


@pytest.mark.parametrize("case", CONTRADICTIONS, ids=lambda case: case.name)
def test_a_config_that_contradicts_the_files_is_refused(
    case: Case, hf: Path, destination: Path, tmp_path: Path
) -> None:
    case.damage(hf)
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(run, *case.faults)


_LAYERS = "params.params.decoder.layers."
_STACKED = (
    *(f"{_LAYERS}self_attention.{name}.kernel" for name in ("query", "key", "value", "out")),
    *(f"{_LAYERS}mlp.{name}.kernel" for name in ("wi_0", "wi_1", "wo")),
    f"{_LAYERS}pre_self_attention_layer_norm.scale",
    f"{_LAYERS}post_self_attention_layer_norm.scale",
)

STACKED_CONTRADICTIONS = (
    Case(
        "hidden_size",
        cp.with_fields(hidden_size=32),
        (
            *shapes(_STACKED, "16", "32"),
            *shapes(("params.params.token_embedder.embedding",), "[24, 16]", "[24, 32]"),
            *shapes(("params.params.decoder.logits_dense.kernel",), "[16, 24]", "[32, 24]"),
            *shapes(("params.params.decoder.decoder_norm.scale",), "[16]", "[32]"),
        ),
    ),
    Case(
        "too_few_layers",
        cp.with_fields(num_hidden_layers=2),
        (Fault("CONFIG_CONTRADICTS_TENSORS", "3 layers", "2"), *shapes(_STACKED, "3", "2")),
    ),
    Case(
        "too_many_layers",
        cp.with_fields(num_hidden_layers=4),
        (Fault("CONFIG_CONTRADICTS_TENSORS", "3 layers", "4"), *shapes(_STACKED, "3", "4")),
    ),
    Case(
        "vocabulary",
        cp.with_fields(vocab_size=32),
        (
            *shapes(("params.params.token_embedder.embedding",), "[24, 16]", "[32, 16]"),
            *shapes(("params.params.decoder.logits_dense.kernel",), "[16, 24]", "[16, 32]"),
        ),
    ),
)


@pytest.mark.parametrize("case", STACKED_CONTRADICTIONS, ids=lambda case: case.name)
def test_a_config_that_contradicts_the_stacked_arrays_is_refused(
    case: Case, maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    case.damage(maxtext / "recast" / "hf")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination)
    refused(run, *case.faults)


@pytest.mark.parametrize("number", [10**6, 10**9, 10**18])
def test_an_absurd_number_of_layers_is_refused_at_once(
    number: int, side: Side, destination: Path, tmp_path: Path
) -> None:
    cp.with_fields(num_hidden_layers=number)(side.config)
    with unchanged(tmp_path):
        run = side.run(side.source, destination)
    run.check_form()
    assert run.code == 2, run.summary
    assert str(number) in run.failures[0].reason.replace(",", ""), run.summary
    assert len(run.output) < 1_000_000


@pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "intermediate_size", "head_dim"])
def test_an_absurd_size_is_refused(name: str, side: Side, destination: Path, tmp_path: Path) -> None:
    cp.with_fields(**{name: 2**62})(side.config)
    with unchanged(tmp_path):
        run = side.run(side.source, destination)
    run.check_form()
    assert run.code == 2, run.summary
    assert set(run.ids) <= {"TENSOR_SHAPE", "CONFIG_CONTRADICTS_TENSORS", "CONFIG_FIELD_INVALID"}, run.summary


ABSURD: tuple[tuple[str, object], ...] = (
    ("hidden_size", 10**30),
    ("vocab_size", 10**400),
    ("num_hidden_layers", 10**400),
    ("head_dim", 10**400),
    ("rope_theta", 10**400),
    ("rope_theta", -1.0),
    ("rope_theta", 0),
    ("rms_norm_eps", 10**400),
    ("rope_scaling", {"rope_type": "llama3", "factor": "8"}),
    ("rope_scaling", {"rope_type": "llama3", "factor": None}),
    ("rope_scaling", {"rope_type": ["llama3"]}),
    ("rope_scaling", {"rope_type": {}}),
    ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
    ("architectures", "LlamaForCausalLM"),
    ("architectures", [3]),
    ("architectures", {}),
    ("model_type", {}),
    ("quantization_config", "awq"),
    ("dtype", {}),
    ("dtype", ["bfloat16"]),
    ("dtype", "\ud800"),
    ("model_type", "\ud800"),
    ("text_config", {"hidden_size": 3}),
    ("text_config", []),
)


@pytest.mark.parametrize(("name", "value"), ABSURD, ids=[f"{name}_{number}" for number, (name, _) in enumerate(ABSURD)])
def test_absurd_values_are_no_fault_of_the_library(
    name: str, value: object, side: Side, destination: Path, tmp_path: Path
) -> None:
    cp.with_fields(**{name: value})(side.config)
    with unchanged(side.source):
        run = side.run(side.source, destination)
    run.check_form()
    if run.code == 0:
        # What has no meaning for the family is carried as it is.
        assert (destination / "DONE").is_file()
        return
    assert run.code == 2, run.summary
    assert {entry.owner for entry in run.failures} == {"USAGE"}, run.summary
    if name != "text_config":
        assert any(name in entry.reason + entry.subject for entry in run.failures), run.summary
    assert not (tmp_path / "new").exists()


@triggers("CONFIG_MISSING")
def test_a_maxtext_checkpoint_from_elsewhere_needs_a_config(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    (maxtext / "recast").rename(tmp_path / "kept")
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination)
    refused(run, Fault("CONFIG_MISSING", str(maxtext)))
    assert "--hf_config_path" in run.failures[0].suggestion
    completed(maxtext_to_hf(maxtext, destination, f"--hf_config_path={tmp_path / 'kept' / 'hf'}"))


@pytest.mark.parametrize("name", ["config.json", "nowhere"])
@triggers("CONFIG_MISSING")
def test_a_config_path_that_leads_nowhere(name: str, maxtext: Path, destination: Path, tmp_path: Path) -> None:
    path = tmp_path / "missing" / name
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, f"--hf_config_path={path}")
    refused(run, Fault("CONFIG_MISSING", str(path)))


@triggers("CONFIG_INVALID")
def test_every_damaged_file_that_travels_with_the_weights_is_named(hf: Path, destination: Path, tmp_path: Path) -> None:
    (hf / "tokenizer.json").write_text("{", "utf-8")
    (hf / "generation_config.json").write_text("", "utf-8")
    (hf / "tokenizer.model").symlink_to("gone")
    (hf / "README.md").symlink_to("/etc/hostname")
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination)
    refused(
        run,
        Fault("CONFIG_INVALID", "tokenizer.json"),
        Fault("CONFIG_INVALID", "generation_config.json"),
        Fault("CONFIG_INVALID", "tokenizer.model", "a link to nothing"),
        Fault("CONFIG_INVALID", "README.md", "leads out of the checkpoint"),
    )
    (advised,) = [failure.suggestion for failure in run.failures if failure.subject == "README.md"]
    assert "instead of the link" in advised


def test_a_snapshot_in_the_cache_of_hugging_face_is_a_source(sharded: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (sharded / "tokenizer.json").write_text("{}", "utf-8")
    for number, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", f"{number:040x}"))
    with unchanged(tmp_path / "models--a--b"):
        completed(hf_to_maxtext(snapshot, tmp_path / "out"))
    carried = tmp_path / "out" / "recast" / "hf"
    assert {path.name for path in carried.iterdir()} == {"config.json", "tokenizer.json"}
    assert not any(path.is_symlink() for path in carried.iterdir())
