"""Objects that several processes change: read, changed and written back, with no change of another writer lost.

The points' catalogue and the index are such objects: small, derived, and updated by every run of a site. Put here: the
loop around a conditional write. Keep out: what the objects hold (`dataset/`) and how a store makes a write conditional
(`local.py`, `s3.py`).
"""

import random
import time
from collections.abc import Callable

from backfill_pipeline.errors import StoreBusyError
from backfill_pipeline.storage.store import Store

TRIES = 12
"""Times that a change is tried while other writers are faster."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 2.0


def update(
    store: Store,
    key: str,
    change: Callable[[bytes | None], bytes | None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    uniform: Callable[[], float] = random.random,
) -> bytes | None:
    """Change an object that other processes may change at the same moment.

    Args:
        store: where it is.
        key: its object key.
        change: makes the new bytes from the present ones (None: there is no object). It may be called several
            times, and has to keep the present contents. It returns None, or the same bytes, to leave the object
            unchanged.
        sleep: waits.
        uniform: numbers in [0, 1), so that writers that collided do not collide again.

    Returns:
        The contents of the object now; None when there is no object.

    Raises:
        StoreBusyError: other writers were faster each time.
        StoreRefusedError: the store refuses.
    """
    for attempt in range(TRIES):
        found = store.read(key)
        before = found.data if found else None
        data = change(before)
        if data is None or data == before:
            return before
        if store.replace(key, data, found.version if found else None):
            written = store.read(key)  # a store without conditional writes may have kept another writer's bytes
            if written is not None and (written.data == data or change(written.data) in (None, written.data)):
                return written.data
        sleep(min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * (0.5 + uniform()))
    raise StoreBusyError(
        f"cannot update {store.url(key)}: other processes changed it {TRIES} times in a row",
        hint="start again when fewer runs store days of this site",
    )
