"""docs/mapping_language.md: its snippets are of the language, its fields are all there are, its messages are real."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from mappings.language import codecs, expressions, loader, static_lint
from mappings.language.lint import lint_family
from recast_proto import mapping_pb2
from tests.docs import pages
from tests.docs.pages import Edit

PAGE = "mapping_language.md"
EACH = 'at { when: "!scan" name: "decoder.layers_{l}." }'
STACKED = 'at { when: "scan" name: "decoder.layers." stack: "l" }'
SCALED = '"e h d" op { scale { of: "4" half_powers: -1 } }'
MIRROR = 'mirror { name: "mu" root: "mu." }\nscope {'
EDITS: Mapping[str, tuple[Edit, ...]] = {
    "S1": (("maxtext", '"e h d"', '"(e h d"'),),
    "S2": (("family", 'let { name: "o_bias"', 'let { name: "spare" value: "1" }\nlet { name: "o_bias"'),),
    "S3": (("maxtext", '"attn.q_norm"', '"attn.qnorm"'),),
    "S4": (("maxtext", f"  {EACH}", f'  at {{ when: "false" name: "x." }}\n  {EACH}'),),
    "S5": (("maxtext", "scope {", 'ignore { name: "step" }\nscope {'),),
    "S6": (
        (
            "maxtext",
            "scope {",
            'option { name: "depth" value: ["1", "2"] default: "1" } let { name: "y" value: "depth" }\nscope {',
        ),
    ),
    "B1": (("hf", '  rule { tensor: "attn.k_norm" name: "self_attn.k_norm.weight" axes: "d" }\n', ""),),
    "B2": (("maxtext", "query_norm.scale", "key_norm.scale"),),
    "B3": (
        (
            "maxtext",
            EACH,
            'at { when: "!scan" name: "x." map: "l = i" over: "i: 1" }\n'
            '  at { when: "!scan" name: "x." map: "l = 1 + i" over: "i: num_hidden_layers - 1" }',
        ),
    ),
    "B4": (("maxtext", STACKED, STACKED.replace('"l"', '"i" map: "l = i" over: "i: num_hidden_layers + 1"')),),
    "B5": (("maxtext", '"e h d"', '"e h"'),),
    "B6": (
        (
            "maxtext",
            "scope {",
            'atom { name: "s" size: "3" }\natom { name: "hs" size: "size(h) // 3" }\n'
            'atom { of: "h" is: "s hs" }\nscope {',
        ),
        ("maxtext", '"e h d"', '"e (s hs) d"'),
    ),
    "B7": (
        ("family", 'tensor { id: "k_norm"', 'tensor { id: "extra" axes: "d" when: "false" }\n  tensor { id: "k_norm"'),
    ),
    "B8": (("hf", "scope {", MIRROR), ("maxtext", "scope {", MIRROR), ("maxtext", '"e h d"', SCALED)),
}
"""For each rule of the linter the edit of Heron that gives the page's message."""


@pytest.mark.parametrize("row", pages.table_of(PAGE, "## Lint rules"), ids=lambda row: row[0])
def test_each_rule_says_what_the_page_says(row: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, _, message = row
    root = pages.install_heron(tmp_path, monkeypatch)
    pages.edit(root, EDITS[rule])
    assert message.strip("`") in [str(issue) for issue in lint_family("heron")]


def test_the_page_has_every_rule() -> None:
    assert [row[0] for row in pages.table_of(PAGE, "## Lint rules")] == list(EDITS)


def test_snippets_are_texts_of_the_language() -> None:
    snippets = pages.blocks_of(PAGE, "textproto")
    assert snippets
    for snippet in snippets:
        texts = list(static_lint.layout_texts(loader.parse_layout(snippet, "page", "any").node))
        assert texts
        for text in texts:
            text.names()


_MESSAGES = ("Family", "Layout", "Rule", "Scope", "At", "Option", "Absent", "Ignore", "Codec", "Require", "PeerDiffers")


@pytest.mark.parametrize("message", _MESSAGES)
def test_every_field_of_the_schema_is_on_the_page(message: str) -> None:
    words = set(re.findall(r"\w+", " ".join(pages.names_in(pages.text_of(PAGE)))))
    missing = [field.name for field in getattr(mapping_pb2, message).DESCRIPTOR.fields if field.name not in words]
    assert missing == []


def test_functions_and_codecs_are_those_of_the_code() -> None:
    (grammar,) = pages.blocks_of(PAGE, "")
    functions = re.search(r"^f +:= (.*)$", grammar, re.MULTILINE)
    assert functions is not None
    assert tuple(functions.group(1).split(" | ")) == expressions.FUNCTIONS
    with pytest.raises(ValueError, match="there are: ") as error:
        codecs.BoundCodec("none", (), ()).check()
    for kind in str(error.value).partition("there are: ")[2].split(", "):
        assert f"`{kind}`" in pages.text_of(PAGE)


def test_the_table_of_atoms_has_those_of_all_families() -> None:
    cells = [cell for row in pages.table_of(PAGE, "## Atoms") for cell in (row[0], row[2])]
    listed = {atom.strip() for cell in cells for atom in cell.split(",")}
    for family in loader.families():
        used = {atom.name for atom in loader.load_family(family).node.atom if atom.name}
        assert used - listed == set(), family
