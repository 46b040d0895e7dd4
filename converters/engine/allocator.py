"""Settings of the C library's allocator that keep large buffers warm."""

from __future__ import annotations

import ctypes

# From malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
_LARGEST = (1 << 31) - 1


def keep_buffers() -> bool:
    """Makes freed buffers stay with the process, to be used again; returns whether the C library knows how.

    By default each buffer above 32 MiB comes fresh from the kernel, which clears every page of it again: half the time
    of copying. One arena serves all threads, or each thread would keep buffers of its own.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_ARENA_MAX, 1))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
