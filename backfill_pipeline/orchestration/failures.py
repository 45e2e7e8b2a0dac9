"""Failed days: each is logged and recorded at once, and the run's last message lists them.

A failed day has no materialisation, so that Dagster shows it as failed and selects it by "Failed". Its error is an
observation of the asset's partition, which `observed_error` reads. Put here: the texts and the format of failures.
Keep out: when a day fails (`site_runner.py`).
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple

import dagster as dg

from backfill_pipeline.core.command_lines import start_command
from backfill_pipeline.core.log_fields import fields
from backfill_pipeline.core.text import printable
from backfill_pipeline.errors import BackfillError, sentences, what_failed
from backfill_pipeline.orchestration.dagster_internals import BACKFILL_ID_TAG, BulkActionStatus, SerializableErrorInfo
from backfill_pipeline.orchestration.partitions import asset_key, site_of
from backfill_pipeline.orchestration.site_runner import STOPS_ALL, Failed

SHOWN = 10
"""How many failures the run's last message names; its metadata names all."""

NAMED = 100
"""Characters of a site's name in a message."""

STOPPED_BY = "stopped_by"
"""Metadata of a failed run that ended because no further day could succeed: the kind of its error."""


FAILED = "failed"
"""Metadata of a failed run: its failed site-days."""

FETCH_AGAIN = "fetch_again"
"""Metadata of a failed run: the command line that fetches its failed days."""


class DayError(NamedTuple):
    """The error of a failed day, as an observation has it.

    Attributes:
        site: the site.
        day: the UTC day, as `YYYY-MM-DD`.
        error: what failed and what was found; in events of earlier versions with the hint.
        error_type: the name of the error's type.
        hint: what to do; empty when there is nothing to do.
        kind: `BackfillError.kind`; empty for other errors and in events of earlier versions.
    """

    site: str
    day: str
    error: str
    error_type: str
    hint: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        """The error and the hint, without site and day."""
        return sentences(self.error, self.hint)


class Failures:
    """The failures of one run.

    Args:
        context: the run's.
        total: the number of site-days of the run.
    """

    def __init__(self, context: dg.OpExecutionContext, *, total: int) -> None:
        self._context = context
        self._total = total
        self._all_sites = {site_of(key.path[-1]) for key in context.assets_def.keys}
        self._failed: list[DayError] = []
        self._stopped_by: Exception | None = None

    @property
    def count(self) -> int:
        """Site-days that failed so far."""
        return len(self._failed)

    def record(self, failed: Failed, rows_before: Mapping[date, int]) -> Iterator[dg.AssetObservation]:
        """Log a failure, and yield an observation for each of its days.

        Args:
            failed: the site and the days.
            rows_before: rows of the site's days that were stored before this run; their objects stay as they are.
        """
        error = failed.error
        message, hint = printable(what_failed(error)), printable(getattr(error, "hint", ""))
        days = f"{failed.days[0]}" if len(failed.days) == 1 else f"{len(failed.days)} days from {failed.days[0]}"
        surprise = None if isinstance(error, BackfillError) else error  # the traceback of a bug is logged
        self._context.log.error(
            f"{_short(failed.site)} {days} failed ({type(error).__name__}): {sentences(message, hint)}",
            exc_info=surprise,
            extra={**fields(site=failed.site, day=failed.days[0]), "days": len(failed.days)},
        )
        if isinstance(error, STOPS_ALL):
            self._stopped_by = self._stopped_by or error
        about = getattr(error, "day", None) or failed.days[0]
        for day in failed.days:
            text = (
                message
                if day == about
                else f"not fetched, because fetching this site ended with the error of {about}: {message}"
            )
            kind = error.kind if isinstance(error, BackfillError) else ""
            self._failed.append(DayError(failed.site, day.isoformat(), text, type(error).__name__, hint, kind))
            yield _observation(self._failed[-1], rows_before.get(day))

    def raise_if_any(self) -> None:
        """End the run as failed when a day failed.

        Raises:
            dagster.Failure: one line that names the failed site-days, or the error that stopped everything.
        """
        if not self._failed:
            return
        again = printable(
            start_command(((one.site, date.fromisoformat(one.day)) for one in self._failed), self._all_sites)
        )
        if self._stopped_by is not None:
            why = sentences(what_failed(self._stopped_by), getattr(self._stopped_by, "hint", ""))
            text = f"everything was stopped, since no further day could succeed: {printable(why)}"
            self.end_backfill(text)
        else:
            named = "; ".join(
                f"{_short(one.site)} {one.day} ({one.error_type}: {one.text})" for one in self._failed[:SHOWN]
            )
            more = f"; and {self.count - SHOWN} more" if self.count > SHOWN else ""
            text = (
                f"{self.count} of {self._total} site-days failed: {named}{more}. The others are stored. "
                f"To fetch the failed days again, run: {again}. "
                "In the UI: Materialize, `Show all partitions`, then `Failed`"
            )
        raise dg.Failure(
            text,
            metadata={
                FAILED: dg.MetadataValue.json([one._asdict() for one in self._failed]),
                FETCH_AGAIN: again,
                **({STOPPED_BY: _kind(self._stopped_by)} if self._stopped_by is not None else {}),
            },
            allow_retries=False,
        )

    def end_backfill(self, why: str) -> None:
        """Mark the backfill of this run, if any, for the daemon to end: its other runs would fail as well."""
        instance = self._context.instance
        backfill = instance.get_backfill(self._context.run.tags.get(BACKFILL_ID_TAG, ""))
        if backfill is not None and backfill.status is BulkActionStatus.REQUESTED:
            error = SerializableErrorInfo(message=why, stack=[], cls_name=None)
            ending = backfill.with_status(BulkActionStatus.FAILING)  # type: ignore[no-untyped-call]
            instance.update_backfill(ending.with_error(error))


def _kind(error: Exception) -> str:
    return error.kind if isinstance(error, BackfillError) else type(error).__name__


def _short(site: str) -> str:
    return printable(site if len(site) <= NAMED else f"{site[:NAMED]}...")


def _observation(failed: DayError, rows_before: int | None) -> dg.AssetObservation:
    """The failure of a day; of a day that is stored, it says that only the refetch failed."""
    if rows_before is None:
        description, kept = f"failed: {failed.text}", {}
    else:
        description = f"the day is stored, with {rows_before:,} rows; fetching it again failed: {failed.text}"
        kept = {"stored_rows": rows_before}
    facts = {"error": failed.error, "error_type": failed.error_type, "hint": failed.hint, "kind": failed.kind}
    return dg.AssetObservation(
        asset_key(failed.site),
        partition=failed.day,
        description=description,
        metadata={"state": "failed", **{name: text for name, text in facts.items() if text}, **kept},
    )


def observed_error(observation: dg.AssetObservation) -> DayError | None:
    """Return the failure that an observation records; None for other observations."""
    about = {name: value.value for name, value in observation.metadata.items()}
    if about.get("state") != "failed" or observation.partition is None:
        return None
    site = site_of(observation.asset_key.path[-1])
    return DayError(
        site,
        observation.partition,
        str(about.get("error")),
        str(about.get("error_type")),
        str(about.get("hint", "")),
        str(about.get("kind", "")),
    )


def failed_days(metadata: dg.MetadataValue[Any] | None) -> list[DayError]:
    """Read the failed site-days of a run from its metadata `FAILED`; empty without it."""
    return [DayError(**one) for one in metadata.value] if metadata is not None else []
