"""The footers of many objects, side by side: all that coverage is told from.

Put here: how they are read. Keep out: what they mean (`table.py`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

from backfill_pipeline.coverage.table import Damaged, Found
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.days import day_footer
from backfill_pipeline.storage.parquet import Footer, findings
from backfill_pipeline.storage.store import Store

AT_ONCE = 32
"""Footers asked for side by side: each is one request that waits for the store."""


def read_footers(store: Store, sites: Sequence[str], days: Sequence[date]) -> Found:
    """What the store holds of `sites` x `days`: one request of at most 64 KB a day, or two for a longer footer.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    wanted = [(site, day) for site in sites for day in days]

    def look(one: tuple[str, date]) -> Footer | Damaged | None:
        try:
            footer = day_footer(store, *one)
        except FileNotFoundError:
            return None
        except DamagedObjectError as error:
            return Damaged(str(error))
        wrong = findings(footer, *one, footer.least_bytes)
        return Damaged("; ".join(wrong)) if wrong else footer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        looks = pool.map(look, wanted)
        return {one: seen for one, seen in zip(wanted, looks, strict=True) if seen is not None}
