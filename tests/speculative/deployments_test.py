"""Lengths and batch sizes of a pair against a catalogue; checkpoints against the models that they are said to be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mappings.serving import text
from recast_proto import serving_catalog_pb2
from tests.speculative.pairs import set_config
from tests.speculative.validating import Judged, judge

Lengths = Mapping[int, tuple[int, ...]]

_NAMED = ("--target_model=tiny-70b", "--draft_model=tiny-1b")


def _catalogue(
    folder: Path, target: Lengths, draft: Lengths, *, speculative: bool = True, imported: bool = True
) -> str:
    catalog = serving_catalog_pb2.ServingCatalog(schema_version=1, version="1")
    for name, lengths in (("tiny-70b", target), ("tiny-1b", draft)):
        model = catalog.model.add(name=name, family="llama", config_json="{}", import_checkpoint=imported)
        for length, batches in lengths.items():
            model.deployment.add(sequence_length=length, batch_size=batches, speculative_decoding=speculative)
    path = folder / "catalog.textproto"
    path.write_text(text.dump(catalog), "utf-8")
    return f"--server={path}"


def _judged(pair: Path, target: Lengths, draft: Lengths, *arguments: str, kind: str = "draft") -> Judged:
    return judge(pair, _catalogue(pair, target, draft), *(arguments or _NAMED), draft=kind)


def test_a_draft_with_every_length_and_batch_size_is_accepted(pair: Path) -> None:
    judged = _judged(pair, {4096: (1, 2)}, {4096: (1, 2, 4), 8192: (1,)})
    assert judged.run.code == 0
    assert judged.outcomes("warning", "refused") == {}
    assert judged.table["sequence lengths"].target == "4096"
    assert judged.table["sequence lengths"].draft == "4096, 8192"
    assert judged.table["batch sizes"].draft == "4096: 1, 2, 4"


def test_models_without_a_length_in_common_are_refused(pair: Path) -> None:
    judged = _judged(pair, {4096: (1,)}, {8192: (1,)})
    assert judged.run.ids == ["DRAFT_DEPLOYMENT"]
    assert judged.table["positions of the draft"].reason == (
        "The catalogue names no sequence length of the pair that they must reach."
    )
    assert judged.table["sequence lengths"].reason == ("The models share no sequence length with speculative decoding.")


def test_models_without_a_batch_size_in_common_are_refused(pair: Path) -> None:
    judged = _judged(pair, {4096: (1,), 8192: (4,)}, {4096: (2,), 8192: (8,)})
    assert judged.run.ids == ["DRAFT_DEPLOYMENT"]
    assert judged.table["batch sizes"].reason == "The models share no batch size at 4096, 8192."


def test_lengths_and_batch_sizes_that_the_draft_lacks_are_warnings(pair: Path) -> None:
    judged = _judged(pair, {4096: (1, 4), 8192: (8,), 16384: (1,)}, {4096: (1, 2), 8192: (1,)})
    assert judged.run.code == 0
    assert judged.table["sequence lengths"].reason == (
        "The pair can be deployed at 4096, 8192; the draft has no deployment at 16384."
    )
    assert judged.table["batch sizes"].reason == (
        "The draft lacks batch sizes of the target; shared are 4096: 1; 8192: none."
    )


def test_a_model_without_speculative_decoding_is_refused(pair: Path) -> None:
    server = _catalogue(pair, {4096: (1,)}, {4096: (1,)}, speculative=False)
    judged = judge(pair, server, *_NAMED)
    assert judged.run.ids == ["DRAFT_DEPLOYMENT"]
    assert judged.table["sequence lengths"].reason == (
        "The catalogue has no deployment of tiny-70b and tiny-1b with speculative decoding."
    )


def test_a_model_of_which_no_checkpoints_are_taken_is_a_warning(pair: Path) -> None:
    judged = judge(pair, _catalogue(pair, {4096: (1,)}, {4096: (1,)}, imported=False), *_NAMED)
    assert judged.run.code == 0
    assert judged.table["import checkpoint"].outcome == "warning"


def test_positions_below_every_shared_length_are_refused(pair: Path) -> None:
    set_config(max_position_embeddings=4095)(pair / "draft")
    judged = _judged(pair, {4096: (1,), 8192: (1,)}, {4096: (1,), 8192: (1,)})
    assert judged.run.ids == ["DRAFT_POSITIONS"]
    assert judged.table["positions of the draft"].reason == (
        "max_position_embeddings is 4095, and the shortest sequence length of the pair is 4096."
    )


def test_positions_of_the_target_are_held_against_the_lengths_too(pair: Path) -> None:
    set_config(max_position_embeddings=1024)(pair / "target")
    judged = _judged(pair, {4096: (1,)}, {4096: (1,)})
    assert judged.outcomes("refused") == {"positions of the target": "refused"}


def test_positions_that_reach_the_shorter_lengths_alone_are_a_warning(pair: Path) -> None:
    set_config(max_position_embeddings=4096)(pair / "draft")
    judged = _judged(pair, {4096: (1,), 8192: (1,)}, {4096: (1,), 8192: (1,)})
    assert judged.run.code == 0
    assert judged.table["positions of the draft"].reason == (
        "max_position_embeddings is 4096: not enough for sequence lengths of 8192."
    )


def test_positions_that_yarn_reaches_count(pair: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    set_config(max_position_embeddings=1024, rope_scaling=scaling, rope_parameters=None)(pair / "draft")
    judged = _judged(pair, {4096: (1,)}, {4096: (1,)})
    assert judged.table["positions of the draft"].outcome == "accepted"
    assert judged.table["positions of the draft"].draft == "4096"


def test_a_head_is_held_against_no_model_of_its_own(pair: Path) -> None:
    judged = _judged(pair, {4096: (1,)}, {8192: (1,)}, "--target_model=tiny-70b", kind="eagle3")
    assert judged.run.code == 0
    assert judged.table["sequence lengths"].outcome == "not applicable"
    assert judged.table["positions of the target"].reason == (
        "They are enough for the longest sequence length of the pair, 4096."
    )


def test_lengths_are_not_compared_if_one_model_is_not_named(pair: Path) -> None:
    judged = _judged(pair, {4096: (1,)}, {8192: (1,)}, "--target_model=tiny-70b")
    assert judged.run.code == 0
    assert judged.table["sequence lengths"].reason == "--draft_model was not given."
    assert judged.table["sequence lengths"].target == "4096"


def test_tokens_at_a_time_are_held_against_the_longest_length(pair: Path) -> None:
    judged = _judged(pair, {4096: (1,)}, {4096: (1,)}, *_NAMED, "--num_speculative_tokens=4096")
    assert judged.table["num_speculative_tokens"].reason == "4096 tokens do not fit into a sequence of 4096."


def test_the_embedded_catalogue_pairs_the_published_models() -> None:
    from mappings.serving import catalog
    from validators.speculative import deployments
    from validators.speculative.deployments import Models
    from validators.speculative.sides import Kind

    embedded = catalog.embedded()
    models = Models(catalog.find(embedded, "llama3-70b"), catalog.find(embedded, "llama3-8b"))
    assert models.target is not None
    assert models.draft is not None
    assert deployments.lengths(models, Kind.MODEL) == (4096, 8192, 16384)
    assert len(deployments.lengths(models, Kind.EAGLE3)) > 3


def test_a_checkpoint_that_is_not_the_named_model_is_refused(pair: Path) -> None:
    judged = judge(pair, "--draft_model=llama3-1b")
    assert judged.run.steps["validate_target"] == "Succeeded"
    assert judged.run.steps["validate_draft"] == "Failed"
    assert "HIDDEN_SIZE_MISMATCH" in judged.run.ids
    assert {entry.step for entry in judged.run.failures} == {"validate_draft"}
    assert judged.table["vocabulary size"].outcome == "accepted"
