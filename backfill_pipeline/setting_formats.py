"""The forms of values of settings: each function checks a value, and returns it in the form that the settings keep.

A `ValueError` says which form is expected. Put here: forms that pydantic does not know. Keep out: which setting has
which form (`settings.py`).
"""

import ipaddress
import re
from datetime import date
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from backfill_pipeline import apprise_urls

PAGE_SIZES = (3, 10, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 300_000, 500_000)
"""The page sizes that `timeseries/paginated` accepts; any other size gets the status 400."""

_OWNER = re.compile(r"team:[A-Za-z0-9_.-]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


def page_size(value: int) -> int:
    """Check a page size of the API."""
    if value not in PAGE_SIZES:
        raise ValueError(f"one of {', '.join(map(str, PAGE_SIZES))}")
    return value


def _has_place(value: str) -> bool:
    """Whether a URL names a host, and a valid port if one is given."""
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0 and not any(c.isspace() for c in value)
    except ValueError:
        return False


def _may_have_place(value: str) -> bool:
    """As `_has_place`, but the host may be absent or several: `postgresql:///db`, `postgresql://a:1,b:2/db`."""
    place = value.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return not place or "," in place or _has_place(value)


def in_a_header(value: SecretStr) -> SecretStr:
    """Check a text that an HTTP header carries."""
    if not all("!" <= character <= "~" for character in value.get_secret_value()):
        raise ValueError("visible ASCII characters, on one line")
    return value


def http_url(value: str) -> str:
    """Check a URL of http or https; without a slash at its end."""
    if not value.startswith(("http://", "https://")) or not _has_place(value):
        raise ValueError("a URL that begins with http:// or https://")
    return value.rstrip("/")


def alert_url(value: SecretStr) -> SecretStr:
    """Check the URL of a webhook or of apprise."""
    text = value.get_secret_value()
    if text.startswith(("http://", "https://")):
        return SecretStr(http_url(text))
    if "://" not in text or not apprise_urls.is_valid(text):
        raise ValueError("the URL of a webhook or of apprise")
    return value


def store_url(value: str) -> str:
    """Check a folder or the URL of a store."""
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in ("file", "s3"):
        raise ValueError("a folder, file:///folder, or s3://bucket[/prefix]")
    if not value.strip() or (scheme == "s3" and not rest.strip("/")):
        raise ValueError("a folder, file:///folder, or s3://bucket[/prefix]")
    return value


def limiter_url(value: str) -> str:
    """Check the URL of the request budget."""
    is_file = value.startswith("sqlite:///") and value.removeprefix("sqlite:///").strip("/ ")
    if not is_file and not (value.startswith(("postgresql://", "redis://", "rediss://")) and _may_have_place(value)):
        raise ValueError("sqlite:///FILE, postgresql://... or redis://...")
    return value


def catalog_url(value: str) -> str:
    """Check the URL of a table catalogue.

    Raises:
        ValueError: the text is the expected form.
    """
    is_file = value.startswith("sqlite:///") and value.removeprefix("sqlite:///").strip("/ ")
    is_server = value.startswith(("http://", "https://")) and _has_place(value)
    if not is_file and not is_server and not (value.startswith("postgresql://") and _may_have_place(value)):
        raise ValueError("sqlite:///FILE, postgresql://... or an http(s) URL")
    return value


def postgres_url(value: SecretStr) -> SecretStr:
    """Check the URL of a Postgres database."""
    text = value.get_secret_value()
    if not text.startswith("postgresql://") or not _may_have_place(text):
        raise ValueError("postgresql://USER:PASSWORD@HOST/DATABASE")
    return value


def redis_url(value: SecretStr) -> SecretStr:
    """Check the URL of a Redis server."""
    text = value.get_secret_value()
    if not text.startswith(("redis://", "rediss://")) or not _may_have_place(text):
        raise ValueError("redis://:PASSWORD@HOST/0")
    return value


def host_names(value: object) -> object:
    """Split host names, in lower case; an IPv6 address may be in brackets, as in URLs."""
    if not isinstance(value, str):
        return value
    names = [name.strip().lower().removeprefix("[").removesuffix("]") for name in value.split(",")]
    if any(name and not (_HOST_NAME.fullmatch(name) or _is_address(name)) for name in names):
        raise ValueError("host names")
    return tuple(dict.fromkeys(name for name in names if name))


def owner_names(value: object) -> object:
    """Split owners of assets; Dagster refuses to load definitions with any other form."""
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(",")]
    if any(name and not _OWNER.fullmatch(name) for name in names):
        raise ValueError("owners")
    return tuple(dict.fromkeys(name for name in names if name))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def site_names(value: object) -> object:
    """Split site names; each is kept once."""
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",")]
        return tuple(dict.fromkeys(name for name in names if name))
    return value


def time_zones(value: object) -> object:
    """Split `ZONE` or `SITE=ZONE, ...` into pairs; a zone without a site is that of all other sites."""
    if not isinstance(value, str):
        return value
    pairs = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    found = {site.strip(): zone.strip() for site, _, zone in pairs}
    if len(found) < len(pairs):
        raise ValueError("a site has two time zones")
    for zone in found.values():
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("an IANA name") from None
    return tuple(found.items())


def known_day(value: date) -> date:
    """Check a first day."""
    if value.year < 1970:  # noqa: PLR2004 - the epoch: no sample is older
        raise ValueError("a day from 1970-01-01 on, as YYYY-MM-DD")
    return value


def password_in(text: str) -> str:
    """Return the password in a URL; empty without one."""
    return text.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
