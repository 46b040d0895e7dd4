"""docs/adding_a_family.md: its files load, lint, bind, compose and convert, and what it says of mistakes is so."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.engine import convert
from converters.engine.request import ConversionRequest
from mappings import catalog
from mappings.language import loader
from mappings.language.composition import compose
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.lint import lint_all, lint_family
from reporting.report import Report
from tests import checkpoints
from tests.docs import pages
from tests.docs.pages import Edit
from tests.language import executor

PAGE = "adding_a_family.md"
FILES = pages.files_of(PAGE)
ORACLE = "tests/oracles/heron.py"
HEADERS = "tests/language/heron_headers_test.py"
VALUES = "tests/language/heron_values_test.py"

K_NORM = '  rule { tensor: "attn.k_norm" name: "self_attn.k_norm.weight" axes: "d" }\n'
MISTAKES: tuple[Edit, ...] = (
    ("hf", K_NORM, ""),
    ("maxtext", '"e h d"', '"e h"'),
    ("maxtext", "query_norm.scale", "key_norm.scale"),
    ("maxtext", 'name: "decoder.layers." stack: "l"', 'name: "decoder.layers."'),
    ("maxtext", '"attn.q_norm"', '"attn.qnorm"'),
    ("family", 'let { name: "o_bias" value: "false" }\n', ""),
    ("family", '"num_attention_heads":8', '"num_attention_heads":6'),
)
"""What the rows of the page's table of messages describe."""

UNSEEN: tuple[Edit, ...] = (
    ("hf", "q_norm.weight", "query_norm.weight"),
    ("maxtext", '"e h d"', '"h e d"'),
    ("maxtext", 'stack_axis: "1"', 'stack_axis: "0"'),
    (
        "maxtext",
        'query_norm.scale" axes: "d" }\n  rule { tensor: "attn.k_norm" name: "self_attention.key_norm',
        'key_norm.scale" axes: "d" }\n  rule { tensor: "attn.k_norm" name: "self_attention.query_norm',
    ),
    ("maxtext", '"e h d"', '"e h d" op { scale { of: "size(d)" half_powers: -1 } }'),
    ("maxtext", "option {", 'atom { name: "d" is: "r p" }\noption {'),
)
"""What the rows of the page's table of edits describe that pass the linter."""


@pytest.fixture
def mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pages.install_heron(tmp_path, monkeypatch)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The page's oracle, as the module that its tests import."""
    module = _module("tests.oracles.heron", FILES[ORACLE])
    monkeypatch.setitem(sys.modules, "tests.oracles.heron", module)
    return module


def _module(name: str, text: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def _config() -> dict[str, Any]:
    return dict(_module("headers", FILES[HEADERS]).CONFIG)


def _layouts(config: Mapping[str, object]) -> tuple[Layout, Layout]:
    family = bind_family(loader.load_family("heron"), config)
    hf, maxtext = (bind_layout(family, loader.load_layout("heron", format)) for format in ("hf", "maxtext"))
    return hf, maxtext


def _numbered(layout: Layout) -> dict[str, executor.Array]:
    header = layout.header(optional=False, mirrors=False)
    return {
        name: np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape) + 10_000 * i
        for i, (name, shape) in enumerate(header.items())
    }


def test_the_page_has_the_files_of_its_checklist() -> None:
    layouts = {f"mappings/heron/{name}.textproto" for name in ("family", "hf", "maxtext")}
    assert {*layouts, "mappings/manifests/heron-1b.textproto", ORACLE, HEADERS, VALUES} == FILES.keys()


def test_the_family_has_no_issues(mappings: Path) -> None:
    assert [str(issue) for issue in lint_family("heron")] == []
    assert [str(issue) for issue in lint_all(mappings)] == []


def test_the_linter_says_what_the_page_says(mappings: Path) -> None:
    rows = pages.table_of(PAGE, "| mistake |")
    untouched = {path: path.read_text(encoding="utf-8") for path in (mappings / "heron").iterdir()}
    for (_, message), mistake in zip(rows, MISTAKES, strict=True):
        pages.edit(mappings, [mistake])
        assert message.strip("`") in [str(issue) for issue in lint_family("heron")]
        for path, text in untouched.items():
            path.write_text(text, encoding="utf-8")


WITNESSES = [row[-1] for row in pages.table_of(PAGE, "| edit |")]


@pytest.mark.parametrize(("witness", "mistake"), list(zip(WITNESSES, UNSEEN, strict=True)))
def test_what_the_linter_cannot_see_comes_back_whole_and_the_witness_finds_it(
    mappings: Path, oracle: types.ModuleType, witness: str, mistake: Edit
) -> None:
    pages.edit(mappings, [mistake])
    assert lint_family("heron") == []
    config = _config()
    hf, maxtext = _layouts(config)
    source = _numbered(hf)
    there = executor.run(compose(hf, maxtext), source, "float32")
    assert checkpoints.differing(executor.run(compose(maxtext, hf), there, "float32"), source) == []
    anything = {name: np.zeros(shape, np.float32) for name, shape in oracle.shapes(config).items()}
    leaves = {name: leaf.shape for name, leaf in oracle.to_maxtext(anything, config, True).items()}
    headers_agree = hf.header(optional=False) == oracle.shapes(config) and maxtext.header() == leaves
    assert headers_agree is (witness == "values")
    if headers_agree:
        assert checkpoints.differing(there, oracle.to_maxtext(source, config, True)) != []


def test_the_pages_values_test_passes(mappings: Path, oracle: types.ModuleType) -> None:
    test: Callable[[bool, bool], None] = _module("values", FILES[VALUES]).test_both_directions_give_the_oracles_bits
    for scan in (True, False):
        for tied in (True, False):
            test(scan, tied)


def test_the_pages_header_test_passes_for_the_model_that_heron_is_made_after(mappings: Path) -> None:
    text = FILES[HEADERS].replace('MODEL_TYPE = "heron"', 'MODEL_TYPE = "qwen3"')
    test: Callable[[bool], None] = _module("headers", text).test_names_and_shapes_are_those_of_transformers
    for tied in (True, False):
        test(tied)


def test_the_manifest_names_the_family(mappings: Path) -> None:
    manifest = catalog.find("heron-1b-instruct")
    assert manifest is not None
    assert (manifest.name, manifest.layout, catalog.family_of(manifest.config)) == ("heron-1b", "heron", "heron")
    hf, maxtext = _layouts(manifest.config)
    assert len([array for array in hf.arrays.values() if not array.optional]) == 2 + 11 * 28
    assert len(maxtext.arrays) == 2 + 11


def test_a_checkpoint_is_converted_both_ways_without_code(mappings: Path, tmp_path: Path) -> None:
    config = {**_config(), "model_type": "heron", "architectures": ["HeronForCausalLM"], "torch_dtype": "float32"}
    source = _numbered(_layouts(config)[0])
    (tmp_path / "hf").mkdir()
    save_file(source, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    there, back = tmp_path / "out", tmp_path / "back"
    report = Report("there")
    convert.run(ConversionRequest(tmp_path / "hf", there, "hf", "maxtext", "float32"), report)
    convert.run(ConversionRequest(there, back, "maxtext", "hf", "auto"), Report("back"))
    assert report.model_name == "heron"
    assert {tensor.exactness for tensor in report.tensors} == {"EXACT"}
    assert checkpoints.differing(load_file(back / "model.safetensors"), source) == []
