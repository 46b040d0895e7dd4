"""What a catalogue says of its models, looked at once when it is loaded: later code takes it as it stands."""

from __future__ import annotations

from collections.abc import Iterator

from mappings import strict_json
from recast_proto import model_manifest_pb2, serving_catalog_pb2
from validators import transformers_version

_LONGEST = 200
_SHOWN = 40


def faults(catalog: serving_catalog_pb2.ServingCatalog) -> list[str]:
    """A sentence for each field that nothing can be done with.

    Rules are not looked at: one that cannot be used is RULE_INVALID where it is evaluated. Nor is the form of weights,
    which only the writing of a checkpoint needs.
    """
    lines = {"version": catalog.version, "provenance.source": catalog.provenance.source}
    unprintable = [
        f"The catalogue's {name} cannot be printed on a line." for name, text in lines.items() if not text.isprintable()
    ]
    return unprintable + [
        f"The model {_shown(model.name) or number} of the catalogue cannot be used: {fault}."
        for number, model in enumerate(catalog.model, 1)
        for fault in _faults(model)
    ]


def _faults(model: model_manifest_pb2.ModelManifest) -> Iterator[str]:
    if not model.name.strip():
        yield "it has no name"
    for field in ("name", "hub_id", "family"):
        if not getattr(model, field).isprintable():
            yield f"its {field} cannot be printed on a line"
    yield from _versions(model.transformers)
    if model.config_json:
        yield from _config(model.config_json)
    for attribute in model.static_attribute:
        try:
            strict_json.loads(attribute.value_json)
        except ValueError as error:
            yield f"value_json of the attribute {_shown(attribute.name)} is no JSON ({error})"
    tied = model.legalising.tied_embeddings
    if tied not in model_manifest_pb2.TiedEmbeddings.values():
        yield f"legalising.tied_embeddings is {tied}, which this version does not know"
    if model.legalising.max_shard_bytes < 0:
        yield f"legalising.max_shard_bytes is {model.legalising.max_shard_bytes}"
    for deployment in model.deployment:
        if min([deployment.sequence_length, *deployment.batch_size]) < 1:
            sizes = ", ".join(map(str, deployment.batch_size))
            yield f"a deployment has the length {deployment.sequence_length} and the batch sizes {sizes or '(none)'}"


def _versions(versions: model_manifest_pb2.TransformersVersions) -> Iterator[str]:
    if versions.deployment and transformers_version.parsed(versions.deployment) is None:
        yield f"transformers.deployment is '{_shown(versions.deployment)}', which is no version by PEP 440"
    if not _is_specifier(versions.supported):
        yield f"transformers.supported is '{_shown(versions.supported)}', which is no specifier by PEP 440"


def _is_specifier(text: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if len(text) > _LONGEST or not text.isprintable():
        return False
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


def _config(text: str) -> Iterator[str]:
    try:
        config = strict_json.loads(text)
    except ValueError as error:
        yield f"config_json is no JSON ({error})"
        return
    if not isinstance(config, dict):
        yield "config_json is no JSON object"


def _shown(text: str) -> str:
    """A text on one line of bounded length."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return f"{line[:_SHOWN]}..." if len(line) > _SHOWN else line
