"""Which family and which variant of it a run is about: from --model_name, the config and the published manifests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from converters.engine import binding
from mappings import catalog
from mappings.language.family import Family
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from validators import hf_config


@dataclasses.dataclass(frozen=True)
class Naming:
    """What a model is called.

    Attributes:
        family: folder of the mappings.
        model_name: published name or layout name; of several that store the same values, the first.
        options: options that the name implies for the format at hand.
        reason: how the name came about, for the report.
    """

    family: str
    model_name: str
    options: Mapping[str, Any]
    reason: str


def resolve(model_name: str, config: Mapping[str, Any], format: str) -> Naming:
    """Finds the family and the variant.

    Args:
        model_name: as given; may be empty.
        config: the model's config.json.
        format: the format whose layout has variants.

    Raises:
        RecastError: MODEL_NAME_UNKNOWN, MODEL_NAME_MISMATCH, MODEL_NAME_AMBIGUOUS or UNKNOWN_ARCHITECTURE.
    """
    family = catalog.family_of(config)
    if family is None:
        raise_all(hf_config.check_config(config))
        raise RecastError.of("UNKNOWN_ARCHITECTURE", "config.json names no family that Recast knows.")
    if not model_name:
        return _from_config(family, config, format)
    manifest = catalog.find(model_name)
    if manifest is not None:
        raise_all(hf_config.compare_with_manifest(config, manifest))
        options = dict(manifest.options.get(format, {}))
        return Naming(manifest.family, manifest.name, options, "published name, sizes checked")
    if model_name in catalog.layout_names():
        return _layout_name(model_name, family, config)
    near = ", ".join(catalog.nearest(model_name))
    names = ", ".join(catalog.layout_names())
    raise RecastError.of(
        "MODEL_NAME_UNKNOWN",
        f"There is no model named {model_name}. Near ones: {near or 'none'}. Layout names: {names}.",
        subject="--model_name",
    )


def check_record(family: Family, named: Naming, format: str, recorded: Mapping[str, Any]) -> None:
    """Holds a given name against the options with which the checkpoint was written.

    Args:
        family: the bound family.
        named: what the name means.
        format: of the checkpoint.
        recorded: the options in its record.

    Raises:
        RecastError: MODEL_NAME_MISMATCH for each option on which they differ.
    """
    meant = binding.layout_for(family, named.family, format, named.options).options
    decided = {*named.options, *binding.implied_options(family, named.family, format)} - {"model_name", "scan"}
    raise_all(
        [
            Diagnostic(
                "MODEL_NAME_MISMATCH",
                f"{named.model_name} stands for {name}={meant[name]}, but the checkpoint was written with "
                f"{name}={value}.",
                subject="--model_name",
            )
            for name, value in recorded.items()
            if name in decided and name in meant and meant[name] != value
        ]
    )


def _layout_name(model_name: str, family: str, config: Mapping[str, Any]) -> Naming:
    fitting = hf_config.layout_candidates(config)
    if model_name not in fitting:
        raise RecastError.of(
            "MODEL_NAME_MISMATCH",
            f"The config does not fit the layout {model_name}: it fits {', '.join(fitting) or 'none'}.",
            subject="--model_name",
        )
    return Naming(family, model_name, {"model_name": model_name}, "layout name, sizes from config.json")


def _from_config(family: str, config: Mapping[str, Any], format: str) -> Naming:
    fitting = hf_config.layout_candidates(config)
    if not fitting:
        return Naming(family, "", {}, "from config.json")
    bound = binding.family_for(family, config)
    variants = {name: _values(bound, family, format, name) for name in fitting}
    first = fitting[0]
    if all(options == variants[first] for options in variants.values()):
        same = ", ".join(fitting)
        return Naming(family, first, {"model_name": first}, f"from config.json; {same} store the same values")
    raise RecastError([_ambiguous(fitting, variants)])


def _values(family: Family, name: str, format: str, layout: str) -> Mapping[str, object]:
    bound = binding.layout_for(family, name, format, {"model_name": layout})
    return {key: value for key, value in bound.options.items() if key != "model_name"}


def _ambiguous(fitting: tuple[str, ...], variants: Mapping[str, Mapping[str, object]]) -> Diagnostic:
    first = variants[fitting[0]]
    differing = sorted(key for key in first if any(options.get(key) != first[key] for options in variants.values()))
    listed = "; ".join(
        f"{name} ({', '.join(f'{key}={options.get(key)}' for key in differing)})" for name, options in variants.items()
    )
    return Diagnostic(
        "MODEL_NAME_AMBIGUOUS",
        f"config.json fits several models whose stored values differ: {listed}.",
        subject="--model_name",
    )
