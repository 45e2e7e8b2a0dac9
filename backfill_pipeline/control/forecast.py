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
"""USD for a GB and month without another rate: the price of R2 (standard storage, beyond the free part)."""


GB = 1e9


_NONE = Span(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SiteForecast:
    """The forecast of one site.

    Attributes:
        site: its name.
        days: days to fetch.
        done: days of the range that are stored already.
        empty: days to fetch for which the API seems to have no samples.
        samples: samples that the API would send.
        rows: rows of the objects.
        requests: requests for pages of samples and for lists of points.
        bytes: bytes of the objects.
        seconds: duration of the answers without waits for the budget, with concurrent requests.
        probes: days that were sampled.
        whole: sampled days that were fetched whole.
        declared: sampled days with too few samples, for which the configured intervals of the points were used.
        looked_at: stored objects that were read for the bytes of a row.
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
    """The forecast of a backfill.

    Attributes:
        first: first day.
        last: last day, included.
        made_at: when it was made, aware, UTC.
        sites: the forecast of each site.
        per_minute: the budget, in requests a minute.
        sites_at_once: sites that a run fetches concurrently.
        price: USD for a GB and month.
        asked: requests that were sent for the forecast.
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
        """Hours at this budget; more if the answers are slower than the budget."""
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
        """All estimated figures, by name."""
        size = self._sum("bytes")
        price = Span(self.price, self.price, self.price)
        month = Span(size.low / GB, size.likely / GB, size.high / GB).times(price)
        whole = {name: self._sum(name) for name in ("samples", "rows", "requests", "bytes")}
        return {**whole, "hours": self.hours, "usd_per_month": month}

    def facts(self) -> dict[str, Any]:
        """The forecast for scripts; each figure as its likely value, with bounds in `low` and `high`."""
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
        """The forecast for the terminal: name, likely value, bounds."""
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
        """Describe in one line what the forecast is based on."""
        probes, whole = sum(site.probes for site in self.sites), sum(site.whole for site in self.sites)
        if not any(site.days for site in self.sites):
            return "nothing to do: all of these days are stored"
        looked = sum(site.looked_at for site in self.sites)
        stored = f" and {looked} stored objects" if looked else ""
        told = (
            f"It is based on {probes} sampled days, {whole} of them fetched whole{stored}, with {self.asked} requests. "
            "Its bounds assume that all days are like the smallest or the largest sampled day. Gaps between sampled "
            "days are found in short ranges only, and a much larger day between them is not found."
        )
        declared = [site.site for site in self.sites if site.declared]
        if declared:
            told += (
                f" Pages are too small for {', '.join(declared)}, so the configured intervals of its points were used."
            )
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
