"""Random heals while `backfill table sync` is killed: the table ends with the rows of the store.

    python -m backfill_pipeline_tests.journeys.table_heals 100

Put here: the heals, the kills and the comparison of counts. Keep out: single rules of the tables
(`dataset/test_iceberg.py`).
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

from backfill_pipeline.control.table_sync import synced_tables
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline_tests.dataset.test_chart import FIRST, store_days

DAYS = 8


def heal(settings: Settings, choice: random.Random) -> None:
    """Store a day again with another number of rows, or remove one."""
    number = choice.randrange(DAYS)
    if choice.random() < 0.2:
        settings_store(settings).delete(object_key("s", FIRST + timedelta(days=number)))
    else:
        store_days(None, [number], settings=settings, every_min=choice.choice([5, 6, 7, 9, 11, 13]))


def sync_in_process(settings: Settings, catalogue: str) -> Iterator[bytes]:
    """Run synchronisations in a process of their own, without end; it reports each commit before it records it."""
    code = (
        "import sys\n"
        "from backfill_pipeline.control.table_sync import synced_tables\n"
        "from backfill_pipeline.dataset import iceberg\n"
        "from backfill_pipeline.settings import Settings\n"
        "for name in ('_described', '_commit', '_record'):\n"
        "    def around(*args, real=getattr(iceberg, name), name=name):\n"
        "        print('before', name, flush=True)\n"
        "        done = real(*args)\n"
        "        print('after', name, flush=True)\n"
        "        return done\n"
        "    setattr(iceberg, name, around)\n"
        "settings = Settings(store=sys.argv[1])\n"
        "synced_tables(settings, sys.argv[2], ())\n"
        "print('done', flush=True)\n"
    )
    words = [sys.executable, "-c", code, settings.store, catalogue]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            yield from process.stdout or ()
        finally:
            process.kill()


def killed_heals(folder: Path, heals: int, *, seed: int = 1) -> dict[str, int]:
    """Heal and kill, then synchronise once; the counts of each reader, and of the footers."""
    settings = Settings(store=str(folder / "store"))
    catalogue = f"sqlite:///{(folder / 'catalogue.db').as_posix()}"
    store_days(None, range(DAYS), settings=settings)
    synced_tables(settings, catalogue, ())
    choice, done = random.Random(seed), 0  # noqa: S311 - a schedule, not a secret
    while done < heals:
        for _ in range(choice.randint(1, 3)):
            heal(settings, choice)
            done += 1
        moment = choice.randint(1, 7)
        lines = sync_in_process(settings, catalogue)
        for number, line in enumerate(lines, 1):
            if number >= moment or line.strip() == b"done":
                break
        lines.close()
    synced_tables(settings, catalogue, ())
    store = settings_store(settings)
    footers = [pq.read_metadata(pa.BufferReader(store.get(one.key))).num_rows for one in store.list("timeseries/")]
    table = SqlCatalog("backfill", uri=catalogue, warehouse=store.url("table/iceberg")).load_table("backfill.samples")
    duckdb = table.scan().to_duckdb("samples")
    return {
        "footers": sum(footers),
        "pyiceberg count": table.scan().count(),
        "pyiceberg scan": len(table.scan().to_arrow()),
        "polars": pl.scan_iceberg(table, reader_override="pyiceberg").collect().height,
        "polars native": pl.scan_iceberg(table, reader_override="native").collect().height,
        "duckdb": duckdb.sql("SELECT count(*) FROM samples").fetchall()[0][0],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = killed_heals(Path(place), int(sys.argv[1]))
    print(found)  # noqa: T201 - the result of the script
    sys.exit(len(set(found.values())) != 1)
