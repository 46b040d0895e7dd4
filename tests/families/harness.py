"""What is proven of every family, given what is particular to it: tiny configs, an oracle, the published sizes.

A module of a family says

    class TestToy(FamilyTests):
        family = Family(folder="toy", configs={"tied": {...}}, oracle=oracle.to_maxtext, published={"toy-1b": 1_234})

and gets the tests of FamilyTests for each config, with and without stacked layers. What transformers and Orbax make of
the same files, and the oracle, are the witnesses; none of them knows the mappings.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from converters.engine import convert, declared_source
from converters.engine.model import Model
from converters.engine.request import ConversionRequest
from mappings import catalog
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.lint import lint_family
from mappings.language.loader import load_family, load_layout
from reporting.diagnostics import Diagnostic
from reporting.report import Report
from tests import checkpoints
from tests.end_to_end.running import Arrays, flat, restored
from tests.golden import peer
from tests.golden.maxtext_llama31 import compare, compare_tensors
from tests.oracles.arrays import Variant
from validators import hf_config

Config = Mapping[str, Any]
Oracle = Callable[[Arrays, Config, Variant], Arrays]
Header = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Attributes:
        folder: in `mappings/`.
        configs: tiny configs by a name for each, as transformers takes them, `model_type` included.
        oracle: from the tensors of the files, as transformers' `save_pretrained` writes them, the config and the
            variant, the leaves that MaxText holds, by dotted path.
        published: by published name, the number of parameters as the publisher states it to the last digit, or as
            transformers' own class has it; a tied head counts once, buffers not at all.
        auto_class: transformers' class that finds the model class.
        state_options: options under which the `hf` layout has the names of transformers' state in memory, where they
            are not those of the files.
        own_dtypes: by the end of a tensor's name, the dtype in which the publisher keeps such tensors.
        targets: further layout options to write MaxText with, by a name for each. They reach the oracle too.
        not_in_model: ends of names that published files have and transformers' model has not.
        golden: name of the case in tests/golden/peer.py, if MaxText's own output is recorded; `golden_options` are the
            layout options with which Recast writes the same layout.
        golden_back: whether MaxText's own way back gives the tensors that Recast gives back, both in bfloat16.
        square: ends of names of leaves with equal axes by their nature, such as the two sides of an image patch.
        loads: whether transformers runs a model of this family on a CPU as it is written.
    """

    folder: str
    configs: Mapping[str, Config]
    oracle: Oracle
    published: Mapping[str, int]
    auto_class: str = "AutoModelForCausalLM"
    state_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    own_dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    targets: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=lambda: {"": {}})
    not_in_model: tuple[str, ...] = ()
    golden: str = ""
    golden_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    golden_back: bool = True
    square: tuple[str, ...] = ()
    loads: bool = True


@dataclasses.dataclass(frozen=True)
class Saved:
    """A tiny checkpoint that transformers saved, every tensor distinct and random, in several files.

    Attributes:
        config: what transformers was given.
        tensors: what its files hold.
    """

    name: str
    config: Config
    directory: Path
    tensors: Arrays


def save(family: Family, name: str, directory: Path, dtype: str = "bfloat16", seed: int = 1) -> Saved:
    """Has transformers save a tiny model of the family."""
    config = family.configs[name]
    checkpoints.save_random_with_transformers(
        directory,
        config,
        seed,
        auto_class=family.auto_class,
        dtype=dtype,
        own_dtypes=family.own_dtypes,
        max_shard_size="20KB",
    )
    return Saved(name, config, directory, checkpoints.read_safetensors(directory))


def to_maxtext(source: Path, out: Path, variant: Variant) -> Report:
    """HF to MaxText, by the engine that the commands call."""
    report = Report("there")
    request = ConversionRequest(
        source=source,
        destination=out,
        source_format="hf",
        target_format="maxtext",
        dtype=variant.save_dtype,
        target_options={"scan": "true" if variant.scan else "false", **variant.options},
        exactness=variant.exactness,
        residue="drop" if variant.exactness == "as_requested" else "keep",
    )
    convert.run(request, report)
    return report


def to_hf(source: Path, out: Path, dtype: str = "auto") -> Report:
    """MaxText to HF, in a dtype or in that of each original tensor."""
    report = Report("back")
    convert.run(ConversionRequest(source, out, "maxtext", "hf", dtype), report)
    return report


def layout_of(folder: str, format: str, config: Config, options: Mapping[str, Any] | None = None) -> Layout:
    """A layout of a family, bound to a config."""
    return bind_layout(bind_family(load_family(folder), config), load_layout(folder, format), options)


def header_of(layout: Layout) -> Header:
    """Names and shapes that a checkpoint must have."""
    return {name: array.shape for name, array in layout.arrays.items() if not array.optional and not array.mirror}


def header_in_memory(config: Config, auto_class: str) -> Header:
    """Names and shapes of the state of transformers' model, without the names tied to others."""
    import torch

    with torch.device("meta"):
        model = checkpoints.transformers_model(config, auto_class)
    return {
        name: tuple(values.shape)
        for name, values in model.state_dict().items()
        if name not in model.all_tied_weights_keys
    }


def parameters_in_memory(config: Config, auto_class: str) -> int:
    """How many parameters transformers' model has, tied ones once."""
    import torch

    with torch.device("meta"):
        return sum(values.numel() for values in checkpoints.transformers_model(config, auto_class).parameters())


class FamilyTests:
    """The tests. They are parametrised from the attribute `family` of the class that inherits them."""

    family: ClassVar[Family]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.family.golden:
            # Nothing to compare with: not collected.
            setattr(cls, FamilyTests.test_maxtexts_own_tools_write_the_same_bits.__name__, None)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        family = self.family
        if "saved" in metafunc.fixturenames:
            given = [(family, name) for name in family.configs]
            metafunc.parametrize("saved", given, indirect=True, ids=list(family.configs))
        if "target" in metafunc.fixturenames:
            metafunc.parametrize("target", list(family.targets.values()), ids=[name or "-" for name in family.targets])
        if "published" in metafunc.fixturenames:
            metafunc.parametrize("published", list(family.published))
        if "golden" in metafunc.fixturenames:
            metafunc.parametrize("golden", [family.golden])

    def test_the_mapping_has_no_issues(self) -> None:
        assert [str(issue) for issue in lint_family(self.family.folder)] == []

    def test_no_two_axes_of_a_leaf_are_equal_so_that_none_can_be_exchanged_unseen(self, saved: Saved) -> None:
        leaves = self.family.oracle(saved.tensors, saved.config, Variant())
        long = {name: [size for size in values.shape if size > 1] for name, values in leaves.items()}
        alike = {name: sizes for name, sizes in long.items() if len(set(sizes)) < len(sizes)}
        assert {name: sizes for name, sizes in alike.items() if not name.endswith(self.family.square)} == {}

    def test_the_files_of_transformers_have_the_names_and_shapes_of_the_layout(self, saved: Saved) -> None:
        written = json.loads((saved.directory / "config.json").read_text(encoding="utf-8"))
        found = {name: values.shape for name, values in saved.tensors.items()}
        for config in (saved.config, written):
            expected = header_of(layout_of(self.family.folder, "hf", config))
            assert found == self._without(expected)

    def test_the_state_of_transformers_in_memory_has_the_names_and_shapes_of_the_layout(self, saved: Saved) -> None:
        layout = layout_of(self.family.folder, "hf", saved.config, self.family.state_options)
        assert header_in_memory(saved.config, self.family.auto_class) == self._without(header_of(layout))

    def test_the_dtype_of_every_tensor_is_the_configs_or_its_own(self, saved: Saved) -> None:
        layout = layout_of(self.family.folder, "hf", saved.config)
        own = {name for name, values in saved.tensors.items() if values.dtype.name != "bfloat16"}
        assert own == {name for name in saved.tensors if name.endswith(tuple(self.family.own_dtypes))}
        assert own <= {name for name, array in layout.arrays.items() if array.keep_dtype}

    @pytest.mark.parametrize("scan", [True, False])
    def test_there_equals_the_oracle_and_back_every_byte_is_the_source(
        self, saved: Saved, target: Mapping[str, str], scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, options=target)
        there, back = tmp_path / "mt", tmp_path / "back"
        to_maxtext(saved.directory, there, variant)
        expected = self.family.oracle(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(there), expected) == []
        to_hf(there, back)
        assert checkpoints.differing(checkpoints.read_safetensors(back), saved.tensors) == []
        assert (there / "DONE").exists()
        assert (back / "DONE").exists()

    @pytest.mark.parametrize("scan", [True, False])
    def test_as_requested_equals_the_oracle(
        self, saved: Saved, target: Mapping[str, str], scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, exactness="as_requested", options=target)
        to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = self.family.oracle(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []

    @pytest.mark.parametrize("scan", [True, False])
    def test_patterns_of_32_bits_which_are_all_distinct_go_where_the_oracle_puts_them(
        self, target: Mapping[str, str], scan: bool, tmp_path: Path
    ) -> None:
        first = next(iter(self.family.configs))
        saved = save(self.family, first, tmp_path / "hf", dtype="float32", seed=2)
        variant = Variant(scan=scan, save_dtype="float32", options=target)
        to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = self.family.oracle(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []

    def test_orbax_restores_in_three_ways_without_arguments(self, saved: Saved, tmp_path: Path) -> None:
        import orbax.checkpoint as ocp
        import orbax.checkpoint.experimental.v1 as ocp_v1

        out = tmp_path / "mt"
        to_maxtext(saved.directory, out, Variant())
        expected = restored(out)
        assert checkpoints.differing(flat(ocp.StandardCheckpointer().restore(out / "0" / "items")), expected) == []
        with ocp.CheckpointManager(out) as manager:
            tree = manager.restore(0)
        assert checkpoints.differing(flat(tree.get("items", tree)), expected) == []
        loaded: Any = ocp_v1.load(out / "0")
        assert checkpoints.differing(flat(loaded.get("items", loaded)), expected) == []

    def test_transformers_computes_the_same_before_and_after(self, tmp_path: Path) -> None:
        if not self.family.loads:
            pytest.skip("transformers does not run this family on a CPU")
        source = _initialised(self.family, tmp_path / "hf")
        to_maxtext(source, tmp_path / "mt", Variant())
        to_hf(tmp_path / "mt", tmp_path / "back")
        before, after = (_logits(path, self.family.auto_class) for path in (source, tmp_path / "back"))
        assert np.isfinite(before).all()
        assert before.std() > 0
        assert np.array_equal(before, after)

    @pytest.mark.parametrize("scan", [True, False])
    def test_maxtexts_own_tools_write_the_same_bits(self, golden: str, scan: bool, tmp_path: Path) -> None:
        case = peer.case(golden)
        source = peer.make_input(golden, tmp_path / "hf")
        variant = Variant(scan=scan, exactness="as_requested", options=self.family.golden_options)
        to_maxtext(source, tmp_path / "mt", variant)
        assert compare(restored(tmp_path / "mt"), case.leaves(scan)) == []
        tensors = checkpoints.read_safetensors(source)
        assert compare(self.family.oracle(tensors, case.config, variant), case.leaves(scan)) == []
        if case.back and self.family.golden_back:
            to_hf(tmp_path / "mt", tmp_path / "back", "bfloat16")
            assert compare_tensors(checkpoints.read_safetensors(tmp_path / "back"), case.back) == []

    def test_the_published_models_are_those_of_the_manifests(self) -> None:
        found = {manifest.name for manifest in catalog.manifests() if manifest.family == self.family.folder}
        assert found == set(self.family.published)

    def test_a_published_model_has_the_names_shapes_and_count_of_transformers(self, published: str) -> None:
        manifest = _manifest(published)
        layout = layout_of(self.family.folder, "hf", manifest.config, self.family.state_options)
        derived = self._without(header_of(layout))
        assert derived == header_in_memory(manifest.config, self.family.auto_class)
        assert parameters_in_memory(manifest.config, self.family.auto_class) == self.family.published[published]

    def test_a_published_model_is_planned_from_its_manifest(self, published: str, target: Mapping[str, str]) -> None:
        manifest = _manifest(published)
        assert hf_config.check_config(manifest.config) == []
        source = declared_source.open_published(manifest, "hf", {})
        assert {name: info.shape for name, info in source.source.tensors.items()} == header_of(
            layout_of(self.family.folder, "hf", manifest.config)
        )
        assert _plan_warnings(published, "hf", "maxtext", _items({"scan": "true", **target})) == ()

    def test_the_smallest_published_model_is_planned_in_every_direction(self, target: Mapping[str, str]) -> None:
        manifest = _manifest(min(self.family.published, key=lambda name: self.family.published[name]))
        for scan in ("true", "false"):
            options = _items({"scan": scan, **target})
            assert _plan_warnings(manifest.name, "hf", "maxtext", options) == ()
            assert _plan_warnings(manifest.name, "maxtext", "hf", options) == ()

    def _without(self, header: Header) -> Header:
        ends = self.family.not_in_model
        return {name: shape for name, shape in header.items() if not (ends and name.endswith(ends))}


def _items(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(options.items()))


@functools.cache
def _plan_warnings(
    name: str, source: str, target: str, layout_options: tuple[tuple[str, str], ...]
) -> tuple[Diagnostic, ...]:
    """Plans a published model and returns what that warns of; several tests ask for one plan, which is made once."""
    manifest, options = _manifest(name), dict(layout_options)
    report = Report("plan")
    request = ConversionRequest(
        source=Path(),
        destination=Path("plan-only"),
        source_format=source,
        target_format=target,
        dtype="bfloat16",
        model_name=manifest.name,
        source_options=options if source == "maxtext" else {},
        target_options=options if target == "maxtext" else {},
        plan_only=True,
    )
    opened = declared_source.open_published(manifest, source, request.source_options)
    convert.plan(request, opened, report, Model(manifest.config, None, None))
    return tuple(diagnostic for step in report.steps for diagnostic in step.diagnostics)


def _manifest(name: str) -> catalog.Manifest:
    manifest = catalog.find(name)
    assert manifest is not None, f"there is no manifest of {name}"
    return manifest


def _initialised(family: Family, directory: Path) -> Path:
    import torch

    torch.manual_seed(0)
    config = next(iter(family.configs.values()))
    checkpoints.transformers_model(config, family.auto_class).to(torch.bfloat16).save_pretrained(directory)
    return directory


def _logits(directory: Path, auto_class: str) -> np.ndarray[Any, np.dtype[Any]]:
    import torch
    import transformers

    model = getattr(transformers, auto_class).from_pretrained(directory).eval()
    tokens = torch.arange(24).reshape(2, 12) % model.config.get_text_config().vocab_size
    with torch.no_grad():
        result: np.ndarray[Any, np.dtype[Any]] = model(tokens).logits.float().numpy()
    return result
