"""A mutation campaign on Llama's mapping: which stage finds each single edit of its text, and which edits none finds.

Each edit is written to a copy of the mappings, which then passes the stages that a change of the mappings passes: the
linter; the headers, compared with names and shapes that were written down without the language; the values, compared
with the oracle in both directions. `python -m tests.language.mutation` prints the table.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf import text_format

from mappings.language.composition import Composition, compose
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.lint import lint_family
from mappings.language.loader import load_family, load_layout
from recast_proto import mapping_pb2
from tests import checkpoints
from tests.language import executor
from tests.language.edits import Edit, family_edits, layout_edits
from tests.oracles import llama

MAPPINGS = Path(__file__).parents[2] / "mappings"
SURVIVORS = Path(__file__).with_name("mutation_survivors.txt")
FAMILY = "llama"
FORMATS = ("hf", "maxtext")

Stage = Literal["lint", "headers", "values", "none", "crash"]
STAGES: tuple[Stage, ...] = ("lint", "headers", "values", "none", "crash")
_BIASES = {
    "attn.q_bias": "self_attn.q_proj.bias",
    "attn.k_bias": "self_attn.k_proj.bias",
    "attn.v_bias": "self_attn.v_proj.bias",
    "attn.o_bias": "self_attn.o_proj.bias",
    "mlp.gate_bias": "mlp.gate_proj.bias",
    "mlp.up_bias": "mlp.up_proj.bias",
    "mlp.down_bias": "mlp.down_proj.bias",
}
Shapes = Mapping[str, tuple[int, ...]]

_EVEN = {"hidden_size": 64, "num_attention_heads": 4}
_UNEVEN = {"hidden_size": 66, "num_attention_heads": 4, "num_key_value_heads": 4}
_MAXTEXT_MODEL_NAMES = {"llama3.1-8b": True, "llama3-8b": False, "llama3.3-70b": False, "mistral-7b": False}
"""Whether MaxText's model of this name wants the members of rotary pairs to be neighbours."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One config with one choice of MaxText's options, and what both formats hold then.

    Attributes:
        config: the contents of a config.json.
        options: of the maxtext layout.
        hf: expected Hugging Face tensors.
        maxtext: expected MaxText leaves.
        back: the tensors that come back from those leaves.
    """

    config: Mapping[str, Any]
    options: Mapping[str, object]
    hf: llama.Arrays
    maxtext: llama.Arrays
    back: llama.Arrays

    @classmethod
    def of(cls, config: Mapping[str, Any], options: Mapping[str, object], variant: llama.Variant) -> Case:
        """The case with these options, which mean this variant."""
        hf = checkpoints.with_zero_biases(checkpoints.element_coded_llama(config, "float32", seed=1))
        leaves = llama.to_maxtext(hf, config, variant)
        return cls(config, options, hf, leaves, llama.to_hf(leaves, config, variant, "float32"))


def cases() -> list[Case]:
    """The family's examples with every choice of scan and rope, and other spellings of configs and options."""
    examples = _examples()
    styles = [(config, scan, rope) for config in examples for scan in (True, False) for rope in ("half", "interleaved")]
    styles.append((dict(checkpoints.CONFIGS["biased"]), True, "interleaved"))
    styles.append((dict(checkpoints.CONFIGS["mistral"]), False, "half"))
    found = [
        Case.of(config, {"scan": scan, "rope": rope}, llama.Variant(scan, rope == "interleaved", "float32"))
        for config, scan, rope in styles
    ]
    found += [
        Case.of(examples[0], {"model_name": name}, llama.Variant(True, interleaved, "float32"))
        for name, interleaved in _MAXTEXT_MODEL_NAMES.items()
    ]
    plain = Case.of(
        {key: value for key, value in examples[0].items() if key not in ("head_dim", "num_key_value_heads")} | _EVEN,
        {},
        llama.Variant(True, False, "float32"),
    )
    return [*found, plain, dataclasses.replace(plain, config={"text_config": plain.config})]


def refused_configs() -> list[Mapping[str, Any]]:
    """Configs of models that cannot be, each wrong in one thing."""
    good = {**_examples()[0], "head_dim": 10}
    sizes = ("num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")
    broken = [{**good, key: 0} for key in (*sizes, "num_key_value_heads", "head_dim")]
    broken += [{key: value for key, value in good.items() if key != missing} for missing in sizes]
    return [*broken, {**good, "head_dim": 9}, {**good, "num_key_value_heads": 3}, {**good, "head_dim": None} | _UNEVEN]


def all_edits() -> list[Edit]:
    """The edits of the layouts, then those of the family, each with the fragments that they include."""
    return [*layout_edits(MAPPINGS, FAMILY, FORMATS), *family_edits(MAPPINGS, FAMILY)]


def stage_of(edit: Edit, checked: Sequence[Case]) -> tuple[Stage, str]:
    """The first stage that finds an edit, and what it says; "crash" if the language does not report it as it should."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in (FAMILY, "common"):
            shutil.copytree(MAPPINGS / name, root / name)
        (root / edit.file).write_text(edit.text, encoding="utf-8")
        try:
            return examine(root, checked)
        except Exception as error:  # whatever it is: a wrong text must end in MappingErrors
            return "crash", repr(error)


def examine(root: Path, checked: Sequence[Case]) -> tuple[Stage, str]:
    """The first stage that finds a fault in the mappings below a folder, and what it says."""
    try:
        issues = lint_family(FAMILY, root)
        if issues:
            return "lint", f"{issues[0].location}: {issues[0].text}"
        mapping = _Mapping(root)
        bound = [mapping.bind(case) for case in checked]
    except MappingErrors as error:
        return "lint", f"{error.issues[0].location}: {error.issues[0].text}"
    if set(mapping.family.node.model_type) != {"llama"}:
        return "headers", f"model types are {mapping.family.node.model_type}"
    taken = [config for config in refused_configs() if mapping.takes(config)]
    if taken:
        return "headers", f"{taken[0]} is taken"
    for case, (hf, maxtext) in zip(checked, bound, strict=True):
        problems = _header_problems(hf, _hf_header(case)) + _header_problems(maxtext, _maxtext_header(case))
        if problems:
            return "headers", problems[0]
    for case, (hf, maxtext) in zip(checked, bound, strict=True):
        problems = _value_problems(case, hf, maxtext)
        if problems:
            return "values", problems[0]
    return "none", ""


def explained() -> dict[str, str]:
    """The checked-in survivors: the key of each edit and why it changes nothing."""
    lines = [line for line in SURVIVORS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.rsplit(" => ", 1) for line in lines)


def table(outcomes: Iterable[tuple[Edit, Stage]]) -> str:
    """The counts of each kind of edit by the stage that finds it."""
    counts: dict[str, collections.Counter[Stage]] = collections.defaultdict(collections.Counter)
    for edit, stage in outcomes:
        counts[edit.kind][stage] += 1
        counts["all"][stage] += 1
    rows = sorted(counts, key=lambda kind: (kind == "all", kind))
    lines = [f"{'kind':28}" + "".join(f"{stage:>9}" for stage in STAGES)]
    lines += [f"{kind:28}" + "".join(f"{counts[kind][stage]:9}" for stage in STAGES) for kind in rows]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Header:
    required: Shapes
    optional: Shapes
    mirrored: Shapes
    ignored: Mapping[str, bool]
    own_dtypes: frozenset[str]


def _examples() -> list[dict[str, Any]]:
    family = text_format.Parse((MAPPINGS / FAMILY / "family.textproto").read_text("utf-8"), mapping_pb2.Family())
    return [json.loads(example.config) for example in family.example]


class _Mapping:
    """The mapping below a folder; a config is bound once."""

    def __init__(self, root: Path):
        self.family = load_family(FAMILY, root)
        self._hf, self._maxtext = load_layout(FAMILY, "hf", root), load_layout(FAMILY, "maxtext", root)
        self._bound: dict[str, Layout] = {}

    def bind(self, case: Case) -> tuple[Layout, Layout]:
        """The layouts of a case."""
        key = json.dumps(case.config)
        if key not in self._bound:
            self._bound[key] = bind_layout(bind_family(self.family, case.config), self._hf)
        hf = self._bound[key]
        return hf, bind_layout(hf.family, self._maxtext, case.options)

    def takes(self, config: Mapping[str, Any]) -> bool:
        """Whether a config is one that a model can have."""
        try:
            bind_layout(bind_family(self.family, config), self._hf)
        except MappingErrors:
            return False
        return True


def _hf_header(case: Case) -> _Header:
    head = {} if "lm_head.weight" in case.hf else {"lm_head.weight": case.hf["model.embed_tokens.weight"].shape}
    layers = {name.split(".")[2] for name in case.hf if name.startswith("model.layers.")}
    return _Header(
        required={name: values.shape for name, values in case.hf.items()},
        optional=head,
        mirrored={},
        ignored={f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": False for layer in layers},
        own_dtypes=frozenset(),
    )


def _maxtext_header(case: Case) -> _Header:
    required = {name: values.shape for name, values in case.maxtext.items()}
    moments = {
        name.replace("params.params.", f"opt_state.0.{moment}.params."): shape
        for moment in ("mu", "nu")
        for name, shape in required.items()
    }
    return _Header(
        required=required,
        optional={},
        mirrored=moments,
        ignored={"step": True, "opt_state.0.count": True, "opt_state.2.count": True},
        own_dtypes=frozenset(),
    )


def _header_problems(layout: Layout, expected: _Header) -> list[str]:
    arrays = layout.arrays.values()
    found = _Header(
        required={a.name: tuple(a.shape) for a in arrays if not a.optional and not a.mirror},
        optional={a.name: tuple(a.shape) for a in arrays if a.optional and not a.mirror},
        mirrored={a.name: tuple(a.shape) for a in arrays if a.mirror},
        ignored={name: ignored.carry for name, ignored in layout.ignored_names.items()},
        own_dtypes=frozenset(a.name for a in arrays if a.keep_dtype or a.peer_dtype),
    )
    return [
        f"{layout.format}: {field.name} arrays are {getattr(found, field.name)}, not {getattr(expected, field.name)}"
        for field in dataclasses.fields(_Header)
        if getattr(found, field.name) != getattr(expected, field.name)
    ]


def _value_problems(case: Case, hf: Layout, maxtext: Layout) -> list[str]:
    try:
        forward, backward = compose(hf, maxtext, case.hf), compose(maxtext, hf, case.maxtext)
        there = executor.run(forward, case.hf, "float32")
        back = executor.run(backward, case.maxtext, "float32")
    except (MappingErrors, AssertionError) as error:
        return [str(error)]
    problems = checkpoints.differing(there, case.maxtext) + checkpoints.differing(back, case.back)
    if forward.consumed != case.hf.keys():
        problems.append(f"arrays are not accounted for: {sorted(case.hf.keys() ^ forward.consumed)}")
    problems += executor.broken_checks(forward, case.hf) + executor.broken_checks(backward, case.maxtext)
    return problems + _dropped_unseen(case, forward) + _misplaced_biases(backward)


def _dropped_unseen(case: Case, forward: Composition) -> list[str]:
    """MaxText has no biases, so each one that is not zero has to be refused."""
    biased = {name: np.ones_like(values) if name.endswith(".bias") else values for name, values in case.hf.items()}
    refused = {line.split(": ")[1].removesuffix(" is not zero") for line in executor.broken_checks(forward, biased)}
    return [f"{name} is dropped unseen" for name in biased if name.endswith(".bias") and name not in refused]


def _misplaced_biases(backward: Composition) -> list[str]:
    """Logical biases lie in theirs in order, heads first: what the way back would write if it had their values."""
    problems = []
    for fill in backward.fills:
        for move in fill.moves:
            logical = np.arange(np.prod(move.source_shape), dtype=np.float32)
            stored = np.zeros(move.target_shape, np.float32)
            executor.move_into(move, logical.reshape(move.source_shape), stored)
            if not move.target.endswith(_BIASES[fill.tensor]) or stored.reshape(-1).tolist() != logical.tolist():
                problems.append(f"{fill.tensor} is not {move.target}")
    return problems


def _main() -> None:
    checked = cases()
    outcomes = []
    for edit in all_edits():
        stage, _ = stage_of(edit, checked)
        outcomes.append((edit, stage))
    print(table(outcomes))
    reasons = explained()
    for edit, stage in outcomes:
        if stage == "none":
            print(f"{edit.key} => {reasons.get(edit.key, 'NOT EXPLAINED')}")
        if stage == "crash":
            print(f"{edit.key} => CRASH")


if __name__ == "__main__":
    _main()
