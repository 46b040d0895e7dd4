import json
from pathlib import Path

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.explain import Row, Side, explain, explain_formats
from mappings.language.loader import load_family
from mappings.language.testing import family_of, layout_of

FAMILY = """name: "toy"
atom { name: "l" size: "3" index: true }
atom { name: "e" size: "5" }
atom { name: "d" size: "size ?? 6" }
atom { name: "x" size: "32" }
tensor { id: "embed" axes: "x e" }
tensor { id: "head" axes: "x e" }
tensor { id: "extra" axes: "e" }
tie { tensor: "head" to: "embed" }
group { axes: "l" tensor { id: "q" axes: "d e" } tensor { id: "n" axes: "e" } }
"""
PLAIN = """format: "plain" root: "{$top}."
option { name: "top" default: "'model'" }
rule { tensor: "embed" name: "embed" axes: "e x" codec { kind: "mxfp4" } }
rule { tensor: "extra" name: "extra" axes: "e" }
scope {
  at { name: "layers.{l+1}." }
  rule { tensor: "q" name: "q" axes: "d e" }
  rule { tensor: "n" name: "n" axes: "e" }
}
"""
STACKED = """format: "stacked" stack_axis: "1"
rule { tensor: "embed" name: "embed" axes: "x e" }
rule { tensor: "head" name: "head" axes: "x e" }
scope {
  at { name: "a." map: "l = i" over: "i: 2" stack: "i" }
  at { name: "b." map: "l = 2" }
  rule { tensor: "q" name: "q" axes: "e d" op { scale { of: "size(d)" half_powers: -1 } } }
  rule {
    tensor: "n" name: "n" axes: "e"
    op { scale { of: "4" half_powers: 2 factor_dtype: "bf16" } } op { add { value: "1" } }
  }
}
absent { tensor: "extra" reason: "it is not used" }
"""


def rows(**config: object) -> tuple[list[Row], list[Row]]:
    family = family_of(FAMILY, config)
    plain, stacked = layout_of(family, PLAIN), layout_of(family, STACKED)
    return list(explain(plain, stacked)), list(explain(stacked, plain))


def of(found: list[Row], tensor: str) -> list[Row]:
    return [row for row in found if row.tensor == tensor]


def test_sides_have_name_axes_and_shape() -> None:
    first, second = of(rows()[0], "q")
    source = Side("model.layers.{l+1}.q", "d e", "", (6, 5), 3, "layout.textproto:7")
    assert first.source == second.source == source
    assert first.target == Side("a.q", "e d", "i at 1", (5, 2, 6), 1, "layout.textproto:7")
    assert second.target == Side("b.q", "e d", "", (5, 6), 1, "layout.textproto:7")


def test_operations_are_told_in_words() -> None:
    there, back = rows()
    assert of(there, "q")[0].ops == ("times size(d)^(-1/2)",)
    assert of(back, "q")[0].ops == ("divided by size(d)^(-1/2)",)
    assert of(there, "n")[0].ops == ("times 4^1 in bf16", "plus 1")
    assert of(back, "n")[0].ops == ("minus 1", "divided by 4^1 in bf16")
    assert of(there, "embed")[0].ops == ("decode mxfp4",)
    assert of(back, "embed")[0].ops == ("encode mxfp4",)


def test_exactness_follows_from_the_operations() -> None:
    there, back = rows()
    assert of(there, "q")[0].exactness == "ROUNDING"
    assert of(rows(size=4)[0], "q")[0].exactness == "EXACT"
    assert of(there, "n")[0].exactness == "ROUNDING"
    assert of(there, "embed")[0].exactness == "ROUNDING"
    assert of(back, "embed")[0].exactness == "LOSSY"
    family = family_of(FAMILY, {})
    assert {row.exactness for row in explain(layout_of(family, PLAIN), layout_of(family, PLAIN))} == {"EXACT"}


def test_what_is_on_one_side_only_says_why() -> None:
    there, back = rows()
    assert of(there, "extra") == [
        Row("extra", Side("model.extra", "e", "", (5,), 1, "layout.textproto:4"), None, (), "", "it is not used")
    ]
    (row,) = of(back, "extra")
    assert (row.source, row.note) == (None, "it is not used")


def test_a_tied_tensor_comes_from_the_other() -> None:
    there, back = rows()
    (row,) = of(there, "head")
    assert row.source is not None
    assert (row.source.name, row.note) == ("model.embed", "from 'embed'")
    (row,) = of(back, "head")
    assert (row.target, row.note) == (None, "tied to 'embed'")


def test_a_familys_first_example_stands_in_for_a_config() -> None:
    config = json.loads(load_family("llama").node.example[0].config)
    found = explain_formats("llama", "hf", "maxtext")
    assert found == explain_formats("llama", "hf", "maxtext", config)
    options = {"scan": "false"}
    (row,) = (row for row in explain_formats("llama", "maxtext", "hf", None, options) if row.tensor == "attn.q")
    assert row.source is not None
    assert row.source.name == "params.params.decoder.layers_{l}.self_attention.query.kernel"


def test_a_family_without_example_needs_a_config(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/family.textproto").write_text('name: "toy"')
    (tmp_path / "toy/plain.textproto").write_text('family: "toy" format: "plain"')
    with pytest.raises(MappingErrors, match="family 'toy' has no example"):
        explain_formats("toy", "plain", "plain", root=tmp_path)
    assert explain_formats("toy", "plain", "plain", {}, root=tmp_path) == ()


def test_the_note_of_a_tensor_that_is_kept_beside_a_checkpoint_says_so() -> None:
    rows = explain_formats("deepseek3", "hf", "maxtext")
    notes = {row.note for row in rows if row.target is None and row.tensor.startswith("mtp.")}
    assert notes == {"MaxText's to_maxtext keeps no MTP layers; kept beside it"}
