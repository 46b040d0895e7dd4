"""What is in the images, from their layouts alone. Bazel brings these; without it the tests are skipped."""

from __future__ import annotations

import json

import pytest

from container import entrypoint
from reporting.version import VERSION
from tests.images import structure
from tests.images.structure import Image

MB = 1_000_000
# What is pulled, compressed: a limit that a new dependency must not break unnoticed.
BUDGETS = {"recast": 480 * MB, "recast-slim": 160 * MB, "inference-checkpoint": 480 * MB}
NVIDIA = 4_000 * MB
"""What the public torch brings along."""
PLATFORMS = [("linux", "amd64"), ("linux", "arm64")]
ENGINES = ("torch", "transformers", "jax")


@pytest.fixture(scope="module", params=BUDGETS)
def image(request: pytest.FixtureRequest) -> Image:
    found = structure.folder()
    if found is None:
        pytest.skip(structure.WITHOUT)
    return Image(found / request.param)


def names(image: Image) -> set[str]:
    return {name for layer in image.layers for name in layer.names}


def test_an_image_is_run_by_its_subcommand_as_whoever_the_caller_says(image: Image) -> None:
    options = ["--flags_go_to=checkpoint"] if image.layout.name == "inference-checkpoint" else []
    assert image.run["Entrypoint"] == ["/usr/bin/python3.11", "-m", "container.image", *options, "--"]
    assert not image.run.get("Cmd")
    assert not image.run.get("User")
    assert image.run["WorkingDir"] == "/"
    assert image.variables["PYTHONPATH"] == "/app/recast:/app/site-packages"


def test_nothing_of_the_environment_decides_what_it_does(image: Image) -> None:
    assert [name for name in image.variables if name.startswith("RECAST")] == []


def test_labels_say_what_it_was_made_from(image: Image) -> None:
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.run["Labels"].items()}
    assert labels["version"] == VERSION
    assert labels["licenses"] == "Apache-2.0"
    (said,) = image.layers[-1].contents("app/recast/reporting/revision.txt").splitlines()
    assert labels["revision"] == said.decode()
    assert {"title", "source"} <= labels.keys()


def test_layers_go_from_the_interpreter_to_what_changes_most(image: Image) -> None:
    tops = []
    for layer in image.layers:
        outside = {"/".join(name.split("/")[:2]) for name in layer.names if not name.startswith("app")}
        tops.append(outside or set(layer.names))
    assert "usr/bin" in tops[0]
    assert all("app/site-packages" in top for top in tops[1:-2])
    for top in tops[-2:]:
        assert "app/recast" in top
        assert not {name for name in top if "site-packages" in name}
    files = [member.name for member in image.layers[-1].members if member.isfile()]
    assert files == ["app/recast/reporting/revision.txt"]


def test_our_layers_are_sorted_and_without_times_and_owners(image: Image) -> None:
    for layer in image.layers[1:]:
        assert [member.name for member in layer.members] == sorted({member.name for member in layer.members})
        assert {(member.mtime, member.uid, member.gid) for member in layer.members} == {(0, 0, 0)}
        assert {member.mode & 0o7777 for member in layer.members} <= {0o644, 0o755}
    assert [layer.diff_id for layer in image.layers] == image.config["rootfs"]["diff_ids"]


def test_everything_is_there_and_nothing_that_no_run_uses(image: Image) -> None:
    found = names(image)
    for module, _ in entrypoint.SUBCOMMANDS.values():
        assert f"app/recast/{module.replace('.', '/')}.py" in found
        assert (
            f"app/recast/{'/'.join(module.split('.')[:-1])}/__pycache__/{module.split('.')[-1]}.cpython-311.pyc"
            in found
        )
    assert "app/recast/recast_proto/error_pb2.py" in found
    assert "app/recast/mappings/llama/family.textproto" in found
    assert not {name for name in found if name.endswith("_test.py") and name.startswith("app/recast")}
    assert not {name for name in found if name.startswith(("app/recast/tests", "app/recast/tools"))}
    assert not found & {"bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/bash", "usr/bin/perl", "usr/bin/dpkg"}
    full = image.layout.name != "recast-slim"
    for engine in ENGINES[:2]:
        assert (f"app/site-packages/{engine}/__init__.py" in found) == full
    assert not {name for name in found if name.startswith("app/site-packages/jax/")}


def test_an_index_has_each_image_whole_and_for_the_platform_that_it_names(image: Image) -> None:
    index = Image(image.layout.with_name(f"{image.layout.name}_index"))
    for entry in index.entries:
        assert len(index.blob(entry["digest"])) == entry["size"]
        manifest = json.loads(index.blob(entry["digest"]))
        config = json.loads(index.blob(manifest["config"]["digest"]))
        said = {key: config[key] for key in ("os", "architecture", "variant") if key in config}
        assert entry["platform"] == said
        for layer in manifest["layers"]:
            assert (index.layout / "blobs" / layer["digest"].replace(":", "/")).stat().st_size == layer["size"]
    platforms = [(entry["platform"]["os"], entry["platform"]["architecture"]) for entry in index.entries]
    # Debian's packages alone make the first.
    assert platforms in (PLATFORMS[:1], PLATFORMS)
    assert image.digest in {entry["digest"] for entry in index.entries}


def test_it_stays_within_its_budget(image: Image) -> None:
    # The public torch cannot be imported without NVIDIA's libraries.
    accelerated = any(name.startswith("app/site-packages/nvidia/") for name in names(image))
    assert image.size < BUDGETS[image.layout.name] + accelerated * NVIDIA
