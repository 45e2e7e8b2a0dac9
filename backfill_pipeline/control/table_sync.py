"""`backfill table sync`: the tables of a catalogue follow the store.

Put here: the option `--catalog`, and what the command prints. Keep out: which catalogue is opened, with which access
(`dataset/table_catalogue.py`), and how a table follows the store (`dataset/iceberg.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from backfill_pipeline.dataset.table_catalogue import follow_store, shown_url
from backfill_pipeline.errors import UsageError
from backfill_pipeline.setting_formats import catalog_url
from backfill_pipeline.settings import Settings

if TYPE_CHECKING:
    from backfill_pipeline.dataset.iceberg import TableChange


def synced_tables(settings: Settings, url: str | None, sites: Sequence[str]) -> "list[TableChange]":
    """Make the tables of a catalogue follow the store.

    Args:
        settings: they name the store, and the catalogue when `url` is None.
        url: the URL of the catalogue, as the command has it.
        sites: the sites whose objects are registered or removed; empty: all sites.

    Raises:
        UsageError: `url` is not the URL of a catalogue, or a site is in neither the store nor a table.
        SettingError, StoreRefusedError, StoreBusyError: see `follow_store`.
    """
    if url is not None:
        try:
            url = catalog_url(url)
        except ValueError as error:
            raise UsageError(f"--catalog is {shown_url(url)!r}, which is not {error}") from error
        settings = settings.model_copy(update={"table_catalog": url})
    return follow_store(settings, sites)


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
