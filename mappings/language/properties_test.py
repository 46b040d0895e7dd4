"""Random families and layouts against a placement of single elements that knows nothing of the language.

A description of a layout is drawn as plain data. From it come the textproto that the language reads, and, element by
element, the array and index where a reader of the description would put it.
"""

import dataclasses
import itertools
import math

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mappings.language.composition import Composition, compose
from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.layout import Layout
from mappings.language.regions import Move, restrict
from mappings.language.testing import Values, family_of, layout_of, place, run

Element = tuple[str, int, tuple[int, ...]]
"""(tensor, layer, one number for each atom)."""


@dataclasses.dataclass(frozen=True)
class Model:
    """Tensors: the atoms that all share, those of each alone, and the number of layers."""

    sizes: dict[str, int]
    shared: tuple[str, ...]
    own: dict[str, tuple[str, ...]]
    layers: int

    def atoms(self, tensor: str) -> tuple[str, ...]:
        return self.shared + self.own[tensor]

    def text(self) -> str:
        atoms = "".join(f'atom {{ name: "{name}" size: "{size}" }}\n' for name, size in self.sizes.items())
        tensors = "".join(f'tensor {{ id: "{id}" axes: "{" ".join(self.atoms(id))}" }}\n' for id in self.own)
        layers = f'atom {{ name: "l" size: "{self.layers}" index: true }}\n'
        return f'name: "random"\n{layers}{atoms}group {{ axes: "l"\n{tensors}}}\n'

    def elements(self) -> list[Element]:
        return [
            (tensor, layer, index)
            for tensor in self.own
            for layer in range(self.layers)
            for index in itertools.product(*(range(self.sizes[atom]) for atom in self.atoms(tensor)))
        ]


@dataclasses.dataclass(frozen=True)
class RuleForm:
    """One rule: its tensors, the digits in its name, and its axes; "+" in an axis stands for the sum."""

    tensors: tuple[str, ...]
    named: tuple[str, ...]
    axes: tuple[tuple[str, ...], ...]
    own: dict[str, tuple[str, ...]]
    padding: int
    added: int
    copies: int


@dataclasses.dataclass(frozen=True)
class LayoutForm:
    """A layout: how atoms are cut into two digits, where layers go, and the rules."""

    model: Model
    cuts: dict[str, int]
    stack_axis: int
    block: int
    stacked: str
    rules: tuple[RuleForm, ...]

    # ---- as text

    def text(self) -> str:
        cuts = "".join(
            f'atom {{ name: "{atom}_hi" size: "{self.model.sizes[atom] // low}" }}\n'
            f'atom {{ name: "{atom}_lo" size: "{low}" }}\natom {{ of: "{atom}" is: "{atom}_hi {atom}_lo" }}\n'
            for atom, low in self.cuts.items()
        )
        copies = 'atom { name: "copy" size: "2" }\n' if any(rule.copies > 1 for rule in self.rules) else ""
        rules = "".join(map(self._rule_text, self.rules))
        head = f'format: "random" stack_axis: "{self.stack_axis}"\n{cuts}{copies}'
        return f"{head}scope {{\n{self._sites_text()}{rules}}}\n"

    def _sites_text(self) -> str:
        if not self.block:
            return 'at { name: "all." stack: "l" }\n' if self.stacked else 'at { name: "{l}." }\n'
        free = "".join(f"{{{digit}}}_" for digit in "bj" if digit not in self.stacked)
        whole, rest = divmod(self.model.layers, self.block)
        return (
            f'at {{ name: "block{free}." map: "l = {self.block}*b + j" over: "b: {whole}, j: {self.block}" '
            f'stack: "{" ".join(self.stacked)}" }}\n'
            f'at {{ name: "rest{{i}}." map: "l = {whole * self.block} + i" over: "i: {rest}" }}\n'
        )

    def _rule_text(self, rule: RuleForm) -> str:
        labelled = len(rule.tensors) > 1
        branches = [
            (f"{tensor}: " if labelled else "") + (" ".join(rule.own[tensor]) or "1") for tensor in rule.tensors
        ]
        total = " | ".join(branches + ([f"0: {rule.padding}"] if rule.padding else []))
        axes = " ".join(f"({' '.join(axis) or '1'})" for axis in rule.axes).replace("+", f"[{total}]")
        name = "_".join(["w", *rule.tensors, *(f"{{{digit}}}" for digit in rule.named)])
        name += "_{copy}" if rule.copies > 1 else ""
        tensor = "" if labelled else f'tensor: "{rule.tensors[0]}" '
        op = f' op {{ add {{ value: "{rule.added}" }} }}' if rule.added else ""
        copies = ' copies: "copy"' if rule.copies > 1 else ""
        return f'rule {{ {tensor}name: "{name}" axes: "{axes}"{op}{copies} }}\n'

    # ---- element by element

    def arrays(self, values: dict[Element, int]) -> dict[str, Values]:
        """All arrays with each element where it belongs; padding is zero."""
        made: dict[str, Values] = {}
        for element, value in values.items():
            rule = next(rule for rule in self.rules if element[0] in rule.tensors)
            prefix, stack, stack_sizes = self._layer(element[1])
            digits = self._digits(element)
            plain = [self._axis(rule, axis, element[0], digits) for axis in rule.axes]
            at = min(self.stack_axis, len(plain))
            index = (*(i for i, _ in plain[:at]), *stack, *(i for i, _ in plain[at:]))
            shape = (*(n for _, n in plain[:at]), *stack_sizes, *(n for _, n in plain[at:]))
            name = prefix + "_".join(["w", *rule.tensors, *(str(digits[digit]) for digit in rule.named)])
            for copy in range(rule.copies):
                full = f"{name}_{copy}" if rule.copies > 1 else name
                made.setdefault(full, np.zeros(shape, np.int64))[index] = value + rule.added
        return made

    def _layer(self, layer: int) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        if not self.block:
            return ("all.", (layer,), (self.model.layers,)) if self.stacked else (f"{layer}.", (), ())
        whole = self.model.layers // self.block
        if layer >= whole * self.block:
            return f"rest{layer - whole * self.block}.", (), ()
        place_of = {"b": (layer // self.block, whole), "j": (layer % self.block, self.block)}
        free = "".join(f"{place_of[digit][0]}_" for digit in "bj" if digit not in self.stacked)
        return (
            f"block{free}.",
            tuple(place_of[digit][0] for digit in self.stacked),
            tuple(place_of[digit][1] for digit in self.stacked),
        )

    def _digits(self, element: Element) -> dict[str, int]:
        tensor, _, index = element
        digits: dict[str, int] = {}
        for atom, value in zip(self.model.atoms(tensor), index, strict=True):
            if atom in self.cuts:
                digits[f"{atom}_hi"], digits[f"{atom}_lo"] = divmod(value, self.cuts[atom])
            else:
                digits[atom] = value
        return digits

    def _size(self, digit: str) -> int:
        atom, _, half = digit.partition("_")
        if not half:
            return self.model.sizes[atom]
        return self.cuts[atom] if half == "lo" else self.model.sizes[atom] // self.cuts[atom]

    def _axis(self, rule: RuleForm, axis: tuple[str, ...], tensor: str, digits: dict[str, int]) -> tuple[int, int]:
        index, size = 0, 1
        for factor in axis:
            if factor == "+":
                before = rule.tensors[: rule.tensors.index(tensor)]
                offset = sum(math.prod(self._size(d) for d in rule.own[t]) for t in before)
                inner = 0
                for digit in rule.own[tensor]:
                    inner = inner * self._size(digit) + digits[digit]
                total = sum(math.prod(self._size(d) for d in rule.own[t]) for t in rule.tensors) + rule.padding
                index, size = index * total + offset + inner, size * total
            else:
                index, size = index * self._size(factor) + digits[factor], size * self._size(factor)
        return index, size


# ---- drawing


@st.composite
def models(draw: st.DrawFn) -> Model:
    sizes = st.sampled_from([1, 2, 3, 4, 6])
    shared = tuple("ef"[: draw(st.integers(0, 2))])
    tensors = ("T1", "T2", "T3")[: draw(st.integers(1, 3))]
    names = iter("ghkmnp")
    own = {tensor: tuple(next(names) for _ in range(draw(st.integers(0, 2)))) for tensor in tensors}
    atoms = [*shared, *(atom for of_tensor in own.values() for atom in of_tensor)]
    return Model({atom: draw(sizes) for atom in atoms}, shared, own, draw(st.integers(1, 5)))


@st.composite
def layouts(draw: st.DrawFn, model: Model) -> LayoutForm:
    cuts = {
        atom: draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        for atom, size in model.sizes.items()
        if draw(st.booleans())
    }
    block = draw(st.sampled_from([0, 0, 2, 3]))
    stacked = draw(st.sampled_from(["", "b", "j", "bj"] if block else ["", "l"]))

    def digits(atoms: tuple[str, ...]) -> list[str]:
        found = [d for atom in atoms for d in ((f"{atom}_hi", f"{atom}_lo") if atom in cuts else (atom,))]
        return draw(st.permutations(found))

    def rule(tensors: tuple[str, ...]) -> RuleForm:
        items = digits(model.shared)
        own = {tensor: tuple(digits(model.own[tensor])) for tensor in tensors}
        fused = len(tensors) > 1 or draw(st.booleans())
        items = draw(st.permutations(items + (["+"] if fused else list(own[tensors[0]]))))
        named = tuple(item for item in items if item != "+" and draw(st.integers(0, 3)) == 0)
        rest = [item for item in items if item not in named]
        axes: list[tuple[str, ...]] = []
        for item in rest:
            joined: bool = draw(st.booleans())
            if axes and joined:
                axes[-1] = (*axes[-1], item)
            else:
                axes.append((item,))
        if draw(st.integers(0, 4)) == 0:
            axes.insert(draw(st.integers(0, len(axes))), ())
        return RuleForm(
            tensors=tensors,
            named=named,
            axes=tuple(axes),
            own=own,
            padding=draw(st.integers(0, 2)) if fused else 0,
            added=draw(st.sampled_from([0, 0, 5, 7])),
            copies=draw(st.sampled_from([1, 1, 2])),
        )

    together = draw(st.booleans())
    tensors = tuple(model.own)
    return LayoutForm(
        model=model,
        cuts=cuts,
        stack_axis=draw(st.integers(0, 2)),
        block=block,
        stacked=stacked,
        rules=(rule(tensors),) if together else tuple(rule((tensor,)) for tensor in tensors),
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[LayoutForm, LayoutForm]:
    model = draw(models())
    return draw(layouts(model)), draw(layouts(model))


def coded(model: Model) -> dict[Element, int]:
    """A number of its own for each logical element."""
    return {element: 1000 + i for i, element in enumerate(model.elements())}


def bound(forms: tuple[LayoutForm, ...]) -> tuple[Family, list[Layout]]:
    family = family_of(forms[0].model.text(), {})
    return family, [layout_of(family, form.text()) for form in forms]


def composed(source: Layout, target: Layout, forms: tuple[LayoutForm, LayoutForm]) -> Composition:
    """The composition; discards pairs that cut an atom in ways that do not divide each other."""
    refused: MappingErrors | None = None
    try:
        return compose(source, target)
    except MappingErrors as error:
        refused = error
    assert crossing(*forms), f"refused without a reason: {refused}"
    return reject()


def crossing(first: LayoutForm, second: LayoutForm) -> bool:
    """Whether two layouts cut an atom at places of which neither divides the other."""
    shared = first.cuts.keys() & second.cuts.keys()
    cuts = [sorted((first.cuts[atom], second.cuts[atom])) for atom in shared]
    return any(high % low for low, high in cuts)


@given(pairs())
@settings(max_examples=200, deadline=None)
def test_arrays_have_the_names_and_shapes_of_the_placement(forms: tuple[LayoutForm, LayoutForm]) -> None:
    form = forms[0]
    _, (layout, _) = bound(forms)
    expected = {name: values.shape for name, values in form.arrays(coded(form.model)).items()}
    assert layout.header() == expected


@given(pairs())
@settings(max_examples=400, deadline=None)
def test_every_element_arrives_where_the_placement_puts_it(forms: tuple[LayoutForm, LayoutForm]) -> None:
    _, (source, target) = bound(forms)
    values = coded(forms[0].model)
    made = run(composed(source, target, forms), forms[0].arrays(values), np.int64)
    expected = forms[1].arrays(values)
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(made[name], array), name


@given(pairs())
@settings(max_examples=150, deadline=None)
def test_there_and_back_is_the_identity(forms: tuple[LayoutForm, LayoutForm]) -> None:
    _, (source, target) = bound(forms)
    arrays = forms[0].arrays(coded(forms[0].model))
    there = run(composed(source, target, forms), arrays, np.int64)
    back = run(compose(target, source), there, np.int64)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


@given(pairs())
@settings(max_examples=120, deadline=None)
def test_copies_hold_what_the_checks_compare(forms: tuple[LayoutForm, LayoutForm]) -> None:
    _, (source, target) = bound(forms)
    arrays = forms[0].arrays(coded(forms[0].model))
    composition = composed(source, target, forms)
    compared = {name: np.zeros(values.shape, bool) for name, values in arrays.items()}
    for check in composition.checks:
        copied = {check.move.target: np.zeros_like(arrays[check.move.target])}
        place(check.move, arrays[check.move.source], copied, compared)
        mask = copied[check.move.target] != 0
        assert np.array_equal(copied[check.move.target][mask], arrays[check.move.target][mask])
    for rule in forms[0].rules:
        for name, values in arrays.items():
            if rule.copies > 1 and source.arrays[name].tensors == rule.tensors:
                second = name.endswith("_1")
                assert np.array_equal(compared[name], (values != 0) & second), name


@given(pairs(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_box_of_a_target_equals_the_whole_arrays_box(
    forms: tuple[LayoutForm, LayoutForm], data: st.DataObject
) -> None:
    _, (source, target) = bound(forms)
    arrays = forms[0].arrays(coded(forms[0].model))
    composition = composed(source, target, forms)
    whole = run(composition, arrays, np.int64)
    name = data.draw(st.sampled_from(sorted(whole)))
    shape = whole[name].shape
    corners = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in shape]
    box = tuple((low, high) for low, high in corners)
    got = {name: np.zeros(shape, np.int64)}
    written = {name: np.zeros(shape, bool)}
    for move in composition.moves:
        if move.target == name:
            for part in restrict(move, box):
                place(part, _restated(arrays[part.source], part), got, written)
    inside = np.zeros(shape, bool)
    inside[tuple(slice(low, high) for low, high in box)] = True
    assert not written[name][~inside].any()
    assert np.array_equal(got[name][inside], np.where(written[name], whole[name], 0)[inside])
    padded = np.zeros(shape, bool)
    for fill in composition.fills:
        for move in fill.moves:
            if move.target == name:
                place(move, np.ones(move.source_shape, np.int64), {name: padded.astype(np.int64)}, {name: padded})
    assert np.array_equal(written[name] | (padded & inside), inside)


def _restated(values: Values, move: Move) -> Values:
    removed = sum(int(op.value) for op in move.source_ops)
    added = sum(int(op.value) for op in move.target_ops)
    return values - removed + added
