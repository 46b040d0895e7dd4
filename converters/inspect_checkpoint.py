"""inspect: what a checkpoint holds, from its headers alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from converters.cli import sizes
from converters.cli.program import Program, main
from reporting import tables
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report
from validators import preflight

_FEW = 40


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_bool("json", False, "Print one JSON object instead of a table.", flag_values=values)
    flags.DEFINE_bool("all", False, f"List every array, not only the first {_FEW}.", flag_values=values)


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> tuple[Path, bool, bool]:
    """Checks the path."""
    (path,) = positional
    found = list(preflight.remote_path(path, "PATH"))
    if not found and not Path(path).exists():
        found.append(Diagnostic("SOURCE_NOT_FOUND", f"{path} does not exist.", subject=path))
    raise_all(found)
    return Path(path), values.json, values.all


def execute(asked: tuple[Path, bool, bool], report: Report) -> str:
    """Reads the headers and renders them."""
    path, as_json, everything = asked
    with report.step("open_source"):
        from converters.engine import description

        said = description.describe(path)
    if as_json:
        return json.dumps(said, indent=1)
    return "\n".join(_lines(said, everything))


def _lines(said: Mapping[str, Any], everything: bool) -> Iterator[str]:
    tensors = said["tensors"]
    dtypes = ", ".join(f"{count} {name}" for name, count in said["dtypes"].items())
    yield f"{said['description']}: {len(tensors)} arrays ({dtypes}), {sizes.show(said['bytes'])}"
    if said["format"] == "maxtext":
        yield from _maxtext(said)
    made = said["made_by_recast"]
    if made is not None:
        options = "".join(f", {name}={value}" for name, value in sorted(made["options"].items()) if value != "")
        yield f"made by Recast from {made['from']}: {made['family']}{options}" + ("" if made["done"] else "; not DONE")
    if said["kept"]:
        size = sizes.show(sum(each["bytes"] for each in said["kept"]))
        yield f"kept beside it, for the way back: {len(said['kept'])} arrays, {size}; --all lists them"
    yield from said["quantized"]
    yield from said["remarks"]
    yield ""
    listed = tensors if everything else tensors[:_FEW]
    yield tables.render(["name", "dtype", "shape", "size", *_heads(said)], [_row(tensor, said) for tensor in listed])
    if len(listed) < len(tensors):
        yield f"... {len(tensors) - len(listed)} more; --all lists them"
    if everything and said["kept"]:
        rows = [
            [kept["name"], kept["dtype"], _shape(kept["shape"]), sizes.show(kept["bytes"])] for kept in said["kept"]
        ]
        yield tables.render(["kept", "dtype", "shape", "size"], rows)


def _maxtext(said: Mapping[str, Any]) -> Iterator[str]:
    storage, state = said["storage"], said["training_state"]
    scan = {None: "not said", True: "true", False: "false"}[said["scan_layers"]]
    step = "none" if said["step"] is None else said["step"]
    yield f"step {step}, item {said['item']}, scan_layers {scan}"
    kind = f"zarr {storage['zarr']}" + (" in OCDBT" if storage["ocdbt"] else ", a directory for each array")
    grids = Counter("x".join(map(str, tensor["chunk"])) or "scalar" for tensor in said["tensors"])
    yield (
        f"{kind}, compression {', '.join(storage['compression']) or 'none'}, {len(grids)} chunk shapes, "
        f"{storage['files']} files of {sizes.show(storage['bytes'])}"
    )
    pieces = [f"{piece['name']} ({piece['arrays']} arrays, {sizes.show(piece['bytes'])})" for piece in state]
    yield f"beside the parameters: {', '.join(pieces) or 'nothing'}"


def _heads(said: Mapping[str, Any]) -> list[str]:
    return ["chunk"] if said["format"] == "maxtext" else ["file"]


def _row(tensor: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    cells = [tensor["name"], tensor["dtype"], _shape(tensor["shape"]), sizes.show(tensor["bytes"])]
    if said["format"] != "maxtext":
        return [*cells, tensor["file"]]
    inner = f" of {_shape(tensor['inner_chunk'])}" if tensor["inner_chunk"] != tensor["chunk"] else ""
    return [*cells, f"{_shape(tensor['chunk'])}{inner}"]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape) or "scalar"


PROGRAM = Program(
    name="inspect",
    summary="Lists the arrays of a checkpoint (a Hugging Face directory with safetensors files or pytorch_model.bin, a "
    "single safetensors file, or a MaxText checkpoint) with dtype, shape, size and place, and how they are stored: "
    "step, chunks, codec, database, training state; from headers alone. Every fault of the headers is one error.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("path",),
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
