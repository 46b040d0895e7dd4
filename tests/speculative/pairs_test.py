"""Accepted and refused pairs: each check perturbed alone, several at once, heads, and what a row says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.speculative import pairs
from tests.speculative.cases import ALL_CHECKS, CASES, Case
from tests.speculative.pairs import set_config
from tests.speculative.validating import judge
from validators.vocabulary_samples import PIECES_24, PIECES_25

_MODEL_NAMES = ("import checkpoint", "sequence lengths", "batch sizes")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_and_the_errors_name_exactly_what_differs(case: Case, pair: Path) -> None:
    for side, damage in (("target", case.target), (case.kind, case.draft)):
        if damage is not None:
            damage(pair / side)
    judged = judge(pair, *case.arguments, draft=case.kind)
    table = judged.table
    assert {(check, table[check].reason) for check in judged.outcomes("refused")} == {
        (check, reason) for check, _, reason in case.refused
    }, judged.run.summary
    assert {(check, table[check].reason) for check in judged.outcomes("warning")} == {*case.warned}
    assert sorted((e.subject, e.id, e.reason) for e in judged.run.failures) == sorted(case.refused)
    assert sorted((e.subject, e.id, e.reason) for e in judged.run.warnings) == sorted(
        (check, "DRAFT_ADVICE", reason) for check, reason in case.warned
    )
    assert judged.run.code == (2 if case.refused else 0)
    judged.run.check_form()


def test_a_good_pair_has_every_row_and_each_has_a_reason(pair: Path) -> None:
    judged = judge(pair, "--num_speculative_tokens=4")
    assert tuple(judged.table) == ALL_CHECKS
    assert all(line.reason.endswith(".") for line in judged.table.values())
    assert tuple(judged.outcomes("not applicable")) == _MODEL_NAMES
    assert judged.table["parameters"].target == "61856"
    assert judged.table["parameters"].draft == "2200"


def test_a_draft_that_is_no_smaller_is_refused(pair: Path) -> None:
    exchanged = pair / "draft-and-target"
    exchanged.mkdir()
    (pair / "target").rename(exchanged / "draft")
    (pair / "draft").rename(exchanged / "target")
    judged = judge(exchanged)
    assert judged.run.ids == ["DRAFT_NOT_SMALLER"]
    assert judged.table["parameters"].reason == (
        "The draft has 61856 parameters, the target 2200; a draft must be smaller."
    )


def test_a_draft_of_nearly_the_targets_size_warns(pair: Path) -> None:
    pairs.save_model(pair / "draft", hidden_size=24, num_hidden_layers=3)
    judged = judge(pair)
    assert judged.run.code == 0
    assert judged.table["parameters"].outcome == "accepted"
    assert judged.table["parameters for a token"].outcome == "warning"


def test_vocabularies_of_sentencepiece_are_compared_by_digest(pair: Path) -> None:
    for side in ("target", "draft"):
        (pair / side / "tokenizer.json").unlink()
        (pair / side / "tokenizer.model").write_bytes(PIECES_24)
    same = judge(pair).table["token -> id map"]
    (pair / "draft" / "tokenizer.model").write_bytes(PIECES_25)
    other = judge(pair)
    assert same.outcome == "accepted"
    assert same.reason == "There is no tokenizer.json; compared by digest, tokenizer.model is equal."
    assert other.run.ids == ["DRAFT_TOKEN_MAP"]
    assert "tokenizer.model differs between the sides" in other.table["token -> id map"].reason


def test_tokens_added_beside_a_vocabulary_of_sentencepiece_are_compared(pair: Path) -> None:
    for side in ("target", "draft"):
        (pair / side / "tokenizer.json").unlink()
        (pair / side / "tokenizer.model").write_bytes(PIECES_24)
        added = {"13": {"content": "<tool>" if side == "target" else "<think>"}}
        pairs.set_json("tokenizer_config.json", added_tokens_decoder=added)(pair / side)
    judged = judge(pair)
    assert judged.run.ids == ["DRAFT_TOKEN_MAP"]
    assert "added tokens differ between the sides" in judged.table["token -> id map"].reason


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"architectures": ["Eagle3LlamaForCausalLM"]}, "An EAGLE-3 head"),
        ({"architectures": ["EagleLlamaForCausalLM"]}, "An EAGLE head"),
        ({"model_type": "eagle3"}, "An EAGLE-3 head"),
        ({"model_type": "eagle"}, "An EAGLE head"),
        ({"speculators_model_type": "eagle3"}, "An EAGLE-3 head"),
        ({"model_type": "medusa"}, "Medusa heads"),
        ({"medusa_num_heads": 3}, "Medusa heads"),
        ({"draft_vocab_size": 24}, "An EAGLE-3 head"),
    ],
)
def test_heads_are_recognised_by_what_their_configs_name(change: dict[str, object], kind: str, pair: Path) -> None:
    set_config(**change)(pair / "draft")
    assert judge(pair).table["draft"].reason.startswith(f"{kind}, by ")


def test_sizes_of_a_head_are_found_where_speculators_keep_them(pair: Path) -> None:
    path = pair / "eagle3" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    nested = {name: config.pop(name) for name in ("hidden_size", "vocab_size", "max_position_embeddings")}
    del config["model_type"]
    config |= {"architectures": ["Eagle3Speculator"], "transformer_layer_config": nested}
    path.write_text(json.dumps(config), "utf-8")
    judged = judge(pair, draft="eagle3")
    assert judged.run.code == 0, judged.run.summary
    assert judged.table["hidden size"].draft == "32"
