"""Recorded days compared with the store: what a listing shows, and a request only where the listing leaves doubt.

Put here: when an object is the one that was recorded. Keep out: where records are kept
(`orchestration/stored_records.py`), and what an object contains (`parquet.py`).

A listing reports size and ETag. Another size is another object. The same ETag is the same object. Another ETag leaves
doubt: in a bucket an object was replaced, copied or encrypted again; in a folder the file was written or copied. Then
the SHA-256 of that one object decides.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice, takewhile, zip_longest

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.object_keys import ROOT, day_prefix, object_key, range_prefix
from backfill_pipeline.storage.store import Stat, Store

SiteDay = tuple[str, date]

LISTED_DAYS = 366
"""Days of one listing at most: the parts of a longer range are listed side by side."""

LISTINGS_AT_ONCE = 32
"""Requests of one listing that are sent side by side."""

_SPANS_AT_ONCE, _AT_ONCE = 4, 16

_PAGE, _PART = 1_000, 4_000
"""Objects of one answer of a listing, and about as many of one part of a long listing."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of a day when its object was read back.

    Attributes:
        bytes: the object's size; None when it was not recorded.
        etag: the store's mark of the object; None in records of earlier versions.
        sha256: SHA-256 of the object's bytes; None when it was not recorded.
        at: when it was recorded, in Unix seconds.
        rows: rows of the object.
        texts: rows of the object of its texts, 0 if there is none; None in records of earlier versions.
    """

    bytes: int | None = None
    etag: str | None = None
    sha256: str | None = None
    at: float = 0.0
    rows: int = 0
    texts: int | None = None


@dataclass
class Comparison:
    """Recorded days that the store does not have as they were recorded.

    Attributes:
        missing: days without an object.
        different: days whose object is another one, with what was found.
    """

    missing: set[SiteDay] = field(default_factory=set)
    different: dict[SiteDay, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.missing) + len(self.different)

    def __iter__(self) -> Iterator[SiteDay]:
        return iter(sorted([*self.missing, *self.different]))

    def __contains__(self, one: object) -> bool:
        return one in self.missing or one in self.different

    def forget(self, one: SiteDay) -> None:
        """Leave out a day, whose object turned out to be right."""
        self.missing.discard(one)
        self.different.pop(one, None)

    def found(self, one: SiteDay) -> str:
        """What was found of one of these days."""
        return self.different.get(one, "the object is not in the store")


def list_days(
    store: Store, first: date, last: date, root: str = ROOT, *, at_once: int = LISTINGS_AT_ONCE
) -> dict[str, Stat]:
    """All objects of a range of days by key, whatever their site: about one request for each 1,000 objects.

    The first request of each year shows how many objects a day has; then parts of the year are listed side by side.

    Args:
        store: where to look.
        first: first day.
        last: last day, included.
        root: `ROOT` for the days, `TEXT_ROOT` for their texts.
        at_once: requests that are sent side by side.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be listed.
    """
    with ThreadPoolExecutor(at_once) as pool:
        begun = [pool.submit(_begin, store, span, root) for span in _spans(first, last)]
        found: dict[str, Stat] = {}
        more = []
        for one in begun:
            stats, left = one.result()
            found.update((stat.key, stat) for stat in stats)
            more += [pool.submit(_part, store, part, root) for part in left]
        for rest in more:
            found.update((stat.key, stat) for stat in rest.result())
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """Days of a long listing: up to `until`, the first day of the next part; the last part ends with `last`."""

    first: date
    last: date
    until: date | None


def _part(store: Store, part: _Part, root: str) -> list[Stat]:
    """List a part, with unexpected keys between its last day and the next part."""
    if part.until is None:
        return list(_listed(store, part.first, part.last, root))
    end = day_prefix(part.until, root)
    return list(takewhile(lambda stat: stat.key < end, _listed(store, part.first, part.until, root)))


def _begin(store: Store, span: tuple[date, date], root: str) -> tuple[list[Stat], list[_Part]]:
    """List the first 1,000 objects of some days; and the parts of the other days, each of a few thousand objects."""
    first, last = span
    rest = _listed(store, first, last, root)
    stats = list(islice(rest, _PAGE))
    if len(stats) < _PAGE:
        return stats, []
    reached = stats[-1].key.removeprefix(f"{root}/")[: len("YYYY/MM/DD")].replace("/", "-")
    try:
        day = min(last, max(first, date.fromisoformat(reached)))
    except ValueError:  # an unexpected key, which has no day
        return [*stats, *rest], []
    whole = [stat for stat in stats if stat.key < day_prefix(day, root)]  # the objects of `day` may be incomplete
    each = max(1, round(_PART * ((day - first).days + 1) / _PAGE))
    days = list(days_between(day, last))
    starts = days[::each]
    return whole, [_Part(at, last, until) for at, until in zip_longest(starts, starts[1:])]


def compare_range(store: Store, recorded: Mapping[SiteDay, Recorded]) -> Comparison:
    """Compare recorded days with a listing of their range: one request for each 1,000 objects in it.

    Args:
        store: where the objects are.
        recorded: what was recorded, by site and day.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    result = Comparison()
    if not recorded:
        return result
    days = [day for _, day in recorded]
    spans = list(_spans(min(days), max(days)))
    parts: list[dict[SiteDay, Recorded]] = [{} for _ in spans]
    for one, known in recorded.items():
        parts[(one[1] - spans[0][0]).days // LISTED_DAYS][one] = known
    with ThreadPoolExecutor(_SPANS_AT_ONCE) as pool:
        each = LISTINGS_AT_ONCE // _SPANS_AT_ONCE
        found = pool.map(
            lambda span, some: compare(store, some, list_days(store, *span, at_once=each).values()), spans, parts
        )
        for part in found:
            result.missing |= part.missing
            result.different |= part.different
    return result


def compare(store: Store, recorded: Mapping[SiteDay, Recorded], listed: Iterable[Stat]) -> Comparison:
    """Compare recorded days with a listing of the store.

    Args:
        store: asked for the hash of the objects about which the listing leaves doubt.
        recorded: what was recorded, by site and day.
        listed: the store's objects of these days, and perhaps of others.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    result, doubtful = Comparison(), []
    awaited = {object_key(*one): one for one in recorded}
    for stat in listed:
        one = awaited.pop(stat.key, None)
        if one is None:
            continue
        known = recorded[one]
        if known.bytes is not None and stat.bytes != known.bytes:
            result.different[one] = f"the object has {stat.bytes:,} bytes, {known.bytes:,} were recorded"
        elif known.etag and stat.etag and known.etag != stat.etag:
            doubtful.append(one)
    result.missing |= set(awaited.values())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        hashes = pool.map(lambda one: _hash(store, object_key(*one)), doubtful)
        for one, found in zip(doubtful, hashes, strict=True):
            if found is None:
                result.missing.add(one)
            elif found != recorded[one].sha256:
                result.different[one] = "the object was replaced after it was recorded: its ETag and its hash differ"
    return result


def _hash(store: Store, key: str) -> str | None:
    """The SHA-256 of an object's bytes, computed by the store or here; None when there is no object."""
    head = store.head(key)
    if head is None or head.sha256 is not None:
        return head.sha256 if head is not None else None
    try:
        return hashlib.sha256(store.get(key)).hexdigest()
    except FileNotFoundError:
        return None


def _spans(first: date, last: date) -> Iterator[tuple[date, date]]:
    for start in list(days_between(first, last))[::LISTED_DAYS]:
        yield start, min(last, start + timedelta(days=LISTED_DAYS - 1))


def _listed(store: Store, first: date, last: date, root: str = ROOT) -> Iterator[Stat]:
    low, high = day_prefix(first, root), day_prefix(last, root)
    for stat in store.list(range_prefix(first, last, root), after=low):
        if stat.key > high and not stat.key.startswith(high):
            return
        yield stat
