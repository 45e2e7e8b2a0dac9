"""The points' catalogue: a description of each point of a site, with its history.

One row describes one point for one span of time. A change of the point's name, unit, description, tags, device,
interval or enabled flag closes the row and begins another. A later reader therefore finds the unit that a value had
when it was sampled. A change of an observation, such as ACE's `updated` or the present value, does not begin a row.

Put here: the columns, which of ACE's fields are stored, and how a new list is merged into a catalogue. Keep out: where
the catalogue is stored (`dataset/point_catalogue.py`) and how the list is fetched (`ace/client.py`).
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa

from backfill_pipeline.core.point_states import States, united
from backfill_pipeline.core.secret_fields import without_secrets

UNKNOWN = frozenset({"", "none", "null", "property: unknown-property", "unknown-property"})
"""Texts that ACE and its gateways send for a value that is not set (docs/ace-api.md sections 1 and 3)."""

KEPT_FIELDS = frozenset(
    {
        "id",
        "name",
        "client",
        "site",
        "kv_tags",
        "bacnet_data",
        "marker_tags",
        "collect_config",
        "point_type",
        "collect_enabled",
        "collect_interval",
        "updated",
        "created",
    }
)
"""Fields of a point that are stored: those that the API documents. Other fields are dropped."""

OBSERVED = frozenset({"present_value", "updated", "last_seen", "status_flags", "out_of_service", "reliability"})
"""Fields that describe the present moment: a new value of such a field is not a change of the point."""

_UNIT_NAMES = ("units", "unit", "engineering_units", "unit_of_measure", "uom")

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("valid_from", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("valid_to", pa.timestamp("ms", "UTC")),  # null: it is valid now
        pa.field("id", pa.int64()),
        pa.field("point_type", pa.string()),
        pa.field("unit", pa.string()),
        pa.field("description", pa.string()),
        pa.field("object_name", pa.string()),
        pa.field("object_type", pa.string()),
        pa.field("object_index", pa.int64()),
        pa.field("device_name", pa.string()),
        pa.field("device_description", pa.string()),
        pa.field("device_id", pa.int64()),
        pa.field("device_address", pa.string()),
        pa.field("kv_tags", pa.map_(pa.string(), pa.string())),
        pa.field("marker_tags", pa.list_(pa.string())),
        pa.field("collect_interval", pa.int64()),  # seconds
        pa.field("collect_enabled", pa.bool_()),
        pa.field("created", pa.timestamp("ms", "UTC")),
        pa.field("updated", pa.timestamp("ms", "UTC")),
        pa.field("first_seen", pa.date32()),
        pa.field("last_seen", pa.date32()),
        pa.field("raw", pa.string()),
        pa.field("states", pa.list_(pa.string())),
    ]
)
"""The catalogue's columns, in their order; rows are sorted by `name` and `valid_from`."""


@dataclass(frozen=True, slots=True)
class PointSpan:
    """One point for one span of time: a row of the catalogue.

    Attributes:
        name: the name that ACE sends.
        valid_from: the start of the span, aware. A point's first span starts at ACE's `created`, if ACE sends it.
        valid_to: the end of the span, exclusive, aware; None while the span is valid.
        id: ACE's number of the point.
        point_type: ACE's type of the point.
        unit: the unit in the words of the device or a tag, such as `degreesCelsius`.
        description: the description of the BACnet object.
        object_name, object_type, object_index: the BACnet object.
        device_name, device_description, device_id, device_address: the BACnet device.
        kv_tags: tags with a value, sorted by key; a value that is not text is JSON.
        marker_tags: tags without a value, sorted.
        collect_interval: configured seconds between two samples.
        collect_enabled: whether samples are collected.
        created, updated: ACE's instants, aware.
        first_seen: the first UTC day on which a list contained the point with this description.
        last_seen: the last UTC day on which a list contained the point with this description.
        raw: ACE's other fields of the point, as JSON with sorted keys; empty if there are none.
        states: the few different texts of the point's samples, sorted; empty if the texts are too many or too long to
            be states; None if no sample was a text.
    """

    name: str
    valid_from: datetime
    valid_to: datetime | None = None
    id: int | None = None
    point_type: str | None = None
    unit: str | None = None
    description: str | None = None
    object_name: str | None = None
    object_type: str | None = None
    object_index: int | None = None
    device_name: str | None = None
    device_description: str | None = None
    device_id: int | None = None
    device_address: str | None = None
    kv_tags: tuple[tuple[str, str], ...] = ()
    marker_tags: tuple[str, ...] = ()
    collect_interval: int | None = None
    collect_enabled: bool | None = None
    created: datetime | None = field(default=None, compare=False)
    updated: datetime | None = field(default=None, compare=False)
    first_seen: date | None = field(default=None, compare=False)
    last_seen: date | None = field(default=None, compare=False)
    raw: str = field(default="", compare=False)
    states: States | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """A title for people: description or object name, and unit; empty when neither is known."""
        return "  ".join(filter(None, (self.description or self.object_name, self.unit and f"[{self.unit}]")))

    @property
    def is_name_only(self) -> bool:
        """Whether the row has only the point's name and dates, which come from stored days."""
        return self.means(PointSpan(self.name, self.valid_from))

    def means(self, other: "PointSpan") -> bool:
        """Whether both rows have the same description; validity and observations are not compared."""
        same = replace(other, valid_from=self.valid_from, valid_to=self.valid_to)
        return self == same and _lasting(self.raw) == _lasting(other.raw)


def described(items: Iterable[Mapping[str, Any]], at: datetime) -> list[PointSpan]:
    """Turn a list of points from the API into catalogue rows, sorted by name.

    A field whose type differs from the API's documentation is stored in `raw`. It is not an error.

    Args:
        items: the points as parsed JSON objects. Points without a name are left out. If two points have the same name,
            the last one is used.
        at: when the list was fetched, aware.
    """
    found: dict[str, PointSpan] = {}
    for item in items:
        if isinstance(item.get("name"), str) and item["name"]:
            span = _described(item, at)
            found[span.name] = span
    return [found[name] for name in sorted(found)]


def _described(item: Mapping[str, Any], at: datetime) -> PointSpan:
    kept = {key: without_secrets(value) for key, value in item.items() if key in KEPT_FIELDS}
    name = storable(str(kept.pop("name")))
    for key in ("client", "site"):
        kept.pop(key, None)  # the catalogue's own path names the site
    rest: dict[str, Any] = {}
    bacnet: dict[str, Any] = _of_type(dict, "bacnet_data", kept, rest)
    tags: dict[str, Any] = _of_type(dict, "kv_tags", kept, rest)
    markers: list[Any] = _of_type(list, "marker_tags", kept, rest)
    columns: dict[str, Any] = {}
    for holder, key, column, read in _COLUMNS:
        source = bacnet if holder else kept
        columns[column] = read(source.get(key))
        if columns[column] is not None or _is_unknown(source.get(key)):
            source.pop(key, None)  # a value of an unexpected type is not removed: it is stored in `raw`
    pairs = {storable(key): storable(one) if isinstance(one, str) else _json(one) for key, one in tags.items()}
    lower = {key.lower(): value for key, value in pairs.items()}
    units = [*map(bacnet.get, _UNIT_NAMES), *map(lower.get, _UNIT_NAMES)]
    if bacnet:
        rest["bacnet_data"] = bacnet
    rest |= {key: value for key, value in kept.items() if not _is_unknown(value) and value != {}}
    created, day = columns["created"], at.astimezone(UTC).date()
    return PointSpan(
        name,
        valid_from=min(at, created) if created else at,
        unit=next((text for value in units if (text := _text(value))), None),
        kv_tags=tuple(sorted(pairs.items())),
        marker_tags=tuple(sorted({storable(tag) if isinstance(tag, str) else _json(tag) for tag in markers})),
        first_seen=day,
        last_seen=day,
        raw=_json(rest) if rest else "",
        **columns,
    )


def _of_type(kind: type, key: str, kept: dict[str, Any], rest: dict[str, Any]) -> Any:
    """Remove a field and return it. A value of another type is added to `rest`, and an empty value is returned."""
    value = kept.pop(key, None)
    if isinstance(value, kind):
        return value
    if not _is_unknown(value):
        rest[key] = value
    return kind()


def packed(items: Sequence[Mapping[str, Any]]) -> bytes:
    """Compress a list of points for `unpacked`: about thirty bytes a point."""
    return zlib.compress(b"[" + b",".join(map(_packed, items)) + b"]", 1)


def _packed(item: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(item).encode()
    except RecursionError:  # nested nearly as deep as the JSON parser allows
        return json.dumps({key: one for key, one in item.items() if not isinstance(one, dict | list)}).encode()


def unpacked(data: bytes) -> list[dict[str, Any]]:
    """The list that `packed` compressed; empty for no bytes."""
    items: list[dict[str, Any]] = json.loads(zlib.decompress(data)) if data else []
    return items


def merged(known: Sequence[PointSpan], listed: Sequence[PointSpan], at: datetime) -> list[PointSpan]:
    """Merge a list that was fetched at `at` into a catalogue.

    A point whose description changed gets a new span that starts at `at`. The span of a point that is missing from the
    list ends at `at`. If two runs fetch lists at nearly the same time, the older list may be merged last: it adds spans
    that were not known and ends none.

    Args:
        known: the catalogue's spans, in any order.
        listed: the points of the list, as `described` returns them.
        at: when the list was fetched, aware.

    Returns:
        All spans, sorted by name and `valid_from`: the same for the same arguments.
    """
    spans: dict[str, list[PointSpan]] = {}
    for span in sorted(known, key=_place):
        spans.setdefault(span.name, []).append(span)
    now = {span.name: span for span in listed}
    found: list[PointSpan] = []
    for name in sorted(spans.keys() | now.keys()):
        found += _merged(spans.get(name, []), now.get(name), at)
    return found


def _merged(spans: list[PointSpan], now: PointSpan | None, at: datetime) -> list[PointSpan]:
    """One point's spans, merged with its description in the list."""
    if not spans:
        return [now] if now else []
    *before, last = spans
    if at < (last.valid_to or last.valid_from) or at.astimezone(UTC).date() < (last.last_seen or date.min):
        return spans if now is None else _merged_late(spans, now, at)
    if now is None:
        return spans if last.valid_to else [*before, replace(last, valid_to=at)]
    if last.means(now) and last.valid_to is None:
        return [*before, _seen(last, now)]
    if last.is_name_only and last.valid_to is None:  # from stored days, which have no description: use the list's
        first = min(last.first_seen or date.max, now.first_seen or date.max)
        begin = min(last.valid_from, now.valid_from)
        return [*before, replace(now, valid_from=begin, first_seen=first, states=last.states)]
    return [*before, replace(last, valid_to=last.valid_to or at), replace(now, valid_from=at)]


def _merged_late(spans: list[PointSpan], now: PointSpan, at: datetime) -> list[PointSpan]:
    """One point's spans, merged with a list that is older than the latest span."""
    for number in reversed(range(len(spans))):
        if spans[number].means(now):
            return [*spans[:number], _seen(spans[number], now), *spans[number + 1 :]]
    ends = [end for span in spans for end in (span.valid_from, span.valid_to) if end is not None and end > at]
    found = sorted([*spans, replace(now, valid_from=at, valid_to=min(ends, default=None))], key=_place)
    for number, (one, two) in enumerate(pairwise(found)):
        if one.valid_to is None or one.valid_to > two.valid_from:
            found[number] = replace(one, valid_to=two.valid_from)
    return found


def with_states(spans: Sequence[PointSpan], states: Mapping[str, States], day: date) -> list[PointSpan]:
    """Add the states that points had on a day to a catalogue.

    A state is an observation: a new state does not begin a span. The states are added to the span that was valid at the
    end of the day, or to the point's first span if that starts later. A new span begins without states.

    Args:
        spans: a catalogue, sorted.
        states: the states by point, as `day_states` returns them; points that are not in the catalogue are left out.
        day: the UTC day.
    """
    end = datetime.combine(day, time(), UTC) + timedelta(days=1)
    found: list[PointSpan] = []
    for name, group in groupby(spans, key=lambda span: span.name):
        each = list(group)
        if name in states:
            number = max((n for n, span in enumerate(each) if span.valid_from < end), default=0)
            each[number] = replace(each[number], states=united(each[number].states, states[name]))
        found += each
    return found


def _seen(span: PointSpan, now: PointSpan) -> PointSpan:
    """The span with the days of another list added; unchanged if both days are within its first and last day."""
    first = min(filter(None, (span.first_seen, now.first_seen)), default=None)
    last = max(filter(None, (span.last_seen, now.last_seen)), default=None)
    if (first, last) == (span.first_seen, span.last_seen):
        return span
    return replace(span, first_seen=first, last_seen=last, updated=now.updated or span.updated)


def at_instant(spans: Iterable[PointSpan], at: datetime | None) -> list[PointSpan]:
    """The span of each point that is valid at an instant, sorted by name.

    For an instant before a point's first span, the first span is returned.

    Args:
        spans: a catalogue, sorted.
        at: the instant, aware. None returns the last span of each point, whether or not it has ended.
    """
    found = []
    for _, group in groupby(sorted(spans, key=_place), key=lambda span: span.name):
        each = list(group)
        if at is None:
            found.append(each[-1])
            continue
        valid = [span for span in each if span.valid_from <= at and (span.valid_to is None or at < span.valid_to)]
        if valid:
            found.append(valid[-1])
        elif at < each[0].valid_from:
            found.append(each[0])
    return found


def matches(span: PointSpan, words: str) -> bool:
    """Whether each word occurs in the catalogue's description of a point; case is ignored."""
    text = _searched(span)
    return all(word in text for word in words.casefold().split())


def _searched(span: PointSpan) -> str:
    parts: list[Any] = [
        span.name,
        span.unit,
        span.description,
        span.point_type,
        span.object_name,
        span.object_type,
        span.device_name,
        span.device_description,
        span.device_id,
        span.device_address,
        *span.marker_tags,
        *(span.states or ()),
        *(f"{key} {value} {key}:{value} {key}={value}" for key, value in span.kv_tags),
    ]
    return " ".join(str(part) for part in parts if part is not None).casefold()


def to_table(spans: Iterable[PointSpan]) -> pa.Table:
    """The spans as an Arrow table of `SCHEMA`, sorted by name and `valid_from`."""
    rows = sorted(spans, key=_place)
    columns: dict[str, list[Any]] = {}
    for column in SCHEMA.names:
        values = [getattr(row, column) for row in rows]
        columns[column] = [list(v) if isinstance(v, tuple) else v for v in values]
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table) -> list[PointSpan]:
    """The spans of an Arrow table that `to_table` returned; values of missing columns are None or empty.

    Raises:
        ValueError: the table has no column `name` or `valid_from`.
    """
    if not {"name", "valid_from"} <= set(table.column_names):
        raise ValueError("the table has no columns `name` and `valid_from`")
    known = [column.name for column in fields(PointSpan) if column.name in table.column_names]
    spans = []
    for row in table.select(known).to_pylist():
        row["kv_tags"] = tuple(tuple(pair) for pair in row.get("kv_tags") or ())
        row["marker_tags"] = tuple(row.get("marker_tags") or ())
        row["raw"] = row.get("raw") or ""
        row["states"] = None if row.get("states") is None else tuple(row["states"])
        spans.append(PointSpan(**row))
    return spans


def _place(span: PointSpan) -> tuple[str, datetime]:
    return (span.name, span.valid_from)


def _is_unknown(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in UNKNOWN)


def _text(value: object) -> str | None:
    return storable(value) if isinstance(value, str) and not _is_unknown(value) else None


def storable(text: str) -> str:
    """The text with lone surrogates escaped: JSON may contain them, a Parquet file may not."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value.strip()):
        return int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None


def _flag(value: object) -> bool | None:
    known = {"true": True, "1": True, "false": False, "0": False}
    return known.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None


def _instant(value: object) -> datetime | None:
    """Parse ACE's `created` or `updated`, which is naive UTC, to whole milliseconds."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


_COLUMNS = (
    (False, "id", "id", _whole),
    (False, "point_type", "point_type", _text),
    (False, "collect_interval", "collect_interval", _whole),
    (False, "collect_enabled", "collect_enabled", _flag),
    (False, "created", "created", _instant),
    (False, "updated", "updated", _instant),
    (True, "object_description", "description", _text),
    (True, "object_name", "object_name", _text),
    (True, "object_type", "object_type", _text),
    (True, "object_index", "object_index", _whole),
    (True, "device_name", "device_name", _text),
    (True, "device_description", "device_description", _text),
    (True, "device_id", "device_id", _whole),
    (True, "device_address", "device_address", _text),
)
"""Fields with a column: whether the field is in `bacnet_data`, its key, its column, and the function to read it."""


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _lasting(raw: str) -> Any:
    """The JSON value of `raw` without observations."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in OBSERVED}
        return value

    return without(json.loads(raw)) if raw else None


def fields_of(span: PointSpan) -> Iterator[tuple[str, Any]]:
    """Yield each column's name and value in the order of `SCHEMA`, for `--json`."""
    for column in SCHEMA.names:
        value = getattr(span, column)
        if isinstance(value, datetime | date):
            value = value.isoformat()
        yield column, dict(value) if column == "kv_tags" else list(value) if isinstance(value, tuple) else value
