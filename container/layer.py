"""Writes one layer of an image: a .tar.gz whose bytes depend on its members alone.

    layer.py @PARAMETERS

The file holds a line with the output, then lines with a tab each: `NAME<TAB>FILE` for a member, where FILE may be a
folder, `-<TAB>FILE` for one to leave out, and `!<TAB>NAME` for a name to leave out with all below it. Names are sorted,
times are 0, owners are root, and modes are 0644, or 0755 for folders and programs. Python modules are compiled if they
are not already.
"""

from __future__ import annotations

import filecmp
import gzip
import io
import os
import py_compile
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

_CACHE = "__pycache__"
_PROGRAM_STARTS = (b"\x7fELF", b"#!")


class LayerError(Exception):
    """The layer cannot be written; the text is for the user."""


def read(lines: Iterable[str]) -> dict[str, Path]:
    """The members by name.

    Args:
        lines: as in a file of parameters.

    Raises:
        LayerError: two different files have one name.
    """
    listed = [line.partition("\t")[::2] for line in lines]
    left_out = {path for name, path in listed if name == "-"}
    unwanted = tuple(f"{path}/" for name, path in listed if name == "!")
    members: dict[str, Path] = {}
    for name, path in listed:
        if name in ("-", "!") or path in left_out:
            continue
        for inner, file in _files(name, Path(path)):
            if f"{inner}/".startswith(unwanted):
                continue
            if inner in members and not filecmp.cmp(members[inner], file, shallow=False):
                raise LayerError(f"{inner} is in two packages: {members[inner]} and {file}")
            members[inner] = file
    return members


def _files(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    if not path.is_dir():
        yield name, path
        return
    for folder, _, files in os.walk(path):
        inner = PurePosixPath(name, Path(folder).relative_to(path).as_posix())
        yield from ((str(inner / file), Path(folder, file)) for file in files)


def uncompiled(names: Iterable[str]) -> list[str]:
    """The modules among names that no compiled one goes with, in order."""
    known = set(names)
    return sorted(name for name in known if name.endswith(".py") and _compiled_name(name) not in known)


def _compiled_name(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.parent / _CACHE / f"{path.stem}.{sys.implementation.cache_tag}.pyc")


def compiled(name: str, source: Path, scratch: Path) -> bytes | None:
    """A module in the form that Python loads without a look at the source; None if it is no Python of this version."""
    target = scratch / "compiled.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    try:
        py_compile.compile(str(source), str(target), dfile=f"/{name}", doraise=True, invalidation_mode=mode)
    except (py_compile.PyCompileError, ValueError, RecursionError):
        return None
    return target.read_bytes()


def write(output: Path, members: Mapping[str, Path]) -> None:
    """Writes the layer."""
    contents: dict[str, Path | bytes] = dict(members)
    with tempfile.TemporaryDirectory() as scratch:
        for name in uncompiled(members):
            code = compiled(name, members[name], Path(scratch))
            if code is not None:
                contents[_compiled_name(name)] = code
    folders = {str(folder) for name in contents for folder in list(PurePosixPath(name).parents)[:-1]}
    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(folders | contents.keys()):
            info = tarfile.TarInfo(name)
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            content = contents[name]
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                # Bazel makes all its outputs executable: only what is a program by its content stays one.
                info.mode = 0o755 if file.read(4).startswith(_PROGRAM_STARTS) else 0o644
                info.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                tar.addfile(info, file)


def main(arguments: Sequence[str]) -> int:
    """Writes a layer.

    Returns:
        0; 1 if that failed.
    """
    # What is compiled may depend on the order of hashes, which differs from process to process unless it is fixed.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    output, *lines = Path(arguments[0].removeprefix("@")).read_text("utf-8").splitlines()
    try:
        write(Path(output), read(lines))
    except LayerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
