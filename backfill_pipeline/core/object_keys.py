"""Object keys: the path of each stored object, from site and day to key and back.

Put here: the functions that build and parse keys. Keep out: how a folder or a bucket stores objects (`storage/`).
"""

import re
from datetime import date
from os.path import commonprefix

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.errors import UsageError

ROOT = "timeseries"
TEXT_ROOT = "timeseries_text"
"""Folder of the objects of texts; its subfolders are as in `ROOT`."""

INDEX_ROOT = "index"
"""Folder of the index of stored days."""

SUFFIX = ".parquet"

LONGEST = 255
"""The longest name of a file, in bytes. A bucket allows longer names, but then its objects cannot be copied to disk."""

_KEY = re.compile(rf"({ROOT}|{TEXT_ROOT})/(\d{{4}})/(\d\d)/(\d\d)/([^/]+){re.escape(SUFFIX)}", re.DOTALL)
# Characters that have a meaning in a Windows path, a URL or a listing; also `%`, so that decoding is unambiguous.
_UNSAFE = re.compile(r"[%/\\:*?\"<>|\x00-\x1f\x7f-\x9f\ud800-\udfff]|^[. ]|[. ]$")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)")
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")


def object_key(site: str, day: date) -> str:
    """The key of a site-day, `timeseries/YYYY/MM/DD/<site>.parquet`.

    Letters of any script, digits, hyphens, and dots and spaces inside the name are unchanged. Characters that have a
    meaning for a store or an operating system are percent-encoded (UTF-8), so no site's name can leave its folder.

    Raises:
        UsageError: the site's name is empty, or too long for the name of a file.
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
    return f"{INDEX_ROOT}/{file_name(site).removesuffix(SUFFIX)}/{year:04}{SUFFIX}"


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
    """The name of a site's file, `<site>.parquet`.

    Raises:
        UsageError: the site's name is empty, or too long for the name of a file.
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
    """The prefix of the keys of a day's objects, of all sites: `timeseries/YYYY/MM/DD/`."""
    return f"{root}/{day:%Y/%m/%d}/"


def range_prefix(first: date, last: date, root: str = ROOT) -> str:
    """The longest common prefix of the keys of all days from `first` to `last`."""
    ends = [day_prefix(first, root), day_prefix(last, root)]
    return commonprefix(ends)  # noqa: RUF071 - a prefix of keys, not a folder


def parse_key(key: str, root: str = ROOT) -> tuple[str, date]:
    """Parse the key of an object into its site and day.

    Args:
        key: the key.
        root: `ROOT` for the key of a day, `TEXT_ROOT` for the key of its texts.

    Raises:
        UsageError: the key is not the key of a site-day.
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
