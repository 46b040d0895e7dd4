"""maxtext-to-maxtext: a MaxText checkpoint to one with other stacking, with or without its training state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from converters.cli import conversion_flags
from converters.cli.program import Program, main
from converters.engine.request import ConversionRequest
from reporting.diagnostics import Diagnostic, RecastError
from reporting.report import Report

_DTYPES = ("auto", "bfloat16", "float32", "float16")
_SOURCES = ("load_parameters_path", "load_full_state_path")


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    conversion_flags.define(values)
    conversion_flags.define_storage(values)
    flags.DEFINE_string(
        "load_parameters_path",
        None,
        "The checkpoint, of which the weights are taken: DIR (its newest step), DIR/STEP or DIR/STEP/items.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "load_full_state_path",
        None,
        "The checkpoint, of which weights and training state are taken. One of the two paths is given.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "scan_layers",
        None,
        "Stack the layers of the output. Default: as they are in the source.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "train_state",
        None,
        ("keep", "strip"),
        "Keep the training state (the optimizer's moments are restacked as the weights are) or write weights and step "
        "only. Default: keep with --load_full_state_path, strip with --load_parameters_path.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "init_train_state",
        None,
        ("adam",),
        "Give weights the training state that optax.adamw starts with: moments of zeros in the dtype of each weight, "
        "counts and step 0, in the tree that MaxText saves.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "step",
        None,
        "The step to take where the path is a directory of several, and the number of the output's step. Default: the "
        "newest, and its number; with --init_train_state 0. What lies in the checkpoint (the `step` leaf, the "
        "optimizer's counts) is never changed by it.",
        lower_bound=0,
        upper_bound=2**63 - 1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "save_dtype",
        "auto",
        _DTYPES,
        "Dtype of the saved weights; auto: as each is stored. A kept training state is never cast.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "hf_config_path",
        None,
        "config.json, or a directory with it and the tokenizer. Default: what the checkpoint carries, else the "
        "published config of --model_name.",
        flag_values=values,
    )


def prepare(values: flags.FlagValues, _: Sequence[str]) -> ConversionRequest:
    """What the flags ask for."""
    conversion_flags.require(values, {"base_output_directory": "INVALID_FLAG"}, _contradictions(values))
    full = values.load_full_state_path
    config = values.hf_config_path
    scan = values.scan_layers
    return ConversionRequest(
        source=_with_step(Path(full or values.load_parameters_path), values.step),
        source_format="maxtext",
        target_format="maxtext",
        dtype=values.save_dtype,
        dtype_flag="save_dtype",
        source_options={"version": values.maxtext_layout},
        target_options={} if scan is None else {"scan": "true" if scan else "false"},
        config_path=Path(config) if config else None,
        train_state=values.train_state or ("keep" if full else "strip"),
        init_train_state=values.init_train_state or "",
        step=values.step,
        **conversion_flags.storage_request(values),
        **conversion_flags.common_request(values),
    )


def execute(request: ConversionRequest, report: Report) -> str:
    """Converts."""
    from converters.engine import convert

    return convert.run(request, report)


def _contradictions(values: flags.FlagValues) -> list[Diagnostic]:
    found = []
    given = [name for name in _SOURCES if values[name].value]
    if len(given) != 1:
        which = "both were given" if given else "neither was given"
        reason = f"One of --{_SOURCES[0]} and --{_SOURCES[1]} must be given; {which}."
        found.append(Diagnostic("INVALID_FLAG", reason, subject=f"--{_SOURCES[0]}"))
    if values.init_train_state and values.train_state == "strip":
        reason = "--init_train_state makes a training state, --train_state=strip asks for none."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--train_state"))
    return found


def _with_step(path: Path, step: int | None) -> Path:
    """The path of a step, where one was named and the path is a directory of steps.

    Raises:
        RecastError: SOURCE_NOT_FOUND with the steps that there are.
    """
    if step is None or not path.is_dir() or (path / "_METADATA").exists():
        return path
    steps = sorted((entry.name for entry in path.iterdir() if entry.name.isdecimal()), key=int)
    if not steps or str(step) in steps:
        return path / str(step) if steps else path
    if len(steps) == 1:
        return path
    raise RecastError.of(
        "SOURCE_NOT_FOUND",
        f"{path} has no step {step}; it holds {', '.join(steps)}.",
        subject="--step",
        suggestion="Name one of these steps, or give the path of a step to write it under another number.",
    )


PROGRAM = Program(
    name="maxtext-to-maxtext",
    summary="Converts a MaxText checkpoint to one with stacked or unstacked layers, with its training state or "
    "without, or with a new one. Bytes move unless --save_dtype says otherwise. The output lies at DIR/STEP/items.",
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
