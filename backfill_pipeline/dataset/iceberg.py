"""Stored objects as Apache Iceberg tables: registered in place, no byte is copied.

The tables are `samples`, `texts`, `hourly` and `points` of one namespace. A listing of the store is the truth. One
commit adds new objects, replaces those that were stored again, and removes those that are gone. Readers see the table
before or after that commit.

Put here: the tables, and how they follow the store. Keep out: which catalogue is opened and with which credentials
(`table_catalogue.py`), and which version of an object is registered (`registered_files.py`).
"""

import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import TruncateTransform
from pyiceberg.typedef import Record

from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.object_keys import ROOT, TEXT_ROOT, file_name, parse_key
from backfill_pipeline.core.point_catalogue import SCHEMA as POINTS
from backfill_pipeline.core.schema import SCHEMA, TEXT_SCHEMA
from backfill_pipeline.dataset.registered_files import RegisteredFile, read_registered, record_registered
from backfill_pipeline.dataset.rollup import SCHEMA as HOURLY
from backfill_pipeline.errors import BackfillError, DamagedObjectError, StoreBusyError, UsageError, quoted
from backfill_pipeline.storage.store import Stat, Store
from backfill_pipeline.storage.texts import object_end

NAMESPACE = "backfill"

TRIES = 5
"""Times that a commit is tried while other writers change the table."""

_AT_ONCE = 32
_PROPERTIES = {
    "format-version": "2",
    # A commit after another writer's must compare the listing with the table again, so the library must not retry it.
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}


@dataclass(frozen=True, slots=True)
class TableKind:
    """A table and the objects that it is made of.

    Attributes:
        name: the name of the table.
        prefix: the beginning of its objects' keys.
        schema: the columns of its objects.
        root: the root of the keys of site-days; empty where an object has more than a day.
    """

    name: str
    prefix: str
    schema: pa.Schema
    root: str = ""


_SITE = pa.field("site_name", pa.string())

KINDS = (
    TableKind("samples", f"{ROOT}/", SCHEMA, ROOT),
    TableKind("texts", f"{TEXT_ROOT}/", TEXT_SCHEMA, TEXT_ROOT),
    TableKind("hourly", "rollup/hour/", HOURLY),
    # Its objects have no column for the site: readers take the value from the partition, as Iceberg specifies.
    TableKind("points", "points/", POINTS.append(_SITE)),
)


@dataclass
class TableChange:
    """What a synchronisation did with one table.

    Attributes:
        table: its full name.
        added: objects that are new in it.
        replaced: objects that were registered again, since they were stored again.
        removed: objects that are no longer in the store.
        unchanged: objects that the table had as they are.
        empty: objects without rows, which are not in the table.
        rows: rows of the chosen sites in the table, as its manifests count them.
        waiting: keys of objects that changed meanwhile; the next synchronisation registers them.
        failed: by object key, why an object could not be registered.
    """

    table: str
    added: int = 0
    replaced: int = 0
    removed: int = 0
    unchanged: int = 0
    empty: int = 0
    rows: int = 0
    waiting: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def sync_tables(store: Store, catalog: Catalog, sites: Collection[str] = ()) -> list[TableChange]:
    """Make the tables of a catalogue follow the store.

    Args:
        store: where the objects are.
        catalog: where the tables are; missing tables are created.
        sites: the sites whose objects are registered or removed; empty: all sites.

    Raises:
        UsageError: a site has no object and no row in a table.
        StoreRefusedError, StoreBusyError: the store cannot be read, or other writers change a table all the time.
    """
    chosen = {file_name(site): site for site in sites}
    listed = {kind.name: _listed(store, kind, chosen) for kind in KINDS}
    unknown = chosen.keys() - {_name(key) for each in listed.values() for key in each}
    if unknown:  # a site without objects may have rows, which are removed
        tables = [_opened(catalog, kind, create=False) for kind in KINDS]
        unknown -= {_name(path) for table in tables if table for path in _entries(table, unknown)}
    if unknown:
        site = min(chosen[name] for name in unknown)
        raise UsageError(f"site {quoted(site)} has no object in {store.url('')} and no row in a table", about="site")
    catalog.create_namespace_if_not_exists(NAMESPACE)
    opened = ((kind, _opened(catalog, kind, create=bool(listed[kind.name]))) for kind in KINDS)
    return [_synced(store, table, kind, listed[kind.name], chosen) for kind, table in opened if table is not None]


def _listed(store: Store, kind: TableKind, chosen: Collection[str]) -> dict[str, Stat]:
    """The objects of a table, by key."""
    found = (stat for stat in store.list(kind.prefix) if stat.key.endswith(".parquet"))
    return {stat.key: stat for stat in found if not chosen or _name(stat.key) in chosen}


def _name(place: str) -> str:
    """The last part of an object key or of a path on any system."""
    return re.split(r"[/\\]", place)[-1]


def _opened(catalog: Catalog, kind: TableKind, *, create: bool) -> Table | None:
    """Open a table, with the columns of the present version; create it if it does not exist."""
    name = (NAMESPACE, kind.name)
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        if not create:
            return None
        try:
            table = catalog.create_table(name, schema=kind.schema, properties=_PROPERTIES)
        except TableAlreadyExistsError:  # another process was faster
            table = catalog.load_table(name)
    if table.spec().is_unpartitioned() and table.current_snapshot() is None:
        _prepare(table, kind)
    if set(kind.schema.names) - set(table.schema().column_names):
        with table.update_schema() as columns:
            columns.union_by_name(kind.schema)
    return table


def _prepare(table: Table, kind: TableKind) -> None:
    """Give a new table its partitions, and the mapping of column names, since objects have no field ids."""
    with table.transaction() as change:
        with change.update_spec() as spec:
            spec.add_identity("site_name")
            if kind.root:
                spec.add_field("timestamp", TruncateTransform(DAY_MS), "day_start")
        change.set_properties({"schema.name-mapping.default": table.schema().name_mapping.model_dump_json()})


def _entries(table: Table, chosen: Collection[str]) -> dict[str, list[tuple[int, DataFile]]]:
    """The registered files of some sites, by path: the snapshot that registered each of them, and the file."""
    found: dict[str, list[tuple[int, DataFile]]] = {}
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            path = entry.data_file.file_path
            if not chosen or _name(path) in chosen:
                found.setdefault(path, []).append((entry.snapshot_id or 0, entry.data_file))
    return found


def _synced(
    store: Store, table: Table, kind: TableKind, listed: dict[str, Stat], chosen: Collection[str]
) -> TableChange:
    """Make one table follow a listing."""
    for _ in range(TRIES):
        try:
            return _committed(store, table, kind, listed, _entries(table, chosen))
        except CommitFailedException:
            table.refresh()
            listed = _listed(store, kind, chosen)
    raise StoreBusyError(
        f"cannot change the table {NAMESPACE}.{kind.name}: other processes changed it {TRIES} times in a row",
        hint="run the command again when no other synchronisation is running",
    )


def _committed(
    store: Store,
    table: Table,
    kind: TableKind,
    listed: Mapping[str, Stat],
    entries: Mapping[str, list[tuple[int, DataFile]]],
) -> TableChange:
    change = TableChange(f"{NAMESPACE}.{kind.name}")
    sites = _sites(kind, listed, entries, change)
    known = read_registered(store, str(table.metadata.table_uuid), sorted(set(sites.values())))
    doubtful = {}
    for key in sites:
        row, had = known.get(key), [snapshot for snapshot, _ in entries.get(store.url(key), ())]
        if row is None or not row.matches(listed[key], had):
            doubtful[key] = listed[key]
        elif row.snapshot_id is None:
            change.empty += 1
        else:
            change.unchanged += 1
    files = _described(store, table, kind, sites, doubtful, change)
    paths = {store.url(key) for key in listed}
    gone = [path for path in entries if path not in paths]
    after = {stat.key: stat for stat in store.list(kind.prefix)} if doubtful or gone else {}
    for key in [key for key in files if after.get(key) != doubtful[key]]:
        change.waiting.append(key)
        del files[key]
    there = {store.url(key) for key in after}  # another process may have stored and registered it since the listing
    gone = [path for path in gone if path not in there]
    snapshot_id = _commit(table, files, [*gone, *map(store.url, files)], entries)
    for key, file in files.items():
        if file is None:
            change.empty += 1
        elif store.url(key) in entries:
            change.replaced += 1
        else:
            change.added += 1
    change.removed = len(gone)
    change.rows = _rows(store, entries, gone, files)
    _record(store, table, sites, {key: (doubtful[key], file) for key, file in files.items()}, snapshot_id)
    return change


def _commit(
    table: Table,
    files: Mapping[str, DataFile | None],
    old: Iterable[str],
    entries: Mapping[str, list[tuple[int, DataFile]]],
) -> int | None:
    """Replace old entries by files in one commit, and return its snapshot; None when there is nothing to change.

    Raises:
        CommitFailedException: another writer changed the table since its entries were read.
    """
    new = [file for file in files.values() if file is not None]
    dropped = [file for path in old for _, file in entries.get(path, ())]
    if not new and not dropped:
        return None
    with table.transaction() as change, change.update_snapshot().overwrite() as producer:
        for file in dropped:
            producer.delete_data_file(file)
        for file in new:
            producer.append_data_file(file)
    return producer.snapshot_id


def _record(
    store: Store,
    table: Table,
    sites: Mapping[str, str],
    done: Mapping[str, tuple[Stat, DataFile | None]],
    snapshot_id: int | None,
) -> None:
    """Record which version of each object was registered, after the commit."""
    by_site: dict[str, dict[str, RegisteredFile]] = {}
    for key, (stat, file) in done.items():
        row = RegisteredFile(stat.bytes, stat.etag, None if file is None else snapshot_id)
        by_site.setdefault(sites[key], {})[key] = row
    for site, rows in by_site.items():
        record_registered(store, str(table.metadata.table_uuid), site, rows)


def _rows(
    store: Store,
    entries: Mapping[str, list[tuple[int, DataFile]]],
    gone: Iterable[str],
    files: Mapping[str, DataFile | None],
) -> int:
    left = entries.keys() - set(gone) - {store.url(key) for key in files}
    kept = sum(file.record_count for path in left for _, file in entries[path])
    return kept + sum(file.record_count for file in files.values() if file is not None)


def _sites(
    kind: TableKind, listed: Mapping[str, Stat], entries: Mapping[str, Any], change: TableChange
) -> dict[str, str]:
    """The site of each listed object, by key. An object with another name is reported and not registered."""
    names: dict[str, str] = {}
    for files in entries.values():
        for _, file in files:
            if isinstance(file.partition[0], str):
                names[file_name(file.partition[0])] = file.partition[0]
    found = {}
    for key in listed:
        try:
            if kind.root:
                found[key] = parse_key(key, kind.root)[0]
            else:  # a site's name is in its own file name, whatever the folder
                found[key] = names.get(_name(key)) or parse_key(f"{ROOT}/2000/01/01/{_name(key)}")[0]
        except UsageError:
            change.failed[key] = "its name is not the key of an object of a site"
    return found


def _described(
    store: Store,
    table: Table,
    kind: TableKind,
    sites: Mapping[str, str],
    doubtful: Mapping[str, Stat],
    change: TableChange,
) -> dict[str, DataFile | None]:
    """Read the footers of some objects; None for an object without rows. Reports objects that cannot be registered."""

    def described(key: str) -> DataFile | BackfillError | None:
        try:
            return _data_file(store, table, kind, key, sites[key], doubtful[key].bytes)
        except FileNotFoundError:  # deleted since it was listed; the second listing leaves it out
            return None
        except DamagedObjectError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = dict(zip(doubtful, pool.map(described, doubtful), strict=True))
    files = {}
    for key, found in read.items():
        if isinstance(found, BackfillError):
            change.failed[key] = str(found)
        else:
            files[key] = found
    return files


def _data_file(store: Store, table: Table, kind: TableKind, key: str, site: str, size: int) -> DataFile | None:
    """Describe an object for a manifest, from its footer.

    Raises:
        FileNotFoundError: there is no such object.
        DamagedObjectError: it cannot be read, has other columns, or has rows of another day or site.
    """
    end = object_end(store, key)
    try:
        metadata = pq.read_metadata(pa.BufferReader(end))
        names = set(metadata.schema.to_arrow_schema().names)
        missing = {one.name for one in kind.schema if not one.nullable} - names
        if missing or names - set(kind.schema.names):
            raise DamagedObjectError(f"its columns are {', '.join(sorted(names))}")
        if not metadata.num_rows:
            return None
        schema: Schema = table.schema()
        statistics = data_file_statistics_from_parquet_metadata(
            metadata,
            compute_statistics_plan(schema, table.properties),
            parquet_path_to_id_mapping(schema),
        )
        wanted = Record(site, day_window(parse_key(key, kind.root)[1]).start * 1000) if kind.root else Record(site)
        if "site_name" in names and statistics.partition(table.spec(), schema) != wanted:
            raise DamagedObjectError("it has rows of another site or day")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedObjectError(f"it cannot be registered ({str(error).splitlines()[0][:120]})") from error
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=store.url(key),
        file_format=FileFormat.PARQUET,
        partition=wanted,
        file_size_in_bytes=size,
        sort_order_id=None,
        spec_id=table.metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
