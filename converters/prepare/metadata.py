"""The platform's model that a checkpoint is prepared for, from a catalogue."""

from __future__ import annotations

from recast_proto import model_manifest_pb2, serving_catalog_pb2
from reporting.diagnostics import RecastError


def model_of(catalog: serving_catalog_pb2.ServingCatalog, name: str) -> model_manifest_pb2.ModelManifest:
    """A model that checkpoints may be prepared for.

    Raises:
        RecastError: UNSUPPORTED_MODEL, if the catalogue does not hold it, or takes no checkpoints of it.
    """
    from mappings.serving import catalog as catalogs

    found = catalogs.find(catalog, name)
    source = catalog.provenance.source or "(unnamed)"
    if found is None:
        near = ", ".join(catalogs.nearest(catalog, name))
        hint = f" Near names are: {near}." if near else ""
        raise RecastError.of(
            "UNSUPPORTED_MODEL",
            f"The catalogue of {source} has no model named {name}.{hint}",
            subject="--model",
        )
    if not found.import_checkpoint:
        raise RecastError.of(
            "UNSUPPORTED_MODEL",
            f"The platform takes no checkpoints of {found.name}: its catalogue ({source}) says that they cannot be "
            "imported.",
            subject="--model",
        )
    return found
