"""Checks of every day, as Dagster asset checks, evaluated per day and partition while a run goes on.

Four checks carry six judgements: each evaluation costs Dagster some CPU, as much as the materialisation itself, so that
what belongs together is one check with several figures. Put here: what a good day is. Keep out: how the figures come
about (`core/quality.py`), and what keeps a day from being stored at all.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from backfill_pipeline.core.day import DAY_MS, partition_key
from backfill_pipeline.core.page_identity import unreadable_rows
from backfill_pipeline.core.quality import (
    DAYS_AROUND,
    MAX_GAP_MIN,
    MIN_COVERAGE,
    MIN_ROWS_SHARE,
    is_thin,
    no_rows,
    usual_rows,
)
from backfill_pipeline.orchestration.dagster_internals import AssetCheckEvaluationTargetMaterializationData
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.site_runner import Stored
from backfill_pipeline.settings import Settings

_UNUSABLE = ("no_name", "bad_time", "null_value", "not_numeric", "not_finite")

MAX_UNUSABLE = 0.2
"""Share of rows without a usable name, time or value."""

MAX_INTERVAL_SHARE = 1.5
"""Median time between two samples of a point, against the configured one."""

Figures = dict[str, Any]
"""An evaluation's figures by name: Dagster plots them by partition."""

CHECKS = {
    "has_samples": "The stored object has rows. Does not pass when two requests returned no samples for the "
    "day, or none that can be stored. Executed alone, it compares the recorded days with a listing of the store.",
    "complete": f"At least {MIN_COVERAGE:.0%} of the configured points speak, no silence lasts longer than "
    f"{MAX_GAP_MIN} minutes, and there are at least {MIN_ROWS_SHARE:.0%} of the median rows of the {DAYS_AROUND} days "
    "before and after, as far as they are stored.",
    "interval": f"The median time between two samples of a point is at most {MAX_INTERVAL_SHARE} times the configured "
    "one. Passes when no interval is configured.",
    "clean": f"All rows lie inside the day, each had a name and a time that can be read, and at most "
    f"{MAX_UNUSABLE:.0%} of the samples had no usable value. Each sample that the API returned is a row, a text, or "
    "left out for one reason.",
}


def check_specs(site: str, partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    """The checks of a site's asset."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*partitions_def.*")  # Dagster calls checks by partition a preview
        return [
            dg.AssetCheckSpec(name, asset=asset_key(site), description=said, partitions_def=partitions)
            for name, said in CHECKS.items()
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one day.

    Attributes:
        thin: fewer rows than the days around it let expect, or a long silence: late data may fill it.
        checks: by name of the check, whether it passed, and its figures.
        found: by name of a check that did not pass, what was found, as one line.
    """

    thin: bool
    checks: Mapping[str, tuple[bool, Figures]]
    found: Mapping[str, str] = field(default_factory=dict)

    def evaluations(
        self, site: str, day: date, severity: dg.AssetCheckSeverity, *, of: dg.EventLogRecord | None
    ) -> Iterator[dg.AssetCheckEvaluation]:
        """The verdict as Dagster's evaluations, for the day's partition.

        Args:
            site: the site.
            day: the day.
            severity: what a check that does not pass shows.
            of: the materialisation that was judged; without it Dagster takes the day for unchecked.
        """
        judged = of and AssetCheckEvaluationTargetMaterializationData(
            storage_id=of.storage_id, run_id=of.run_id, timestamp=of.timestamp
        )
        for name, (passed, figures) in self.checks.items():
            yield dg.AssetCheckEvaluation(
                asset_key=asset_key(site),
                check_name=name,
                passed=passed,
                metadata=figures,
                severity=severity,
                description=self.found.get(name),
                target_materialization_data=judged,
                partition=partition_key(day),
            )


class Judge:
    """Judges days of one site, and remembers their rows for the days around them.

    Args:
        rows: rows of days that are stored already, by day.
    """

    def __init__(self, rows: Mapping[date, int]) -> None:
        self._rows = dict(rows)

    def verdict(self, day: Stored) -> Verdict:
        """What is to be said of a day."""
        fetched, counts, seen = day.fetched, day.counts, day.quality
        usual = usual_rows(self._rows, fetched.day)
        self._rows[fetched.day] = seen.rows
        coverage = share(fetched.points_seen, fetched.points_configured)
        left_out = counts.left_out
        unusable = share(sum(left_out.get(reason, 0) for reason in _UNUSABLE), counts.fetched)
        unaccounted = counts.fetched - day.stored.rows - day.stored.texts - sum(left_out.values())
        inside = seen.first_ms is None or seen.last_ms is None or 0 <= seen.first_ms <= seen.last_ms < DAY_MS
        rows_share = None if usual is None else round(seen.rows / usual, 4)
        silent = seen.longest_gap_min > MAX_GAP_MIN
        few = rows_share is not None and rows_share < MIN_ROWS_SHARE
        covered = coverage >= MIN_COVERAGE
        slower = None
        if seen.interval_s is not None and fetched.interval_s:
            slower = round(seen.interval_s / fetched.interval_s, 4)
        complete: Figures = {
            "points_seen": fetched.points_seen,
            "points_configured": fetched.points_configured,
            "coverage": coverage,
            "longest_gap_min": seen.longest_gap_min,
            "rows": seen.rows,
        } | _known(rows_around=usual, rows_share=rows_share)
        clean: Figures = {
            "unusable_share": unusable,
            "unreadable": counts.unreadable,
            "samples": counts.fetched,
            "rows": day.stored.rows,
            "texts": day.stored.texts,
            "unaccounted": unaccounted,
        }
        samples = samples_verdict(day.stored.rows, counts.fetched, fetched.day, day.stored.texts)
        found = dict(samples.found)
        if counts.unreadable:
            found["clean"] = unreadable_rows(counts, fetched.unreadable)
        if unaccounted:
            found["clean"] = (
                f"the API returned {counts.fetched:,} samples, but the {day.stored.rows:,} rows, the "
                f"{day.stored.texts:,} texts and the samples left out are {counts.fetched - unaccounted:,}"
            )
        for reason, rows in left_out.items():
            clean |= {f"dropped_{reason}": rows, f"share_{reason}": share(rows, counts.fetched)}
        return Verdict(
            thin=is_thin(seen.rows, usual, seen.longest_gap_min, coverage),
            checks={
                **samples.checks,
                "complete": (covered and not silent and not few, complete),
                "interval": (
                    slower is None or slower <= MAX_INTERVAL_SHARE,
                    _known(interval_s=seen.interval_s, interval_configured_s=fetched.interval_s, interval_share=slower),
                ),
                "clean": (
                    inside and unusable <= MAX_UNUSABLE and not counts.unreadable and not unaccounted,
                    clean | _known(first_ms=seen.first_ms, last_ms=seen.last_ms),
                ),
            },
            found=found,
        )


def samples_verdict(rows: int, samples: int, day: date, texts: int = 0) -> Verdict:
    """The check `has_samples` alone.

    Args:
        rows: of the day's object.
        samples: how many the API returned.
        day: the day.
        texts: rows of the object of its texts.
    """
    figures = {"rows": rows, "samples": samples, "state": "stored" if rows else "empty"}
    found = {} if rows else {"has_samples": no_rows(samples, day, texts)}
    return Verdict(thin=not rows, checks={"has_samples": (rows > 0, figures)}, found=found)


def severity(settings: Settings) -> dg.AssetCheckSeverity:
    """What a check that does not pass shows."""
    return dg.AssetCheckSeverity.ERROR if settings.checks == "error" else dg.AssetCheckSeverity.WARN


def _known(**figures: float | None) -> Figures:
    return {name: value for name, value in figures.items() if value is not None}


def share(part: int, whole: int) -> float:
    """A share with four decimals; 0 of nothing."""
    return round(part / whole, 4) if whole else 0.0
