from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from container import layer, oci_layout
from container.oci_layout import Layout


@pytest.fixture
def tars(tmp_path: Path) -> list[Path]:
    """Two layers, the first of which is not compressed."""
    (tmp_path / "file").write_text("x")
    layer.write(tmp_path / "zipped.tar.gz", {"app/file": tmp_path / "file"})
    (tmp_path / "plain.tar").write_bytes(gzip.decompress((tmp_path / "zipped.tar.gz").read_bytes()) + bytes(10240))
    return [tmp_path / "plain.tar", tmp_path / "zipped.tar.gz"]


def lines(folder: Path, name: str, *text: str) -> str:
    (folder / name).write_text("".join(f"{line}\n" for line in text))
    return f"--{name}={folder / name}"


def write(folder: Path, *arguments: str) -> Layout:
    digest = folder.with_suffix(".sha256")
    oci_layout.main(["image", f"--output={folder}", f"--digest={digest}", *arguments])
    layout = Layout(folder)
    assert f"sha256:{hashlib.sha256(_bytes(layout)).hexdigest()}" == digest.read_text().strip()
    return layout


def _bytes(layout: Layout) -> bytes:
    return layout.blob(json.loads((layout.root / "index.json").read_bytes())["manifests"][0]["digest"]).read_bytes()


def config(layout: Layout) -> dict[str, Any]:
    return layout.read(layout.manifest()["config"])


def test_an_image_from_nothing_and_one_on_top_of_it(tmp_path: Path, tars: list[Path]) -> None:
    base = write(tmp_path / "base", "--os=linux", "--architecture=amd64", f"--layer={tars[0]}")
    options = [
        lines(tmp_path, "env", "PATH=/bin", "MORE=$PATH:/more"),
        lines(tmp_path, "entrypoint", "python3", "-m", "a program"),
        lines(tmp_path, "labels", "a.b=c=d"),
        lines(tmp_path, "created", "2026-01-02T03:04:05Z"),
    ]
    top = write(tmp_path / "top", f"--base={base.root}", f"--layer={tars[1]}", *options, "--workdir=/w", "--user=5")
    assert len(top.manifest()["layers"]) == 2
    for descriptor, diff_id in zip(top.manifest()["layers"], config(top)["rootfs"]["diff_ids"], strict=True):
        data = top.blob(descriptor["digest"]).read_bytes()
        assert len(data) == descriptor["size"]
        plain = gzip.decompress(data) if descriptor["mediaType"].endswith("gzip") else data
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == diff_id
    assert config(top)["config"] == {
        "Entrypoint": ["python3", "-m", "a program"],
        "Env": ["PATH=/bin", "MORE=/bin:/more"],
        "Labels": {"a.b": "c=d"},
        "User": "5",
        "WorkingDir": "/w",
    }
    assert config(top)["created"] == "2026-01-02T03:04:05Z"
    assert config(base)["created"] == oci_layout.EPOCH


def test_the_same_inputs_give_the_same_manifest(tmp_path: Path, tars: list[Path]) -> None:
    arguments = ["--os=linux", "--architecture=arm64", "--variant=v8", *(f"--layer={tar}" for tar in tars)]
    one, two = write(tmp_path / "one", *arguments), write(tmp_path / "two", *arguments)
    assert (one.root / "index.json").read_bytes() == (two.root / "index.json").read_bytes()
    platform = json.loads((one.root / "index.json").read_bytes())["manifests"][0]["platform"]
    assert platform == {"architecture": "arm64", "os": "linux", "variant": "v8"}


def test_an_index_holds_an_image_for_each_platform(tmp_path: Path, tars: list[Path]) -> None:
    images = [
        write(tmp_path / "amd64", "--os=linux", "--architecture=amd64", f"--layer={tars[0]}"),
        write(
            tmp_path / "arm64", "--os=linux", "--architecture=arm64", "--variant=v8", *(f"--layer={t}" for t in tars)
        ),
    ]
    folder, digest = tmp_path / "index", tmp_path / "index.sha256"
    oci_layout.main(["index", f"--output={folder}", f"--digest={digest}", *(str(image.root) for image in images)])
    (top,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    assert top["mediaType"] == oci_layout.INDEX
    assert top["digest"] == digest.read_text().strip()
    made = Layout(folder)
    assert f"sha256:{hashlib.sha256(made.blob(top['digest']).read_bytes()).hexdigest()}" == top["digest"]
    entries = made.read(top)["manifests"]
    assert [entry["platform"] for entry in entries] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
    ]
    for entry, image in zip(entries, images, strict=True):
        assert made.read(entry) == image.manifest()
        for part in (image.manifest()["config"], *image.manifest()["layers"]):
            assert made.blob(part["digest"]).read_bytes() == image.blob(part["digest"]).read_bytes()


def test_a_tarball_names_its_parts(tmp_path: Path, tars: list[Path]) -> None:
    layout = write(tmp_path / "image", "--os=linux", "--architecture=amd64", *(f"--layer={tar}" for tar in tars))
    lines(tmp_path, "tags", "localhost/a:1")
    oci_layout.main(["tarball", str(layout.root), str(tmp_path / "tags"), str(tmp_path / "out.tar")])
    with tarfile.open(tmp_path / "out.tar") as tar:
        listing = tar.extractfile("manifest.json")
        assert listing is not None
        (image,) = json.load(listing)
        assert {image["Config"], *image["Layers"], "manifest.json"} == set(tar.getnames())
    assert image["RepoTags"] == ["localhost/a:1"]
