from __future__ import annotations

import email
import json
from importlib.metadata import distributions as installed
from pathlib import Path

import pytest
from spdx_tools.common.spdx_licensing import spdx_licensing
from spdx_tools.spdx.parser import parse_anything
from spdx_tools.spdx.validation import document_validator

from container import layer, sbom


def test_an_sbom_lists_what_the_layers_and_the_base_hold(tmp_path: Path) -> None:
    texts = {
        "numpy-2.0.dist-info/METADATA": "Name: NumPy\nVersion: 2.0+cpu\nLicense-Expression: MIT AND BSD-3-Clause\n\n",
        "old-1.dist-info/METADATA": "Name: old_one\nVersion: 1\nLicense: the long text of one\n",
        "numpy/METADATA": "Name: none\n",
    }
    members = {}
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        members[f"app/site-packages/{name}"] = path
    layer.write(tmp_path / "layer.tar.gz", members)
    (tmp_path / "base").write_text("sha256:1\nlibc6=2.36-9+deb12u1\n")
    (tmp_path / "created").write_text("1970-01-01T00:00:00Z\n")
    digests = ("b" * 64, "a" * 64)
    lines = [f"    --hash=sha256:{digest}" for digest in digests]
    (tmp_path / "lock.txt").write_text(
        "numpy==2.0+cpu ; python_version >= '3' \\\n" + " \\\n".join(lines) + "\n    # via x\n"
    )
    files = [str(tmp_path / name) for name in ("created", "base", "layer.tar.gz")]
    for output in ("one.spdx.json", "two.spdx.json"):
        sbom.main([f"--lock={tmp_path / 'lock.txt'}", str(tmp_path / output), "recast", "0.1.0", *files])
    assert (tmp_path / "one.spdx.json").read_bytes() == (tmp_path / "two.spdx.json").read_bytes()
    assert (
        document_validator.validate_full_spdx_document(parse_anything.parse_file(str(tmp_path / "one.spdx.json"))) == []
    )
    made = json.loads((tmp_path / "one.spdx.json").read_bytes())
    assert made["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    shown = {
        package["name"]: (package["externalRefs"][0]["referenceLocator"], package["licenseDeclared"])
        for package in made["packages"][1:]
    }
    assert shown == {
        "libc6": ("pkg:deb/debian/libc6@2.36-9%2Bdeb12u1", "NOASSERTION"),
        "NumPy": ("pkg:pypi/numpy@2.0%2Bcpu", "MIT AND BSD-3-Clause"),
        "old_one": ("pkg:pypi/old-one@1", "NOASSERTION"),
    }
    ids = [package["SPDXID"] for package in made["packages"]]
    assert len(ids) == len(set(ids))
    assert {relation["relatedSpdxElement"] for relation in made["relationships"]} == set(ids)
    checksums = {package["name"]: package.get("checksums") for package in made["packages"]}
    assert checksums.pop("NumPy") == [{"algorithm": "SHA256", "checksumValue": digest} for digest in sorted(digests)]
    assert set(checksums.values()) == {None}


def test_what_installed_metadata_says_of_licenses_is_an_expression_or_nothing() -> None:
    said = {
        found.name: sbom.license_of(email.message_from_string(found.read_text("METADATA") or ""))
        for found in installed()
    }
    for name, expression in said.items():
        if expression != "NOASSERTION":
            assert spdx_licensing.validate(expression, strict=True).errors == [], name
    assert set(said.values()) > {"MIT", "NOASSERTION"}


@pytest.mark.parametrize(
    ("headers", "license"),
    [
        ("License-Expression: (MIT OR Apache-2.0) AND BSD-3-Clause", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        ("License-Expression: (MIT", "NOASSERTION"),
        ("License: MIT", "MIT"),
        ("License: BSD", "NOASSERTION"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License", "NOASSERTION"),
        ("Name: a", "NOASSERTION"),
    ],
)
def test_a_license_is_declared_only_where_it_is_clear(headers: str, license: str) -> None:
    assert sbom.license_of(email.message_from_string(f"{headers}\n\n")) == license
