"""The heap of a process that receives many large answers.

glibc's allocator raises its own threshold with each large buffer that is freed, until answers of 16 MB lie in the heaps
of the threads that received them: there they leave holes, and the process grows to twice what it holds. A fixed
threshold lets each go back to the system at once. Put here: how memory is given back. Keep out: how much is taken.
"""

import ctypes
import sys

LARGE = 4 << 20
"""Bytes from which a buffer has memory of its own."""

_M_MMAP_THRESHOLD = -3
"""From glibc's malloc.h."""


def give_back_large_buffers() -> bool:
    """Let buffers of `LARGE` bytes and more go back to the system when they are freed.

    Returns:
        Whether that could be said: only glibc takes it; the allocators of other systems do so of their own accord.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, LARGE))
