"""A store with days and a catalogue, for the page.

Put here: what the store contains. Keep out: what a test expects.
"""

from datetime import UTC, date, datetime, timedelta

import numpy as np

from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store

FIRST = date(2025, 3, 24)
SITE = "north"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'\n\u202e$$x$$"
POINTS = ["ahu/fan speed", "ahu/supply temp", HOSTILE]
UNITS = ["percent", "degC", "<b onmouseover=alert(3)>"]


def stored_site(folder, *, days=14, without=(5, 6)):
    """Settings of a store with two weeks of three points; two days are not stored."""
    settings = Settings(store=str(folder / "data"), sites=SITE, home=folder)
    rng = np.random.default_rng(7)
    times = np.arange(0, 86_400_000, 300_000, dtype=np.int32)
    for number in set(range(days)) - set(without):
        code, ms = np.repeat(np.arange(3, dtype=np.int32), len(times)), np.tile(times, 3)
        wave = np.sin(ms / 86_400_000 * 2 * np.pi)
        value = np.choose(code, [60 + 20 * wave, 18 - 4 * wave, 5 + wave]) + rng.normal(0, 1, len(code))
        day = FIRST + timedelta(days=number)
        rows = DayRows(SITE, day, POINTS, [Chunk(code, ms, value)], Counts(len(ms), len(ms)))
        put_day(settings_store(settings), rows)
    since = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
    spans = [
        PointSpan(name=name, valid_from=since, unit=unit, description=f"{name} of the unit", device_name="AHU-1")
        for name, unit in zip(POINTS, UNITS, strict=True)
    ]
    update_catalogue(settings_store(settings), SITE, spans, since)
    return settings
