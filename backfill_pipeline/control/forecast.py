"""The forecast of a backfill: its figures with their bounds, and how they are shown.

Put here: the figures of one site and of all, their sum, and their forms for people and for scripts. Keep out: where the
figures come from (`estimate.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from backfill_pipeline.control.sample_figures import Span
from backfill_pipeline.core.text import printable

PRICE = 0.015
"""USD for a GB and month, unless another rate is given: what R2 asks for (standard storage, beyond what is free)."""


GB = 1e9


_NONE = Span(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SiteForecast:
    """What one site would take.

    Attributes:
        site: its name.
        days: days to do.
        done: days of the range that are stored already.
        empty: days to do of which the API has no samples, as far as the probes show.
        samples: that the API would send.
        rows: that the objects would hold.
        requests: samples' pages and lists of points.
        bytes: of the objects.
        seconds: that the answers take, side by side as far as they may be, at any budget.
        probes: days that it stands on.
        whole: how many of them were seen whole.
        declared: how many of them showed too little, so that the points' own intervals were believed.
        looked_at: stored objects that told what a row takes.
    """

    site: str
    days: int
    done: int
    empty: int = 0
    samples: Span = _NONE
    rows: Span = _NONE
    requests: Span = _NONE
    bytes: Span = _NONE
    seconds: Span = _NONE
    probes: int = 0
    whole: int = 0
    declared: int = 0
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a backfill would take.

    Attributes:
        first: first day.
        last: last day, included.
        made_at: when it was made, aware, UTC.
        sites: by site.
        per_minute: the budget.
        sites_at_once: sites of a run that are fetched side by side.
        price: USD for a GB and month.
        asked: requests that it took to make it.
    """

    first: date
    last: date
    made_at: datetime
    sites: Sequence[SiteForecast]
    per_minute: int
    sites_at_once: int
    price: float
    asked: int

    @property
    def hours(self) -> Span:
        """At this budget, or as the answers let it if they are slower."""
        requests, seconds = self._sum("requests"), [site.seconds for site in self.sites]
        waiting = {
            name: max(
                getattr(requests, name) / self.per_minute / 60,
                max((getattr(one, name) for one in seconds), default=0.0) / 3600,
                sum(getattr(one, name) for one in seconds) / self.sites_at_once / 3600,
            )
            for name in ("low", "likely", "high")
        }
        return Span(**waiting)

    @property
    def figures(self) -> dict[str, Span]:
        """All that is uncertain, by name."""
        size = self._sum("bytes")
        price = Span(self.price, self.price, self.price)
        month = Span(size.low / GB, size.likely / GB, size.high / GB).times(price)
        whole = {name: self._sum(name) for name in ("samples", "rows", "requests", "bytes")}
        return {**whole, "hours": self.hours, "usd_per_month": month}

    def facts(self) -> dict[str, Any]:
        """The forecast for scripts; each figure as it is likely, and its bounds beside it."""
        figures = self.figures

        def told(bound: str) -> dict[str, float]:
            return {name: _number(name, getattr(span, bound)) for name, span in figures.items()}

        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "sites": [site.site for site in self.sites],
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "site_days": sum(site.days for site in self.sites),
            "site_days_done": sum(site.done for site in self.sites),
            "site_days_empty": sum(site.empty for site in self.sites),
            **told("likely"),
            "low": told("low"),
            "high": told("high"),
            "requests_per_minute": self.per_minute,
            "usd_per_gb_month": self.price,
            "probes": sum(site.probes for site in self.sites),
            "probes_whole": sum(site.whole for site in self.sites),
            "requests_asked": self.asked,
            "by_site": [
                {
                    "site": site.site,
                    "site_days": site.days,
                    "site_days_done": site.done,
                    "site_days_empty": site.empty,
                    **{
                        name: _number(name, getattr(site, name).likely)
                        for name in ("samples", "rows", "requests", "bytes")
                    },
                    "probes": site.probes,
                }
                for site in self.sites
            ],
        }

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """The forecast for people: what, how much, and from what to what."""
        figures, todo = self.figures, sum(site.days for site in self.sites)
        done, empty = sum(site.done for site in self.sites), sum(site.empty for site in self.sites)
        without = f", {empty:,} of them without samples" if empty else ""
        yield "site-days", f"{todo:,} to do{without}", f"{done:,} stored already"
        shown: dict[str, tuple[str, Callable[[float], str]]] = {
            "samples": ("samples", _count),
            "rows": ("rows", _count),
            "requests": ("requests", _count),
            "hours": (f"time at {self.per_minute} requests a minute", _duration),
            "bytes": ("bytes in the store", _size),
            "usd_per_month": (f"price at {self.price:g} USD per GB and month", lambda usd: f"{usd:,.4f} USD a month"),
        }
        for name, (label, form) in shown.items():
            span = figures[name]
            low, high = form(span.low), form(span.high)
            yield label, form(span.likely), f"{low} .. {high}" if low != high else ""

    def ground(self) -> str:
        """What it stands on, in one line."""
        probes, whole = sum(site.probes for site in self.sites), sum(site.whole for site in self.sites)
        if not any(site.days for site in self.sites):
            return "nothing to do: all of these days are stored"
        looked = sum(site.looked_at for site in self.sites)
        stored = f" and {looked} stored objects" if looked else ""
        told = (
            f"it stands on {probes} probed days, {whole} of them seen whole{stored}, for {self.asked} requests; its "
            "bounds are what it would take if all days were like the thinnest, or like the fullest, that was probed; "
            "gaps between probes are seen in short ranges alone, a far fuller day between them is not seen"
        )
        declared = [site.site for site in self.sites if site.declared]
        if declared:
            told += f"; pages are too small to judge {', '.join(declared)}, so its points' own intervals were believed"
        return told

    def lines(self) -> Iterator[str]:
        """The forecast as plain lines."""
        yield f"{self.first} to {self.last}, {_sites(self.sites)}"
        for what, likely, bounds in self.cells():
            yield f"{what:42} {likely}{f'   ({bounds})' if bounds else ''}"
        yield self.ground()

    def table(self) -> Table:
        """The forecast as a table."""
        table = Table(
            "", "likely", "from .. to", title=Text(printable(f"{self.first} to {self.last}, {_sites(self.sites)}"))
        )
        for cells in self.cells():
            table.add_row(*cells)
        return table

    def _sum(self, name: str) -> Span:
        return sum((getattr(site, name) for site in self.sites), _NONE)


def _number(name: str, value: float) -> float:
    return round(value, 6) if name in ("hours", "usd_per_month") else round(value)


def _sites(sites: Sequence[SiteForecast]) -> str:
    return sites[0].site if len(sites) == 1 else f"{len(sites)} sites"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _duration(hours: float) -> str:
    minutes = hours * 60
    return f"{minutes:,.1f} minutes" if minutes < 100 else f"{hours:,.1f} hours"  # noqa: PLR2004 - what reads well


def _size(size: float) -> str:
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:,.2f} {unit}"
    return f"{size:,.0f} bytes"
