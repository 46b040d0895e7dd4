"""Checkpoints that a serving platform cannot run: each is refused with its reason, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import serving_checkpoints
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import Run, process, recast
from tests.serving_checkpoints import CLOSED, PLAIN
from validators.vocabulary_samples import PIECES_24, PIECES_25, ranks

_VERSION = ("--transformers_version", "4.45.1")
_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_FILES = "model.safetensors"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of tiny models and a good checkpoint of one."""
    root = tmp_path_factory.mktemp("serving")
    serving_checkpoints.catalogue(root / "catalog.textproto")
    serving_checkpoints.write(root / "good")
    return root


@pytest.fixture
def source(templates: Path, tmp_path: Path) -> Path:
    """A good checkpoint to damage."""
    return Path(shutil.copytree(templates / "good", tmp_path / "in"))


def prepare(templates: Path, source: Path, *arguments: str, model: str = PLAIN, output: Path | None = None) -> Run:
    return recast("prepare-ckpt", *_words(templates, source, *arguments, model=model, output=output))


def _words(
    templates: Path, source: Path, *arguments: str, model: str = PLAIN, output: Path | None = None
) -> tuple[str, ...]:
    paths = (
        "--original_checkpoint_path",
        str(source),
        "--output_checkpoint_path",
        str(output or source.parent / "out"),
    )
    return ("--model", model, *paths, "--server", str(templates / "catalog.textproto"), *arguments)


def _two_files(directory: Path) -> None:
    """The checkpoint in two files with an index."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / _FILES)
    names = sorted(tensors)
    parts = dict(zip(_SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True))
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, directory / file, {"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    (directory / cp.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")
    (directory / _FILES).unlink()


def _overlap(header: dict[str, dict[str, list[int]]]) -> None:
    first, second = [name for name in header if name != "__metadata__"][:2]
    begin, end = header[first]["data_offsets"]
    header[second]["data_offsets"] = [begin, begin + header[second]["data_offsets"][1] - end]


def _adapter(directory: Path) -> None:
    for name in (_FILES, "config.json", "generation_config.json"):
        (directory / name).unlink()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}', "utf-8")


def _gguf(directory: Path) -> None:
    (directory / _FILES).unlink()
    (directory / "model-q4.gguf").write_bytes(b"GGUF" + bytes(60))


def _tokens(change: Callable[[dict[str, int]], object]) -> cp.Edit:
    return cp.changed_json("tokenizer.json", lambda content: change(content["model"]["vocab"]))


def _vocabulary(content: bytes) -> Callable[[Path], None]:
    """The tokenizer in another format alone."""

    def edit(directory: Path) -> None:
        (directory / "tokenizer.json").unlink()
        (directory / "tokenizer.model").write_bytes(content)

    return edit


CASES = (
    Case("wrong model_type", cp.with_fields(model_type="gemma"), (Fault("MODEL_TYPE_MISMATCH", "gemma"),)),
    Case("heads", cp.with_fields(num_attention_heads=8), (Fault("ATTENTION_HEADS_MISMATCH", "num_attention_heads"),)),
    Case("theta", cp.with_fields(rope_theta=10000.0), (Fault("ROPE_THETA_MISMATCH", "10000"),)),
    Case("vocabulary off by one", cp.with_fields(vocab_size=25), (Fault("VOCAB_SIZE_MISMATCH", "25"),)),
    Case(
        "several at once, in several steps",
        cp.together(
            cp.with_fields(hidden_act="gelu", intermediate_size=64, transformers_version="4.52.4"),
            cp.without("tokenizer_config.json"),
            cp.changed_tensors(lambda held: held.pop("model.norm.weight")),
            _tokens(lambda tokens: tokens.update(more=24)),
        ),
        (
            Fault("CHECKPOINT_FILE_MISSING", "tokenizer_config.json"),
            Fault("TRANSFORMERS_VERSION_ERROR", "4.52.4"),
            Fault("HIDDEN_ACT_MISMATCH", "gelu"),
            Fault("INTERMEDIATE_SIZE_MISMATCH", "64"),
            Fault("MISSING_TENSOR", "model.norm.weight"),
            Fault("TOKENIZER_TOO_LARGE", "25"),
        ),
        _VERSION,
    ),
    Case(
        "tensor added",
        cp.changed_tensors(lambda held: held.update(extra=held["model.norm.weight"])),
        (Fault("UNKNOWN_TENSOR", "extra"),),
    ),
    Case(
        "tensor renamed",
        cp.changed_tensors(lambda held: held.update(norm=held.pop("model.norm.weight"))),
        (Fault("UNKNOWN_TENSOR", "norm"), Fault("MISSING_TENSOR", "model.norm.weight")),
    ),
    Case(
        "tensor reshaped",
        cp.changed_tensors(lambda held: held.update({"lm_head.weight": held["lm_head.weight"].T})),
        (Fault("TENSOR_SHAPE", "lm_head.weight"),),
    ),
    Case("tokenizer lacking", cp.without("tokenizer.json"), (Fault("CHECKPOINT_FILE_MISSING", "tokenizer.json"),)),
    Case(
        "tokenizer damaged", cp.with_text("tokenizer.json", '{"model":'), (Fault("TOKENIZER_INVALID", "it is no JSON"),)
    ),
    Case("one piece more than rows", _vocabulary(PIECES_25), (Fault("TOKENIZER_TOO_LARGE", "25", "24 rows"),)),
    Case("one rank more than rows", _vocabulary(ranks(25)), (Fault("TOKENIZER_TOO_LARGE", "25", "24 rows"),)),
    Case(
        "one added token more than rows",
        cp.together(_vocabulary(PIECES_24), cp.with_text("added_tokens.json", '{"<more>": 24}')),
        (Fault("TOKENIZER_TOO_LARGE", "25", "24 rows"),),
    ),
    Case(
        "a damaged model of SentencePiece",
        _vocabulary(PIECES_24[:-3]),
        (Fault("TOKENIZER_INVALID", "tokenizer.model", "neither a model of SentencePiece nor lines of tiktoken"),),
    ),
    Case(
        "two tokens with one id",
        _tokens(lambda tokens: tokens.update(w3=4)),
        (Fault("TOKENIZER_INVALID", '"w3"', '"w4"', "the id 4"),),
    ),
    Case(
        "index without shard",
        cp.together(_two_files, cp.without(_SHARDS[1])),
        (Fault("MISSING_SHARD", _SHARDS[1]),),
    ),
    Case(
        "one tensor in two files",
        cp.together(
            _two_files,
            cp.changed_tensors(lambda held: held.update({"lm_head.weight": held["model.norm.weight"]}), _SHARDS[1]),
        ),
        (Fault("DUPLICATE_TENSOR", "lm_head.weight"),),
    ),
    Case(
        "one tensor twice in a header",
        cp.with_bytes(_FILES, lambda content: content.replace(b"layers.1.self_attn.k", b"layers.1.self_attn.v", 1)),
        (Fault("HEADER_INVALID", "model.layers.1.self_attn.v_proj.weight"),),
    ),
    Case("config.json lacking", cp.without("config.json"), (Fault("CONFIG_MISSING", "config.json"),)),
    Case("config.json damaged", cp.with_text("config.json", "{"), (Fault("CONFIG_INVALID", "config.json"),)),
    Case("weights lacking", cp.without(_FILES), (Fault("CHECKPOINT_FILE_MISSING", "no weights"),)),
    Case(
        "nothing but a .bin file of something else",
        lambda directory: (directory / _FILES).rename(directory / "training_args.bin"),
        (Fault("SOURCE_NOT_RECOGNIZED", "no safetensors files"),),
    ),
    Case(
        "a .bin file that is none of torch",
        lambda directory: (directory / _FILES).rename(directory / "pytorch_model.bin"),
        (Fault("HEADER_INVALID", "pytorch_model.bin"),),
    ),
    Case("an adapter", _adapter, (Fault("ADAPTER_NOT_MERGED", "adapter_config.json"),)),
    Case("a GGUF file", _gguf, (Fault("FORMAT_NOT_ACCEPTED", "model-q4.gguf"),)),
    Case(
        "a GGUF file by another name",
        cp.with_bytes(_FILES, lambda _: b"GGUF" + bytes(60)),
        (Fault("SOURCE_NOT_RECOGNIZED", "GGUF", _FILES),),
    ),
    Case(
        "AWQ",
        cp.with_fields(quantization_config={"quant_method": "awq", "bits": 4}),
        (Fault("QUANTIZATION_NOT_ACCEPTED", "awq"),),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_checkpoint_that_does_not_fit_is_refused(case: Case, templates: Path, source: Path) -> None:
    case.damage(source)
    with unchanged(source.parent):
        run = prepare(templates, source, *case.arguments)
    refused(run, *case.faults)


def test_the_advice_on_an_adapter_is_to_merge_it(templates: Path, source: Path) -> None:
    _adapter(source)
    run = prepare(templates, source)
    refused(run, Fault("ADAPTER_NOT_MERGED"))
    assert "Merge the adapter into its base model" in run.failures[0].suggestion


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "hqq"])
def test_codes_of_another_method_are_named_as_such(method: str, templates: Path, source: Path) -> None:
    cp.with_fields(quantization_config={"quant_method": method})(source)
    refused(prepare(templates, source), Fault("QUANTIZATION_NOT_ACCEPTED", method))


def test_overlapping_tensors_are_named(templates: Path, source: Path) -> None:
    cp.changed_header(_FILES, _overlap)(source)
    with unchanged(source.parent):
        run = prepare(templates, source)
    assert "OFFSETS_INVALID" in run.ids, run.summary
    assert run.steps["validate_files"] == "Failed"


@pytest.mark.parametrize("content", [PIECES_24, ranks(24)], ids=["SentencePiece", "tiktoken"])
def test_a_tokenizer_without_json_that_has_a_row_for_each_token_is_prepared(
    content: bytes, templates: Path, source: Path
) -> None:
    _vocabulary(content)(source)
    completed(prepare(templates, source))
    assert (source.parent / "out" / "tokenizer.model").read_bytes() == content


@triggers("TRANSFORMERS_VERSION_UNKNOWN")
def test_a_checkpoint_that_names_no_version_is_prepared_with_a_warning(templates: Path, source: Path) -> None:
    cp.without_fields("transformers_version")(source)
    run = prepare(templates, source, *_VERSION)
    completed(run, Fault("TRANSFORMERS_VERSION_UNKNOWN", "transformers_version"))
    assert json.loads((source.parent / "out" / "config.json").read_text("utf-8"))["transformers_version"] == "4.45.1"


@triggers("CHECKPOINT_FILE_ADVISED")
def test_a_checkpoint_without_an_advised_file_is_prepared_with_a_warning(templates: Path, source: Path) -> None:
    cp.without("generation_config.json")(source)
    completed(prepare(templates, source), Fault("CHECKPOINT_FILE_ADVISED", "generation_config.json"))


@triggers("UNSUPPORTED_MODEL")
def test_a_model_that_the_catalogue_lacks_is_refused_with_near_names(templates: Path, source: Path) -> None:
    run = prepare(templates, source, model="llama3-8")
    refused(run, Fault("UNSUPPORTED_MODEL", "llama3-8b", "tiny"))
    assert list(run.steps) == ["parse_args", "load_serving_metadata"]


@triggers("UNSUPPORTED_MODEL")
def test_a_model_whose_checkpoints_cannot_be_imported_is_refused(templates: Path, source: Path) -> None:
    refused(prepare(templates, source, model=CLOSED), Fault("UNSUPPORTED_MODEL", CLOSED, "imported"))


def test_a_source_that_is_not_there_is_refused(templates: Path, tmp_path: Path) -> None:
    refused(prepare(templates, tmp_path / "nothing"), Fault("SOURCE_NOT_FOUND", "nothing"))


def test_a_file_in_place_of_the_folder_is_refused(templates: Path, source: Path) -> None:
    refused(prepare(templates, source / _FILES), Fault("SOURCE_NOT_RECOGNIZED", "a file"))


def test_a_folder_that_this_user_may_not_read_is_left_behind(templates: Path, source: Path) -> None:
    (source / "lost+found").mkdir(mode=0)
    run = process("prepare-ckpt", *_words(templates, source), powerless=True)
    completed(run)
    assert "left behind, as it cannot be read: lost+found\n" in run.output


def test_what_would_be_copied_and_cannot_be_read_is_found_by_a_dry_run(templates: Path, source: Path) -> None:
    (source / "LICENSE").write_text("free")
    (source / "LICENSE").chmod(0)
    (source / "additional_chat_templates").mkdir(mode=0)
    run = process("prepare-ckpt", *_words(templates, source), "--dry_run", powerless=True)
    refused(
        run,
        Fault("CONFIG_INVALID", "LICENSE cannot be carried: this user may not read it."),
        Fault("CONFIG_INVALID", "additional_chat_templates cannot be carried: this user may not read the folder."),
    )


def test_an_output_inside_the_input_is_refused(templates: Path, source: Path) -> None:
    with unchanged(source.parent):
        run = prepare(templates, source, output=source / "out")
    refused(run, Fault("DESTINATION_INSIDE_SOURCE", str(source)))


def test_an_output_that_cannot_be_written_is_refused(templates: Path, source: Path) -> None:
    locked = source.parent / "locked"
    locked.mkdir(mode=0o500)
    words = _words(templates, source, output=locked / "out")
    refused(process("prepare-ckpt", *words, powerless=True), Fault("DESTINATION_NOT_WRITABLE", str(locked)))


def test_flags_about_an_output_that_there_will_not_be_are_all_named(templates: Path, source: Path) -> None:
    places = ("--model", PLAIN, "--original_checkpoint_path", source, "--server", templates / "catalog.textproto")
    run = recast(
        "prepare-ckpt", *places, "--dry_run", "--overwrite", "--legacy_bundle", "--destination_uri=gs://bucket/out"
    )
    without = "and --dry_run without --output_checkpoint_path makes none."
    refused(
        run,
        Fault("INVALID_FLAG", f"--destination_uri is about the output, {without}"),
        Fault("INVALID_FLAG", f"--legacy_bundle is about the output, {without}"),
        Fault("INVALID_FLAG", f"--overwrite is about the output, {without}"),
    )


def test_a_dry_run_says_whether_it_would_replace_what_is_there(templates: Path, source: Path) -> None:
    completed(prepare(templates, source))
    (source / "README.md").write_text("another")
    refused(prepare(templates, source, "--dry_run"), Fault("DESTINATION_EXISTS", "out"))
    completed(prepare(templates, source, "--dry_run", "--overwrite"))


def test_flags_that_are_wrong_are_all_named(templates: Path, source: Path) -> None:
    run = recast("prepare-ckpt", "--transformers_version=newest", "--output_checkpoint_path=gs://bucket/out")
    refused(
        run,
        Fault("INVALID_FLAG", "--model"),
        Fault("INVALID_FLAG", "--original_checkpoint_path"),
        Fault("INVALID_FLAG", "newest"),
        Fault("REMOTE_NOT_SUPPORTED", "gs://"),
    )
