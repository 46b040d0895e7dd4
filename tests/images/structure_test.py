"""What is in the images, from their layouts alone. Bazel brings these; without it the tests are skipped."""

from __future__ import annotations

import pytest

from container import entrypoint
from reporting.version import VERSION
from tests.images import structure
from tests.images.structure import Image

MB = 1_000_000
# What is pulled, compressed: a limit that a new dependency must not break unnoticed.
BUDGETS = {"recast": 480 * MB, "recast-slim": 160 * MB, "inference-checkpoint": 480 * MB}
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
    assert image.run["Entrypoint"] == ["/usr/bin/python3.11", "-m", "container.entrypoint"]
    assert not image.run.get("Cmd")
    assert not image.run.get("User")
    assert image.run["WorkingDir"] == "/"
    assert image.variables["PYTHONPATH"] == "/app/recast:/app/site-packages"
    target = image.variables.get(entrypoint.FLAGS_GO_TO)
    assert target == ("checkpoint" if image.layout.name == "inference-checkpoint" else None)


def test_labels_say_what_it_was_made_from(image: Image) -> None:
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in image.run["Labels"].items()}
    assert labels["version"] == VERSION
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == image.variables["RECAST_REVISION"]
    assert {"title", "source"} <= labels.keys()


def test_layers_go_from_the_interpreter_to_what_changes_most(image: Image) -> None:
    tops = []
    for layer in image.layers:
        outside = {"/".join(name.split("/")[:2]) for name in layer.names if not name.startswith("app")}
        tops.append(outside or set(layer.names))
    assert "usr/bin" in tops[0]
    assert all("app/site-packages" in top for top in tops[1:-1])
    assert "app/recast" in tops[-1]
    assert not {name for name in tops[-1] if "site-packages" in name}


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


def test_it_stays_within_its_budget(image: Image) -> None:
    assert image.size < BUDGETS[image.layout.name]
