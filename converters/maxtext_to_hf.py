"""maxtext-to-hf: a MaxText checkpoint to Hugging Face safetensors that transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from converters.cli import conversion_flags, sizes
from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from reporting.diagnostics import Diagnostic
from reporting.report import Report

_DTYPES = ("float32", "bfloat16", "float16", "auto")


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    conversion_flags.define(values)
    flags.DEFINE_string(
        "load_parameters_path",
        None,
        "The checkpoint: DIR (its newest step), DIR/STEP or DIR/STEP/items.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "scan_layers",
        None,
        "Whether the layers are stacked. Read from the checkpoint when left out; a contradiction is an error.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "weight_dtype",
        "float32",
        _DTYPES,
        "Dtype of the written weights; auto: that of each tensor in the original checkpoint, where Recast recorded "
        "it, else the config's.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "hf_layout",
        None,
        ("hub", "transformers5"),
        "Names of the written tensors, for families where published files and transformers 5 differ, as in experts one "
        "by one or packed. Default: those of the original checkpoint, where Recast recorded it, else the hub's.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "requantize",
        None,
        ("source",),
        "source: store again as float8 codes and scales what the original checkpoint stored so, in blocks of the same "
        "size. All else gets the dtype that it had, unless --weight_dtype is given. The report states the error.",
        flag_values=values,
    )
    flags.DEFINE_string("max_shard_size", "5GB", "Largest safetensors file.", flag_values=values)
    flags.DEFINE_string(
        "hf_config_path",
        None,
        "config.json, or a directory with it and the tokenizer. Default: what the checkpoint carries, else the "
        "published config of --model_name.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "override_model_architecture",
        False,
        "MaxText's setting, accepted so that its command lines work; true is refused: sizes that differ from the "
        "published ones are given by --hf_config_path.",
        flag_values=values,
    )


def prepare(values: flags.FlagValues, _: Sequence[str]) -> ConversionRequest:
    """What the flags ask for."""
    required = {"load_parameters_path": "INVALID_FLAG", "base_output_directory": "INVALID_FLAG"}
    found = sizes.problem(values.max_shard_size, "max_shard_size")
    if values.override_model_architecture:
        reason = "--override_model_architecture is not done: no config.json is made up here."
        suggestion = "Give the config.json of the model as --hf_config_path."
        found.append(Diagnostic("INVALID_FLAG", reason, suggestion, "--override_model_architecture"))
    conversion_flags.require(values, required, found)
    options = {"version": values.maxtext_layout, **conversion_flags.multimodal_options(values)}
    if values.scan_layers is not None:
        options["scan"] = "true" if values.scan_layers else "false"
    spelling = {"hf_layout": values.hf_layout} if values.hf_layout else {}
    config = values.hf_config_path
    return ConversionRequest(
        source=Path(values.load_parameters_path),
        source_format="maxtext",
        target_format="hf",
        dtype=values.weight_dtype if values["weight_dtype"].present or not values.requantize else "auto",
        dtype_flag="weight_dtype",
        requantize=values.requantize or "",
        source_options=options,
        target_options=spelling,
        max_shard_bytes=sizes.parse(values.max_shard_size, "max_shard_size"),
        config_path=Path(config) if config else None,
        **conversion_flags.common_request(values),
    )


def execute(request: ConversionRequest, report: Report) -> str:
    """Converts."""
    from converters.engine import convert

    return convert.run(request, report)


PROGRAM = Program(
    name="maxtext-to-hf",
    summary="Converts a MaxText (Orbax) checkpoint to Hugging Face safetensors with config and tokenizer, reads "
    "samples of it back, and writes DONE when all of it is true.",
    define=define,
    prepare=prepare,
    execute=execute,
    supervised=True,
    instead=conversion_flags.TAKES_PATHS,
    passed_over=conversion_flags.passed_over,
    remarks=conversion_flags.remarks,
)

if __name__ == "__main__":
    main(PROGRAM)
