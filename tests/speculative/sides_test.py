"""One side of a pair by itself: what is read and what is refused; neither weights nor foreign files are opened."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mappings import catalog
from tests.bad_input.running import recast
from tests.speculative import pairs
from tests.speculative.pairs import set_config, set_shape
from tests.speculative.validating import judge
from validators.compatibility.facts import TensorInfo
from validators.speculative.sides import Kind, Side, Vocabulary, kind_of


def _side(config: Mapping[str, object], tensors: dict[str, TensorInfo] | None = None) -> Side:
    return Side(config, {}, tensors, Vocabulary())


def test_the_steps_and_the_status_line_of_a_good_pair(pair: Path) -> None:
    run = judge(pair).run
    names = ["parse_args", "load_serving_metadata", "validate_target", "validate_draft", "validate_pair"]
    assert list(run.steps) == names
    assert run.output.rstrip().endswith(" - recast_lib - INFO - The process is completed without any errors.")


def test_a_command_line_with_spaces_is_taken_and_shown_whole(pair: Path) -> None:
    words = [
        "validate-speculative-decoding",
        *("--target_checkpoint_path", str(pair / "target")),
        *("--draft_checkpoint_path", str(pair / "draft")),
        *("--num_speculative_tokens", "5"),
        *("--server", "embedded"),
    ]
    run = recast(*words)
    assert run.code == 0, run.summary
    assert f"FINAL REPORT FOR: `{' '.join(words)}`" in run.output


def test_the_platforms_prefix_names_errors_and_logger(pair: Path) -> None:
    run = recast(
        "validate-speculative-decoding",
        f"--target_checkpoint_path={pair / 'target'}",
        f"--draft_checkpoint_path={pair / 'draft'}",
        "--num_speculative_tokens=0",
        "--error_prefix=Byoc",
    )
    assert "  Id: ByocErrorId.DRAFT_TOKENS\n  Responsible: ByocErrorOwner.USAGE\n" in run.output
    assert run.output.rstrip().endswith(" - byoc_lib - ERROR - One or more failures have occurred. Do not deploy")


def test_faults_of_both_sides_and_of_the_pair_are_in_one_report(pair: Path) -> None:
    set_shape("model.embed_tokens.weight", 100, pairs.HIDDEN)(pair / "target")
    pairs.set_token("seven", 96)(pair / "draft")
    judged = judge(pair, "--num_speculative_tokens=0")
    found = {(entry.step, entry.id) for entry in judged.run.failures}
    assert found == {
        ("validate_target", "CONFIG_CONTRADICTS_TENSORS"),
        ("validate_draft", "TOKENIZER_TOO_LARGE"),
        ("validate_pair", "DRAFT_VOCABULARY_SIZE"),
        ("validate_pair", "DRAFT_TOKEN_MAP"),
        ("validate_pair", "DRAFT_TOKENS"),
    }
    assert judged.run.code == 2


def test_a_side_without_config_leaves_no_pair_to_compare(pair: Path) -> None:
    (pair / "draft" / "config.json").unlink()
    judged = judge(pair)
    assert judged.run.ids == ["CONFIG_MISSING"]
    assert list(judged.run.steps)[-2:] == ["validate_target", "validate_draft"]
    assert judged.table == {}


def test_two_paths_that_do_not_exist_are_two_errors(tmp_path: Path) -> None:
    judged = judge(tmp_path)
    assert [(entry.step, entry.id) for entry in judged.run.failures] == [
        ("validate_target", "SOURCE_NOT_FOUND"),
        ("validate_draft", "SOURCE_NOT_FOUND"),
    ]


def test_weights_in_a_pickle_alone_are_no_weights(pair: Path) -> None:
    (pair / "draft" / "model.safetensors").rename(pair / "draft" / "training_args.bin")
    judged = judge(pair)
    assert judged.run.ids == ["SOURCE_NOT_RECOGNIZED"]
    assert judged.table["parameters"].outcome == "not applicable"


def test_a_head_in_a_file_of_pytorch_is_read_by_its_header(pair: Path) -> None:
    import torch
    from safetensors.torch import load_file

    path = pair / "eagle3" / "model.safetensors"
    torch.save(load_file(path), pair / "eagle3" / "pytorch_model.bin")
    path.unlink()
    judged = judge(pair, draft="eagle3")
    assert judged.run.code == 0, judged.run.summary
    assert judged.table["vocabulary map"].outcome == "accepted"


def test_a_pickle_that_names_a_function_is_not_run(pair: Path) -> None:
    import pickle

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (pair / "touched",)

    (pair / "eagle3" / "model.safetensors").unlink()
    (pair / "eagle3" / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))
    assert judge(pair, draft="eagle3").run.steps["validate_draft"] == "Failed"
    assert not (pair / "touched").exists()


def test_an_unknown_architecture_is_refused(pair: Path) -> None:
    set_config(model_type="perceptron", architectures=["Perceptron"])(pair / "draft")
    assert judge(pair).run.ids == ["UNKNOWN_ARCHITECTURE"]


@pytest.mark.parametrize(
    ("name", "content", "id"),
    [
        ("generation_config.json", b'{"bos_token_id": 0, "bos_token_id": 1}', "CONFIG_INVALID"),
        ("generation_config.json", b'{"bos_token_id": NaN}', "CONFIG_INVALID"),
        ("generation_config.json", b"[" * 100_000, "CONFIG_INVALID"),
        ("generation_config.json", b"[]", "CONFIG_INVALID"),
        ("config.json", b"{", "CONFIG_INVALID"),
        ("tokenizer.json", b"[" * 100_000, "TOKENIZER_INVALID"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": -1}}}', "TOKENIZER_INVALID"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 1, "a": 2}}}', "TOKENIZER_INVALID"),
        ("tokenizer.json", b'{"model": {"vocab": [[[], 0.5]]}}', "TOKENIZER_INVALID"),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 1}}, "added_tokens": [{"content": []}]}', "TOKENIZER_INVALID"),
    ],
)
def test_a_damaged_small_file_is_one_error_of_its_side(name: str, content: bytes, id: str, pair: Path) -> None:
    (pair / "target" / name).write_bytes(content)
    failures = judge(pair).run.failures
    assert [(entry.step, entry.id) for entry in failures if entry.step == "validate_target"] == [
        ("validate_target", id)
    ]


def test_a_link_out_of_the_checkpoint_is_refused_and_not_read(pair: Path, tmp_path: Path) -> None:
    outside = tmp_path / "generation_config.json"
    outside.write_text("not read", "utf-8")
    link = pair / "draft" / "generation_config.json"
    link.unlink()
    link.symlink_to(outside)
    judged = judge(pair)
    assert judged.run.ids == ["PATH_ESCAPES"]
    assert judged.run.failures[0].subject == "generation_config.json"


def test_links_of_the_hubs_cache_are_followed(pair: Path, tmp_path: Path) -> None:
    home = tmp_path / "models--tiny--draft"
    snapshot = home / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for file in (pair / "draft").iterdir():
        file.rename(home / "blobs" / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    (pair / "draft").rmdir()
    run = judge(pair, draft=str(snapshot)).run
    assert run.code == 0, run.summary


def test_no_weight_is_read(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters.formats.safetensors_source import SafetensorsSource

    def read(*_: object) -> object:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(SafetensorsSource, "read", read)
    assert judge(pair).run.code == 0


def test_a_target_of_405_billion_parameters_takes_seconds(pair: Path) -> None:
    _write_sparse_405b(pair / "target")
    began = time.process_time()
    judged = judge(pair)
    assert time.process_time() - began < 20
    assert judged.table["parameters"].target == "405853388800"
    assert "DRAFT_VOCABULARY_SIZE" in judged.run.ids


def test_experts_that_are_not_chosen_take_no_part_in_a_token() -> None:
    config: dict[str, object] = {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    side = _side(
        config,
        {
            "model.embed_tokens.weight": TensorInfo((10, 4), "BF16"),
            "model.layers.0.block_sparse_moe.experts.0.w1.weight": TensorInfo((80, 4), "BF16"),
        },
    )
    assert side.parameters == 360
    assert side.active_parameters == 40 + 80


def test_a_map_of_ids_is_no_weight() -> None:
    side = _side({}, {"d2t": TensorInfo((24,), "I64"), "t2d": TensorInfo((96,), "BOOL")})
    assert side.parameters == 0


def test_the_embedding_of_a_layer_that_predicts_further_tokens_is_not_the_models() -> None:
    inner, outer = TensorInfo((5, 4), "BF16"), TensorInfo((10, 4), "BF16")
    side = _side({}, {"model.layers.61.embed_tokens.weight": inner, "model.embed_tokens.weight": outer})
    assert side.embedding == ("model.embed_tokens.weight", outer)


def test_a_dtype_that_config_does_not_name_is_that_of_most_weights() -> None:
    side = _side({}, {"a": TensorInfo((100,), "BF16"), "b": TensorInfo((10,), "F32")})
    assert side.dtype == "bfloat16"


def test_a_negative_id_stands_for_none() -> None:
    side = Side({"pad_token_id": -1}, {"pad_token_id": None}, None, Vocabulary(special_ids={"pad_token_id": 3}))
    assert side.special_id("pad_token_id") == (frozenset({3}), "tokenizer_config.json")


def test_dense_models_and_mixtures_of_one_series_are_of_one_family() -> None:
    from validators.speculative import pair
    from validators.speculative.deployments import Models

    rows = pair.compare(_side({"model_type": "qwen3_moe"}), _side({"model_type": "qwen3"}), Models())
    family = next(row for row in rows if row.check == "architecture family")
    assert (family.outcome.value, family.reason) == ("accepted", "Both belong to the series qwen3.")


def test_codes_are_counted_as_the_dtype_that_they_stand_for() -> None:
    from validators.speculative import pair
    from validators.speculative.deployments import Models

    target = _side({"model_type": "llama", "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}})
    rows = pair.compare(target, _side({"model_type": "llama", "torch_dtype": "bfloat16"}), Models())
    dtype = next(row for row in rows if row.check == "dtype class")
    assert (dtype.outcome.value, dtype.target) == ("accepted", "bfloat16, stored as fp8")


def test_values_of_the_wrong_kind_are_no_values() -> None:
    side = _side({"vocab_size": True, "hidden_size": "32", "max_position_embeddings": [1], "dtype": 5})
    assert (side.size("vocab_size"), side.size("hidden_size"), side.positions) == (None, None, None)
    assert kind_of(_side({"architectures": [None, 3, {"eagle": 1}]}))[0] is Kind.MODEL


def _write_sparse_405b(folder: Path) -> None:
    """Headers of the published size, one file for each layer, with data that takes no room."""
    hidden, inner, heads, vocabulary = 16384, 53248, 1024, 128256
    outer = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    files: list[dict[str, tuple[int, ...]]] = [outer | {"lm_head.weight": (vocabulary, hidden)}]
    for layer in range(126):
        at = f"model.layers.{layer}"
        files.append(
            {
                f"{at}.self_attn.q_proj.weight": (hidden, hidden),
                f"{at}.self_attn.k_proj.weight": (heads, hidden),
                f"{at}.self_attn.v_proj.weight": (heads, hidden),
                f"{at}.self_attn.o_proj.weight": (hidden, hidden),
                f"{at}.mlp.gate_proj.weight": (inner, hidden),
                f"{at}.mlp.up_proj.weight": (inner, hidden),
                f"{at}.mlp.down_proj.weight": (hidden, inner),
                f"{at}.input_layernorm.weight": (hidden,),
                f"{at}.post_attention_layernorm.weight": (hidden,),
            }
        )
    (folder / "model.safetensors").unlink()
    for number, tensors in enumerate(files, 1):
        path = folder / f"model-{number:05d}-of-{len(files):05d}.safetensors"
        _write_sparse(path, tensors)
    set_config(hidden_size=hidden, intermediate_size=inner, vocab_size=vocabulary, num_hidden_layers=126)(folder)


def _write_sparse(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, shape in tensors.items():
        begin, size = end, 2
        for length in shape:
            size *= length
        end = begin + size
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        file.truncate(8 + len(content) + end)


def test_what_a_config_of_gemma_3_leaves_out_is_what_its_class_assumes() -> None:
    import transformers

    assumed = transformers.Gemma3TextConfig()
    side = _side({"model_type": "gemma3", "text_config": {"hidden_size": 2560}})
    assert (side.vocabulary_size, side.positions) == (assumed.vocab_size, assumed.max_position_embeddings)


def test_a_vocabulary_that_nothing_states_is_as_large_as_the_embedding() -> None:
    side = _side({"model_type": "llama"}, {"model.embed_tokens.weight": TensorInfo((96, 32), "BF16")})
    assert side.vocabulary_size == 96
    assert _side({"model_type": "llama"}).vocabulary_size is None


def test_the_published_pair_of_gemma_3_has_one_vocabulary() -> None:
    from validators.speculative import pair
    from validators.speculative.deployments import Models

    target, draft = (catalog.find(name) for name in ("gemma3-27b", "gemma3-4b"))
    assert target is not None
    assert draft is not None
    rows = pair.compare(_side(target.config), _side(draft.config), Models())
    found = {row.check: row.outcome.value for row in rows if row.check in ("vocabulary size", "positions of the draft")}
    assert found == {"vocabulary size": "accepted", "positions of the draft": "accepted"}


def test_a_token_that_is_published_without_a_row_is_no_fault_of_a_side() -> None:
    from validators.speculative import pair

    tokens = {"a": 95, "<image_soft_token>": 96}
    side = Side({"vocab_size": 96}, {}, None, Vocabulary(tokens=tokens))
    kind = Kind.EAGLE
    assert pair.check_side(side, kind, {"<image_soft_token>"}) == []
    assert [d.id for d in pair.check_side(side, kind)] == ["TOKENIZER_TOO_LARGE"]
