"""The points' catalogue in the store: `points/<site>.parquet`, one small object a site.

Put here: its key, its encoding, how it is read and updated. Keep out: what a row says and how lists are merged
(`core/point_catalogue.py`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import points_key
from backfill_pipeline.core.point_catalogue import PointSpan, from_table, merged, storable, to_table, with_states
from backfill_pipeline.core.point_states import States
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


def update_catalogue(store: Store, site: str, listed: Sequence[PointSpan], at: datetime) -> list[PointSpan] | None:
    """Merge a list of points into a site's catalogue, safely beside other writers.

    A catalogue that cannot be read is made anew: it is derived data, and the list is the better source.

    Args:
        store: where the days are.
        site: the site's name.
        listed: the list, by `core.catalogue.described`; an empty list changes nothing.
        at: when it was fetched, aware.

    Returns:
        The catalogue's rows; None when they did not change.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    if not listed:
        return None
    return _update(store, site, lambda known: merged(known, listed, at))


def learn_states(store: Store, site: str, states: Mapping[str, States], day: date) -> bool:
    """Add the states that points had on a day to a site's catalogue.

    Args:
        store: where the days are.
        site: the site's name.
        states: by point, as `core.states.day_states` finds them.
        day: the UTC day.

    Returns:
        Whether the catalogue changed; False where there is no catalogue yet.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    if not states:
        return False
    return _update(store, site, lambda known: with_states(known, states, day)) is not None


def rebuild_catalogue(
    store: Store, site: str, listed_on: Iterable[tuple[date, Collection[str]]]
) -> list[PointSpan] | None:
    """Add to a site's catalogue which points were configured on its stored days, and from when to when.

    A point that the catalogue does not have gets a row with its name and span only; the other points get the day on
    which they were first listed. A new row ends with the last day that lists the point. It has no end if the latest day
    lists the point and no list of the API was merged yet: the next list then describes the point from its start.

    Args:
        store: where the days are.
        site: the site's name.
        listed_on: stored days, in any order, with the names that were configured when each was fetched.

    Returns:
        The catalogue's rows; None when they did not change.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    seen: dict[str, tuple[date, date]] = {}
    for day, names in listed_on:
        for name in map(storable, names):
            first, last = seen.get(name, (day, day))
            if not first < day < last:
                seen[name] = (min(first, day), max(last, day))
    return _update(store, site, lambda known: _with_days(known, seen)) if seen else None


def _with_days(known: Sequence[PointSpan], seen: Mapping[str, tuple[date, date]]) -> list[PointSpan]:
    """The rows, and the first and last day on which each name was seen; the same whatever is added in which order."""
    by_name = {name: list(spans) for name, spans in groupby(sorted(known, key=_name), key=_name)}
    newest = max([last for _, last in seen.values()] + [span.last_seen for span in known if span.last_seen is not None])
    was_listed = any(not span.is_name_only for span in known)
    found: list[PointSpan] = []
    for name in sorted(by_name.keys() | seen.keys()):
        spans = by_name.get(name, [])
        first, last = seen.get(name, (date.max, date.min))
        if spans and not spans[0].is_name_only:
            begin = min(first, spans[0].first_seen or date.max)
            found += [replace(spans[0], first_seen=None if begin == date.max else begin), *spans[1:]]
            continue
        known_end = spans[0].valid_to if spans and was_listed else None
        if spans:
            first, last = min(first, spans[0].first_seen or first), max(last, spans[0].last_seen or last)
        is_open = last == newest and not was_listed
        ends = [] if is_open else [max(_midnight(last) + timedelta(days=1), known_end or _midnight(last))]
        end = min([*ends, *(span.valid_from for span in spans[1:])], default=None)
        states = spans[0].states if spans else None
        found.append(PointSpan(name, _midnight(first), end, first_seen=first, last_seen=last, states=states))
        found += spans[1:]
    return found


def _name(span: PointSpan) -> str:
    return span.name


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _update(store: Store, site: str, change: Callable[[list[PointSpan]], list[PointSpan]]) -> list[PointSpan] | None:
    changed: list[PointSpan] | None = None

    def changed_bytes(data: bytes | None) -> bytes | None:
        nonlocal changed
        try:
            known = [] if data is None else decode(data, "")
        except DamagedObjectError:
            known = []
        spans = change(known)
        if data is None and not spans:
            return None
        if data is not None and spans == known and _observed(spans) == _observed(known):
            return None
        changed = spans
        return encode(spans, site)

    update(store, points_key(site), changed_bytes)
    return changed


def _observed(spans: Sequence[PointSpan]) -> list[tuple[date | None, date | None, States | None]]:
    return [(span.first_seen, span.last_seen, span.states) for span in spans]


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
