"""The simulated world: sites with seeded random samples, or sites with given samples.

A day's rows depend on the seed, the site and the day alone, so that any day can be made again without state. Put here:
sites, points, samples, and the rows that a day's object should contain. Keep out: HTTP (`app.py`), exports
(`exports.py`) and faults (`faults.py`).
"""

import json
import math
import random
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from backfill_pipeline.simulator.equipment import described, described_weather

Sample = tuple[int, str, str]
"""Unix microseconds, point name, and the value as JSON text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEATHER = ("temp", "feels_like", "pressure", "humidity", "dew_point", "clouds", "wind_speed", "wind_deg", "wet_bulb")
_ODD_VALUES = ("null", '"NaN"', '"active"', '""', '"inf"', '"1,5"')


def midnight_us(day: date) -> int:
    """The day's first instant, Unix microseconds."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _at(row: Sample) -> int:
    return row[0]


class Site(Protocol):
    """A site as the simulator needs it."""

    @property
    def name(self) -> str:
        """As ACE would spell it."""

    def points(self) -> list[dict[str, Any]]:
        """Every known point, as ACE describes one."""

    def samples(self, day: date) -> Sequence[Sample]:
        """The day's samples in the API's order: by time, then name."""


@dataclass(frozen=True)
class SiteSpec:
    """A seeded site.

    Attributes:
        name: as ACE would spell it.
        count: configured points.
        interval_s: seconds between two sweeps.
        first_day: no samples before.
        empty_days: days without any sample.
        odd: share of samples whose value is not a finite number.
        missing: share of samples that are missing.
        seed: of the random values.
    """

    name: str
    count: int = 40
    interval_s: int = 300
    first_day: date = date(2024, 1, 1)
    empty_days: frozenset[date] = frozenset()
    odd: float = 0.002
    missing: float = 0.001
    seed: int = 1
    archived: bool = False

    def points(self) -> list[dict[str, Any]]:
        """Configured points, a tenth more that are not, nine of weather; two configured ones never report."""
        return _points(self.name, self.count)

    def samples(self, day: date) -> Sequence[Sample]:
        """Sweeps of two controllers, each with one timestamp for all of its points, and weather every 15 minutes."""
        return _samples(self, day)


@lru_cache(maxsize=64)
def _points(site: str, count: int) -> list[dict[str, Any]]:
    found = []
    for number in range(count + max(1, count // 10)):
        device = 100 + number // 50
        kind = ("analogInput", "analogValue", "binaryInput")[number % 3]
        name = f"demo/{site}/10.0.{device // 250}.{device % 250}-{device}/{kind}/{number}"
        about = described(number, device, kind)
        found.append(point_of(4001 + number, name, site, enabled=number < count, about=about))
    found += [
        point_of(900_001 + number, f"demo/{site}/weather/{what}", site, enabled=True, about=described_weather(what))
        for number, what in enumerate(_WEATHER)
    ]
    return found


def point_of(
    number: int, name: str, site: str, *, enabled: bool, interval: int = 300, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A point as ACE describes one.

    Args:
        number: ACE's own number.
        name: its name.
        site: its site.
        enabled: whether it is collected.
        interval: seconds between two samples, as configured.
        about: fields that differ from those of a point of which little is known; `bacnet_data` is merged.
    """
    about = dict(about or {})
    bacnet: dict[str, Any] = {
        "device_address": "10.0.0.10",
        "device_id": 100 + number // 50,
        "object_type": "analogInput",
        "object_index": number,
        "object_name": name.rsplit("/", 1)[-1],
        "device_name": "controller",
        "object_description": "",
        "device_description": "",
        "scrape_interval": interval,
        "scrape_enabled": enabled,
        "present_value": "38.78239822387695",
        "model_name": "property: unknown-property",
    } | about.pop("bacnet_data", {})
    bacnet |= {f"property_{extra}": "property: unknown-property" for extra in range(33 - len(bacnet))}
    return {
        "id": number,
        "name": name,
        "client": "demo",
        "site": site,
        "kv_tags": {},
        "bacnet_data": bacnet,
        "marker_tags": [],
        "collect_config": {},
        "point_type": None,
        "collect_enabled": enabled,
        "collect_interval": interval,
        "updated": "2025-12-01T23:46:12.058246",
        "created": "2024-02-14T19:43:07.623281",
    } | about


@lru_cache(maxsize=8)
def _samples(site: SiteSpec, day: date) -> Sequence[Sample]:
    if day < site.first_day or day in site.empty_days:
        return ()
    rng = random.Random(f"{site.seed}/{site.name}/{day}")  # noqa: S311 - simulated values, not a secret
    start = midnight_us(day)
    names = [point["name"] for point in site.points()]
    plain, weather = names[: -len(_WEATHER)], names[-len(_WEATHER) :]
    silent = set(plain[site.count - 2 : site.count]) if site.count > 4 else set()  # noqa: PLR2004 - some must report
    half = len(plain) // 2
    controllers = [sorted(set(plain[:half]) - silent), sorted(set(plain[half:]) - silent)]
    level = {name: 15 + zlib.crc32(name.encode()) % 200 / 10 for name in names}
    rows: list[Sample] = []
    for sweep in range(0, 86_400, site.interval_s):
        swing = 3 * math.sin(2 * math.pi * sweep / 86_400)
        for number, group in enumerate(controllers):
            at = start + sweep * 1_000_000 + rng.randrange(1_000_000) + number * 1_700_000
            if at >= start + 86_400_000_000:
                continue
            for name in group:
                chance = rng.random()
                if chance < site.missing:
                    continue
                if chance < site.missing + site.odd:
                    rows.append((at, name, rng.choice(_ODD_VALUES)))
                elif chance > 0.98:  # noqa: PLR2004 - some values carry every digit of a float64
                    rows.append((at, name, f'"{level[name] + swing + chance!r}"'))
                else:
                    rows.append((at, name, f'"{level[name] + swing + int(chance * 5) / 10:.1f}"'))
    for quarter in range(0, 86_400, 900):
        at = start + quarter * 1_000_000 + 5_250_000
        rows += [(at, name, f'"{level[name] + quarter / 9000:.2f}"') for name in weather]
    rows.sort(key=lambda row: (row[0], row[1]))
    return rows


@dataclass(frozen=True)
class TableSite:
    """A site whose samples are given one by one.

    Attributes:
        name: as ACE would spell it.
        rows: (Unix microseconds, point, value as JSON text), in any order.
        configured: names of configured points; all that have rows when None.
        interval: what the points' `collect_interval` says.
    """

    name: str
    rows: Sequence[Sample]
    configured: frozenset[str] | None = None
    interval: int = 300
    archived: bool = False
    _by_day: dict[int, list[Sample]] = field(default_factory=dict, repr=False, compare=False)

    def points(self) -> list[dict[str, Any]]:
        """All points that have rows, and those configured without any."""
        wanted = self.configured if self.configured is not None else frozenset(row[1] for row in self.rows)
        names = sorted(wanted | {row[1] for row in self.rows})
        return [
            point_of(number, name, self.name, enabled=name in wanted, interval=self.interval)
            for number, name in enumerate(names, 1)
        ]

    def samples(self, day: date) -> Sequence[Sample]:
        """The day's rows, by time, then name; rows alike in both keep the order in which they were given."""
        if not self._by_day and self.rows:
            for row in sorted(self.rows, key=lambda row: (row[0], row[1])):
                self._by_day.setdefault(row[0] // 86_400_000_000, []).append(row)
        return self._by_day.get(midnight_us(day) // 86_400_000_000, [])


@dataclass(frozen=True)
class ScheduledSite:
    """A site that starts on a chosen day, or has chosen days without samples.

    Attributes:
        site: whose samples the other days have.
        first_day: no samples before; None: as the site has them.
        empty_days: days without any sample.
    """

    site: Site
    first_day: date | None = None
    empty_days: frozenset[date] = frozenset()

    @property
    def name(self) -> str:
        """The site's name."""
        return self.site.name

    @property
    def archived(self) -> bool:
        """Whether the site is archived."""
        return bool(getattr(self.site, "archived", False))

    def points(self) -> list[dict[str, Any]]:
        """The site's points."""
        return self.site.points()

    def samples(self, day: date) -> Sequence[Sample]:
        """The site's samples of the day, unless it has none by schedule."""
        if day in self.empty_days or (self.first_day is not None and day < self.first_day):
            return ()
        return self.site.samples(day)


@dataclass(frozen=True)
class World:
    """All sites of one key."""

    sites: Sequence[Site]

    def site(self, name: str) -> Site | None:
        """The site of that name."""
        return next((site for site in self.sites if site.name == name), None)

    def window(self, name: str, start_us: int, end_us: int) -> list[Sample]:
        """The samples of `start_us <= t < end_us`, in the API's order."""
        site = self.site(name)
        day = (_EPOCH + timedelta(microseconds=start_us)).date()
        found: list[Sample] = []
        while site is not None and midnight_us(day) < end_us:
            rows = site.samples(day)
            found += rows[bisect_left(rows, start_us, key=_at) : bisect_left(rows, end_us, key=_at)]
            day += timedelta(days=1)
        return found

    def truth(self, name: str, day: date) -> list[tuple[int, str, float]]:
        """Return the rows that the day's object should contain: (Unix ms, point, value), sorted by point and time.

        It is computed from the world, not from the API, and shares no code with the client.
        """
        site = self.site(name)
        if site is None:
            return []
        wanted = {point["name"] for point in site.points() if point["collect_enabled"]}
        kept: dict[tuple[bytes, int], tuple[int, str, float]] = {}
        for at, point, text in site.samples(day):
            value = json.loads(text)
            if point not in wanted or value is None or isinstance(value, bool):
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                continue
            if math.isfinite(number):
                kept[(point.encode(), at // 1000)] = (at // 1000, point, number)
        return [kept[key] for key in sorted(kept)]

    def truth_of_texts(self, name: str, day: date) -> list[tuple[int, str, str]]:
        """Return the rows that the day's texts should contain: (Unix ms, point, text), sorted by point and time.

        Computed as `truth`. A text is any value that is not a number, not null, not blank, not infinite
        and not NaN; of a boolean, a list or an object it is the JSON.
        """
        site = self.site(name)
        if site is None:
            return []
        wanted = {point["name"] for point in site.points() if point["collect_enabled"]}
        kept: dict[tuple[bytes, int], tuple[int, str, str]] = {}
        for at, point, written in site.samples(day):
            value = json.loads(written)
            if point not in wanted or value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                continue
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            plain = text.strip(" \t\r\n")
            try:
                float(plain)
            except ValueError:
                is_text = bool(plain)
            else:  # what Python takes for a number and the API's form does not: digits of other scripts, underscores
                is_text = not plain.isascii() or "_" in plain or plain != plain.strip()
            if is_text:
                kept[(point.encode(), at // 1000)] = (at // 1000, point, text)
        return [kept[key] for key in sorted(kept)]


def demo_world(sites: Mapping[str, int], *, interval_s: int = 300, seed: int = 1) -> World:
    """A seeded world: points by site name."""
    return World([SiteSpec(name, count, interval_s, seed=seed) for name, count in sites.items()])
