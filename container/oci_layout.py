"""Writes images as OCI layouts, for builds without the published rules_oci.

    oci_layout.py image --output=FOLDER --digest=FILE [--base=LAYOUT] [--layer=TAR]... [--KEY=VALUE]...
    oci_layout.py index --output=FOLDER --digest=FILE LAYOUT...
    oci_layout.py tarball LAYOUT TAGS OUTPUT

The same inputs give the same bytes: JSON is sorted, and all times are 1970 unless --created says otherwise. `image`
takes lists and maps as files with a line for each item. `index` makes one image of several for different platforms.
`tarball` writes what `docker load` and `podman load` read.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

EPOCH = "1970-01-01T00:00:00Z"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

FILES = ("annotations", "cmd", "created", "entrypoint", "env", "exposed_ports", "labels", "volumes")
STRINGS = ("architecture", "base", "digest", "os", "output", "user", "variant", "workdir")

Json = dict[str, Any]


class Layout:
    """A folder in the form of the OCI image layout, with one image, or one index of images."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, digest: str) -> Path:
        """The file of a digest."""
        return self.root / "blobs" / digest.replace(":", "/")

    def manifest(self) -> Json:
        """The manifest of the image, or the index."""
        index = json.loads((self.root / "index.json").read_bytes())
        return self.read(index["manifests"][0])

    def read(self, descriptor: Json) -> Json:
        """The JSON that a descriptor means."""
        value: Json = json.loads(self.blob(descriptor["digest"]).read_bytes())
        return value

    def put_json(self, value: Json, media_type: str) -> Json:
        """Adds JSON.

        Returns:
            Its descriptor.
        """
        data = _json(value)
        digest = _sha256(io.BytesIO(data))
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        self.blob(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def put_layer(self, tar: Path) -> tuple[Json, str]:
        """Adds a layer.

        Returns:
            Its descriptor, and the digest of what it unpacks to.
        """
        with tar.open("rb") as file:
            digest = _sha256(file)
            file.seek(0)
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(tar) if zipped else tar.open("rb") as plain:
            diff_id = _sha256(cast(IO[bytes], plain))
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tar, self.blob(digest))
        media_type = f"{LAYER}+gzip" if zipped else LAYER
        return {"mediaType": media_type, "digest": digest, "size": tar.stat().st_size}, diff_id

    def finish(self, descriptor: Json) -> None:
        """Writes the index, which makes it a layout of that image."""
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}
        (self.root / "index.json").write_bytes(_json(index))
        (self.root / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _json(value: Json) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _lines(path: str | None) -> list[str]:
    return [line for line in Path(path).read_text("utf-8").splitlines() if line] if path else []


def _pairs(path: str | None) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in _lines(path))}


def expanded(env: Sequence[str], added: dict[str, str]) -> list[str]:
    """Environment variables with others added, whose values may name earlier ones as $NAME or ${NAME}."""
    known = dict(entry.split("=", 1) for entry in env)
    for key, value in added.items():
        known[key] = re.sub(r"\$\{?(\w+)\}?", lambda match: known.get(match[1], ""), value)
    return [f"{key}={value}" for key, value in known.items()]


def _start(options: argparse.Namespace, out: Layout) -> tuple[Json, Json]:
    """The manifest and the config to begin with; the base's layers are copied."""
    if not options.base:
        config: Json = {"architecture": options.architecture, "os": options.os, "config": {}, "history": []}
        config["rootfs"] = {"type": "layers", "diff_ids": []}
        if options.variant:
            config["variant"] = options.variant
        return {"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}, config
    base = Layout(Path(options.base))
    manifest = base.manifest()
    for layer in manifest["layers"]:
        out.blob(layer["digest"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.blob(layer["digest"]), out.blob(layer["digest"]))
    return manifest, base.read(manifest["config"])


def _configure(run: Json, options: argparse.Namespace) -> None:
    """Puts into the config how the image is run."""
    if options.entrypoint:  # as everywhere, this drops the base's Cmd
        run["Entrypoint"] = _lines(options.entrypoint)
        run.pop("Cmd", None)
    if options.cmd:
        run["Cmd"] = _lines(options.cmd)
    if options.env:
        run["Env"] = expanded(run.get("Env", []), _pairs(options.env))
    if options.labels:
        run["Labels"] = run.get("Labels", {}) | _pairs(options.labels)
    for key, field in (("exposed_ports", "ExposedPorts"), ("volumes", "Volumes")):
        if getattr(options, key):
            run[field] = {item: {} for line in _lines(getattr(options, key)) for item in line.split(",")}
    if options.user:
        run["User"] = options.user
    if options.workdir:
        run["WorkingDir"] = options.workdir


def image(options: argparse.Namespace) -> None:
    """Writes an image."""
    out = Layout(Path(options.output))
    manifest, config = _start(options, out)
    created = " ".join(_lines(options.created)) or config.get("created", EPOCH)
    config["created"] = created
    for tar in map(Path, options.layer):
        descriptor, diff_id = out.put_layer(tar)
        manifest["layers"].append(descriptor)
        config["rootfs"]["diff_ids"].append(diff_id)
        config["history"].append({"created": EPOCH, "created_by": f"bazel build {tar.name}"})
    _configure(config["config"], options)
    if options.annotations:
        manifest["annotations"] = manifest.get("annotations", {}) | _pairs(options.annotations)
    manifest["config"] = out.put_json(config, CONFIG)
    descriptor = out.put_json(manifest, MANIFEST)
    descriptor["platform"] = _platform(config)
    out.finish(descriptor)
    Path(options.digest).write_text(f"{descriptor['digest']}\n")


def index(layouts: Sequence[Layout], out: Layout) -> str:
    """Writes an index of images, which clients choose from by their platform.

    Args:
        layouts: an image for each platform.
        out: a new layout.

    Returns:
        The digest of the index.
    """
    described = []
    for layout in layouts:
        for blob in (path for path in layout.root.glob("blobs/*/*") if path.is_file()):
            copy = out.root / blob.relative_to(layout.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(blob, copy)
        (entry,) = json.loads((layout.root / "index.json").read_bytes())["manifests"]
        described.append(entry | {"platform": _platform(layout.read(layout.manifest()["config"]))})
    descriptor = out.put_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": described}, INDEX)
    out.finish(descriptor)
    return str(descriptor["digest"])


def _platform(config: Json) -> Json:
    return {key: config[key] for key in ("architecture", "os", "variant") if key in config}


def tarball(layout: Layout, tags: Sequence[str], output: Path) -> None:
    """Writes an image in the form that engines load."""
    manifest = layout.manifest()

    def name(descriptor: Json) -> str:
        return "blobs/" + str(descriptor["digest"]).replace(":", "/")

    layers = [name(layer) for layer in manifest["layers"]]
    listing = _json({"Config": name(manifest["config"]), "RepoTags": list(tags), "Layers": layers})
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in sorted({name(manifest["config"]), *layers}):
            info = tarfile.TarInfo(member)
            info.size = (layout.root / member).stat().st_size
            with (layout.root / member).open("rb") as file:
                tar.addfile(info, file)
        info = tarfile.TarInfo("manifest.json")
        data = b"[" + listing + b"]"
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def main(arguments: Sequence[str]) -> None:
    """Writes an image, an index or a tarball."""
    command, *rest = arguments
    if command == "tarball":
        tarball(Layout(Path(rest[0])), _lines(rest[1]), Path(rest[2]))
        return
    parser = argparse.ArgumentParser()
    if command == "index":
        for key in ("output", "digest"):
            parser.add_argument(f"--{key}", type=Path, required=True)
        parser.add_argument("layouts", type=lambda text: Layout(Path(text)), nargs="+")
        options = parser.parse_args(rest)
        options.digest.write_text(f"{index(options.layouts, Layout(options.output))}\n")
        return
    parser.add_argument("--layer", action="append", default=[])
    for key in (*FILES, *STRINGS):
        parser.add_argument(f"--{key}")
    image(parser.parse_args(rest))


if __name__ == "__main__":
    main(sys.argv[1:])
