"""inspect: what a checkpoint holds, from its headers alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.", flag_values=values)
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
        from converters.engine import drivers, values

        opened = drivers.driver_of(drivers.recognize(path)).open(path)
        try:
            infos = sorted(opened.source.tensors.values(), key=lambda info: info.name)
            weights = {info.name: math.prod(info.shape) * values.itemsize(info.dtype) for info in infos}
        finally:
            opened.source.close()
    total = sum(weights.values())
    if as_json:
        listed = [
            {"name": i.name, "dtype": i.dtype, "shape": list(i.shape), "bytes": weights[i.name], "file": i.location}
            for i in infos
        ]
        return json.dumps({"format": opened.description, "bytes": total, "tensors": listed}, indent=1)
    rows = [
        [i.name, i.dtype, "x".join(str(n) for n in i.shape) or "scalar", sizes.show(weights[i.name]), i.location]
        for i in (infos if everything else infos[:_FEW])
    ]
    dtypes = ", ".join(f"{count} {name}" for name, count in Counter(i.dtype for i in infos).most_common())
    lines = [f"{opened.description}: {len(infos)} arrays ({dtypes}), {sizes.show(total)}", ""]
    lines.append(tables.render(["name", "dtype", "shape", "size", "file"], rows))
    if len(rows) < len(infos):
        lines.append(f"... {len(infos) - len(rows)} more; --all lists them")
    return "\n".join(lines)


PROGRAM = Program(
    name="inspect",
    summary="Lists the arrays of a checkpoint (a safetensors directory or a MaxText checkpoint) with dtype, shape, "
    "size and file, from headers alone; every fault of the headers is one error.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("path",),
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
