"""The IO manager: the one thing in Dagster that turns a day into an object, and an object into a table.

Put here: putting and loading by asset key and partition. Keep out: encodings and stores (`storage/`).
"""

from typing import Any

import dagster as dg

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.orchestration.partitions import site_of
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import StoredDay, get_day, put_day
from backfill_pipeline.storage.store import Store, open_store


class DayIOManager(dg.ConfigurableIOManager):
    """Days as objects of the store that the settings name.

    A run of several days puts each of them as soon as it is whole (`put`); Dagster itself would hand over its output
    once, at the run's end. Downstream assets load a day or a range of days as `pyarrow.Table`, `pandas.DataFrame` or
    `polars.LazyFrame`, by the type that they ask for.
    """

    def store(self) -> Store:
        """The store."""
        settings = Settings.load()
        secret = settings.s3_secret_access_key
        return open_store(
            settings.store,
            access_key=settings.s3_access_key_id,
            secret=secret.get_secret_value() if secret else None,
            endpoint=settings.s3_endpoint_url,
            region=settings.s3_region,
        )

    def put(self, day: DayRows, facts: dict[str, str]) -> StoredDay:
        """Store a day, read it back and verify it.

        Args:
            day: the day, whole.
            facts: more that the object's footer is to say.
        """
        return put_day(self.store(), day, facts=facts)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store a day that an asset returns."""
        if not isinstance(obj, DayRows):
            raise dg.DagsterInvariantViolationError(
                f"{context.asset_key.to_user_string()} returned {type(obj).__name__}; this IO manager stores days "
                "(`DayRows`); give assets of your own another IO manager"
            )
        stored = self.put(obj, {})
        context.add_output_metadata({"dagster/row_count": stored.rows, "path": stored.url, "bytes": stored.bytes})

    def load_input(self, context: dg.InputContext) -> Any:
        """The days of the input's partitions, one after the other, as the type that the asset asks for."""
        import pyarrow as pa  # noqa: PLC0415 - only downstream assets need it

        site = site_of(context.asset_key.path[-1])
        store = self.store()
        table = pa.concat_tables(get_day(store, site, parse_day(key)) for key in context.asset_partition_keys)
        wanted = f"{context.dagster_type.typing_type.__module__}.{context.dagster_type.typing_type.__qualname__}"
        if wanted.startswith("pandas."):
            return table.to_pandas()
        if wanted.startswith("polars."):
            import polars as pl  # noqa: PLC0415 - only for assets that ask for it

            frame = pl.DataFrame(table)
            return frame.lazy() if wanted.endswith("LazyFrame") else frame
        return table
