"""Linting without binding: S1 texts parse, S2 definitions are used, S3 tensors exist, S5 reasons are given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

from mappings.language import axes, expressions, templates
from mappings.language.errors import Issues, LanguageSyntaxError
from mappings.language.family import declared_tensors
from mappings.language.nodes import Atom, FamilyNode, FamilySource, LayoutNode, LayoutSource, Let, Node, Rule


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text of a mapping file in one of the language's forms.

    Attributes:
        form: "expression", "template", "axes", "atoms" (names between spaces), "over" or "map".
        text: the text.
        location: "file:line".
    """

    form: str
    text: str
    location: str

    def names(self) -> frozenset[str]:
        """Atoms, symbols, options, labels and digits that it names.

        Raises:
            LanguageSyntaxError: it cannot be read.
        """
        match self.form:
            case "expression":
                return _named(expressions.parse(self.text))
            case "map":
                mapped, tree = expressions.parse_map(self.text)
                return _named(tree) | {mapped}
            case "over":
                trees = [tree for _, tree in expressions.parse_over(self.text)]
                return frozenset().union(*map(_named, trees))
            case "template":
                return frozenset().union(*map(_in_part, templates.parse(self.text)))
            case "axes":
                return _in_axes(axes.parse(self.text))
            case _:
                return frozenset(self.text.split())


def check_family(source: FamilySource, layouts: Sequence[LayoutSource], issues: Issues) -> None:
    """Notes what is wrong with a family's files, whatever config binds them."""
    texts = {layout.format: list(layout_texts(layout.node)) for layout in layouts}
    shared = list(family_texts(source.node))
    for text in (*shared, *(text for found in texts.values() for text in found)):
        _check_syntax(text, issues)
    _check_examples(source.node, issues)
    for layout in layouts:
        _check_tensors(source.node, layout.node, issues)
        _check_reasons(layout.node, issues)
        _check_identity(source, layout, issues)
        own = _all_names([*shared, *texts[layout.format]])
        _check_used(layout.node.let, layout.node.atom, own, issues)
        for defined, what in ((layout.node.option, "option"), (layout.node.label, "label")):
            for node in defined:
                if node.name not in own:
                    issues.add(node.location, f"{what} '{node.name}' is never used [S2]", "lint")
    everything = _all_names([*shared, *(text for found in texts.values() for text in found)])
    _check_used(source.node.let, source.node.atom, everything, issues)


def family_texts(node: FamilyNode) -> Iterator[Text]:
    """All texts of a family."""
    yield from _definitions(node.let, node.atom)
    for group, tensor in declared_tensors(node):
        yield from _some("atoms", group.location, group.axes)
        yield from _some("expression", group.location, group.when, group.where)
        yield from _some("atoms", tensor.location, tensor.axes)
        yield from _some("expression", tensor.location, tensor.when, tensor.where)
    for tie in node.tie:
        yield from _some("expression", tie.location, tie.when)
    for require in node.require:
        yield Text("expression", require.that, require.location)
        yield from _some("atoms", require.location, require.each)


def layout_texts(node: LayoutNode) -> Iterator[Text]:
    """All texts of a layout."""
    yield from _definitions(node.let, node.atom)
    for option in node.option:
        yield from _some("expression", option.location, option.default)
    for label in node.label:
        yield from _some("atoms", label.location, label.atom)
    yield from _some("template", node.location, node.root, node.part)
    yield from _some("expression", node.location, node.stack_axis)
    for scope in node.scope:
        yield from _some("expression", scope.location, scope.when)
        for at in scope.at:
            yield from _some("template", at.location, at.name)
            yield from _some("expression", at.location, at.when)
            yield from _some("map", at.location, at.map)
            yield from _some("over", at.location, at.over)
            yield from _some("atoms", at.location, at.stack)
            yield from _some("expression", at.location, at.stack_axis)
    for rule in rules_of(node):
        yield from _rule_texts(rule)
    for absent in node.absent:
        yield from _some("expression", absent.location, absent.when, absent.where)
    for ignore in node.ignore:
        yield from _some("template", ignore.location, ignore.name, ignore.part)
    for mirror in node.mirror:
        yield from _some("template", mirror.location, mirror.root)


def rules_of(node: LayoutNode) -> Iterator[Rule]:
    """All rules of a layout, those of fragments included."""
    yield from node.rule
    for scope in node.scope:
        yield from scope.rule


def _rule_texts(rule: Rule) -> Iterator[Text]:
    yield from _some("template", rule.location, rule.name, rule.root)
    yield Text("axes", rule.axes, rule.location)
    yield from _some("expression", rule.location, rule.when, rule.optional)
    yield from _some("atoms", rule.location, rule.copies)
    if rule.peer_differs is not None:
        yield from _some("expression", rule.peer_differs.location, rule.peer_differs.when)
    for op in rule.op:
        yield from _some("expression", op.location, op.when)
        yield from _some("expression", op.location, op.scale.of if op.scale else "", op.add.value if op.add else "")
    if rule.codec is not None:
        yield from _some("expression", rule.codec.location, rule.codec.when, *rule.codec.block)


def _definitions(lets: Iterable[Let], atoms: Iterable[Atom]) -> Iterator[Text]:
    for let in lets:
        yield Text("expression", let.value, let.location)
    for atom in atoms:
        yield from _some("expression", atom.location, atom.size, atom.when)
        yield from _some("atoms", atom.location, atom.is_)


def _some(form: str, location: str, *texts: str) -> Iterator[Text]:
    for text in texts:
        if text:
            yield Text(form, text, location)


# ---- names


def _named(tree: expressions.Expression) -> frozenset[str]:
    return expressions.names(tree) | expressions.sizes(tree)


def _in_part(part: templates.Part) -> frozenset[str]:
    if isinstance(part, templates.Symbol):
        return frozenset((part.name,))
    if isinstance(part, templates.Hole):
        offset = _named(part.offset) if part.offset is not None else frozenset[str]()
        return frozenset(part.names) | offset
    return frozenset()


def _in_axes(found: axes.Axes) -> frozenset[str]:
    names: set[str] = set()
    for factors in found.axes:
        for factor in factors:
            if isinstance(factor, str):
                names.add(factor)
                continue
            for branch in factor.branches:
                names.update(branch.atoms)
                if branch.padding:
                    names |= _named(expressions.parse(branch.padding))
    return frozenset(names)


def _all_names(texts: Iterable[Text]) -> frozenset[str]:
    names: set[str] = set()
    for text in texts:
        try:
            names |= text.names()
        except LanguageSyntaxError:
            # Noted by S1; what it would have named cannot be known.
            continue
    return frozenset(names)


# ---- rules


def _check_syntax(text: Text, issues: Issues) -> None:
    try:
        text.names()
    except LanguageSyntaxError as error:
        issues.add(text.location, f"{error} [S1]", "syntax")


def _check_examples(node: FamilyNode, issues: Issues) -> None:
    if not node.example:
        issues.add(node.location, "a family without an example [B7]", "lint")
    for example in node.example:
        try:
            config = json.loads(example.config)
        except ValueError as error:
            issues.add(example.location, f"the config of example '{example.name}' is no JSON: {error} [S1]", "syntax")
            continue
        if not isinstance(config, dict):
            issues.add(example.location, f"the config of example '{example.name}' is no object [S1]", "syntax")


def _check_used(lets: Iterable[Let], atoms: Iterable[Atom], used: frozenset[str], issues: Issues) -> None:
    for let in lets:
        if let.name not in used:
            issues.add(let.location, f"symbol '{let.name}' is never used [S2]", "lint")
    for atom in atoms:
        if atom.name and atom.name not in used:
            issues.add(atom.location, f"atom '{atom.name}' is never used [S2]", "lint")


def _check_tensors(family: FamilyNode, layout: LayoutNode, issues: Issues) -> None:
    known = {group.id + tensor.id for group, tensor in declared_tensors(family)}
    for rule in rules_of(layout):
        try:
            named = axes.parse(rule.axes).tensors or (rule.tensor,)
        except LanguageSyntaxError:
            continue
        _check_known(named, known, rule, issues)
    for absent in layout.absent:
        prefix = absent.tensor[:-1] if absent.tensor.endswith("*") else None
        if prefix is None or not any(id.startswith(prefix) for id in known):
            _check_known((absent.tensor,), known, absent, issues)
        _check_known((absent.mean_of,) if absent.mean_of else (), known, absent, issues)
    for tie in family.tie:
        _check_known((tie.tensor, tie.to), known, tie, issues)


def _check_known(named: Iterable[str], known: set[str], node: Node, issues: Issues) -> None:
    for id in named:
        if id not in known:
            issues.add(node.location, f"unknown tensor '{id}' [S3]", "unknown")


def _check_reasons(layout: LayoutNode, issues: Issues) -> None:
    for absent in layout.absent:
        if not absent.reason.strip():
            issues.add(absent.location, f"absent '{absent.tensor}' gives no reason [S5]", "lint")
    for ignore in layout.ignore:
        if not ignore.reason.strip():
            issues.add(ignore.location, f"ignore '{ignore.name}' gives no reason [S5]", "lint")


def _check_identity(family: FamilySource, layout: LayoutSource, issues: Issues) -> None:
    if layout.node.family != family.folder:
        text = f"the layout says family '{layout.node.family}' in the folder of '{family.folder}' [S1]"
        issues.add(layout.location, text, "lint")
