"""The IO manager: the one thing in Dagster that turns a day into an object, and objects into a table.

Put here: putting and loading by asset key and partition. Keep out: encodings and stores (`storage/`).
"""

from collections.abc import Mapping
from datetime import date
from functools import cached_property
from typing import Any

import dagster as dg

from backfill_pipeline.ace.client import PointList
from backfill_pipeline.core.day import parse_day
from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.core.point_states import States
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.dataset.point_catalogue import learn_states, update_catalogue
from backfill_pipeline.orchestration.partitions import site_of
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import (
    StoredDay,
    get_days,
    put_day,
    scan_days,
    settings_encoding,
    settings_store,
    stored_footers,
)
from backfill_pipeline.storage.store import Store


class DayIOManager(dg.ConfigurableIOManager):
    """Stores days as objects, and loads them for downstream assets.

    A run of several days stores each of them as soon as it is complete (`put`). Dagster itself passes an output
    once, at the end of the run, so that a crash would lose all of its days.

    Downstream assets load a day or a range of days as
    `pyarrow.Table`, `pandas.DataFrame`, `polars.DataFrame` or `polars.LazyFrame`, by the type of their parameter.
    """

    settings: dg.ResourceDependency[Settings]

    @cached_property
    def store(self) -> Store:
        """The store, opened when it is first needed."""
        return settings_store(self.settings)

    def put(self, day: DayRows, facts: Mapping[str, str]) -> StoredDay:
        """Store a day, read it back and verify it.

        Args:
            day: the day, whole.
            facts: more that the object's footer is to say.

        Raises:
            StoreRefusedError, StoreBusyError, DamagedObjectError: what the store did.
        """
        encoding = settings_encoding(self.settings)
        return put_day(self.store, day, facts=facts, encoding=encoding)

    def describe(self, points: PointList) -> list[PointSpan] | None:
        """Merge a site's list of points into its catalogue: the catalogue's rows; None when they did not change.

        Args:
            points: the list as it was fetched.

        Raises:
            StoreRefusedError, StoreBusyError: what the store did.
        """
        if points.listed_at is None:
            return None
        return update_catalogue(self.store, points.site, points.described(), points.listed_at)

    def learn_states(self, site: str, states: Mapping[str, States], day: date) -> bool:
        """Add the states that points had on a day to the site's catalogue; whether that changed it.

        Args:
            site: the site's name.
            states: by point, the few different texts that its samples had.
            day: the UTC day.

        Raises:
            StoreRefusedError, StoreBusyError: what the store did.
        """
        return learn_states(self.store, site, states, day)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store a day that an asset returns.

        Raises:
            dagster.DagsterInvariantViolationError: it returned something else.
        """
        if not isinstance(obj, DayRows):
            raise dg.DagsterInvariantViolationError(
                f"{context.asset_key.to_user_string()} returned {type(obj).__name__}, but this IO manager stores days "
                "(`DayRows`) alone: give the asset another `io_manager_key`"
            )
        stored = self.put(obj, {})
        context.add_output_metadata(
            {
                "dagster/row_count": stored.rows,
                "path": dg.MetadataValue.path(stored.url),
                "bytes": stored.bytes,
                "changed": stored.changed,
            }
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """The days of the input's partitions, oldest first, as the type that the downstream asset asks for.

        Raises:
            FileNotFoundError: days are not stored; the message names the site, the days and what to do.
            DamagedObjectError: an object is cut, or belongs to another site or day.
            StoreRefusedError, StoreBusyError: the store.
        """
        site = site_of(context.asset_key.path[-1])
        days = sorted(parse_day(key) for key in context.asset_partition_keys)
        wanted = context.dagster_type.typing_type
        kind = f"{getattr(wanted, '__module__', '')}.{getattr(wanted, '__qualname__', '')}"
        try:
            if kind.startswith("polars.") and kind.endswith(".LazyFrame"):
                if len(stored_footers(self.store, site, days)) < len(days):
                    raise FileNotFoundError
                return scan_days(self.store, site, days)
            table = get_days(self.store, site, days)
        except FileNotFoundError as error:
            there = stored_footers(self.store, site, days)
            missing = [day.isoformat() for day in days if day not in there]
            raise FileNotFoundError(
                f"site {site!r}, {', '.join(missing)}: no object in {self.settings.store}; materialise "
                f"{'this day' if len(missing) == 1 else 'these days'} of the site first"
            ) from error
        if kind.startswith("pandas."):
            return table.to_pandas()
        if kind.startswith("polars."):
            import polars as pl  # noqa: PLC0415 - only for assets that ask for it

            return pl.DataFrame(table)
        return table
