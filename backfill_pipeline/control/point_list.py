"""`backfill points --list`: points found by words in their names, descriptions, units, tags or devices.

Put here: which points are listed, and the form of a line. Keep out: the facts of a point
(`core/point_catalogue.py`) and where it is stored (`dataset/point_catalogue.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from backfill_pipeline.control.day_ranges import named_sites
from backfill_pipeline.core.point_catalogue import PointSpan, at_instant, fields_of, matches
from backfill_pipeline.core.text import printable
from backfill_pipeline.dataset.point_catalogue import read_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store

WIDTH = 80
"""Width in columns to which tags are wrapped. Names are not cut, so that they can be copied."""


@dataclass(frozen=True, slots=True)
class PointListing:
    """The points of a site that were found.

    Attributes:
        site: the site.
        words: the words of the search; empty: every point is listed.
        known: points in the site's catalogue.
        spans: the last row of each found point, by name.
    """

    site: str
    words: str
    known: int
    spans: Sequence[PointSpan]

    def facts(self) -> list[dict[str, Any]]:
        """The listing for scripts."""
        return [dict(fields_of(span)) for span in self.spans]

    def lines(self) -> Iterator[str]:
        """The listing for the terminal: a line with the facts of a point, and its name below."""
        if not self.known:
            yield printable(
                f"site {self.site} has no catalogue of points yet. The next run that stores a day writes it."
            )
            return
        for span in self.spans:
            yield printable(_title(span))
            yield f"    {printable(span.name)}"
            tags = " ".join([*span.marker_tags, *(f"{key}={value}" for key, value in span.kv_tags)])
            yield from (f"    {line}" for line in wrap(printable(tags), WIDTH - 4, break_long_words=False))
        found = f"{len(self.spans):,} of {self.known:,} points"
        yield f"{found} of site {printable(self.site)}" + (f" contain: {printable(self.words)}" if self.words else "")


def _title(span: PointSpan) -> str:
    """What a point is: description or object name, unit, device, and until when it was listed."""
    parts = [
        span.title if span.description or span.object_name else f"{span.name.rpartition('/')[2]}  {span.title}".strip(),
        span.device_name or span.device_address or "",
        f"not listed since {span.valid_to:%Y-%m-%d}" if span.valid_to else "",
    ]
    return "  ".join(part for part in parts if part)


def listed_points(settings: Settings, site: str, words: str) -> PointListing:
    """Find points of a site by words.

    Args:
        settings: they name the store.
        site: the site.
        words: each word has to occur in a field of the point, in upper or lower case; empty: all points.

    Raises:
        UsageError: the name is not a known site.
        DamagedObjectError: the catalogue cannot be read.
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    spans = at_instant(read_catalogue(settings_store(settings), site), None)
    if not spans:
        named_sites(settings, [site])
    return PointListing(site, words, len(spans), [span for span in spans if matches(span, words)])
