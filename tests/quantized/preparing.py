"""prepare-ckpt on tiny models of any family, for a platform whose weights are float8 codes with a scale for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mappings.serving import catalog as catalogs
from mappings.serving import text
from recast_proto import model_manifest_pb2
from tests import serving_checkpoints
from tests.end_to_end.running import Outcome, recast
from tests.families.harness import Config

MODEL = "tiny"
_VERSION = "5.23.0"


def catalogue(path: Path, source: Path, family: str, **legalising: Any) -> Path:
    """Writes a catalogue with one model: that of a checkpoint, whose weights become codes unless it is said otherwise.

    Args:
        path: of the file.
        source: the checkpoint.
        family: of its model.
        legalising: fields of the model's form.
    """
    config = json.loads((source / "config.json").read_text("utf-8"))
    own = {key: value for key, value in config.items() if key not in ("transformers_version", "quantization_config")}
    form = {"weights_form": model_manifest_pb2.FP8_PER_TENSOR, **legalising}
    found = catalogs.embedded()
    made = type(found)()
    made.CopyFrom(found)
    del made.model[:]
    attributes = catalogs.static_attributes(found.rule, own, family)
    made.model.append(
        model_manifest_pb2.ModelManifest(
            name=MODEL,
            family=family,
            config_json=json.dumps(own, sort_keys=True),
            architecture=config["architectures"],
            static_attribute=[
                model_manifest_pb2.StaticAttribute(name=key, value_json=json.dumps(value, sort_keys=True))
                for key, value in attributes.items()
            ],
            tokenizer=model_manifest_pb2.TokenizerFacts(vocabulary_size=config["vocab_size"]),
            transformers=model_manifest_pb2.TransformersVersions(deployment=_VERSION),
            deployment=[model_manifest_pb2.Deployment(sequence_length=64, batch_size=[1])],
            import_checkpoint=True,
            legalising=model_manifest_pb2.Legalising(**form),
        )
    )
    made.provenance.source = "tiny"
    path.write_text(text.dump(text.sealed(made)), "utf-8")
    return path


def usual(config: Config, directory: Path, dtype: str = "bfloat16") -> Path:
    """A model of a config with weights of usual sizes, saved by transformers."""
    import torch
    import transformers

    torch.manual_seed(1)
    wanted = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(wanted, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(directory)
    return with_tokenizer(directory)


def with_tokenizer(source: Path) -> Path:
    """Adds what a platform asks for beside the weights."""
    serving_checkpoints.write_tokenizer(source, json.loads((source / "config.json").read_text("utf-8"))["vocab_size"])
    return source


def words(catalogue: Path, source: Path, output: Path) -> list[str]:
    """The flags of a run."""
    paths = ("--original_checkpoint_path", str(source), "--output_checkpoint_path", str(output))
    return ["--model", MODEL, *paths, "--server", str(catalogue)]


def prepared(catalogue: Path, source: Path, output: Path, *arguments: str) -> Outcome:
    """A run that must succeed."""
    outcome = recast("prepare-ckpt", *words(catalogue, source, output), *arguments)
    assert outcome.code == 0, outcome.text
    return outcome
