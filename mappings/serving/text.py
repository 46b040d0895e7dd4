"""Serving catalogues as text that people can read, and the digest of what they say."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json

from google.protobuf import json_format, text_format

from recast_proto import serving_catalog_pb2

SCHEMA_VERSION = 1
"""The newest schema of a catalogue that this version reads."""
MODEL_LIMIT = 1000
"""Models beyond which a catalogue is refused."""
RULE_LIMIT = 1000
"""Rules beyond which a catalogue is refused."""


class Fault(enum.Enum):
    """What can be wrong with the text of a catalogue."""

    SYNTAX = "syntax"
    NEWER_SCHEMA = "newer schema"
    TOO_LARGE = "too large"
    DIGEST = "digest"


class CatalogError(ValueError):
    """A text that is no catalogue which this version can take.

    Attributes:
        fault: the kind of fault.
        reason: what was found, with names and numbers.
    """

    def __init__(self, fault: Fault, reason: str):
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


def parse(text: str) -> serving_catalog_pb2.ServingCatalog:
    """Reads a catalogue.

    What a newer schema adds is no fault of the text: its version is looked at whatever else is there.

    Raises:
        CatalogError: as `check`, or if the text is no catalogue.
    """
    catalog = serving_catalog_pb2.ServingCatalog()
    try:
        text_format.Parse(text, catalog)
    except text_format.ParseError as error:
        # Parsing takes most of the time, so it is done a second time only where the first ended early.
        loose = serving_catalog_pb2.ServingCatalog()
        with contextlib.suppress(text_format.ParseError):
            text_format.Parse(text, loose, allow_unknown_field=True)
            _check_schema(loose)
        raise CatalogError(Fault.SYNTAX, f"the text is no catalogue: {error}") from None
    check(catalog)
    return catalog


def check(catalog: serving_catalog_pb2.ServingCatalog) -> None:
    """Looks at what a catalogue says of itself.

    Raises:
        CatalogError: if it is of a newer schema, too large, or does not match its digest.
    """
    _check_schema(catalog)
    for count, limit, what in ((len(catalog.model), MODEL_LIMIT, "models"), (len(catalog.rule), RULE_LIMIT, "rules")):
        if count > limit:
            raise CatalogError(Fault.TOO_LARGE, f"the catalogue has {count} {what}; it may have {limit}")
    content = digest(catalog)
    if catalog.digest != content:
        stated = f"the digest {catalog.digest}" if catalog.digest else "no digest"
        raise CatalogError(Fault.DIGEST, f"the catalogue states {stated}, and its content has {content}")


def _check_schema(catalog: serving_catalog_pb2.ServingCatalog) -> None:
    version = catalog.schema_version
    if version > SCHEMA_VERSION:
        reason = f"the catalogue has schema version {version}; this version of Recast reads {SCHEMA_VERSION}"
        raise CatalogError(Fault.NEWER_SCHEMA, reason)
    if version < 1:
        raise CatalogError(Fault.SYNTAX, "the catalogue states no schema_version")


def dump(catalog: serving_catalog_pb2.ServingCatalog) -> str:
    """A catalogue as text, with the digest of its content."""
    return text_format.MessageToString(sealed(catalog), as_utf8=True)


def sealed(catalog: serving_catalog_pb2.ServingCatalog) -> serving_catalog_pb2.ServingCatalog:
    """A copy of a catalogue that states the digest of its content."""
    copy = serving_catalog_pb2.ServingCatalog()
    copy.CopyFrom(catalog)
    copy.digest = digest(catalog)
    return copy


def digest(catalog: serving_catalog_pb2.ServingCatalog) -> str:
    """sha256 of what a catalogue says, whatever its text looks like: of its proto3 JSON with sorted keys."""
    copy = serving_catalog_pb2.ServingCatalog()
    copy.CopyFrom(catalog)
    copy.ClearField("digest")
    content = json_format.MessageToDict(copy, preserving_proto_field_name=True)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
