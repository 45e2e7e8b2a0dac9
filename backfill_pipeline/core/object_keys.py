"""Where a site-day's object lies: (site, day) <-> object key, both ways.

Put here: the one function that names objects and its inverse. Keep out: what a key becomes in a folder or a bucket
(`storage/`).
"""

import re
from datetime import date
from os.path import commonprefix

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.errors import UsageError

ROOT = "timeseries"
TEXT_ROOT = "timeseries_text"
"""Folder of the objects of texts, laid out as `ROOT`."""

SUFFIX = ".parquet"

LONGEST = 255
"""Bytes of a file's name at most, on any disk in use: a bucket would take more, whoever copies it would not."""

_KEY = re.compile(rf"({ROOT}|{TEXT_ROOT})/(\d{{4}})/(\d\d)/(\d\d)/([^/]+){re.escape(SUFFIX)}", re.DOTALL)
# What a folder on Windows, a URL or a listing could take amiss; `%` so that escapes are two-way.
_UNSAFE = re.compile(r"[%/\\:*?\"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]|^[. ]|[. ]$")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)")
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")


def object_key(site: str, day: date) -> str:
    """The key of a site-day, `timeseries/YYYY/MM/DD/<site>.parquet`.

    Letters of any script, digits, hyphens, dots and spaces within stay as they are; what a store or an operating
    system could take amiss is percent-encoded (UTF-8), so that no name leaves its folder.

    Raises:
        UsageError: the site has no name, or one that is too long for a file.
    """
    return f"{day_prefix(day)}{file_name(site)}"


def text_key(site: str, day: date) -> str:
    """The key of the texts of a site-day, `timeseries_text/YYYY/MM/DD/<site>.parquet`.

    Raises:
        UsageError: as `object_key`.
    """
    return f"{day_prefix(day, TEXT_ROOT)}{file_name(site)}"


def points_key(site: str) -> str:
    """The key of a site's catalogue of points, `points/<site>.parquet`.

    Raises:
        UsageError: as `object_key`.
    """
    return f"points/{file_name(site)}"


def index_key(site: str, year: int) -> str:
    """The key of the index of a site's days of a year, `index/<site>/YYYY.parquet`.

    Raises:
        UsageError: as `object_key`.
    """
    return f"index/{file_name(site).removesuffix(SUFFIX)}/{year:04}{SUFFIX}"


def rollup_key(site: str, month: date) -> str:
    """The key of a month of hourly values, `rollup/hour/YYYY/MM/<site>.parquet`.

    Raises:
        UsageError: as `object_key`.
    """
    return f"rollup/hour/{month:%Y/%m}/{file_name(site)}"


def snapshot_key(kind: str, subject: str, day: date) -> str:
    """The key of a snapshot, `snapshots/<kind>/YYYY/MM/DD/<site or client>.json`.

    Raises:
        UsageError: as `object_key`.
    """
    return f"snapshots/{kind}/{day:%Y/%m/%d}/{file_name(subject).removesuffix(SUFFIX)}.json"


def file_name(site: str) -> str:
    """A site's name as the name of a file, `<site>.parquet`.

    Raises:
        UsageError: the site has no name, or one that is too long for a file.
    """
    if not site:
        raise UsageError("a site without a name has no object")
    name = f"{_escape(site)}{SUFFIX}"
    if len(name) * 4 > LONGEST and len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        raise UsageError(
            f"site {site[:40]!r}...: no object can have so long a name; {LONGEST} bytes, as a file, at most"
        )
    return name


def day_prefix(day: date, root: str = ROOT) -> str:
    """What the keys of a day's objects begin with, of whatever site: `timeseries/YYYY/MM/DD/`."""
    return f"{root}/{day:%Y/%m/%d}/"


def range_prefix(first: date, last: date, root: str = ROOT) -> str:
    """The longest text that the keys of all days from `first` to `last` begin with."""
    ends = [day_prefix(first, root), day_prefix(last, root)]
    return commonprefix(ends)  # noqa: RUF071 - a prefix of keys, not a folder


def parse_key(key: str, root: str = ROOT) -> tuple[str, date]:
    """The site and day of an object's key.

    Args:
        key: the key.
        root: `ROOT` for the key of a day, `TEXT_ROOT` for the key of its texts.

    Raises:
        UsageError: no site-day has this key.
    """
    found = _KEY.fullmatch(key)
    if found is not None and found[1] == root:
        year, month, number, name = found.groups()[1:]
        try:
            site, day = _unescape(name), parse_day(f"{year}-{month}-{number}")
        except (UsageError, UnicodeError):
            site, day = "", date.min
        if site and f"{day_prefix(day, root)}{file_name(site)}" == key:
            return site, day
    raise UsageError(f"{key!r} is not the key of a site-day: {root}/YYYY/MM/DD/SITE{SUFFIX}")


def _escape(site: str) -> str:
    name = _UNSAFE.sub(lambda found: _percent(found.group()), site)
    return (
        _DEVICE.sub(lambda found: _percent(found.group()[0]) + found.group()[1:], name, count=1)
        if _DEVICE.match(name)
        else name
    )


def _unescape(name: str) -> str:
    def decoded(found: re.Match[str]) -> str:
        return bytes.fromhex(found.group().replace("%", "")).decode("utf-8", "surrogatepass")

    return _ESCAPED.sub(decoded, name)


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
