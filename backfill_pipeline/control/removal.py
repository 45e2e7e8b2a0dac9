"""`backfill remove`: deletes days of a site from the store and from Dagster's records.

Put here: what is removed, when it is refused, and what the command prints. Keep out: how a record is removed
(`orchestration/stored_records.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.core.command_lines import range_words, shell_line
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.object_keys import TEXT_ROOT, object_key, text_key
from backfill_pipeline.errors import AlreadyRunningError, UsageError
from backfill_pipeline.storage.comparison import list_days


@dataclass(frozen=True)
class Removal:
    """The days that a removal deletes or has deleted.

    Attributes:
        first: first day.
        last: last day, included.
        days: by site, the days that have an object or a record.
        objects: their objects, those of texts included.
        bytes: the bytes of these objects.
        records: their records in Dagster.
        done: whether the days were deleted; False: a dry run.
    """

    first: date
    last: date
    days: dict[str, list[date]]
    objects: int
    bytes: int
    records: int
    done: bool

    def facts(self) -> dict[str, Any]:
        """The removal for scripts."""
        return {
            "removed": self.done,
            "objects": self.objects,
            "bytes": self.bytes,
            "records": self.records,
            "sites": {site: len(days) for site, days in self.days.items()},
        }

    def lines(self) -> Iterator[str]:
        """The removal for the terminal; the last line of a dry run is the command that deletes."""
        for site, days in self.days.items():
            yield f"{site}: {_counted(len(days), 'day')}{f', {days[0]} to {days[-1]}' if days else ''}"
        verb = "removed" if self.done else "would be removed"
        objects, records = _counted(self.objects, "object"), _counted(self.records, "record")
        yield f"{objects} with {self.bytes:,} bytes and {records} {verb}"
        if not self.done and any(self.days.values()):
            pairs = [(site, day) for site in self.days for day in (self.first, self.last)]
            command = shell_line(["backfill", "remove", *range_words(pairs), "--yes"])
            yield f"nothing is removed yet; to remove these days, run: {command}"


def remove_days(gateway: Gateway, first: date, last: date, sites: Sequence[str], *, really: bool) -> Removal:
    """Delete the objects of some sites' days, and their records.

    Objects are deleted before records, so that the same command continues after an interruption.

    Args:
        gateway: the Dagster instance, and the store.
        first: first day.
        last: last day, included.
        sites: site names, at least one; also sites that are no longer configured.
        really: delete. False: only list what would be deleted.

    Raises:
        UsageError: the range is reversed.
        AlreadyRunningError: a backfill or a run is in progress, which might store one of the days meanwhile.
        StoreRefusedError, StoreBusyError: the store cannot be listed, or an object cannot be deleted.
    """
    if last < first:
        raise UsageError(f"the last day, {last}, is before the first, {first}", about="last")
    if really:
        _needs_quiet(gateway)
    listed = list_days(gateway.store, first, last) | list_days(gateway.store, first, last, TEXT_ROOT)
    wanted = [(site, day) for site in dict.fromkeys(sites) for day in days_between(first, last)]
    records = gateway.records(wanted)
    keys = {one: (object_key(*one), text_key(*one)) for one in wanted}
    stats = {one: found for one in wanted if (found := [listed[key] for key in keys[one] if key in listed])}
    days: dict[str, list[date]] = {site: [] for site in dict.fromkeys(sites)}
    for site, day in wanted:
        if (site, day) in records or (site, day) in stats:
            days[site].append(day)
    if really:
        for site, some in days.items():
            if some:
                gateway.remove(site, some)
    found = [stat for one in stats.values() for stat in one]
    size = sum(stat.bytes for stat in found)
    return Removal(first, last, days, len(found), size, len(records), really)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _needs_quiet(gateway: Gateway) -> None:
    running = gateway.running()
    if running:
        raise AlreadyRunningError(
            f"backfill {running[0].id} ({running[0].first} to {running[0].last}) is in progress",
            hint="wait for its end or run `backfill cancel`, then remove the days",
        )
    run_id = gateway.active_run()
    if run_id is not None:
        raise AlreadyRunningError(
            f"run {run_id} is in progress", hint="wait for its end or cancel it in the UI, then remove the days"
        )
