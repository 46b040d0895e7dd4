"""Writes the SBOM of an image as SPDX 2.3: sbom.py [--lock=LOCK]... OUTPUT NAME VERSION CREATED BASE LAYER...

What is in the image is read from its layers: each distribution has a folder of metadata there. The LOCKs, of
requirements/, say which files a distribution may have been installed from, by their hashes. BASE has a line
`NAME=VERSION` for each Debian package of the base, and CREATED one with the time.
"""

from __future__ import annotations

import dataclasses
import email.parser
import hashlib
import json
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

# An SPDX expression; what is none of them is text for people.
_LICENSE = re.compile(r"\(*[A-Za-z0-9.+-]+\)*(?: (?:AND|OR|WITH) \(*[A-Za-z0-9.+-]+\)*)*")
# What older metadata says in its other fields and means one license beyond doubt.
_NAMES = frozenset(("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Zlib"))
_CLASSIFIERS = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_LOCKED = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\n]+)[^\n]*\n((?:    --hash=sha256:[0-9a-f]{64}[ \\]*\n)+)", re.MULTILINE
)
_HASH = re.compile("sha256:([0-9a-f]{64})")
_NO_ASSERTION = "NOASSERTION"


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
        name = canonical(self.name) if self.kind == "pypi" else f"debian/{self.name}"
        return f"pkg:{self.kind}/{name}@{quote(self.version, safe='')}"


Hashes = Mapping[tuple[str, str], Sequence[str]]
"""SHA-256 digests of the files that locks admit, by the canonical name and the version of a distribution."""


def canonical(name: str) -> str:
    """The name of a distribution as the package index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(texts: Iterable[str]) -> Hashes:
    """What locks admit."""
    found: dict[tuple[str, str], set[str]] = {}
    for name, version, lines in (entry for text in texts for entry in _LOCKED.findall(text)):
        found.setdefault((canonical(name), version), set()).update(_HASH.findall(lines))
    return {key: sorted(digests) for key, digests in found.items()}


def license_of(headers: Message) -> str:
    """The license that a distribution's metadata declares, or "NOASSERTION"."""
    said = headers["License-Expression"] or ""
    if said:
        balanced = said.count("(") == said.count(")")
        return said if balanced and _LICENSE.fullmatch(said) else _NO_ASSERTION
    if headers["License"] in _NAMES:
        return str(headers["License"])
    classified = [
        line for line in headers.get_all("Classifier") or () if line.startswith("License :: OSI Approved :: ")
    ]
    return _CLASSIFIERS.get(classified[0], _NO_ASSERTION) if len(classified) == 1 else _NO_ASSERTION


def distributions(layer: Path) -> Iterator[Part]:
    """The Python distributions in a layer."""
    with tarfile.open(layer, "r|*") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.name == "METADATA" and path.parent.suffix == ".dist-info":
                file = tar.extractfile(member)
                assert file is not None
                headers = email.parser.BytesParser().parsebytes(file.read(), headersonly=True)
                yield Part("pypi", headers["Name"], headers["Version"], license_of(headers))


def debian(lines: Iterable[str]) -> Iterator[Part]:
    """The packages of a base, from lines `NAME=VERSION`."""
    for line in lines:
        name, equals, version = line.strip().partition("=")
        if equals:
            yield Part("deb", name, version)


def document(
    name: str, version: str, created: str, parts: Iterable[Part], hashes: Hashes | None = None
) -> dict[str, Any]:
    """The SBOM.

    Args:
        name: of the image.
        version: of the image.
        created: when, as SPDX writes it; 1970 for what is not stamped.
        parts: what the image holds.
        hashes: of the files that these may have been installed from.
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
    packages = [image, *(_package(part, hashes or {}) for part in parts)]
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


def _package(part: Part, hashes: Hashes) -> dict[str, Any]:
    admitted = hashes.get((canonical(part.name), part.version), ()) if part.kind == "pypi" else ()
    checked = {
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest} for digest in admitted],
        "comment": "Installed from a file with one of these checksums; others are of other platforms.",
    }
    return {
        **(checked if admitted else {}),
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
    option = "--lock="
    locks = [word.removeprefix(option) for word in arguments if word.startswith(option)]
    output, name, version, created, base, *layers = (word for word in arguments if not word.startswith(option))
    time = Path(created).read_text("utf-8").strip()
    parts = [*debian(Path(base).read_text("utf-8").splitlines())]
    parts += [part for layer in layers for part in distributions(Path(layer))]
    hashes = locked(Path(lock).read_text("utf-8") for lock in locks)
    made = document(name, version, time, parts, hashes)
    Path(output).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
