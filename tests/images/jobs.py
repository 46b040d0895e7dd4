"""The Jobs of container/jobs as `kubectl apply --kustomize` makes them, for the little of Kustomize that they use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

JOBS = Path(__file__).resolve().parents[2] / "container" / "jobs"
BASE = "base"
COMPONENTS = "components"
_KNOWN = {"apiVersion", "kind", "nameSuffix", "resources", "images", "patches"}
# By which key a strategic merge tells elements of a list apart; of other lists, by "name".
_MERGE_KEYS = {"volumeMounts": "mountPath"}

Json = dict[str, Any]


def overlays() -> list[str]:
    """The names of all overlays."""
    return sorted(path.parent.name for path in JOBS.glob("*/kustomization.yaml") if path.parent.name != BASE)


def components() -> list[str]:
    """The names of all components, which an overlay may add."""
    return sorted(path.parent.name for path in JOBS.glob(f"{COMPONENTS}/*/kustomization.yaml"))


def built(overlay: str, *added: str) -> list[Json]:
    """The resources of an overlay, with components added to it."""
    kustomization = _load(JOBS / overlay / "kustomization.yaml")
    assert set(kustomization) <= _KNOWN, "teach this function what else it uses"
    assert kustomization["resources"] == [f"../{BASE}"]
    resources = [_load(JOBS / BASE / name) for name in _load(JOBS / BASE / "kustomization.yaml")["resources"]]
    for folder in (*(JOBS / COMPONENTS / name for name in added), JOBS / overlay):
        for patch in _load(folder / "kustomization.yaml").get("patches", []):
            patched = _load(folder / patch["path"])
            assert any(_same(one, patched) for one in resources), "a patch of nothing is an error"
            resources = [_merged(one, patched) if _same(one, patched) else one for one in resources]
    for resource in resources:
        resource["metadata"]["name"] += kustomization["nameSuffix"]
        if resource["kind"] == "Job":
            _finish(resource["spec"]["template"]["spec"], kustomization)
    return resources


def built_base() -> Json:
    """The Job of the base, as no overlay has changed it."""
    return _load(JOBS / BASE / "job.yaml")


def job(overlay: str, *added: str) -> Json:
    """The Job of an overlay, with components added to it."""
    (found,) = [resource for resource in built(overlay, *added) if resource["kind"] == "Job"]
    return found


def container(of: Json) -> Json:
    """The one container of a Job."""
    (found,) = of["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def all_containers(of: Json) -> list[Json]:
    """The containers of a Job, those that run before the one included."""
    return [*of["spec"]["template"]["spec"].get("initContainers", ()), container(of)]


def _load(path: Path) -> Json:
    value = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(value, dict)
    return value


def _same(one: Json, other: Json) -> bool:
    return (one["kind"], one["metadata"]["name"]) == (other["kind"], other["metadata"]["name"])


def _merged(value: Any, patch: Any, field: str = "") -> Any:
    """A strategic merge: maps by key, lists of maps with names by name, all else is replaced."""
    if isinstance(value, dict) and isinstance(patch, dict):
        return value | {key: _merged(value.get(key), inner, key) for key, inner in patch.items()}
    key = _MERGE_KEYS.get(field, "name")
    if (
        isinstance(value, list)
        and isinstance(patch, list)
        and all(isinstance(one, dict) and key in one for one in patch)
    ):
        merged = {one[key]: one for one in value}
        for one in patch:
            merged[one[key]] = _merged(merged.get(one[key], {}), one)
        return list(merged.values())
    return copy.deepcopy(patch)


def _finish(pod: Json, kustomization: Json) -> None:
    """Puts names of images and the service account in their final form."""
    pod["serviceAccountName"] += kustomization["nameSuffix"]
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    for one in (*pod.get("initContainers", ()), *pod["containers"]):
        one["image"] = images[one["image"]]
