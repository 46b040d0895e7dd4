"""Drafts that cannot propose tokens for their target: each is refused with its reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mappings.serving import text
from recast_proto import serving_catalog_pb2
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import Run, recast
from tests.speculative import pairs
from tests.speculative.pairs import set_config, set_generation, set_shape, set_token


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair that fits."""
    folder = tmp_path_factory.mktemp("pair")
    pairs.save_pair(folder)
    pairs.save_eagle3(folder / "eagle3")
    return folder


@pytest.fixture
def pair(good: Path, tmp_path: Path) -> Path:
    """A pair to damage."""
    return Path(shutil.copytree(good, tmp_path / "pair"))


def validate(pair: Path, *arguments: str, target: str = "target", draft: str = "draft") -> Run:
    with unchanged(pair):
        return recast(
            "validate-speculative-decoding",
            *("--target_checkpoint_path", str(pair / target)),
            *("--draft_checkpoint_path", str(pair / draft)),
            *arguments,
        )


def test_both_paths_must_be_given() -> None:
    refused(
        recast("validate-speculative-decoding"),
        Fault("INVALID_FLAG", "--target_checkpoint_path was not given"),
        Fault("INVALID_FLAG", "--draft_checkpoint_path was not given"),
    )


def test_paths_elsewhere_are_refused() -> None:
    run = recast(
        "validate-speculative-decoding",
        "--target_checkpoint_path=gs://bucket/target",
        "--draft_checkpoint_path=gs://bucket/draft",
    )
    refused(
        run,
        Fault("REMOTE_NOT_SUPPORTED", "target_checkpoint_path"),
        Fault("REMOTE_NOT_SUPPORTED", "draft_checkpoint_path"),
    )


def test_a_number_of_tokens_must_be_a_number(pair: Path) -> None:
    refused(validate(pair, "--num_speculative_tokens=many"), Fault("INVALID_FLAG", "num_speculative_tokens"))


def test_each_model_that_the_catalogue_does_not_hold_is_named(pair: Path) -> None:
    run = validate(pair, "--target_model=llama3-71b", "--draft_model=nonesuch")
    refused(
        run,
        Fault("UNSUPPORTED_MODEL", "llama3-71b", "Near names are: ", "llama3-70b", "--target_model"),
        Fault("UNSUPPORTED_MODEL", "nonesuch", "--draft_model"),
    )


def test_a_catalogue_that_is_not_there(pair: Path) -> None:
    refused(validate(pair, "--server=https://models.invalid"), Fault("METADATA_NOT_FOUND"))


@triggers("DRAFT_VOCABULARY_SIZE")
def test_another_size_of_the_vocabulary(pair: Path) -> None:
    set_shape("lm_head.weight", 95, 8)(pair / "draft")
    refused(validate(pair), Fault("DRAFT_VOCABULARY_SIZE", "96 rows", "95", "lm_head rows"))


@triggers("DRAFT_TOKEN_MAP")
def test_another_meaning_of_an_id(pair: Path) -> None:
    set_token("red", 50)(pair / "draft")
    refused(validate(pair), Fault("DRAFT_TOKEN_MAP", '"red"'))


@triggers("DRAFT_SPECIAL_IDS")
def test_another_end_of_sequences(pair: Path) -> None:
    set_generation(eos_token_id=4)(pair / "draft")
    refused(validate(pair), Fault("DRAFT_SPECIAL_IDS", "eos_token_id is 1 in the target"))


@triggers("DRAFT_DTYPE")
def test_another_width_of_numbers(pair: Path) -> None:
    set_config(dtype="float32")(pair / "draft")
    refused(validate(pair), Fault("DRAFT_DTYPE", "16 bits (bfloat16)", "32 (float32)"))


@triggers("DRAFT_NOT_SMALLER", "DRAFT_ADVICE")
def test_a_target_as_its_own_draft(pair: Path) -> None:
    run = validate(pair, draft="target")
    refused(run, Fault("DRAFT_NOT_SMALLER", "61856"))
    assert [entry.id for entry in run.warnings] == ["DRAFT_ADVICE"]
    set_config(max_position_embeddings=512)(pair / "draft")
    completed(validate(pair), Fault("DRAFT_ADVICE", "limited to 512 tokens"))


@triggers("DRAFT_HEAD")
def test_a_head_for_another_target(pair: Path) -> None:
    set_config(hidden_size=64)(pair / "eagle3")
    refused(validate(pair, draft="eagle3"), Fault("DRAFT_HEAD", "64"), Fault("DRAFT_HEAD", "64 x 96"))


@triggers("DRAFT_TOKENS")
def test_a_number_of_tokens_that_cannot_be(pair: Path) -> None:
    refused(validate(pair, "--num_speculative_tokens", "-3"), Fault("DRAFT_TOKENS", "-3 is no number"))


@triggers("DRAFT_DEPLOYMENT", "DRAFT_POSITIONS")
def test_a_catalogue_in_which_the_models_never_meet(pair: Path) -> None:
    run = validate(pair, *_catalogue(pair.parent, draft_batch=2))
    refused(run, Fault("DRAFT_DEPLOYMENT", "no batch size at 4096"))
    set_config(max_position_embeddings=512)(pair / "draft")
    run = validate(pair, *_catalogue(pair.parent, draft_batch=1))
    refused(run, Fault("DRAFT_POSITIONS", "512", "4096"))


def _catalogue(folder: Path, draft_batch: int) -> tuple[str, ...]:
    catalog = serving_catalog_pb2.ServingCatalog(schema_version=1, version="1")
    for name, batch in (("large", 1), ("small", draft_batch)):
        model = catalog.model.add(name=name, family="llama", config_json="{}", import_checkpoint=True)
        model.deployment.add(sequence_length=4096, batch_size=[batch], speculative_decoding=True)
    path = folder / "catalog.textproto"
    path.write_text(text.dump(catalog), "utf-8")
    return f"--server={path}", "--target_model=large", "--draft_model=small"
