"""The embedded serving catalogue: the published models of all families, what a platform adds to them, and the rules.

Nothing of a published model is stated a second time: names, configs and the sizes in them come from
`mappings/manifests/`, tensors from the family's layout. `models.textproto` adds what only a platform knows, and
`rules/` says what a checkpoint must share with its model.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mappings import catalog as published
from mappings.language.errors import Issues, MappingErrors
from mappings.serving import attributes, text
from recast_proto import compatibility_pb2, model_manifest_pb2, serving_catalog_pb2

_MODELS = "models.textproto"
_RULES = "rules"
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_KEYS = ("family", "published_name")


def embedded() -> serving_catalog_pb2.ServingCatalog:
    """The catalogue of this installation, with its digest. It is made once; take a copy to change it."""
    return load(Path(__file__).resolve().parent)


@functools.lru_cache(maxsize=4)
def load(folder: Path) -> serving_catalog_pb2.ServingCatalog:
    """A catalogue from a folder with `models.textproto` and `rules/*.textproto`, on top of the published models.

    Raises:
        MappingErrors: with everything that is wrong in the files.
    """
    issues = Issues()
    found = serving_catalog_pb2.ServingCatalog()
    with issues:
        found = _read(folder / _MODELS)
    entries = list(found.model)
    del found.model[:]
    for file in sorted((folder / _RULES).glob("*.textproto")):
        with issues:
            found.rule.extend(_read(file).rule)
    issues.raise_any()
    manifests = published.manifests()
    shown = f"serving/{_MODELS}"
    for name in sorted({entry.published_name for entry in entries} - {"", *(m.name for m in manifests)}):
        issues.add(shown, f"there is no published model '{name}'", "unknown")
    for family in sorted({entry.family for entry in entries} - {"", *(m.family for m in manifests)}):
        issues.add(shown, f"there is no published model of the family '{family}'", "unknown")
    found.model.extend(_model(manifest, entries, found.rule) for manifest in manifests)
    _free_names(found.model)
    for name in _doubled(found.model):
        issues.add(shown, f"two models go by the name '{name}'", "syntax")
    issues.raise_any()
    found.model.sort(key=lambda model: model.name)
    return text.sealed(found)


def of(
    manifests: Iterable[published.Manifest], entries: Iterable[model_manifest_pb2.ModelManifest] = ()
) -> serving_catalog_pb2.ServingCatalog:
    """A catalogue of other models with the embedded rules.

    Args:
        manifests: the models.
        entries: what a platform adds to them, as in `models.textproto`.
    """
    found = serving_catalog_pb2.ServingCatalog()
    found.CopyFrom(embedded())
    del found.model[:]
    listed = list(entries)
    found.model.extend(_model(manifest, listed, found.rule) for manifest in manifests)
    return text.sealed(found)


def find(catalog: serving_catalog_pb2.ServingCatalog, name: str) -> model_manifest_pb2.ModelManifest | None:
    """The model of a name, an alias or a hub id, whatever its case; names go before the others."""
    wanted = name.lower()
    by_name = (model for model in catalog.model if model.name.lower() == wanted)
    by_other = (model for model in catalog.model if wanted in (other.lower() for other in _names(model)))
    return next(by_name, None) or next(by_other, None)


def nearest(catalog: serving_catalog_pb2.ServingCatalog, name: str, n: int = 3) -> tuple[str, ...]:
    """Names of models that look like `name`, the closest first."""
    shown = {other.lower(): model.name for model in catalog.model for other in _names(model)}
    close = difflib.get_close_matches(name.lower(), shown, n=len(shown) or 1, cutoff=0.5)
    return tuple(dict.fromkeys(shown[match] for match in close))[:n]


def config_of(model: model_manifest_pb2.ModelManifest) -> Mapping[str, Any]:
    """The published config of a model of a catalogue.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        config = json.loads(model.config_json)
    except RecursionError:
        raise ValueError(f"config_json of {model.name} is nested too deeply") from None
    if not isinstance(config, dict):
        raise ValueError(f"config_json of {model.name} is no JSON object")
    return config


def applies_to(rule: compatibility_pb2.CompatibilityRule, family: str) -> bool:
    """Whether a rule is looked at for models of a family."""
    wanted = rule.applies.family
    return (not wanted or family in wanted) and family not in rule.applies.except_family


def expects_of_model(rule: compatibility_pb2.CompatibilityRule) -> bool:
    """Whether a rule compares with what the model's own config states."""
    return rule.expected.WhichOneof("from") in (None, "manifest")


def static_attributes(
    rules: Iterable[compatibility_pb2.CompatibilityRule], config: Mapping[str, Any], family: str
) -> dict[str, Any]:
    """What a config states of each attribute that rules over config.json look at; what it does not state is left out.

    Raises:
        ValueError: a rule cannot be used; see `attributes.value_of`.
    """
    found = {}
    for rule in rules:
        if rule.WhichOneof("subject") == "config_field" and applies_to(rule, family) and expects_of_model(rule):
            value = attributes.value_of(rule.config_field, config, family)
            if value is not None:
                found[rule.config_field.attribute] = value
    return found


def _read(file: Path) -> serving_catalog_pb2.ServingCatalog:
    message = serving_catalog_pb2.ServingCatalog()
    try:
        text_format.Parse(file.read_text(encoding="utf-8"), message)
    except text_format.ParseError as error:
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise MappingErrors.of(f"serving/{file.name}:{error.GetLine() or 1}", reason, "syntax") from None
    return message


def _model(
    manifest: published.Manifest,
    entries: Iterable[model_manifest_pb2.ModelManifest],
    rules: Iterable[compatibility_pb2.CompatibilityRule],
) -> model_manifest_pb2.ModelManifest:
    lookup = attributes.Lookup(manifest.config, attributes.config_roots(manifest.family))
    dtype = lookup("dtype") or lookup("torch_dtype")
    stated = static_attributes(rules, manifest.config, manifest.family)
    model = model_manifest_pb2.ModelManifest(
        name=manifest.name,
        alias=manifest.aliases,
        family=manifest.family,
        hub_id=manifest.hub_id,
        config_json=json.dumps(manifest.config, sort_keys=True),
        config_origin=manifest.config_origin,
        doc=manifest.doc,
        published_name=manifest.name,
        architecture=manifest.config.get("architectures", ()),
        # A published config may leave out what its family implies.
        tokenizer=_tokenizer(lookup, lookup("vocab_size") or stated.get("vocab_size")),
        legalising=model_manifest_pb2.Legalising(dtype=_DTYPES.get(str(dtype), "")),
        static_attribute=[
            model_manifest_pb2.StaticAttribute(name=name, value_json=json.dumps(value, sort_keys=True))
            for name, value in stated.items()
        ],
    )
    for field, values in manifest.options.items():
        model.option.extend(
            model_manifest_pb2.FormatOption(format=field, name=name, value=value) for name, value in values.items()
        )
    general = (entry for entry in entries if not entry.family and not entry.published_name)
    of_family = (entry for entry in entries if entry.family == manifest.family and not entry.published_name)
    own = (entry for entry in entries if entry.published_name == manifest.name)
    for entry in (*general, *of_family, *own):
        _lay_over(model, entry)
    longest = lookup("max_position_embeddings")
    kept = [entry for entry in model.deployment if longest is None or entry.sequence_length <= longest]
    del model.deployment[:]
    model.deployment.extend(kept)
    return model


def _lay_over(model: model_manifest_pb2.ModelManifest, entry: model_manifest_pb2.ModelManifest) -> None:
    """Takes over what an entry states: a list as a whole, the fields of a message one by one."""
    for field, value in entry.ListFields():
        if field.name in _KEYS:
            continue
        if isinstance(value, (str, bool, int)):
            setattr(model, field.name, value)
        elif hasattr(value, "MergeFrom") and hasattr(value, "ListFields"):
            getattr(model, field.name).MergeFrom(value)
        else:
            model.ClearField(field.name)
            getattr(model, field.name).extend(value)


def _tokenizer(lookup: attributes.Lookup, rows: int | None) -> model_manifest_pb2.TokenizerFacts:
    ids = {name: lookup(name) for name in _SPECIAL_IDS}
    return model_manifest_pb2.TokenizerFacts(
        vocabulary_size=rows,
        special_id={name: id for name, id in ids.items() if isinstance(id, int) and not isinstance(id, bool)},
    )


def _free_names(models: Iterable[model_manifest_pb2.ModelManifest]) -> None:
    """Makes published names aliases, but for those that are, or begin with, a name that another model was given."""
    models = list(models)
    given = [model.name.lower() for model in models if model.name != model.published_name]
    for model in models:
        aliases = [*dict.fromkeys([model.published_name, *model.alias])]
        others = [name for name in given if name != model.name.lower()]
        kept = [alias for alias in aliases if alias != model.name and not _continues(alias.lower(), others)]
        del model.alias[:]
        model.alias.extend(kept)


def _continues(alias: str, names: Iterable[str]) -> bool:
    return any(alias == name or alias.startswith(f"{name}-") for name in names)


def _doubled(models: Iterable[model_manifest_pb2.ModelManifest]) -> list[str]:
    owners: dict[str, set[int]] = {}
    for number, model in enumerate(models):
        for name in _names(model):
            owners.setdefault(name.lower(), set()).add(number)
    return sorted(name for name, found in owners.items() if len(found) > 1)


def _names(model: model_manifest_pb2.ModelManifest) -> tuple[str, ...]:
    return (model.name, *model.alias, model.hub_id)
