"""Flags that both directions between Hugging Face and MaxText share, and what they say as a request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from absl import flags

from converters.cli import run_flags
from reporting.diagnostics import Diagnostic, raise_all

EXACTNESS = ("invertible", "as_requested")
RESIDUE = ("keep", "drop", "refuse")
_LARGEST_AUTO_BUDGET = 2 << 30
_COMPRESSION = re.compile("none|zstd:([1-9]|1[0-9]|2[0-2])")
TAKES_PATHS = "`recast convert SOURCE DESTINATION --to=FORMAT` takes paths"
MAXTEXT_LAYOUTS = ("0.2.4", "0.2.5")
_WITHOUT_USE = {
    "hardware": "a conversion here never starts an accelerator.",
    "skip_jax_distributed_system": "a conversion here does not start JAX.",
    "lazy_load_tensors": "tensors are always read as they are needed.",
    "simulated_cpu_devices_count": "the chunk grid does not depend on devices.",
    "hf_access_token": "nothing is downloaded.",
}
_PATHS = ("hf_model_path", "load_parameters_path", "load_full_state_path", "base_output_directory", "hf_config_path")


def define(values: flags.FlagValues) -> None:
    """Adds the shared flags."""
    flags.DEFINE_string(
        "model_name",
        "",
        "Published name (llama3.1-8b: its sizes are checked) or layout name (llama3.1: sizes from config.json). "
        "Needed only where the files fit several models that store different values.",
        flag_values=values,
    )
    flags.DEFINE_string("base_output_directory", None, "Directory for the output.", flag_values=values)
    flags.DEFINE_bool(
        "use_multimodal",
        None,
        "Whether the vision part is converted too. Default: yes where the model has one; others take false only.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "maxtext_layout",
        MAXTEXT_LAYOUTS[-1],
        MAXTEXT_LAYOUTS,
        "MaxText version whose parameter tree is meant, for families where it changed.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "require_exact", False, "Refuse to run unless every tensor is EXACT or INVERTIBLE.", flag_values=values
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace a checkpoint that is already at the destination.", flag_values=values
    )
    run_flags.define_budget(
        values, _LARGEST_AUTO_BUDGET, " Mapped files are not counted: the kernel can take them back."
    )
    flags.DEFINE_bool(
        "plan_only",
        False,
        "Only say what would be done: units, bytes, memory, disk, exactness. Reads headers, writes nothing.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "plan_file",
        "",
        "With --plan_only: also write the plan to this file, as JSON (proto/plan.proto).",
        flag_values=values,
    )
    run_flags.define_progress(values)
    _define_trainer_settings(values)


def define_storage(values: flags.FlagValues) -> None:
    """Adds the flags that say how a MaxText checkpoint is stored."""
    flags.DEFINE_bool(
        "checkpoint_storage_use_zarr3",
        True,
        "Store arrays as zarr version 3; 0: version 2.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "checkpoint_storage_use_ocdbt",
        True,
        "Store all arrays in one OCDBT database; 0: each in a directory of its own. Pathways wants this and "
        "--checkpoint_storage_use_zarr3 to be 0.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "compression",
        "none",
        "Of the stored chunks: none, or zstd:N with N from 1 to 22. Random-looking weights hardly shrink, and "
        "compressing them takes many times as long as writing them.",
        flag_values=values,
    )


def storage_request(values: flags.FlagValues) -> Mapping[str, Any]:
    """The fields of a ConversionRequest that the flags of `define_storage` give."""
    return {
        "compression": values.compression,
        "use_zarr3": values.checkpoint_storage_use_zarr3,
        "use_ocdbt": values.checkpoint_storage_use_ocdbt,
    }


def _define_trainer_settings(values: flags.FlagValues) -> None:
    """Settings of MaxText's own tools: their command lines work here, and the settings have nothing to act on."""
    note = "MaxText's setting, accepted so that its command lines work; "
    flags.DEFINE_string("hardware", "cpu", note + _WITHOUT_USE["hardware"], flag_values=values)
    flags.DEFINE_string("hf_access_token", "", note + _WITHOUT_USE["hf_access_token"], flag_values=values)
    for name in ("skip_jax_distributed_system", "lazy_load_tensors"):
        flags.DEFINE_bool(name, True, note + _WITHOUT_USE[name], flag_values=values)
    name = "simulated_cpu_devices_count"
    flags.DEFINE_integer(name, 16, note + _WITHOUT_USE[name], lower_bound=1, flag_values=values)


def passed_over(word: str) -> str:
    """Why an argument of MaxText's command lines that is no flag is passed over here; "" for all others.

    MaxText's base.yml holds the defaults of its settings. Any other file of settings would have to be read.
    """
    if PurePath(word).name != "base.yml":
        return ""
    return f"{word} is not read: MaxText's base.yml holds defaults, and what differs from them is given as flags"


def remarks(values: flags.FlagValues) -> list[str]:
    """A line for each setting of MaxText that was given, and has nothing to act on."""
    return [f"--{name} changes nothing: {why}" for name, why in _WITHOUT_USE.items() if values[name].present]


def require(values: flags.FlagValues, ids: Mapping[str, str], more: Sequence[Diagnostic] = ()) -> None:
    """Checks that flags were given, and that paths can be told.

    Args:
        values: parsed flags.
        ids: for each required flag the error id to report when it is missing.
        more: what is wrong with flags that only one direction has.

    Raises:
        RecastError: with all that is missing or wrong.
    """
    found = list(more)
    found.extend(run_flags.problems(values))
    if "compression" in values and not _COMPRESSION.fullmatch(values.compression):
        reason = f"--compression={values.compression} is not none or zstd:N with N from 1 to 22."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--compression"))
    if values.plan_file and not values.plan_only:
        reason = "--plan_file is where --plan_only writes; a conversion writes no plan."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--plan_file"))
    for name, error in ids.items():
        text = values[name].value
        if not text:
            found.append(Diagnostic(error, f"--{name} was not given.", subject=f"--{name}"))
    for name in _PATHS:
        path = str(values[name].value or "") if name in values else ""
        if path.encode("utf-8", "replace").decode("utf-8") != path:
            found.append(Diagnostic("INVALID_FLAG", f"--{name} is a path that is not UTF-8.", subject=f"--{name}"))
    raise_all(found)


def multimodal_options(values: flags.FlagValues) -> Mapping[str, str]:
    """The option of a MaxText layout that --use_multimodal gives."""
    if values.use_multimodal is None:
        return {}
    return {"use_multimodal": "true" if values.use_multimodal else "false"}


def common_request(values: flags.FlagValues) -> Mapping[str, Any]:
    """The fields of a ConversionRequest that both directions take from the shared flags."""
    return {
        "destination": Path(values.base_output_directory),
        "model_name": values.model_name,
        "require_exact": values.require_exact,
        "overwrite": values.overwrite,
        "memory_budget": run_flags.budget(values, _LARGEST_AUTO_BUDGET),
        "progress": values.progress,
        "plan_only": values.plan_only,
        "plan_file": Path(values.plan_file) if values.plan_file else None,
    }
