"""hf-to-maxtext: a Hugging Face checkpoint to a MaxText checkpoint that Orbax and MaxText load."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from converters.cli import conversion_flags, hub_source
from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from reporting.report import Report

_DTYPES = ("bfloat16", "float32", "float16")


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    conversion_flags.define(values)
    conversion_flags.define_storage(values)
    flags.DEFINE_string(
        "hf_model_path",
        None,
        "Directory with config.json and the weights (safetensors files, or pytorch_model.bin), or the hub id of a "
        "checkpoint in the local cache of the Hugging Face Hub. Default: that of --model_name in this cache.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "scan_layers",
        True,
        "Stack the layers of a kind in one array, as MaxText's scan reads them.",
        flag_values=values,
    )
    flags.DEFINE_enum("save_dtype", "bfloat16", _DTYPES, "Dtype of the saved weights.", flag_values=values)
    flags.DEFINE_enum(
        "exactness",
        "invertible",
        conversion_flags.EXACTNESS,
        "invertible: arrays that a constant changes and --save_dtype would round are stored in float32, so that the "
        "way back returns every bit. as_requested: dtype for dtype and bit for bit what MaxText's own tool writes.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "residue",
        None,
        conversion_flags.RESIDUE,
        "What the checkpoint cannot give back (single elements that rounding loses, tensors that MaxText has no place "
        "for): keep it beside the checkpoint, drop it, or refuse the run. Default: keep with --exactness=invertible, "
        "drop with as_requested.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "enable_mtp",
        False,
        "Give the layers that predict further tokens a place in MaxText's tree (mtp_num_layers), where the family has "
        "one. Otherwise they are kept beside the checkpoint, for the way back.",
        flag_values=values,
    )
    flags.DEFINE_alias("base_model_path", "hf_model_path", flag_values=values)
    flags.DEFINE_alias("maxtext_model_path", "base_output_directory", flag_values=values)
    flags.DEFINE_alias("model_size", "model_name", flag_values=values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> ConversionRequest:
    """What the flags ask for."""
    source, missing = hub_source.of(values.hf_model_path or "", values.model_name)
    conversion_flags.require(values, {"base_output_directory": "INVALID_FLAG"}, missing)
    exactness = values.exactness
    return ConversionRequest(
        source=source,
        source_format="hf",
        target_format="maxtext",
        dtype=values.save_dtype,
        dtype_flag="save_dtype",
        target_options={
            "scan": "true" if values.scan_layers else "false",
            "version": values.maxtext_layout,
            **conversion_flags.multimodal_options(values),
            **({"mtp": "true"} if values.enable_mtp else {}),
        },
        exactness=exactness,
        residue=values.residue or ("drop" if exactness == "as_requested" else "keep"),
        **conversion_flags.storage_request(values),
        **conversion_flags.common_request(values),
    )


def execute(request: ConversionRequest, report: Report) -> str:
    """Converts."""
    from converters.engine import convert

    return convert.run(request, report)


PROGRAM = Program(
    name="hf-to-maxtext",
    summary="Converts a Hugging Face checkpoint to a MaxText checkpoint at DIR/0/items, reads samples of it back, and "
    "writes DONE when all of it is true. Config, tokenizer, source dtypes and residue are kept in DIR/recast, so that "
    "maxtext-to-hf needs nothing else.",
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
