"""TensorStore as Orbax uses it: specs, contexts, and its errors as diagnostics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tensorstore as ts

from converters.formats.storage_errors import write_error_id
from reporting.diagnostics import Diagnostic, RecastError

_COPY_THREADS = 2
_FILE_THREADS = 4
_MESSAGE_LIMIT = 500
_NODE_BYTES = 1 << 16
_INLINE_BYTES = 1024
_ERRNO = re.compile(r"\[os_error_code='(\d+)'")


def new_context(*, cache_bytes: int = 0) -> Any:
    """A context of its own: nothing cached is shared with another one.

    Files are synchronised by whoever writes them, in groups, since one fsync per chunk halves the speed of writing.

    Args:
        cache_bytes: memory for decoded chunks and database nodes.
    """
    return ts.Context(
        {
            "data_copy_concurrency": {"limit": _COPY_THREADS},
            "file_io_concurrency": {"limit": _FILE_THREADS},
            "file_io_sync": False,
            "cache_pool": {"total_bytes_limit": cache_bytes},
        }
    )


def array_spec(items: Path, name: str, *, ocdbt: bool, zarr3: bool) -> dict[str, Any]:
    """The spec of an array of an item; paths are JSON, not URLs, so that no character of theirs has a meaning."""
    root = {"driver": "file", "path": f"{items}/"}
    if ocdbt:
        kvstore = {"driver": "ocdbt", "base": root, "path": f"{name}/"}
    else:
        kvstore = {"driver": "file", "path": f"{items}/{name}/"}
    return {"driver": "zarr3" if zarr3 else "zarr", "kvstore": kvstore}


def database_config() -> dict[str, Any]:
    """How OCDBT databases are made.

    Each write rewrites one node of each level: nodes of 64 KiB waste 0.1 % at 64 MiB chunks, Orbax's own 100 MB would
    rewrite the whole tree each time.
    """
    return {"max_decoded_node_bytes": _NODE_BYTES, "max_inline_value_bytes": _INLINE_BYTES}


def message(error: BaseException) -> str:
    """What TensorStore says, without the annotations that it appends, such as the whole spec."""
    text = re.split(r" \[(?:tensorstore_spec|source locations|os_error_code)=", str(error))[0]
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "..."


def unreadable(name: str, error: BaseException) -> Diagnostic:
    """An array that TensorStore could not open or read."""
    return Diagnostic("ORBAX_ARRAY_UNREADABLE", f"{name}: {message(error)}", subject=name)


def unwritable(subject: str, error: BaseException) -> RecastError:
    """A failed write as DISK_FULL, DESTINATION_NOT_WRITABLE, DESTINATION_EXISTS (other arrays) or INPUT_OUTPUT."""
    text = str(error)
    reason = f"writing {subject}: {message(error)}"
    number = _ERRNO.search(text)
    if number is None and text.startswith(("FAILED_PRECONDITION", "ALREADY_EXISTS")):
        return RecastError.of("DESTINATION_EXISTS", reason, subject=subject)
    return RecastError.of(write_error_id(int(number[1]) if number else None), reason, subject=subject)
