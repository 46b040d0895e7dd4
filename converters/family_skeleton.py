"""The files of a new model family, made from those of an existing one. Each has a TODO that a person must remove."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mappings.language import loader

MARK = "TODO"
_TESTS = Path("tests") / "families"
_ORACLES = Path("tests") / "oracles"
_MAPPINGS = Path("mappings")
# What of a family's test is a fact about its published models, and no pattern for another one.
_OWN_FACTS = ("published", "golden", "golden_options", "golden_back")
_ROOMS = ("converters", "mappings", "reporting", "tests", "validators")
_FROM_CONFIG = "The file as it was given; say here where it came from."


@dataclasses.dataclass(frozen=True)
class Names:
    """What the new family is called.

    Attributes:
        family: its folder.
        like: the family whose files are the pattern.
        model_type: as its config.json says it.
        model: name of its first published model.
        hub_id: where that is published.
    """

    family: str
    like: str
    model_type: str
    model: str
    hub_id: str


def paths_of(root: Path, family: str) -> dict[str, Path]:
    """The places of a family's files, by what they are; the mapping's own are those of its folder."""
    folder = root / _MAPPINGS / family
    layouts = {f"mapping {file.stem}": file for file in sorted(folder.glob("*.textproto"))}
    return layouts | {"test": root / _TESTS / f"{family}_test.py", "oracle": oracle_of(root, family)}


def oracle_of(root: Path, family: str) -> Path:
    """The oracle that the test of a family imports; the one of its own name where it has no test."""
    test = root / _TESTS / f"{family}_test.py"
    imported = re.search(r"^from tests\.oracles import (\w+)", _text(test), re.MULTILINE) if test.is_file() else None
    return root / _ORACLES / f"{imported[1] if imported else family}.py"


def files(root: Path, names: Names, config: Mapping[str, Any] | None, pattern: Mapping[str, Any]) -> dict[Path, str]:
    """All files of the new family with their text.

    Args:
        root: the checkout.
        names: of the new family.
        config: the config.json of its first published model, if it is at hand.
        pattern: that of a published model of the family that is the pattern.
    """
    found = {
        root / _MAPPINGS / names.family / file.name: _mapping(_text(file), names)
        for file in sorted((root / _MAPPINGS / names.like).glob("*.textproto"))
    }
    found[root / _MAPPINGS / "manifests" / f"{names.model}.textproto"] = _manifest(names, config, pattern)
    found[root / _ORACLES / f"{names.family}.py"] = _oracle(_text(oracle_of(root, names.like)), names)
    types = loader.load_family(names.like, root / _MAPPINGS).node.model_type
    pattern_test = re.sub(
        rf'("model_type": )"({"|".join(types)})"',
        rf'\1"{names.model_type}"',
        _text(root / _TESTS / f"{names.like}_test.py"),
    )
    found[root / _TESTS / f"{names.family}_test.py"] = _test(pattern_test, names)
    return found


def marks(paths: Iterable[Path]) -> list[tuple[Path, int, str]]:
    """File, line number and text of each TODO that is left."""
    return [
        (path, number, line.strip())
        for path in paths
        for number, line in enumerate(_text(path).splitlines(), 1)
        if MARK in line
    ]


def is_alias(root: Path, family: str) -> str:
    """The family that another one is a second name of; nothing for one with a mapping of its own."""
    folder = loader.load_family(family, root / _MAPPINGS).folder
    return "" if folder == family else folder


def _mapping(text: str, names: Names) -> str:
    """A file of the pattern's mapping with the new names; what its remarks said of the pattern is gone."""
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        del lines[0]
    body = "\n".join(lines)
    body = re.sub(rf'^(name|family): "{names.like}"$', rf'\1: "{names.family}"', body, flags=re.MULTILINE)
    body = re.sub(r"^model_type: .*$", f'model_type: "{names.model_type}"', body, flags=re.MULTILINE)
    note = (
        f"{MARK}: these lines are {names.like}'s. Hold each against the facts about {names.family}, and say here what"
    )
    return f"# {note}\n# it describes instead of this remark.\n{body}\n"


def _manifest(names: Names, config: Mapping[str, Any] | None, pattern: Mapping[str, Any]) -> str:
    if config is not None:
        shown, origin = dict(config), f"{MARK}: {_FROM_CONFIG}"
    else:
        shown = {**pattern, "architectures": [f"{MARK}ForCausalLM"], "model_type": names.model_type}
        origin = f"{MARK}: these are {names.like}'s figures; take config.json of {names.hub_id}, and say so."
    body = json.dumps(shown, indent=2, sort_keys=True).replace("\\", "\\\\").replace("'", "\\'").splitlines()
    lines = [
        f"# {MARK}: one such file for each published model, named after it; aliases for models of the same sizes.",
        f'name: "{names.model}"',
        f'family: "{names.family}"',
        f'hub_id: "{names.hub_id}"',
        "config_json:",
        *(f"  '{line}'" for line in body),
        f'config_origin: "{origin}"',
    ]
    return "\n".join(lines) + "\n"


def _oracle(text: str, names: Names) -> str:
    note = (
        f"# {MARK}: this is the oracle of {names.like}. Write that of {names.family} from the facts, not from its\n"
        "# mapping, and remove this remark.\n"
    )
    return note + text


def _test(text: str, names: Names) -> str:
    """The pattern's test module with its configs, and without its published figures and its own further tests."""
    tree = ast.parse(text)
    test = next(node for node in tree.body if isinstance(node, ast.ClassDef) and _family_call(node) is not None)
    call = _family_call(test)
    assert call is not None
    keywords = "".join(_keyword(text, keyword, names) for keyword in call.keywords if keyword.arg not in _OWN_FACTS)
    bases = [ast.get_source_segment(text, base) or "" for base in test.bases]
    body = (
        f"class Test{''.join(part.capitalize() for part in names.family.split('_'))}({', '.join(bases)}):\n"
        f"    family = Family(\n{keywords}"
        f"        # {MARK}: the number of parameters of each published model, as its publisher states it.\n"
        f'        published={{"{names.model}": 0}},\n    )\n'
    )
    used = _named(ast.parse(body))
    kept: list[str] = []
    for node in reversed(tree.body):
        if _defined(node) & used:
            kept.insert(0, ast.get_source_segment(text, node) or "")
            used |= _named(node)
    imports = [line for node in tree.body if (line := _import(node, used, names))]
    own = [line for line in imports if line.split()[1].partition(".")[0] in _ROOMS]
    foreign = [line for line in imports if line not in own]
    head = [
        f"# {MARK}: configs that show every choice of {names.family}; tests of its own for what is particular to it.",
        f'"""{names.family}: proven as every family is."""',
        "",
        "from __future__ import annotations",
        "",
        *foreign,
        *([""] if foreign else []),
        *own,
    ]
    # As ruff has it: a constant stands one line below the imports, a function or a class two.
    gap = "\n\n" if kept and not kept[0].startswith("def ") else "\n\n\n"
    return "\n".join(head) + gap + "".join(f"{part}\n\n\n" for part in kept) + body


def _family_call(node: ast.ClassDef) -> ast.Call | None:
    """The call of Family(...) that a test class is made of."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if isinstance(function, ast.Name) and function.id == "Family":
                return statement.value
    return None


def _keyword(text: str, keyword: ast.keyword, names: Names) -> str:
    if keyword.arg == "folder":
        return f'        folder="{names.family}",\n'
    return f"        {keyword.arg}={ast.get_source_segment(text, keyword.value) or ''},\n"


def _named(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _defined(node: ast.stmt) -> set[str]:
    """The names that a constant or a function of a module has."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _import(node: ast.stmt, used: set[str], names: Names) -> str:
    """An import of the pattern's test with the names that are still used; its oracle is now the family's own."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)) or getattr(node, "module", "") == "__future__":
        return ""
    kept = [alias for alias in node.names if (alias.asname or alias.name.split(".")[0]) in used]
    if not kept:
        return ""
    if isinstance(node, ast.ImportFrom) and node.module == "tests.oracles":
        return f"from tests.oracles import {names.family} as {kept[0].asname or kept[0].name}"
    shown = ", ".join(alias.name + (f" as {alias.asname}" if alias.asname else "") for alias in kept)
    return f"from {node.module} import {shown}" if isinstance(node, ast.ImportFrom) else f"import {shown}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
