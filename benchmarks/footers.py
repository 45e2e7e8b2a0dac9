"""How long the coverage of a year of ten sites takes, from objects of real size: `python -m benchmarks.footers`.

One day of 2,000 points, a sample a minute, is stored as each day of each site (3,650 footers of some 32 KB; the rows
stand only once on disk, since a file of the footer and a hole before it reads the same).
"""

import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.coverage.footers import read_footers
from backfill_pipeline.coverage.table import coverage, points_of
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import encode, footer_bytes
from backfill_pipeline_tests.storage.reading import day_of

SITES = [f"site-{number}" for number in range(10)]


def main() -> None:
    """Fill a folder, then read it."""
    days = list(days_between(date(2024, 1, 1), date(2024, 12, 31)))
    one = day_of(20, int(sys.argv[1]) if len(sys.argv) > 1 else 60)
    with TemporaryDirectory() as folder:
        for site in SITES:
            whole = encode(replace(one, site=site)).data
            end = whole[-footer_bytes(whole[-8:]) :]
            for day in days:
                about = end.replace(one.day.isoformat().encode(), day.isoformat().encode())
                path = Path(folder) / object_key(site, day)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.seek(len(whole) - len(about))
                    file.write(about)
        begun = time.perf_counter()
        found = read_footers(LocalStore(Path(folder)), SITES, days)
        read = time.perf_counter() - begun
        now = datetime(2026, 1, 1, tzinfo=UTC)
        table = coverage(SITES, days, found, {}, ready_at=lambda _: now - timedelta(days=1), now=now)
        told = time.perf_counter() - begun
        points_of(found, SITES[0], days)
        points = time.perf_counter() - begun
        states = dict(Counter(str(one.state) for one in table))
        print(f"{states}, each of {len(one.points):,} points, footers of {len(end):,} bytes")
        print(f"footers {read:.1f} s, with the table {told:.1f} s, with one site's points {points:.1f} s")


if __name__ == "__main__":
    main()
