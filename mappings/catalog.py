"""The published models: their names, their configs, and what a name says about a format."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf import text_format

from mappings import strict_json
from mappings.language import loader, positions, static_lint
from mappings.language.errors import Issues, MappingErrors
from recast_proto import model_manifest_pb2

_FOLDER = "manifests"
_REQUIRED = ("name", "family", "hub_id", "config_json", "config_origin")
# What stands before the size: llama3.1-8b, mistral-7b-v0.3, mixtral-8x7b, kimi-k2-1t.
_SIZED_NAME = re.compile(r"(?P<layout>[a-z0-9.]+(?:-[a-z]+\d*)*?)-\d+(?:\.\d+)?(?:x\d+)?[bmt](?:-.+)?")


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """One published model.

    Attributes:
        name: the name that `--model_name` takes.
        aliases: other names of models that share every field that shapes a tensor.
        family: folder in `mappings/`.
        hub_id: where the checkpoint is published.
        config: its config.json as published.
        config_origin: where the config's figures come from.
        options: by format, the layout options that the name implies.
        checked_fields: config fields that a checkpoint of this name must share; empty for all sizes.
        doc: remarks for people.
        location: "file:line".
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    hub_id: str
    config: Mapping[str, Any]
    config_origin: str
    options: Mapping[str, Mapping[str, str]]
    checked_fields: tuple[str, ...]
    doc: str
    location: str

    @property
    def layout(self) -> str:
        """The name without its size: the variant of the family that it stands for."""
        match = _SIZED_NAME.fullmatch(self.name)
        return match["layout"] if match else self.name

    @property
    def names(self) -> tuple[str, ...]:
        """Everything by which the model can be found."""
        return (self.name, *self.aliases, self.hub_id)


def manifests(root: Path | None = None) -> tuple[Manifest, ...]:
    """All published models, by name.

    Args:
        root: folder of the mappings; that of this installation if not given.

    Raises:
        MappingErrors: with everything that is wrong in the manifests.
    """
    return _load(root or loader.mappings_root())


def find(name: str, root: Path | None = None) -> Manifest | None:
    """The model of a name, an alias or a hub id, whatever their case."""
    return _by_name(root or loader.mappings_root()).get(name.lower())


def hub_ids_of(name: str, root: Path | None = None) -> tuple[str, ...]:
    """The checkpoints on the Hugging Face Hub that a name may stand for.

    A manifest's own name stands for its `hub_id`. An alias stands for the one of its hub ids that is spelled like it:
    the instruct model of a base model has a checkpoint of its own, and to take another one would go unseen.

    Returns:
        One; several where an alias leaves it open; none for a name that is unknown.
    """
    manifest = find(name, root)
    if manifest is None:
        return ()
    known = tuple(hub_id for hub_id in manifest.names if "/" in hub_id)
    letters = _letters(name)
    if "/" in name:
        return tuple(hub_id for hub_id in known if hub_id.lower() == name.lower())
    if letters == _letters(manifest.name):
        return (manifest.hub_id,)
    for fits in (str.__eq__, lambda hub, alias: hub.removesuffix("hf") == alias, str.startswith, str.endswith):
        fitting = tuple(hub_id for hub_id in known if fits(_letters(hub_id), letters))
        if len(fitting) == 1:
            return fitting
    return known


def _letters(name: str) -> str:
    """What is left of a name without its organisation and punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2])


def layout_names(root: Path | None = None) -> Mapping[str, tuple[str, ...]]:
    """Names that choose a variant and leave the sizes to config.json, with the families of each.

    Dense models and mixtures of experts of one series share a name; which of them is meant, config.json says.
    """
    found: dict[str, set[str]] = {}
    for manifest in manifests(root):
        found.setdefault(manifest.layout, set()).add(manifest.family)
    return MappingProxyType({layout: tuple(sorted(families)) for layout, families in found.items()})


def nearest(name: str, n: int = 3, root: Path | None = None) -> tuple[str, ...]:
    """Names of published models and layouts that look like `name`, the closest first."""
    shown = {layout: layout for layout in layout_names(root)}
    for manifest in manifests(root):
        shown |= {known.lower(): manifest.name for known in manifest.names}
    close = difflib.get_close_matches(name.lower(), shown, n=len(shown), cutoff=0.5)
    return tuple(dict.fromkeys(shown[match] for match in close))[:n]


def family_of(config: Mapping[str, Any], root: Path | None = None) -> str | None:
    """The family that serves a config.json, by its model_type, or by its architectures if it has none."""
    model_type = config.get("model_type")
    if model_type is not None:
        return known_model_types(root).get(model_type) if isinstance(model_type, str) else None
    architectures = config.get("architectures")
    known = {name.lower(): family for name, family in known_architectures(root).items()}
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name.lower() in known:
            return known[name.lower()]
    return None


def known_model_types(root: Path | None = None) -> Mapping[str, str]:
    """The family of each model_type that is served."""
    return _model_types(root or loader.mappings_root())


def known_architectures(root: Path | None = None) -> Mapping[str, str]:
    """The family of each architecture that the published configs name; of several, the one that is no alias."""
    found: dict[str, str] = {}
    for manifest in manifests(root):
        own = loader.load_family(manifest.family, root).folder == manifest.family
        for name in manifest.config.get("architectures", ()):
            found[name] = manifest.family if own else found.get(name, manifest.family)
    return MappingProxyType(found)


def architectures_of(family: str, root: Path | None = None) -> tuple[str, ...]:
    """The architectures that the published configs of a family name."""
    named = (name for m in manifests(root) if m.family == family for name in m.config.get("architectures", ()))
    return tuple(dict.fromkeys(named))


def texts_in_mapping(family: str, field: str, root: Path | None = None) -> frozenset[str]:
    """The texts with which a family's mapping compares a field of config.json; none if it does not look at it."""
    return _texts_in_mapping(root or loader.mappings_root(), family, field)


@functools.lru_cache(maxsize=256)
def _texts_in_mapping(root: Path, family: str, field: str) -> frozenset[str]:
    expressions = [text.text for text in static_lint.family_texts(loader.load_family(family, root).node)]
    asked = re.compile(rf"\b{re.escape(field)}\b")
    return frozenset(text for found in expressions if asked.search(found) for text in re.findall("'([^']*)'", found))


@functools.lru_cache(maxsize=8)
def _load(root: Path) -> tuple[Manifest, ...]:
    issues = Issues()
    found: list[Manifest] = []
    for file in sorted((root / _FOLDER).glob("*.textproto")):
        with issues:
            found.append(_read(file))
    with issues:
        _check_names(found)
    issues.raise_any()
    return tuple(sorted(found, key=lambda manifest: manifest.name))


@functools.lru_cache(maxsize=8)
def _by_name(root: Path) -> Mapping[str, Manifest]:
    return {name.lower(): manifest for manifest in _load(root) for name in manifest.names}


@functools.lru_cache(maxsize=8)
def _model_types(root: Path) -> Mapping[str, str]:
    sources = {name: loader.load_family(name, root) for name in loader.families(root)}
    return MappingProxyType({kind: name for name, source in sources.items() for kind in source.node.model_type})


def _read(file: Path) -> Manifest:
    shown = f"{_FOLDER}/{file.name}"
    text = file.read_text(encoding="utf-8")
    message = model_manifest_pb2.ModelManifest()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise MappingErrors.of(f"{shown}:{error.GetLine() or 1}", reason, "syntax") from None
    lines = positions.field_lines(text)
    issues = Issues()
    for field in _REQUIRED:
        if not getattr(message, field):
            issues.add(f"{shown}:1", f"manifest without '{field}'", "syntax")
    if message.name and message.name != file.stem:
        issues.add(f"{shown}:{lines['name[0]']}", f"'{message.name}' stands in a file of another name", "syntax")
    config: Mapping[str, Any] = {}
    if message.config_json:
        with issues:
            config = _config(message.config_json, f"{shown}:{lines['config_json[0]']}")
    options: Mapping[str, Mapping[str, str]] = {}
    with issues:
        options = _options(message.option, [f"{shown}:{lines[f'option[{i}]']}" for i in range(len(message.option))])
    issues.raise_any()
    return Manifest(
        name=message.name,
        aliases=tuple(message.alias),
        family=message.family,
        hub_id=message.hub_id,
        config=config,
        config_origin=message.config_origin,
        options=options,
        checked_fields=tuple(message.checked_field),
        doc=message.doc,
        location=f"{shown}:{lines['name[0]']}",
    )


def _config(text: str, location: str) -> Mapping[str, Any]:
    try:
        config = strict_json.loads(text)
    except ValueError as error:
        raise MappingErrors.of(location, f"config_json: {error}", "syntax") from None
    if not isinstance(config, dict):
        raise MappingErrors.of(location, "config_json is no JSON object", "syntax")
    return config


def _options(
    entries: Iterable[model_manifest_pb2.FormatOption], locations: list[str]
) -> Mapping[str, Mapping[str, str]]:
    issues = Issues()
    options: dict[str, dict[str, str]] = {}
    for entry, location in zip(entries, locations, strict=True):
        if not entry.format or not entry.name:
            issues.add(location, "option without 'format' or 'name'", "syntax")
        elif entry.name in options.setdefault(entry.format, {}):
            issues.add(location, f"option '{entry.name}' of {entry.format} is given twice", "syntax")
        else:
            options[entry.format][entry.name] = entry.value
    issues.raise_any()
    return MappingProxyType({format: MappingProxyType(values) for format, values in options.items()})


def _check_names(found: Iterable[Manifest]) -> None:
    issues = Issues()
    owners: dict[str, Manifest] = {}
    for manifest in found:
        for name in manifest.names:
            first = owners.setdefault(name.lower(), manifest)
            if first is not manifest or [known.lower() for known in manifest.names].count(name.lower()) > 1:
                issues.add(manifest.location, f"'{name}' is taken by {first.location}", "syntax")
    issues.raise_any()
