"""The resources by which a serving platform deploys a prepared checkpoint, as YAML that can be applied as it is.

`Model` says where the checkpoint lies, `ModelBundle` how it is run; `Bundle` is what older platforms take in its place.
Their forms are those of the JSON schemas in `schemas/`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from recast_proto import model_manifest_pb2
from reporting.diagnostics import Diagnostic
from validators.compatibility.facts import TokenizerFacts

FOLDER = "recast/deployment"
"""Where the resources lie in an output."""

API_VERSION = "sambanova.ai/v1alpha1"
VERSION = "1"
_BUCKET_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s/?#\\\x00-\x1f]+)*/?")
_LONGEST_NAME = 63
_KIBI = 1024


@dataclasses.dataclass(frozen=True)
class Deployed:
    """One prepared checkpoint, as its resources speak of it.

    Attributes:
        uri: where it will lie.
        serving_name: by which requests ask for it.
        base: the platform's model that it runs as.
        config: its config.json.
        tokenizer: what its tokenizer states; None if that is unknown.
    """

    uri: str
    serving_name: str
    base: model_manifest_pb2.ModelManifest
    config: Mapping[str, Any]
    tokenizer: TokenizerFacts | None

    @property
    def resource_name(self) -> str:
        """The name of its resources, as Kubernetes takes it."""
        return resource_name(self.serving_name)

    @property
    def takes_tools(self) -> bool:
        """Whether its chat template has a place for tools."""
        template = self.tokenizer.chat_template if self.tokenizer is not None else None
        return template is not None and "tools" in template


def check_uri(uri: str) -> list[Diagnostic]:
    """INVALID_FLAG if a destination is no folder of a bucket. It is shown without what could be a secret."""
    if _BUCKET_URI.fullmatch(uri) and not {".", ".."} & set(uri.split("/")):
        return []
    scheme = uri.partition("://")[0] + "://..." if "://" in uri else "a text without a scheme"
    reason = f"--destination_uri is {scheme}, and not the gs:// address of a bucket or of a folder in one."
    return [Diagnostic("INVALID_FLAG", reason, subject="--destination_uri")]


def resource_name(name: str) -> str:
    """A name as Kubernetes takes it for a resource: lower-case letters, digits and hyphens."""
    lowered = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return lowered or "model"


def files(deployed: Deployed, *, legacy_bundle: bool) -> dict[str, str]:
    """The resources as YAML, by the names of their files in the output.

    Args:
        deployed: the checkpoint.
        legacy_bundle: whether there is a Bundle too.
    """
    import yaml

    resources = {"model.yaml": model(deployed), "model_bundle.yaml": model_bundle(deployed)}
    if legacy_bundle:
        resources["bundle.yaml"] = bundle(deployed)
    return {
        f"{FOLDER}/{name}": yaml.safe_dump(resource, sort_keys=False, allow_unicode=True, width=1 << 16)
        for name, resource in resources.items()
    }


def model(deployed: Deployed) -> dict[str, Any]:
    """The Model: the checkpoint by its name, and where it lies."""
    capabilities = ["text", *(["vision"] if "vision_config" in deployed.config else [])]
    version = {"source": _folder(deployed), "checkpoint_status": "preview", "tool_support": deployed.takes_tools}
    return {
        **_head("Model", deployed.resource_name),
        "spec": {
            "name": deployed.serving_name,
            "aliases": [],
            "checkpoints": {deployed.base.name: {"versions": {VERSION: version}}},
            "tokenizer": {"path": _folder(deployed)},
            "metadata": {"architecture": _architecture(deployed), "capabilities": capabilities},
        },
    }


def model_bundle(deployed: Deployed) -> dict[str, Any]:
    """The ModelBundle: the Model in the profile of the platform's model, at its lengths and batch sizes."""
    entry: dict[str, Any] = {
        "model": f"{deployed.resource_name}:{deployed.base.name}:{VERSION}",
        "profile": resource_name(deployed.base.name),
        "modelSettings": {"routable": True},
    }
    lengths = sorted(deployed.base.deployment, key=lambda each: each.sequence_length)
    if lengths:
        entry["batchingConfig"] = {
            length_name(each.sequence_length): {
                "batch_sizes": sorted(each.batch_size),
                **({"is_default": True} if each is lengths[0] else {}),
            }
            for each in lengths
        }
    return {**_head("ModelBundle", deployed.resource_name), "spec": {"modelConfigs": [entry]}}


def bundle(deployed: Deployed) -> dict[str, Any]:
    """The Bundle of older platforms: the checkpoint in place of that of a template's model."""
    name = f"{re.sub('[^A-Z0-9]', '_', deployed.serving_name.upper())}_CKPT"
    return {
        **_head("Bundle", deployed.resource_name),
        "spec": {
            "checkpoints": {name: {"source": _folder(deployed), "toolSupport": deployed.takes_tools}},
            "models": {deployed.base.name: {"checkpoint": name, "template": deployed.base.name}},
            "template": resource_name(deployed.base.name),
            "secretNames": ["sambanova-artifact-reader"],
        },
    }


def length_name(tokens: int) -> str:
    """A length of sequences as the platform names it: 8k for 8192 tokens."""
    return f"{tokens // _KIBI}k" if tokens % _KIBI == 0 else str(tokens)


def _head(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}}


def _folder(deployed: Deployed) -> str:
    return deployed.uri.rstrip("/")


def _architecture(deployed: Deployed) -> str:
    stated = deployed.config.get("architectures")
    names = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    return next(iter([*names, *deployed.base.architecture]), deployed.base.family)
