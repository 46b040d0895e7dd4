"""Reads an image from its OCI layout, without a container engine."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

INDEX = "application/vnd.oci.image.index.v1+json"
WITHOUT = "needs RECAST_IMAGES, the folder with the layouts that `tools/bazel build //container:all` makes"


def folder() -> Path | None:
    """The folder with the layouts of all images, if there is one: Bazel's, or that of RECAST_IMAGES."""
    given = os.environ.get("RECAST_IMAGES")
    if given:
        return Path(given)
    ours = Path(os.environ.get("TEST_SRCDIR", "/nowhere"), os.environ.get("TEST_WORKSPACE", ""), "container")
    return ours if (ours / "recast" / "index.json").exists() else None


@dataclasses.dataclass(frozen=True)
class Image:
    """An OCI layout with one image, or one index of images for several platforms.

    Attributes:
        layout: the folder.
    """

    layout: Path

    def blob(self, digest: str) -> bytes:
        """Content by digest, which is checked."""
        data = (self.layout / "blobs" / digest.replace(":", "/")).read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
        return data

    @functools.cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest, or the index."""
        return cast(Mapping[str, Any], json.loads(self.blob(self.digest)))

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """The image's config."""
        return cast(Mapping[str, Any], json.loads(self.blob(self.manifest["config"]["digest"])))

    @property
    def run(self) -> Mapping[str, Any]:
        """How a container of it is run."""
        return cast(Mapping[str, Any], self.config["config"])

    @property
    def variables(self) -> dict[str, str]:
        """Its environment variables."""
        return dict(entry.split("=", 1) for entry in self.run["Env"])

    @property
    def size(self) -> int:
        """The bytes of all layers, as they are pulled."""
        return sum(layer["size"] for layer in self.manifest["layers"])

    @functools.cached_property
    def layers(self) -> list[Layer]:
        """What it is made of, the lowest first."""
        return [_layer(self.layout / "blobs" / one["digest"].replace(":", "/")) for one in self.manifest["layers"]]

    @property
    def digest(self) -> str:
        """The digest of its manifest."""
        (described,) = json.loads((self.layout / "index.json").read_bytes())["manifests"]
        return str(described["digest"])

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """The descriptors of the images of an index."""
        assert self.manifest["mediaType"] == INDEX
        return list(self.manifest["manifests"])


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        path: its file, compressed.
        members: what it holds, in its order.
        diff_id: the digest of what it unpacks to.
    """

    path: Path
    members: tuple[tarfile.TarInfo, ...]
    diff_id: str

    @property
    def names(self) -> list[str]:
        """The paths of its members."""
        return [member.name.removeprefix("./") for member in self.members]

    def contents(self, name: str) -> bytes:
        """The bytes of a file in it."""
        with tarfile.open(self.path) as tar:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()


class _Hashed(io.RawIOBase):
    """Reads a stream and hashes what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


@functools.cache
def _layer(path: Path) -> Layer:
    with gzip.open(path) as file:
        hashed = _Hashed(cast(IO[bytes], file))
        with tarfile.open(fileobj=hashed, mode="r|") as tar:
            members = tuple(tar)
        while hashed.read(1 << 20):
            pass
    return Layer(path, members, f"sha256:{hashed.digest.hexdigest()}")
