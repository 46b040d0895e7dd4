"""What a platform's model asks of a checkpoint's form, as a conversion from Hugging Face to Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.engine.request import AUTO, FP8_PER_TENSOR, ConversionRequest
from converters.prepare.request import PrepareRequest
from mappings import catalog
from recast_proto import model_manifest_pb2
from reporting.diagnostics import RecastError
from validators import transformers_version

STEP = "legalizer"
PARTS: Mapping[str, str] = {
    **dict.fromkeys(("open_source", "validate_config", "decode", "bind", "plan", "preflight", "convert"), STEP),
    **dict.fromkeys(("verify", "commit"), "verify"),
}
"""The engine's steps, as the platform's report has them."""

_DTYPES: Mapping[str, str] = {"": AUTO, "BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_FORMS: Mapping[int, str] = {
    model_manifest_pb2.WEIGHTS_FORM_UNSPECIFIED: "",
    model_manifest_pb2.FP8_PER_TENSOR: FP8_PER_TENSOR,
}
_HEADS: Mapping[int, str] = {
    model_manifest_pb2.TIED_EMBEDDINGS_UNSPECIFIED: "",
    model_manifest_pb2.KEEP_TIED: "tie",
    model_manifest_pb2.UNTIE: "untie",
}
_TIE, _TEXT = "tie_word_embeddings", "text_config"


def check_form(base: model_manifest_pb2.ModelManifest) -> None:
    """Refuses a model whose weights the platform stores in a form that nothing here writes.

    Raises:
        RecastError: NOT_SUPPORTED_YET.
    """
    form = base.legalising
    if form.weights_form in _FORMS and form.dtype in _DTYPES:
        return
    asked = f"form {form.weights_form} of its catalogue" if form.dtype in _DTYPES else form.dtype
    raise RecastError.of(
        "NOT_SUPPORTED_YET",
        f"The platform stores the weights of {base.name} as {asked}, which is not written yet.",
        suggestion="Validate the checkpoint with --dry_run, or prepare it for another model.",
        subject="--model",
    )


def conversion(
    request: PrepareRequest,
    base: model_manifest_pb2.ModelManifest,
    config: Mapping[str, Any],
    extra_files: Mapping[str, str],
) -> ConversionRequest:
    """The conversion that makes the platform's form of a checkpoint.

    Args:
        request: what is asked for; it has a destination.
        base: the platform's model.
        config: the checkpoint's config.json, empty if it cannot be read.
        extra_files: content of the files that the output gets beside the checkpoint, by name.
    """
    form = base.legalising
    return ConversionRequest(
        source=request.source,
        destination=request.destination or Path(),
        source_format="hf",
        target_format="hf",
        dtype=_DTYPES.get(form.dtype, AUTO),
        model_name=_published(base),
        exactness="as_requested",
        residue="drop",
        overwrite=request.overwrite,
        memory_budget=request.memory_budget,
        progress=request.progress,
        weights_form=_FORMS.get(form.weights_form, ""),
        tied_head=_HEADS[form.tied_embeddings],
        numbered_shards=True,
        config_changes=_config_changes(config, form, deployment_version(request, base)),
        extra_files=extra_files,
        max_shard_bytes=form.max_shard_bytes or ConversionRequest.max_shard_bytes,
    )


def deployment_version(request: PrepareRequest, base: model_manifest_pb2.ModelManifest) -> str:
    """The version of transformers that a prepared checkpoint is for."""
    if request.transformers_version and not request.ignore_transformers_version:
        return request.transformers_version
    return base.transformers.deployment or transformers_version.BACKEND


def _published(base: model_manifest_pb2.ModelManifest) -> str:
    """The published name of a platform's model, where it has one that is known here."""
    known = catalog.find(base.published_name) if base.published_name else None
    return known.name if known is not None and known.family == base.family else ""


def _config_changes(
    config: Mapping[str, Any], form: model_manifest_pb2.Legalising, deployment: str
) -> Mapping[str, Any]:
    changes: dict[str, Any] = {}
    if form.tied_embeddings == model_manifest_pb2.UNTIE:
        changes[_TIE] = False
        text = config.get(_TEXT)
        if isinstance(text, Mapping) and _TIE in text:
            changes[_TEXT] = {**text, _TIE: False}
    if transformers_version.check(config, deployment).diagnostics:
        # A newer version than the platform's saved it, or none is named: what is written is for the platform's.
        changes[transformers_version.FIELD] = deployment
    return changes
