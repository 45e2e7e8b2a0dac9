"""The footers of many objects, side by side: all that coverage is told from.

Put here: how they are read. Keep out: what they mean (`table.py`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from backfill_pipeline.coverage.table import Damaged, Found
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.days import day_end
from backfill_pipeline.storage.parquet import Footer, findings, read_footer
from backfill_pipeline.storage.store import Store

AT_ONCE = 32
"""Footers asked for side by side: each is one request that waits for the store."""


_BATCH = 512
"""Ends that are held in memory at once, at most: 64 KB each."""


def read_footers(store: Store, sites: Sequence[str], days: Sequence[date]) -> Found:
    """What the store holds of `sites` x `days`: one request of at most 64 KB a day, or two for a longer footer.

    A footer is some ten kilobytes in memory: who wants many sites asks for one after the other.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    wanted = [(site, day) for site in sites for day in days]
    found: dict[tuple[str, date], Footer | Damaged] = {}

    def end(one: tuple[str, date]) -> bytes | Damaged | None:
        try:
            return day_end(store, *one)
        except FileNotFoundError:
            return None
        except DamagedObjectError as error:
            return Damaged(str(error))

    # Read here, one after the other: what is kept, allocated by many threads between 64 KB each, would leave holes
    # behind that nothing fits into, ten times its own size.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for at in range(0, len(wanted), _BATCH):
            part = wanted[at : at + _BATCH]
            for one, told in zip(part, pool.map(end, part), strict=True):
                if told is not None:
                    found[one] = _read(told, *one) if isinstance(told, bytes) else told
    return found


def _read(end: bytes, site: str, day: date) -> Footer | Damaged:
    try:
        footer = read_footer(end)
    except DamagedObjectError as error:
        return Damaged(str(error))
    wrong = findings(footer, site, day, footer.least_bytes)
    return Damaged("; ".join(wrong)) if wrong else footer
