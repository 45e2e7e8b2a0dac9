"""Checks of every day, as Dagster asset checks, evaluated per day and partition while a run goes on.

Three checks carry six judgements: each evaluation costs Dagster some 20 ms of CPU, as much as the materialisation
itself, so that what belongs together is one check with several figures. Put here: what a good day is. Keep out: how the
figures come about (`core/quality.py`), and what keeps a day from being stored at all.
"""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

import dagster as dg

from backfill_pipeline.core.day import DAY_MS
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.work import Stored

MIN_COVERAGE = 0.5
"""Share of the configured points that a whole day hears of: one of two controllers silent is a finding."""

MAX_GAP_MIN = 120
"""Minutes in which nobody may speak: a gateway's restart is shorter, its failure longer."""

MIN_ROWS_SHARE = 0.5
"""Rows of a day against the median of the days before it."""

MAX_UNUSABLE = 0.2
"""Share of rows without a usable name, time or value."""

DAYS_BEFORE = 7
"""How many days before a day it is held against."""

Figures = dict[str, Any]
"""An evaluation's figures by name: Dagster plots them by partition."""

_UNUSABLE = ("no_name", "bad_time", "null_value", "not_numeric", "not_finite")

_CHECKS = {
    "has_samples": "The API sent samples for the day. Asked twice, it sent none where this does not pass.",
    "complete": f"At least {MIN_COVERAGE:.0%} of the configured points speak, no silence lasts longer than "
    f"{MAX_GAP_MIN} minutes, and there are at least {MIN_ROWS_SHARE:.0%} of the rows of the {DAYS_BEFORE} days before.",
    "clean": f"All rows lie inside the day, and at most {MAX_UNUSABLE:.0%} of the samples had no usable value.",
}


def check_specs(site: str, partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    """The checks of a site's asset."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*partitions_def.*")  # Dagster calls checks by partition a preview
        return [
            dg.AssetCheckSpec(name, asset=asset_key(site), description=said, partitions_def=partitions)
            for name, said in _CHECKS.items()
        ]


class Judge:
    """Judges the days of one site in their order.

    Args:
        rows_before: rows of the days before, oldest first, days without rows left out.
        severity: of a check that does not pass.
    """

    def __init__(self, rows_before: Iterable[int], severity: dg.AssetCheckSeverity) -> None:
        self._before = deque(rows_before, maxlen=DAYS_BEFORE)
        self._severity = severity

    def evaluations(self, day: Stored) -> Iterator[dg.AssetCheckEvaluation]:
        """The day's three evaluations."""
        fetched, counts, seen = day.fetched, day.counts, day.quality
        usual = median(self._before) if self._before else None
        if seen.rows:
            self._before.append(seen.rows)
        coverage = share(fetched.points_seen, fetched.points_configured)
        unusable = share(sum(counts.dropped.get(reason, 0) for reason in _UNUSABLE), counts.fetched)
        inside = seen.first_ms is None or seen.last_ms is None or 0 <= seen.first_ms <= seen.last_ms < DAY_MS
        rows_share = None if not usual else round(seen.rows / usual, 4)
        complete = (
            coverage >= MIN_COVERAGE
            and seen.longest_gap_min <= MAX_GAP_MIN
            and (rows_share is None or rows_share >= MIN_ROWS_SHARE)
        )
        yield self._one(day, "has_samples", counts.fetched > 0, {"samples": counts.fetched, "state": day.stored.state})
        figures: Figures = {
            "points_seen": fetched.points_seen,
            "points_configured": fetched.points_configured,
            "coverage": coverage,
            "longest_gap_min": seen.longest_gap_min,
            "rows": seen.rows,
        }
        known = {"rows_share": rows_share, "interval_s": seen.interval_s}
        figures.update({name: value for name, value in known.items() if value is not None})
        yield self._one(day, "complete", complete, figures)
        shares: Figures = {"unusable_share": unusable}
        shares.update({f"dropped_{reason}": rows for reason, rows in counts.dropped.items()})
        yield self._one(day, "clean", inside and unusable <= MAX_UNUSABLE, shares)

    def _one(self, day: Stored, name: str, passed: bool, figures: Figures) -> dg.AssetCheckEvaluation:  # noqa: FBT001 - one verdict
        return dg.AssetCheckEvaluation(
            asset_key=asset_key(day.fetched.site),
            check_name=name,
            passed=passed,
            metadata=figures,
            severity=self._severity,
            partition=day.fetched.day.isoformat(),
        )


def share(part: int, whole: int) -> float:
    """A share with four decimals; 0 of nothing."""
    return round(part / whole, 4) if whole else 0.0
