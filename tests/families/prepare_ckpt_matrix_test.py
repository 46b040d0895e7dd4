"""prepare-ckpt on sparse files of the published sizes: whatever in config.json or headers makes the graph is named.

The keys that are changed are those of the published configs, not those that the rules look at: a key that no rule
knows is found here, unless it stands below among those that may change.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from converters.prepare import looking
from mappings.serving import catalog as catalogs
from recast_proto import model_manifest_pb2
from tests import serving_checkpoints
from tests.bad_input.running import Run, recast
from tests.families.free_keys import may_change
from validators.compatibility import headers
from validators.compatibility.testing import changed

IMPORTED = [model for model in catalogs.embedded().model if model.import_checkpoint]
_FILE = "model.safetensors"
_SECOND_LAYER = re.compile(r"\.1\..*weight$")
# Their headers take up to a second to read and compare; where nothing but config.json changes that is done once.
LARGE = ("deepseek2", "deepseek3", "deepseek32", "kimi_k2", "qwen3_moe", "qwen3_next")
_TEXT = "text_config."

# Keys by whose change an attribute of another name is another.
NAMES = {
    "_sliding_window_pattern": "layer_types",
    "full_attention_interval": "layer_types",
    "sliding_window_pattern": "layer_types",
    "hidden_activation": "hidden_act",
    "mtp_num_hidden_layers": "num_nextn_predict_layers",
    "n_routed_experts": "num_experts",
    "num_local_experts": "num_experts",
    "partial_rotary_factor": "rope_scaling",
    "rope_parameters.full_attention.rope_theta": "rope_theta",
    "rope_parameters.full_attention.rope_type": "rope_type",
    "rope_parameters.rope_theta": "rope_theta",
    "rope_parameters.rope_type": "rope_type",
    "rope_parameters.sliding_attention.rope_theta": "rope_local_base_freq",
    "rope_parameters.sliding_attention.rope_type": "rope_local_type",
    "rope_scaling.rope_type": "rope_type",
    "rope_scaling.type": "rope_type",
    "top_k_experts": "num_experts_per_tok",
    "use_sliding_window": "sliding_window",
    "vision_config.depth": "vision_config.num_hidden_layers",
    "vision_config.hidden_activation": "vision_config.hidden_act",
    "vision_config.in_channels": "vision_config.num_channels",
    "vision_config.layer_norm_eps": "vision_config.norm_eps",
    "vision_config.num_heads": "vision_config.num_attention_heads",
    "vision_config.position_embedding_size": "vision_config.num_position_embeddings",
    "vision_config.rms_norm_eps": "vision_config.norm_eps",
    "vision_config.rope_parameters.rope_theta": "vision_config.rope_theta",
    "vision_soft_tokens_per_image": "mm_tokens_per_image",
}
# What the kinds of layers are derived from, where a config does not list them.
PATTERNS = ("_sliding_window_pattern", "full_attention_interval", "sliding_window_pattern")
# What configs may leave out, with a value that none of them means by that.
LEFT_OUT: Mapping[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.25,
    "head_dim": 48,
    "hidden_act": "relu",
    "mlp_bias": True,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "rms_norm_eps": 0.125,
    "rope_local_base_freq": 123.0,
    "rope_scaling": {"rope_type": "linear", "factor": 7.0},
    "rope_theta": 123.0,
    "use_bidirectional_attention": True,
    "vocab_size": 77,
}


@dataclasses.dataclass(frozen=True)
class Change:
    """One changed key of config.json.

    Attributes:
        path: of the key, with dots between the objects that it lies in.
        value: the new one.
        attribute: what must be named; empty if the change must be accepted.
    """

    path: str
    value: Any
    attribute: str


def _smallest() -> dict[str, model_manifest_pb2.ModelManifest]:
    """The smallest model of each family: the one of the fewest layers, then the narrowest."""
    found: dict[str, tuple[tuple[int, int], model_manifest_pb2.ModelManifest]] = {}
    for model in IMPORTED:
        config = catalogs.config_of(model)
        text = {**config, **config.get("text_config", {})}
        size = (text["num_hidden_layers"], text["hidden_size"])
        if model.family not in found or size < found[model.family][0]:
            found[model.family] = (size, model)
    return {family: model for family, (_, model) in found.items()}


SMALLEST = _smallest()
_OTHERS = [model.name for model in IMPORTED if SMALLEST[model.family].name != model.name]
MODELS = [
    *(SMALLEST[family].name for family in sorted(SMALLEST)),
    *(pytest.param(name, marks=pytest.mark.campaign) for name in _OTHERS),
]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A sparse checkpoint of a published size.

    Attributes:
        model: whose it is.
        source: its folder.
        config: its config.json, as it is published.
    """

    model: model_manifest_pb2.ModelManifest
    source: Path
    config: Mapping[str, Any]

    def dry_run(self) -> Run:
        """Validates it; nothing may be written or changed by that."""
        output = self.source.parent / "out"
        before = self._state()
        words = ("--model", self.model.name, "--original_checkpoint_path", self.source)
        run = recast("prepare-ckpt", *words, "--output_checkpoint_path", output, "--dry_run")
        assert not output.exists()
        assert self._state() == before
        return run

    def with_config(self, config: Mapping[str, Any]) -> Run:
        """Validates it with another config.json."""
        (self.source / "config.json").write_text(json.dumps(config), "utf-8")
        return self.dry_run()

    def _state(self) -> list[tuple[Any, ...]]:
        """Names, sizes, times, and bytes on the disk: what is a hole stays one."""
        status = ((path.name, path.lstat()) for path in sorted(self.source.iterdir()))
        return [(name, s.st_size, s.st_mtime_ns, s.st_ino, s.st_mode, s.st_blocks) for name, s in status]


Open = Callable[[str], Checkpoint]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Writes a checkpoint, whose headers are read once if they are long."""

    def write(name: str) -> Checkpoint:
        model = catalogs.find(catalogs.embedded(), name)
        assert model is not None
        source = serving_checkpoints.write_published(tmp_path / name, name)
        if model.family in LARGE:
            _read_once(monkeypatch)
        return Checkpoint(model, source, catalogs.config_of(model))

    return write


def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads headers of one state of a file, and compares them with the model's, once in all runs of this test."""
    open_, read = looking._opened, looking._tensors
    compare = headers.compare
    compared: dict[int, headers.Comparison] = {}
    kept: dict[tuple[str, int, int], Any] = {}

    def once(name: str, source: Path, make: Callable[[], Any]) -> Any:
        status = (source / _FILE).stat()
        key = (name, status.st_mtime_ns, status.st_size)
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def opened(source: Path, *told: Any) -> Any:
        return once("opened", source, lambda: open_(source, *told))

    def tensors(opened: Any, *told: Any) -> Any:
        return once("tensors", opened.source.directory, lambda: read(opened, *told))

    def comparison(model: model_manifest_pb2.ModelManifest, found: Any) -> headers.Comparison:
        # The headers themselves are kept above, so that no others get their number.
        if id(found) not in compared:
            compared[id(found)] = compare(model, found)
        return compared[id(found)]

    monkeypatch.setattr(headers, "compare", comparison)
    monkeypatch.setattr(looking, "_opened", opened)
    monkeypatch.setattr(looking, "_tensors", tensors)


def changes(model: model_manifest_pb2.ModelManifest, config: Mapping[str, Any]) -> Iterator[Change]:
    """Each key of a published config with another value, and what it leaves out with one that it does not mean."""
    stated: set[str] = set()
    text = config.get("text_config", {})
    for path, value in _leaves(config):
        key = path.removeprefix(_TEXT)
        stated.update({key, NAMES.get(key, key)} - {"rope_scaling"}, _parents(key))
        other = "float16" if key.endswith("dtype") else changed(value)
        free = may_change(model.family, path) or (key in PATTERNS and "layer_types" in {**config, **text})
        yield Change(path, other, "" if free else _attribute(path))
    known = {attribute.name for attribute in model.static_attribute}
    prefix = _TEXT if "text_config" in config else ""
    untied = {"tie_word_embeddings": not model.family.startswith("gemma")}
    for key, value in {**LEFT_OUT, **untied}.items():
        if key not in stated and (key in known or key == "rope_scaling"):
            yield Change(prefix + key, value, key)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _parents(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield "rope_scaling" if path == "rope_parameters" else path


def _attribute(path: str) -> str:
    if path == "text_config.model_type":
        return path
    if path == "text_config.partial_rotary_factor":
        return "partial_rotary_factor"  # what stands in rope_parameters contradicts it
    key = path.removeprefix(_TEXT)
    if key.startswith("rope_") and "." in key and key not in NAMES:
        return "rope_scaling"
    return NAMES.get(key, key)


def _changed(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    made = copy.deepcopy(dict(config))
    *parents, key = change.path.split(".")
    place: Any = made
    for parent in parents:
        place = place[parent]
    place[key] = change.value
    return made


@pytest.mark.parametrize("name", MODELS)
def test_what_makes_the_graph_is_refused_with_its_name_and_nothing_else_is(name: str, written: Open) -> None:
    checkpoint = written(name)
    as_published = checkpoint.dry_run()
    assert (as_published.code, as_published.warnings) == (0, []), as_published.summary
    wrong = [_fault(checkpoint, change) for change in changes(checkpoint.model, checkpoint.config)]
    assert len(wrong) > 20
    assert not any(wrong), "\n".join(filter(None, wrong))


def _fault(checkpoint: Checkpoint, change: Change) -> str:
    """What is wrong with the run on a changed config.json; "" if it names what it must, or accepts it."""
    run = checkpoint.with_config(_changed(checkpoint.config, change))
    failed = {step for step, outcome in run.steps.items() if outcome == "Failed"}
    expected = ({"validate_compatibility"}, 2) if change.attribute else (set(), 0)
    said = {entry.subject for entry in run.failures if entry.subject in entry.reason}
    right = (failed, run.code) == expected and (not change.attribute or change.attribute in said)
    return "" if right else f"{change.path}: {run.summary}"


@pytest.mark.parametrize(
    ("name", "path", "null", "attribute"),
    [
        ("gemma2-2b", "attn_logit_softcapping", False, ""),
        ("gemma2-2b", "attn_logit_softcapping", True, "attn_logit_softcapping"),
        ("gemma2-2b", "final_logit_softcapping", True, "final_logit_softcapping"),
        ("gemma2-2b", "query_pre_attn_scalar", False, ""),
        ("gemma3-1b", "sliding_window_pattern", False, ""),
        ("mistral-7b-v0.1", "sliding_window", False, ""),
        ("mistral-7b-v0.1", "sliding_window", True, "sliding_window"),
        ("mistral-7b-v0.3", "sliding_window", False, "sliding_window"),
        ("qwen3-30b-a3b", "norm_topk_prob", False, "norm_topk_prob"),
        ("deepseek2-16b", "first_k_dense_replace", False, "first_k_dense_replace"),
    ],
)
def test_a_key_that_is_removed_means_what_its_class_assumes_and_a_null_does_not(
    name: str, path: str, null: bool, attribute: str, written: Open
) -> None:
    checkpoint = written(name)
    config = _changed(checkpoint.config, Change(path, None, attribute))
    if not null:
        del config[path]
    run = checkpoint.with_config(config)
    failed = {step for step, outcome in run.steps.items() if outcome == "Failed"}
    assert (run.code, failed) == ((2, {"validate_compatibility"}) if attribute else (0, set())), run.summary
    assert {entry.subject for entry in run.failures} >= ({attribute} if attribute else set())


Header = dict[str, Any]
Edit = Callable[[Header, str, str], set[tuple[str, str]]]


def _edited(checkpoint: Checkpoint, edits: Sequence[Edit]) -> set[tuple[str, str]]:
    """Changes the header of a checkpoint and its file's length with it; what the report must then list."""
    path = checkpoint.source / _FILE
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: Header = json.loads(file.read(length))
    del header["__metadata__"]
    expected = set()
    for edit in edits:
        last = max(header, key=lambda name: header[name]["data_offsets"][1])
        matrix = next(name for name in header if _SECOND_LAYER.search(name) and len(header[name]["shape"]) == 2)
        expected |= edit(header, matrix, last)
    end = max(entry["data_offsets"][1] for entry in header.values())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.unlink()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return expected


def _remove(header: Header, _: str, last: str) -> set[tuple[str, str]]:
    del header[last]
    return {("MISSING_TENSOR", last)}


def _add(header: Header, _: str, last: str) -> set[tuple[str, str]]:
    end = header[last]["data_offsets"][1]
    header["lora_A.weight"] = {"dtype": "BF16", "shape": [4, 2], "data_offsets": [end, end + 16]}
    return {("UNKNOWN_TENSOR", "lora_A.weight")}


def _rename(header: Header, matrix: str, _: str) -> set[tuple[str, str]]:
    header[f"{matrix}_"] = header.pop(matrix)
    return {("MISSING_TENSOR", matrix), ("UNKNOWN_TENSOR", f"{matrix}_")}


def _reshape(header: Header, matrix: str, _: str) -> set[tuple[str, str]]:
    rows, columns = header[matrix]["shape"]
    header[matrix]["shape"] = [2 * rows, columns // 2]
    return {("TENSOR_SHAPE", matrix)}


EDITS: Mapping[str, tuple[Edit, ...]] = {
    "removed": (_remove,),
    "added": (_add,),
    "renamed": (_rename,),
    "reshaped": (_reshape,),
    "all at once": (_remove, _add, _rename, _reshape),
}


def _tensor_cases() -> list[Any]:
    """Each model with each edit; of the smallest ones of families with long headers only all at once, in usual runs."""
    smallest = {model.name for model in SMALLEST.values()}
    cases = []
    for model in IMPORTED:
        for what in EDITS:
            often = model.name in smallest and (what == "all at once" or model.family not in LARGE)
            cases.append(pytest.param(model.name, what, marks=() if often else pytest.mark.campaign))
    return cases


@pytest.mark.parametrize(("name", "what"), _tensor_cases())
def test_a_tensor_that_is_changed_is_refused_with_its_name(name: str, what: str, written: Open) -> None:
    checkpoint = written(name)
    expected = _edited(checkpoint, EDITS[what])
    run = checkpoint.dry_run()
    assert run.code == 2, run.summary
    assert {(entry.id, entry.subject) for entry in run.failures} == expected, run.summary
    assert {entry.step for entry in run.failures} == {"validate_compatibility"}
