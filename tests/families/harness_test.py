"""The tests of families notice what the linter cannot see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mappings.language import loader
from mappings.language.lint import lint_family
from tests import checkpoints
from tests.families import harness
from tests.oracles import qwen3 as oracle

MISTAKES = {
    "a misspelt name": ("common/hf_qk_norm.textproto", "q_norm.weight", "query_norm.weight"),
    "axes in another order": ("common/maxtext_query.textproto", '"e h d"', '"h e d"'),
    "another stack axis": ("qwen3/maxtext.textproto", 'stack_axis: "1"', 'stack_axis: "0"'),
    "a scale": (
        "common/maxtext_query.textproto",
        '"e h d"',
        '"e h d" op { scale { of: "size(d)" half_powers: -1 } }',
    ),
    "another rotary order": ("qwen3/maxtext.textproto", "option {", 'atom { name: "d" is: "r p" }\noption {'),
    "two leaves exchanged": (
        "common/maxtext_qk_norm.textproto",
        'query_norm.scale" axes: "d" }\nrule { tensor: "attn.k_norm" name: "self_attention.key_norm',
        'key_norm.scale" axes: "d" }\nrule { tensor: "attn.k_norm" name: "self_attention.query_norm',
    ),
}
"""File, text and what stands instead of it: bijections that are consistent, and wrong."""


class Qwen3(harness.FamilyTests):
    family = harness.Family(
        folder="qwen3",
        configs={
            "tied": {
                "model_type": "qwen3",
                "vocab_size": 72,
                "hidden_size": 60,
                "intermediate_size": 88,
                "num_hidden_layers": 4,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 10,
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        published={"qwen3-0.6b": 596_049_920},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> harness.Saved:
    return harness.save(Qwen3.family, "tied", tmp_path_factory.mktemp("saved") / "hf")


@pytest.fixture
def mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "mappings"
    shutil.copytree(loader.mappings_root(), root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(loader, "mappings_root", lambda: root)
    return root


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_consistent_mistake_passes_the_linter_and_not_the_witnesses(
    mappings: Path, saved: harness.Saved, mistake: str, tmp_path: Path
) -> None:
    file, old, new = MISTAKES[mistake]
    _edit(mappings / file, old, new)
    assert [str(issue) for issue in lint_family("qwen3")] == []
    tests = Qwen3()
    if file.startswith("common/hf_"):
        with pytest.raises(AssertionError):
            tests.test_the_files_of_transformers_have_the_names_and_shapes_of_the_layout(saved)
        with pytest.raises(AssertionError):
            tests.test_the_state_of_transformers_in_memory_has_the_names_and_shapes_of_the_layout(saved)
        return
    with pytest.raises(AssertionError):
        tests.test_there_equals_the_oracle_and_back_every_byte_is_the_source(saved, {}, True, tmp_path)
    # There and back alone is no evidence.
    harness.to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_wrong_size_in_a_manifest_is_noticed_by_the_count(mappings: Path, field: str) -> None:
    path = mappings / "manifests" / "qwen3-0.6b.textproto"
    value = {"hidden_size": 1024, "num_hidden_layers": 28, "vocab_size": 151936}[field]
    _edit(path, f'"{field}": {value}', f'"{field}": {value // 2}')
    with pytest.raises(AssertionError):
        Qwen3().test_a_published_model_has_the_names_shapes_and_count_of_transformers("qwen3-0.6b")


def test_a_manifest_that_the_tests_do_not_name_is_noticed() -> None:
    with pytest.raises(AssertionError):
        Qwen3().test_the_published_models_are_those_of_the_manifests()
