from __future__ import annotations

import json
from pathlib import Path

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
    (tmp_path / "created").write_text("unknown\n")
    files = [str(tmp_path / name) for name in ("created", "base", "layer.tar.gz")]
    for output in ("one", "two"):
        sbom.main([str(tmp_path / output), "recast", "0.1.0", *files])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    made = json.loads((tmp_path / "one").read_bytes())
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
