"""Buffers that receive large answers and are used again for later answers.

A page of 100,000 samples has 13 MB. A new buffer for each page costs 3,200 page faults, since the system clears its
memory again. A buffer that is used again keeps its memory.

Each buffer is a `bytearray` whose length is that of the answer, so that a decoder needs no separate length.

Put here: which buffer an answer uses. Keep out: limits of size and time, and what an answer means (`ace/client.py`).
"""

import threading

PART_BYTES = 1 << 16
"""Bytes of one read. glibc keeps freed memory of this size; it returns more than 128 KiB to the system."""


class ReceiveBuffers:
    """Buffers that are not in use, the latest first: there are as many as answers that arrived at the same time."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self) -> bytearray:
        """Take a buffer. It may contain an earlier answer; the caller overwrites it and cuts the rest off."""
        with self._lock:
            return self._free.pop() if self._free else bytearray()

    def give(self, buffer: bytes | bytearray) -> None:
        """Return a buffer whose answer is no longer needed.

        A buffer that is still exported, to Arrow or NumPy for example, is left to its readers.
        """
        if not buffer or not isinstance(buffer, bytearray):
            return
        try:
            buffer.pop()  # any change of length fails while a buffer is exported
        except BufferError:
            return
        with self._lock:
            self._free.append(buffer)
