"""The points' catalogue in the store: `points/<site>.parquet`, one small object a site.

Put here: its key, its encoding, how it is read and updated. Keep out: what a row says and how lists are merged
(`core/catalogue.py`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.catalogue import PointSpan, from_table, merged, to_table
from backfill_pipeline.core.layout import points_key
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.shared_object import update
from backfill_pipeline.storage.store import Store

FORM = 1
"""Raised when a reader of older catalogues would have to know the difference."""


def read_catalogue(store: Store, site: str) -> list[PointSpan]:
    """Read a site's catalogue; empty when there is none.

    Raises:
        DamagedObjectError: the object is not a catalogue.
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    found = store.read(points_key(site))
    return [] if found is None else decode(found.data, store.url(points_key(site)))


def update_catalogue(store: Store, site: str, listed: Sequence[PointSpan], at: datetime) -> bool:
    """Merge a list of points into a site's catalogue, whoever else does so at the same moment.

    A catalogue that cannot be read is made anew: it is derived data, and the list is the better source.

    Args:
        store: where the days are.
        site: the site's name.
        listed: the list, by `core.catalogue.described`; an empty list changes nothing.
        at: when it was fetched, aware.

    Returns:
        Whether the catalogue changed.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    return bool(listed) and _update(store, site, lambda known: merged(known, listed, at))


def rebuild_catalogue(store: Store, site: str, listed_on: Mapping[date, Collection[str]]) -> bool:
    """Add to a site's catalogue what its stored days say: which points were configured, from which day to which.

    For points that the catalogue lacks, since they left the list before there was a catalogue, a row with a name and a
    span alone; for the others the days on which they were first and last seen.

    Args:
        store: where the days are.
        site: the site's name.
        listed_on: for each stored day the names that were configured when it was fetched.

    Returns:
        Whether the catalogue changed.
    """
    days: dict[str, list[date]] = {}
    for day in sorted(listed_on):
        for name in listed_on[day]:
            days.setdefault(name, []).append(day)
    return bool(days) and _update(store, site, lambda known: _with_days(known, days))


def _with_days(known: Sequence[PointSpan], days: Mapping[str, Sequence[date]]) -> list[PointSpan]:
    first_spans: dict[str, PointSpan] = {}
    for span in known:
        first_spans.setdefault(span.name, span)
    found = []
    for span in known:
        if span is first_spans[span.name] and span.name in days:
            seen = days[span.name][0]
            found.append(replace(span, first_seen=min(seen, span.first_seen or seen)))
        else:
            found.append(span)
    for name in sorted(days.keys() - first_spans.keys()):
        first, last = days[name][0], days[name][-1]
        end = datetime.combine(last + timedelta(days=1), time(), UTC)
        found.append(PointSpan(name, datetime.combine(first, time(), UTC), end, first_seen=first, last_seen=last))
    return found


def _update(store: Store, site: str, change: Callable[[list[PointSpan]], list[PointSpan]]) -> bool:
    changed = False

    def changed_bytes(data: bytes | None) -> bytes | None:
        nonlocal changed
        try:
            known = [] if data is None else decode(data, "")
        except DamagedObjectError:
            known = []
        spans = change(known)
        if data is not None and spans == known and _observed(spans) == _observed(known):
            return None
        changed = True
        return encode(spans, site)

    update(store, points_key(site), changed_bytes)
    return changed


def _observed(spans: Sequence[PointSpan]) -> list[tuple[date | None, date | None]]:
    return [(span.first_seen, span.last_seen) for span in spans]


def encode(spans: Sequence[PointSpan], site: str) -> bytes:
    """The catalogue as the bytes of a Parquet file; the same spans give the same bytes."""
    table = to_table(spans).replace_schema_metadata({"site": site.encode("utf-8", "surrogatepass"), "form": str(FORM)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=9, store_schema=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes, place: str) -> list[PointSpan]:
    """The spans of a catalogue's bytes.

    Args:
        data: the file.
        place: where it was found, for the message.

    Raises:
        DamagedObjectError: it is not a catalogue.
    """
    try:
        return from_table(pq.read_table(pa.BufferReader(data)))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DamagedObjectError(
            f"{place} is not a catalogue of points ({str(error).splitlines()[0][:120]})",
            hint="delete it; the next run of the site writes it again",
        ) from error
