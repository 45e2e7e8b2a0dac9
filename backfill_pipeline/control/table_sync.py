"""`backfill table sync`: the tables of a catalogue follow the store.

Put here: which catalogue is opened, with which access, and what the command prints. Keep out: how a table follows the
store (`dataset/iceberg.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from sqlalchemy.exc import SQLAlchemyError

from backfill_pipeline.errors import BackfillError, SettingError, StoreRefusedError, UsageError
from backfill_pipeline.settings import Settings, catalog_url
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from backfill_pipeline.dataset.iceberg import TableChange

_SHOWN = 300


def synced_tables(settings: Settings, url: str | None, sites: Sequence[str]) -> "list[TableChange]":
    """Make the tables of a catalogue follow the store.

    Args:
        settings: they name the store, and the catalogue when `url` is None.
        url: the URL of the catalogue.
        sites: the sites whose objects are registered or removed; empty: all sites.

    Raises:
        SettingError: no catalogue is named, or the extra `table` is not installed.
        UsageError: `url` is not the URL of a catalogue, or a site is in neither the store nor a table.
        StoreRefusedError: the catalogue cannot be reached, or refuses.
        StoreBusyError: the store is busy, or other writers change a table all the time.
    """
    place = _checked(settings, url)
    try:
        from backfill_pipeline.dataset.iceberg import sync_tables  # noqa: PLC0415 - pyiceberg is of an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "backfill_pipeline":
            raise
        raise SettingError(
            f"backfill table needs the package {error.name}, which is not installed",
            hint="run: python -m pip install 'backfill-pipeline[table]'",
        ) from error
    from pyiceberg import exceptions  # noqa: PLC0415 - as above

    store = settings_store(settings)
    refused = (exceptions.RESTError, exceptions.ValidationException, requests.RequestException, SQLAlchemyError)
    try:
        return sync_tables(store, _opened(settings, store, place), sites)
    except BackfillError:
        raise
    except (*refused, OSError, ValueError) as error:
        raise StoreRefusedError(
            f"the catalogue {shown_url(place)} cannot be used: {_text(settings, place, error)}",
            hint="check --catalog or BACKFILL_TABLE_CATALOG, BACKFILL_TABLE_WAREHOUSE and BACKFILL_TABLE_TOKEN",
        ) from error


def _checked(settings: Settings, url: str | None) -> str:
    if url is None:
        if settings.table_catalog is None:
            raise SettingError(
                "no catalogue is named: --catalog is absent and BACKFILL_TABLE_CATALOG is not set",
                hint="name sqlite:///FILE, postgresql://... or the http(s) URL of an Iceberg REST catalogue",
            )
        return settings.table_catalog
    try:
        return catalog_url(url)
    except ValueError as error:
        raise UsageError(f"--catalog is {shown_url(url)!r}, which is not {error}") from error


def _opened(settings: Settings, store: Store, url: str) -> "Catalog":
    """Open a catalogue. A SQL catalogue keeps its metadata in the store; a REST catalogue decides itself."""
    from pyiceberg.catalog.rest import RestCatalog  # noqa: PLC0415 - pyiceberg is of an extra
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 - as above

    options = store.table_options()
    if settings.table_warehouse:
        options["warehouse"] = settings.table_warehouse
    if url.startswith(("http://", "https://")):
        if settings.table_token:
            options["token"] = settings.table_token.get_secret_value()
        return RestCatalog("backfill", uri=url, **options)
    return SqlCatalog("backfill", uri=url, **({"warehouse": store.url("table/iceberg")} | options))


def shown_url(url: str) -> str:
    """A URL without its user and password."""
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}".partition("?")[0]


def _text(settings: Settings, url: str, error: Exception) -> str:
    """The text of an error on one line, without secrets."""
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in settings.secrets | {urlsplit(url).password or "", url}:
        text = text.replace(secret, "***") if secret else text
    return text[:_SHOWN]


def sync_facts(changes: "Sequence[TableChange]") -> list[dict[str, Any]]:
    """The changes for scripts."""
    return [asdict(change) for change in changes]


def sync_lines(changes: "Sequence[TableChange]") -> Iterator[str]:
    """The changes for the terminal: a line for each table, and one for each object that could not be registered."""
    for one in changes:
        counts = (
            (one.added, "added"),
            (one.replaced, "replaced"),
            (one.removed, "removed"),
            (one.unchanged, "unchanged"),
            (one.empty, "without rows"),
            (len(one.waiting), "changed meanwhile"),
            (len(one.failed), "failed"),
        )
        shown = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "no objects"
        yield f"{one.table}: {shown}; {one.rows:,} rows"
        yield from (f"failed  {key}: {why}" for key, why in sorted(one.failed.items()))
    if any(one.waiting for one in changes):
        yield "objects changed during the synchronisation; to register them, run the command again"
    if not changes:
        yield "the store has no object, and the catalogue has no table"
