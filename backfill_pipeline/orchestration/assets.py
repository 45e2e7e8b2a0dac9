"""The assets: one per site, day by day.

Put here: the definitions of the assets of the days, and of the external assets of the sites. Keep out: what a run does
(`day_run.py`).

One op makes the assets of all sites: a run pays for a process and a step once, whatever the number of sites
(`docs/decisions/0001-one-op-for-all-sites.md`). It is a generator that yields each day's events while the next days
are fetched, so that a crash costs no day that was stored.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

import dagster as dg

from backfill_pipeline.core.text import printable
from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.checks import check_specs
from backfill_pipeline.orchestration.day_materialization import CODE_VERSION
from backfill_pipeline.orchestration.day_run import DayRun
from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets
from backfill_pipeline.orchestration.freshness import freshness_evaluations, freshness_spec
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import (
    SOURCE,
    asset_key,
    day_partitions,
    days_of,
    output_name,
    source_key,
)
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.orchestration.stored_check import stored_evaluations
from backfill_pipeline.orchestration.ui_links import explore_link
from backfill_pipeline.settings import Settings

GROUP = "timeseries"
OBJECTS = "objects"
"""Key of the IO manager through which days are put and loaded."""

_NOT_NULL = dg.TableColumnConstraints(nullable=False)

POOL = "backfill_runs"
"""Concurrency pool of the op: `dagster.yaml` and the UI set how many runs may be started at the same time."""


def timeseries_assets(
    settings: Settings, sites: tuple[str, ...], *, now: Callable[[], datetime]
) -> dg.AssetsDefinition:
    """One day-partitioned asset for each of `sites`, all of one op.

    Args:
        settings: the settings.
        sites: site names, distinct.
        now: the instant, aware; decides which days are ready.
    """
    partitions = day_partitions(settings)
    keys = {output_name(site): asset_key(site) for site in sites}
    checks = {
        f"{output_name(site)}__{spec.name}": spec
        for site in sites
        for spec in (*check_specs(site, partitions), freshness_spec(site, settings))
    }

    @dg.op(
        name="timeseries",
        description="Fetch days of samples from the ACE API and store each as one verified object.",
        out={name: dg.Out(dg.Nothing, is_required=False, io_manager_key=OBJECTS) for name in keys}
        | {name: dg.Out(dg.Nothing, is_required=False) for name in checks},
        pool=POOL,
    )
    def timeseries(
        context: dg.OpExecutionContext, ace: AceResource, objects: dg.ResourceParam[DayIOManager]
    ) -> Iterator[object]:
        if not context.selected_asset_keys:
            context.log.info(
                "only checks were selected: `has_samples` compares recorded days with the store, and no day is fetched"
            )
            yield from stored_evaluations(context, settings, objects.store)
            yield from freshness_evaluations(context, settings, now())
            return
        try:
            days = days_of(context)
        except UsageError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        for exposure in exposed_secrets(settings):
            context.log.warning(str(exposure))
        yield from DayRun(context, settings, ace, objects, days, now()).events()

    return dg.AssetsDefinition(
        node_def=timeseries,
        keys_by_output_name=keys,
        check_specs_by_output_name=checks,
        specs=[_spec(site, partitions, settings) for site in sites],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(settings.days_per_run),
    )


def _spec(site: str, partitions: dg.PartitionsDefinition, settings: Settings) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(site),
        group_name=GROUP,
        partitions_def=partitions,
        skippable=True,
        kinds={"parquet", "s3" if settings.store.startswith("s3://") else "file"},
        owners=settings.owners,
        code_version=CODE_VERSION,
        deps=[source_key(site)],
        description=f"Raw samples of site `{printable(site)}` from the ACE API: one Parquet object per UTC day, sorted "
        "by point and time, read back and verified.",
        metadata={
            "site": site,
            "store": settings.store,
            **explore_link(settings, site),
            "dagster/column_schema": dg.TableSchema(
                [
                    dg.TableColumn(
                        "timestamp", "int64", description="Unix milliseconds UTC, inside the day", constraints=_NOT_NULL
                    ),
                    dg.TableColumn(
                        "point_name", "string", description="a configured, collect-enabled point", constraints=_NOT_NULL
                    ),
                    dg.TableColumn("value", "double", description="a finite number", constraints=_NOT_NULL),
                    dg.TableColumn(
                        "site_name", "string", description="the site, as ACE spells it", constraints=_NOT_NULL
                    ),
                ]
            ),
        },
    )


def source_assets(settings: Settings, sites: tuple[str, ...]) -> list[dg.AssetSpec]:
    """Define the sites in ACE as external assets, from which the days are fetched. Dagster only shows them.

    Args:
        settings: they name the API.
        sites: site names.
    """
    return [
        dg.AssetSpec(
            source_key(site),
            group_name=SOURCE,
            kinds={"api"},
            description=f"Site `{printable(site)}` in the ACE API.",
            metadata={"site": site, "api": settings.api_url},
        )
        for site in sites
    ]
