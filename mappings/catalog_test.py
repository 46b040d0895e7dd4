"""Tests of the catalog of published models."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors

PUBLISHED = {
    "llama2-7b",
    "llama2-13b",
    "llama2-70b",
    "llama3-8b",
    "llama3-70b",
    "llama3.1-8b",
    "llama3.1-70b",
    "llama3.1-405b",
    "llama3.2-1b",
    "llama3.2-3b",
    "llama3.3-70b",
    "mistral-7b-v0.1",
    "mistral-7b-v0.2",
    "mistral-7b-v0.3",
}
GOOD = """\
name: "toy-1b"
alias: "toy-1b-chat"
family: "toy"
hub_id: "someone/Toy-1B"
config_json: '{"model_type": "toy", "architectures": ["ToyForCausalLM"]}'
config_origin: "made up"
option { format: "maxtext" name: "model_name" value: "toy-1b" }
doc: "a toy"
"""
FAMILY = 'name: "toy"\nmodel_type: "toy"\nmodel_type: "toy_text"\n'


def _root(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "family.textproto").write_text(FAMILY)
    for name, text in files.items():
        (tmp_path / "manifests" / f"{name.replace('_', '-')}.textproto").write_text(text)
    return tmp_path


def _issues(root: Path) -> list[str]:
    with pytest.raises(MappingErrors) as caught:
        catalog.manifests(root)
    return [str(issue) for issue in caught.value.issues]


def test_the_published_models_of_the_first_families_are_there() -> None:
    assert {manifest.name for manifest in catalog.manifests() if manifest.family in ("llama", "mistral")} == PUBLISHED


# Parameter counts as the publishers state them: they hold only if every size in the config is right.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama2-7b", 6_738_415_616),
        ("llama2-13b", 13_015_864_320),
        ("llama2-70b", 68_976_648_192),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("llama3.1-8b", 8_030_261_248),
        ("llama3.1-70b", 70_553_706_496),
        ("llama3.1-405b", 405_853_388_800),
        ("llama3.2-1b", 1_235_814_400),
        ("llama3.2-3b", 3_212_749_824),
        ("llama3.3-70b", 70_553_706_496),
        ("mistral-7b-v0.1", 7_241_732_096),
        ("mistral-7b-v0.2", 7_241_732_096),
        ("mistral-7b-v0.3", 7_248_023_552),
    ],
)
def test_a_published_config_has_the_published_number_of_parameters(name: str, parameters: int) -> None:
    manifest = catalog.find(name)
    assert manifest is not None
    config = manifest.config
    e, heads, kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    d = config.get("head_dim", e // heads)
    layer = 2 * e * heads * d + 2 * e * kv * d + 3 * e * config["intermediate_size"] + 2 * e
    ends = (1 if config["tie_word_embeddings"] else 2) * config["vocab_size"] * e + e
    assert config["num_hidden_layers"] * layer + ends == parameters


def test_every_manifest_names_a_family_that_exists_and_serves_its_config() -> None:
    for manifest in catalog.manifests():
        assert catalog.family_of(manifest.config) == manifest.family, manifest.name


def test_only_llama_3_1_and_later_scale_the_rotary_embedding() -> None:
    scaled = {m.name for m in catalog.manifests() if (m.config.get("rope_scaling") or {}).get("rope_type") == "llama3"}
    assert scaled == {name for name in PUBLISHED if name.startswith(("llama3.1", "llama3.2", "llama3.3"))}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("llama3.1-8b", "llama3.1-8b"),
        ("llama3.1-8b-Instruct", "llama3.1-8b"),
        ("LLAMA3.1-8B", "llama3.1-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1-8b"),
        ("meta-llama/llama-2-7b-hf", "llama2-7b"),
        ("mistral-7b", "mistral-7b-v0.2"),
        ("mistralai/Mistral-7B-v0.3", "mistral-7b-v0.3"),
    ],
)
def test_a_model_is_found_by_name_alias_and_hub_id_in_any_case(asked: str, found: str) -> None:
    manifest = catalog.find(asked)
    assert manifest is not None
    assert manifest.name == found


def test_an_unknown_name_finds_nothing() -> None:
    assert catalog.find("llama3.1") is None
    assert catalog.find("") is None


def test_layout_names_are_what_stands_before_the_size() -> None:
    names = catalog.layout_names()
    assert {name: families for name, families in names.items() if {"llama", "mistral"} & set(families)} == {
        "llama2": ("llama",),
        "llama3": ("llama",),
        "llama3.1": ("llama",),
        "llama3.2": ("llama",),
        "llama3.3": ("llama",),
        "mistral": ("mistral",),
    }


def test_near_names_are_named_once_each_and_by_their_own_name() -> None:
    near = catalog.nearest("lama3.1-8b-instrukt")
    assert near[0] == "llama3.1-8b"
    assert len(near) == len(set(near)) == 3
    assert catalog.nearest("Mistral")[0] == "mistral"
    assert catalog.nearest("zzzzzz") == ()


def test_the_maxtext_name_of_a_model_is_an_option_of_that_format() -> None:
    manifest = catalog.find("llama3.1-70b")
    assert manifest is not None
    assert manifest.options["maxtext"]["model_name"] == "llama3.1-70b"


def test_a_family_is_found_by_model_type(tmp_path: Path) -> None:
    root = _root(tmp_path)
    assert catalog.family_of({"model_type": "toy_text"}, root) == "toy"
    assert catalog.known_model_types(root) == {"toy": "toy", "toy_text": "toy"}


def test_a_config_without_model_type_is_known_by_its_architecture(tmp_path: Path) -> None:
    root = _root(tmp_path, toy_1b=GOOD)
    assert catalog.family_of({"architectures": ["Other", "toyForCausalLM"]}, root) == "toy"


@pytest.mark.parametrize("config", [{}, {"model_type": "else"}, {"model_type": 3}, {"architectures": "ToyForCausalLM"}])
def test_an_unknown_config_has_no_family(tmp_path: Path, config: dict[str, object]) -> None:
    assert catalog.family_of(config, _root(tmp_path, toy_1b=GOOD)) is None


def test_a_manifest_is_read_as_it_stands(tmp_path: Path) -> None:
    (manifest,) = catalog.manifests(_root(tmp_path, toy_1b=GOOD))
    assert (manifest.name, manifest.aliases, manifest.layout) == ("toy-1b", ("toy-1b-chat",), "toy")
    assert manifest.config["model_type"] == "toy"
    assert manifest.location == "manifests/toy-1b.textproto:1"


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mixtral-8x7b", "mixtral"),
        ("qwen3-30b-a3b", "qwen3"),
        ("gpt-oss-20b", "gpt-oss"),
        ("llama3.2-0.5b-x", "llama3.2"),
    ],
)
def test_sizes_of_all_spellings_are_recognised(tmp_path: Path, name: str, layout: str) -> None:
    (manifest,) = catalog.manifests(_root(tmp_path, **{name: GOOD.replace("toy-1b", name)}))
    assert manifest.layout == layout


def test_text_that_is_no_textproto_is_an_error_with_its_line(tmp_path: Path) -> None:
    (issue,) = _issues(_root(tmp_path, toy_1b=GOOD + "name\n"))
    assert issue.startswith("manifests/toy-1b.textproto:10: ")


def test_an_unknown_field_is_an_error_with_its_line(tmp_path: Path) -> None:
    (issue,) = _issues(_root(tmp_path, toy_1b='colour: "red"\n' + GOOD))
    assert issue.startswith("manifests/toy-1b.textproto:1: ")
    assert "colour" in issue


@pytest.mark.parametrize("field", ["name", "family", "hub_id", "config_json", "config_origin"])
def test_a_field_that_is_needed_is_named(tmp_path: Path, field: str) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(field))
    assert _issues(_root(tmp_path, toy_1b=text)) == [f"manifests/toy-1b.textproto:1: manifest without '{field}'"]


def test_a_config_that_is_no_json_is_an_error_with_its_line(tmp_path: Path) -> None:
    (issue,) = _issues(_root(tmp_path, toy_1b=GOOD.replace('"toy", ', '"toy"; ')))
    assert issue.startswith("manifests/toy-1b.textproto:5: config_json: ")


def test_a_config_that_is_no_object_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("""'{"model_type": "toy", "architectures": ["ToyForCausalLM"]}'""", "'[1]'")
    assert "no JSON object" in _issues(_root(tmp_path, toy_1b=text))[0]


def test_the_name_must_be_that_of_the_file(tmp_path: Path) -> None:
    (issue,) = _issues(_root(tmp_path, toy_2b=GOOD))
    assert issue == "manifests/toy-2b.textproto:1: 'toy-1b' stands in a file of another name"


def test_an_option_given_twice_is_refused(tmp_path: Path) -> None:
    text = GOOD + 'option { format: "maxtext" name: "model_name" value: "b" }\n'
    assert _issues(_root(tmp_path, toy_1b=text)) == [
        "manifests/toy-1b.textproto:9: option 'model_name' of maxtext is given twice"
    ]


def test_an_option_without_a_format_is_refused(tmp_path: Path) -> None:
    (issue,) = _issues(_root(tmp_path, toy_1b=GOOD + 'option { name: "a" value: "b" }\n'))
    assert issue == "manifests/toy-1b.textproto:9: option without 'format' or 'name'"


def test_a_name_that_two_models_have_is_refused_in_any_case(tmp_path: Path) -> None:
    other = (
        GOOD.replace("toy-1b-chat", "TOY-1B").replace('name: "toy-1b"', 'name: "toy-2b"', 1).replace("Toy-1B", "Toy-2B")
    )
    (issue,) = _issues(_root(tmp_path, toy_1b=GOOD, toy_2b=other))
    assert issue == "manifests/toy-2b.textproto:1: 'TOY-1B' is taken by manifests/toy-1b.textproto:1"


def test_an_alias_that_repeats_a_name_of_its_own_model_is_refused(tmp_path: Path) -> None:
    issues = _issues(_root(tmp_path, toy_1b=GOOD.replace("toy-1b-chat", "Toy-1b")))
    assert any("'Toy-1b' is taken" in issue for issue in issues)


def test_families_may_share_a_layout_name(tmp_path: Path) -> None:
    other = GOOD.replace("toy-1b", "toy-2b-a1b").replace("Toy-1B", "Toy-2B").replace('family: "toy"', 'family: "tin"')
    root = _root(tmp_path, **{"toy_1b": GOOD, "toy_2b-a1b": other})
    assert catalog.layout_names(root) == {"toy": ("tin", "toy")}


def test_the_faults_of_all_manifests_are_told_at_once(tmp_path: Path) -> None:
    issues = _issues(_root(tmp_path, toy_1b=GOOD + "x\n", toy_2b="y\n"))
    assert [issue.split(":")[0] for issue in issues] == ["manifests/toy-1b.textproto", "manifests/toy-2b.textproto"]
