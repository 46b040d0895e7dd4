"""Writes the SBOM of an image as SPDX 2.3: sbom.py OUTPUT NAME VERSION CREATED BASE LAYER...

What is in the image is read from its layers, which were made of what the locks pin with hashes: each distribution has a
folder of metadata there. BASE has a line `NAME=VERSION` for each Debian package of the base, and CREATED one with the
time, or "unknown".
"""

from __future__ import annotations

import dataclasses
import email.parser
import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

_LICENSE = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_NO_ASSERTION = "NOASSERTION"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclasses.dataclass(frozen=True, order=True)
class Part:
    """One package in an image.

    Attributes:
        kind: "pypi" or "deb".
        name: as its index calls it.
        version: its version.
        license: an SPDX expression, or "NOASSERTION".
    """

    kind: str
    name: str
    version: str
    license: str = _NO_ASSERTION

    @property
    def purl(self) -> str:
        """Its package URL."""
        name = re.sub(r"[-_.]+", "-", self.name).lower() if self.kind == "pypi" else f"debian/{self.name}"
        return f"pkg:{self.kind}/{name}@{quote(self.version, safe='')}"


def distributions(layer: Path) -> Iterator[Part]:
    """The Python distributions in a layer."""
    with tarfile.open(layer, "r|*") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.name == "METADATA" and path.parent.suffix == ".dist-info":
                file = tar.extractfile(member)
                assert file is not None
                headers = email.parser.BytesParser().parsebytes(file.read(), headersonly=True)
                said = headers["License-Expression"] or ""
                license = said if _LICENSE.fullmatch(said) else _NO_ASSERTION
                yield Part("pypi", headers["Name"], headers["Version"], license)


def debian(lines: Iterable[str]) -> Iterator[Part]:
    """The packages of a base, from lines `NAME=VERSION`."""
    for line in lines:
        name, equals, version = line.strip().partition("=")
        if equals:
            yield Part("deb", name, version)


def document(name: str, version: str, created: str, parts: Iterable[Part]) -> dict[str, Any]:
    """The SBOM.

    Args:
        name: of the image.
        version: of the image.
        created: when, as SPDX writes it; 1970 for what is not stamped.
        parts: what the image holds.
    """
    parts = sorted(set(parts))
    image = {
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": _NO_ASSERTION,
        "filesAnalyzed": False,
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": _NO_ASSERTION,
    }
    packages = [image, *(_package(part) for part in parts)]
    contained = [{"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS"} for _ in parts]
    for relation, package in zip(contained, packages[1:], strict=True):
        relation["relatedSpdxElement"] = str(package["SPDXID"])
    described = {
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    }
    content = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{content}",
        "creationInfo": {"created": created, "creators": [f"Tool: recast-sbom-{version}"]},
        "packages": packages,
        "relationships": [described, *contained],
    }


def _package(part: Part) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{part.kind}-{re.sub(r'[^A-Za-z0-9.-]', '-', part.name)}",
        "name": part.name,
        "versionInfo": part.version,
        "downloadLocation": _NO_ASSERTION,
        "filesAnalyzed": False,
        "licenseConcluded": _NO_ASSERTION,
        "licenseDeclared": part.license,
        "copyrightText": _NO_ASSERTION,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl}
        ],
    }


def main(arguments: Sequence[str]) -> None:
    """Writes an SBOM."""
    output, name, version, created, base, *layers = arguments
    time = Path(created).read_text("utf-8").strip()
    parts = [*debian(Path(base).read_text("utf-8").splitlines())]
    parts += [part for layer in layers for part in distributions(Path(layer))]
    made = document(name, version, time if time != "unknown" else _EPOCH, parts)
    Path(output).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
