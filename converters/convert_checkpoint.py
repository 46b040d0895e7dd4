"""convert: a checkpoint of any format to the format that --to names; the command of the pair does the work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from converters import hf_to_maxtext, maxtext_to_hf, maxtext_to_maxtext
from converters.cli import arguments, conversion_flags, usage
from converters.cli.program import Program, main
from converters.engine.request import AUTO, ConversionRequest
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report
from validators import preflight

_FORMATS = ("hf", "maxtext")
_DTYPES = (AUTO, "float32", "bfloat16", "float16")
_DTYPE_FLAG = re.compile("--(?:save|weight)_dtype")
# Flags by which the pairs' commands take what is positional here, or spelled in one way for all.
_OWN = frozenset(
    (
        "hf_model_path",
        "load_parameters_path",
        "load_full_state_path",
        "base_output_directory",
        "base_model_path",
        "maxtext_model_path",
        "model_size",
        "save_dtype",
        "weight_dtype",
        "scan_layers",
    )
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """How one pair of formats is converted.

    Attributes:
        program: the pair's own command.
        source_flag: its flag for the source.
        dtype_flag: its flag for the dtype.
        without: flags of it that mean nothing for this pair.
    """

    program: Program
    source_flag: str
    dtype_flag: str
    without: frozenset[str] = frozenset()


# Stands for the path of a source that has none.
_NO_SOURCE = "none"

_PAIRS: Mapping[tuple[str, str], Pair] = {
    ("hf", "maxtext"): Pair(hf_to_maxtext.PROGRAM, "hf_model_path", "save_dtype"),
    ("maxtext", "hf"): Pair(maxtext_to_hf.PROGRAM, "load_parameters_path", "weight_dtype"),
    ("maxtext", "maxtext"): Pair(maxtext_to_maxtext.PROGRAM, "load_parameters_path", "save_dtype"),
    # Another cut into files or another dtype: the flags are those of any output for Hugging Face.
    ("hf", "hf"): Pair(
        maxtext_to_hf.PROGRAM,
        "load_parameters_path",
        "weight_dtype",
        frozenset(("scan_layers", "maxtext_layout", "hf_config_path", "requantize")),
    ),
}


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags: its own, and all of the pairs' commands."""
    flags.DEFINE_enum("to", None, _FORMATS, "Format of the output. Must be given.", flag_values=values)
    flags.DEFINE_enum(
        "dtype",
        AUTO,
        _DTYPES,
        "Dtype of the output's weights; auto: that of each tensor in the original checkpoint, where Recast recorded "
        "it; else as it is stored, but from MaxText to Hugging Face that of config.json.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "scan_layers",
        None,
        "Whether the layers of a MaxText output are stacked. Default: yes from Hugging Face, from MaxText as they are. "
        "To Hugging Face it says how the source is stacked, which is read from it when left out.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "train_state",
        None,
        ("keep", "strip"),
        "From MaxText to MaxText: keep the training state (the optimizer's moments are restacked as the weights are), "
        "or write weights and step only. Default: keep where there is one.",
        flag_values=values,
    )
    for pair in _PAIRS.values():
        theirs = _flags_of(pair)
        for name in theirs:
            if name not in values and name not in _OWN:
                values[name] = theirs[name]
                values[name].help = _DTYPE_FLAG.sub("--dtype", theirs[name].help or "")


def prepare(values: flags.FlagValues, positional: Sequence[str], *, own: tuple[str, ...] = ()) -> ConversionRequest:
    """Recognises the source and asks the pair's command what the flags mean.

    Args:
        values: parsed flags.
        positional: source and destination.
        own: flags that are the caller's, and not for the pair's command.
    """
    source, destination = positional
    found = [*preflight.remote_path(source, "SOURCE"), *preflight.remote_path(destination, "DESTINATION")]
    if values.to is None:
        reason = f"--to was not given; it takes {' or '.join(_FORMATS)}."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--to"))
    raise_all(found)
    from converters.engine import drivers

    return request_for(values, drivers.recognize(Path(source)), source, destination, own=own)


def request_for(
    values: flags.FlagValues, format: str, source: str, destination: str, *, own: tuple[str, ...] = ()
) -> ConversionRequest:
    """What the flags ask for, from a source of a known format."""
    pair = _PAIRS[format, values.to]
    inner = _flags_of(pair)
    given = [name for name in _given(values) if name not in own]
    raise_all([_meaningless(name, format, values.to) for name in given if name not in inner or name in pair.without])
    spelled = [line for name in given for line in values[name].serialize().split("\n")]
    source_flag = _source_flag(pair, Path(source), values)
    spelled += [f"--{source_flag}={source or _NO_SOURCE}", f"--base_output_directory={destination}"]
    dtypes = getattr(inner[pair.dtype_flag].parser, "enum_values", ())
    if values.dtype in dtypes:
        spelled.append(f"--{pair.dtype_flag}={values.dtype}")
    arguments.parse(inner, [pair.program.name, *spelled])
    request: ConversionRequest = pair.program.prepare(inner, ())
    return dataclasses.replace(
        request,
        dtype=values.dtype,
        dtype_flag="dtype",
        source_format=format,
        target_format=values.to,
        source_options={} if format == "hf" else request.source_options,
    )


def execute(request: ConversionRequest, report: Report) -> str:
    """Converts."""
    return next(
        pair.program.execute(request, report)
        for formats, pair in _PAIRS.items()
        if formats == (request.source_format, request.target_format)
    )


def _flags_of(pair: Pair) -> flags.FlagValues:
    values = flags.FlagValues()
    pair.program.define(values)
    return values


def _given(values: flags.FlagValues) -> list[str]:
    """Names of the pairs' flags that the command line gives, each once whatever its aliases."""
    names = {flag.name for flag in values._flags().values() if flag.present and flag.name not in ("to", "dtype")}
    return sorted(name for name in names if name not in usage.COMMON)


def _source_flag(pair: Pair, source: Path, values: flags.FlagValues) -> str:
    """Which flag takes the source: nothing is lost unasked, so a training state is kept where there is one."""
    if "load_full_state_path" not in _flags_of(pair):
        return pair.source_flag
    asked = values.train_state or ("strip" if values.init_train_state else "")
    keeps = asked == "keep" or (not asked and _has_state(source, values.step))
    return "load_full_state_path" if keeps else pair.source_flag


def _has_state(source: Path, step: int | None) -> bool:
    """Whether a MaxText checkpoint holds an optimizer's state; an unreadable one is reported when it is opened."""
    from converters.formats.orbax_directory import resolve
    from converters.formats.orbax_metadata import TREE_FILE, read_tree

    place = source / str(step) if step is not None and (source / str(step)).is_dir() else source
    try:
        tree = read_tree(resolve(place).items / TREE_FILE)
    except RecastError:
        return False
    return any("opt_state" in leaf.keys[:-1] for leaf in tree.leaves.values())


def _meaningless(name: str, source: str, target: str) -> Diagnostic:
    return Diagnostic(
        "INVALID_FLAG", f"--{name} has no meaning on the way from {source} to {target}.", subject=f"--{name}"
    )


PROGRAM = Program(
    name="convert",
    summary="Recognises the checkpoint at SOURCE and converts it to the format that --to names, as the command of the "
    "pair does (hf-to-maxtext, maxtext-to-hf, maxtext-to-maxtext; hf to hf writes other files or another dtype). A "
    "flag that the pair has no use for is an error.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("source", "destination"),
    supervised=True,
    remarks=conversion_flags.remarks,
)

if __name__ == "__main__":
    main(PROGRAM)
