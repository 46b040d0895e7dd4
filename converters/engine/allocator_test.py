import subprocess
import sys

_SCRIPT = """
import ctypes
from converters.engine import allocator

assert allocator.keep_buffers()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 20
first = libc.malloc(size)
ctypes.memset(first, 1, size)
libc.free(first)
kept = int(open("/proc/self/statm").read().split()[1]) * 4096
assert kept > size, kept
assert libc.malloc(size) == first
"""


def test_a_freed_buffer_is_used_again() -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True)
