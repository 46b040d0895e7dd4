"""Compares names and shapes of every family's MaxText layout with those of MaxText's own models.

MaxText is no requirement of this project, so this is run by hand. SCRATCH is a Python with MaxText 0.2.5 as the text of
maxtext_logits.py says; this module itself runs in Recast's own environment, from the root of the checkout:

    python -m tests.campaigns.maxtext_headers SCRATCH/bin/python [FAMILY ...]

Two kinds of models are compared, both stacked and unstacked: the tiny ones of the families' own tests, whose sizes are
given to MaxText, and the published ones that MaxText has under the same name, with MaxText's own sizes. Nothing is
allocated for either. The table on standard output has a line for each model and each way of stacking; under it stand
the names and shapes that differ. The exit code is 0 if and only if nothing differs and MaxText refuses nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pathlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mappings import catalog
from mappings.language.loader import load_layout
from tests import families
from tests.campaigns.maxtext_keys import BLOCKS, maxtext_keys, without_fused
from tests.families.harness import FamilyTests, Header, header_of, layout_of

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_LIST_MODELS = """
import pathlib
import maxtext.configs
print(*(file.stem for file in pathlib.Path(maxtext.configs.__path__[0], "models").glob("*.yml")))
"""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model to be asked for.

    Attributes:
        family: folder in `mappings/`.
        label: which model it is.
        config: its config.json.
        model_name: MaxText's name.
        keys: MaxText keys; none for MaxText's own sizes.
    """

    family: str
    label: str
    config: Mapping[str, Any]
    model_name: str
    keys: Mapping[str, Any]


def tiny_models(names: Sequence[str]) -> Iterator[Comparison]:
    """The configs of the families' tests, with every field that transformers writes."""
    import transformers

    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        if module.name.endswith("_test") and module.name != f"{families.__name__}.harness_test":
            importlib.import_module(module.name)
    for family in (tests.family for tests in FamilyTests.__subclasses__()):
        for label, given in family.configs.items():
            kind = given["model_type"]
            if family.folder in names and kind in BLOCKS:
                config = without_fused(given)
                if kind in transformers.CONFIG_MAPPING:
                    config |= transformers.CONFIG_MAPPING[kind].from_dict(config).to_dict()
                model_name = BLOCKS[kind].model_name
                yield Comparison(family.folder, label, config, model_name, maxtext_keys(config, model_name))


def published_models(names: Sequence[str], known: Sequence[str]) -> Iterator[Comparison]:
    """The models that have a manifest here and a configuration in MaxText."""
    for manifest in catalog.manifests():
        if manifest.family in names and manifest.name in known:
            yield Comparison(manifest.family, manifest.name, manifest.config, manifest.name, {})


def differences(ours: Header, theirs: Mapping[str, Sequence[int]]) -> list[str]:
    """A line for each name that only one side has, or that has another shape there."""
    return [
        f"{name}: Recast {ours.get(name, 'has none')}, MaxText {tuple(theirs[name]) if name in theirs else 'has none'}"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or ours[name] != tuple(theirs[name])
    ]


def ask(python: str, requests: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Has MaxText say which parameters models have; gives each answer as soon as it is there."""
    with subprocess.Popen(
        [python, "-m", "tests.campaigns.maxtext_abstract"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for request in requests:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer: Mapping[str, Any] = json.loads(process.stdout.readline())
            yield answer
        process.stdin.close()


def _options(family: str, scan: bool) -> Mapping[str, str]:
    """The layout of MaxText's own states, which have the router bias in a collection."""
    known = {option.name for option in load_layout(family, "maxtext").node.option}
    asked = {"scan": "true" if scan else "false", "router_bias": "collection"}
    return {name: value for name, value in asked.items() if name in known}


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the families named, or all, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Compares our MaxText layouts with MaxText's own models.")
    parser.add_argument("python", help="a Python that has MaxText")
    parser.add_argument("families", nargs="*", help="folders in mappings/; all by default")
    parser.add_argument("--tiny", action="store_true", help="leave the published models out")
    arguments = parser.parse_intermixed_args(argv)
    known = subprocess.run([arguments.python, "-c", _LIST_MODELS], check=True, capture_output=True, text=True)
    names = arguments.families or sorted({manifest.family for manifest in catalog.manifests()})
    published = [] if arguments.tiny else published_models(names, known.stdout.split())
    models = [*tiny_models(names), *published]
    asked = [(model, scan) for model in models for scan in (True, False)]
    requests = [{"model_name": model.model_name, "scan": scan, "keys": dict(model.keys)} for model, scan in asked]
    found: list[str] = []
    print("| family | model | stacked | arrays | names and shapes |\n|---|---|---|---|---|")
    for (model, scan), answer in zip(asked, ask(arguments.python, requests), strict=True):
        ours = header_of(layout_of(model.family, "maxtext", model.config, _options(model.family, scan)))
        if "error" in answer:
            verdict, lines = "refused", [answer["error"]]
        else:
            lines = differences(ours, answer["parameters"])
            verdict = f"{len(lines)} differ" if lines else "equal"
        print(f"| {model.family} | {model.label} | {scan} | {len(ours)} | {verdict} |", flush=True)
        found += [f"{model.family}, {model.label}, stacked {scan}: {line}" for line in lines]
    print("", *found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
