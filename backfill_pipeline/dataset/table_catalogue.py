"""The catalogue of the tables, as the settings name it: opened, and made to follow the store.

pyiceberg is imported inside the functions, since it is of the extra `table`. Put here: which catalogue is opened, with
which access, and what its errors mean. Keep out: how a table follows the store (`iceberg.py`).
"""

from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from sqlalchemy.exc import SQLAlchemyError

from backfill_pipeline.errors import BackfillError, SettingError, StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from backfill_pipeline.dataset.iceberg import TableChange

_SHOWN = 300


def follow_store(settings: Settings, sites: Collection[str] = ()) -> "list[TableChange]":
    """Make the tables of the configured catalogue follow the store.

    Args:
        settings: they name the store and the catalogue.
        sites: the sites whose objects are registered or removed; empty: all sites.

    Raises:
        SettingError: no catalogue is named, or the extra `table` is not installed.
        UsageError: a site is in neither the store nor a table.
        StoreRefusedError: the catalogue cannot be reached, or refuses.
        StoreBusyError: the store is busy, or other writers change a table all the time.
    """
    url = settings.table_catalog
    if url is None:
        raise SettingError(
            "no catalogue is named: --catalog is absent and BACKFILL_TABLE_CATALOG is not set",
            hint="name sqlite:///FILE, postgresql://... or the http(s) URL of an Iceberg REST catalogue",
        )
    try:
        return _followed(settings, url, sites)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "backfill_pipeline":
            raise
        extra = "postgres" if name == "psycopg2" else "table"
        raise SettingError(
            f"tables need the package {name}, which is not installed",
            hint=f"run: python -m pip install 'backfill-pipeline[{extra}]'",
        ) from error


def _followed(settings: Settings, url: str, sites: Collection[str]) -> "list[TableChange]":
    from pyiceberg import exceptions  # noqa: PLC0415 - pyiceberg is of an extra

    from backfill_pipeline.dataset.iceberg import sync_tables  # noqa: PLC0415 - as above

    store = settings_store(settings)
    refused = (exceptions.RESTError, exceptions.ValidationException, requests.RequestException, SQLAlchemyError)
    try:
        return sync_tables(store, open_catalogue(settings, store), sites)
    except BackfillError:
        raise
    except (*refused, OSError, ValueError) as error:
        raise StoreRefusedError(
            f"the catalogue {shown_url(url)} cannot be used: {_text(settings, url, error)}",
            hint="check --catalog or BACKFILL_TABLE_CATALOG, BACKFILL_TABLE_WAREHOUSE and BACKFILL_TABLE_TOKEN",
        ) from error


def open_catalogue(settings: Settings, store: Store) -> "Catalog":
    """Open the configured catalogue.

    A SQL catalogue keeps the metadata of its tables in the store. A REST catalogue decides itself where they are.

    Args:
        settings: they name the catalogue.
        store: where the objects are; its access is the access to metadata too.
    """
    from pyiceberg.catalog.rest import RestCatalog  # noqa: PLC0415 - pyiceberg is of an extra
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 - as above

    url = settings.table_catalog or ""
    options = store.table_options()
    if settings.table_warehouse:
        options["warehouse"] = settings.table_warehouse
    if url.startswith(("http://", "https://")):
        if settings.table_token:
            options["token"] = settings.table_token.get_secret_value()
        return RestCatalog("backfill", uri=url, **options)
    url = url.replace("postgresql://", "postgresql+psycopg2://", 1)  # the driver of the extra `postgres`
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
