"""Assembly: settings -> Dagster definitions.

Put here: which assets, jobs and resources there are. Keep out: what they do.
"""

import logging
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from backfill_pipeline.ace.client import key_id, open_client
from backfill_pipeline.ace.known_sites import KnownSites
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.errors import BackfillError, SettingError, TransientError, WaitTooLongError
from backfill_pipeline.orchestration.alerts import failed_run_sensor
from backfill_pipeline.orchestration.assets import OBJECTS, source_assets, timeseries_assets
from backfill_pipeline.orchestration.coverage import coverage_asset
from backfill_pipeline.orchestration.coverage_refresh import coverage_sensor
from backfill_pipeline.orchestration.freshness import CHECK as FRESH
from backfill_pipeline.orchestration.freshness import freshness_sensor
from backfill_pipeline.orchestration.index import index_asset
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.json_logs import log_as_set
from backfill_pipeline.orchestration.partitions import (
    COVERAGE_JOB,
    FRESHNESS_JOB,
    INDEX_JOB,
    ROLLUP_JOB,
    SNAPSHOTS_JOB,
    asset_key,
)
from backfill_pipeline.orchestration.point_catalogues import point_catalogue_assets
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.orchestration.rollup import rollup_assets, rollup_sensor
from backfill_pipeline.orchestration.sensors import healing_sensor, new_days_sensor
from backfill_pipeline.orchestration.snapshots import snapshot_assets, snapshots_sensor
from backfill_pipeline.orchestration.tables import TABLES_JOB, tables_asset, tables_sensor
from backfill_pipeline.settings import Settings

JOB = "backfill_job"

DESCRIPTIONS = {
    JOB: "Fetch days of all sites and store them. A range of days may be one run.",
    COVERAGE_JOB: "Show what arrived. It sends no request to the API.",
    ROLLUP_JOB: "Compute hourly values of months from stored days. It sends no request to the API.",
    INDEX_JOB: "Make the index of stored days from the objects. It sends no request to the API.",
    FRESHNESS_JOB: "Evaluate the check `fresh` of all sites. It sends no request to the API.",
    SNAPSHOTS_JOB: "Store what the API says today and cannot say later.",
    TABLES_JOB: "Make the tables of the catalogue follow the store. It sends no request to the API.",
}
"""What Dagster's UI shows of each job."""

_LOG = logging.getLogger(__name__)

LOOK_S = 10.0
"""How long the list of sites is waited for when an earlier list is known, in seconds.

Dagster waits only a few minutes for the definitions to load.
"""


def build_defs(
    settings: Settings,
    *,
    resources: Mapping[str, Any] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dg.Definitions:
    """Build all definitions. It requests the sites from the API only when `ACE_SITES` is not set.

    Args:
        settings: the settings.
        resources: in place of our own, by key (`ace`, `objects`): for tests and for extensions.
        now: returns the present time, aware; it decides which days are ready.

    Raises:
        SettingError: the sites are not set and the API does not list them.
    """
    log_as_set(settings)
    sites = sites_of(settings)
    assets = timeseries_assets(settings, sites, now=now)
    rollups = rollup_assets(settings, sites)
    index = index_asset(settings, sites)
    fresh = dg.AssetSelection.checks(*(dg.AssetCheckKey(asset_key(site), FRESH) for site in sites))
    shown = coverage_asset(settings, sites, now=now)
    snapshots = [snapshot_assets(settings, sites, now=now)] if settings.snapshots_from else []
    tables = [tables_asset(settings, sites)] if settings.table_catalog else []
    jobs = {
        JOB: dg.AssetSelection.assets(assets),
        COVERAGE_JOB: dg.AssetSelection.assets(shown),
        ROLLUP_JOB: dg.AssetSelection.assets(rollups),
        INDEX_JOB: dg.AssetSelection.assets(index),
        FRESHNESS_JOB: fresh,
    }
    if snapshots:
        jobs[SNAPSHOTS_JOB] = dg.AssetSelection.assets(*snapshots)
    if tables:
        jobs[TABLES_JOB] = dg.AssetSelection.assets(*tables)
    held = dg.ResourceDefinition.hardcoded_resource(settings)  # as an object: no secret becomes run config
    own = {"ace": AceResource(settings=held), OBJECTS: DayIOManager(settings=held)}
    return dg.Definitions(
        assets=[
            *source_assets(settings, sites),
            assets,
            point_catalogue_assets(settings, sites, now=now),
            rollups,
            index,
            shown,
            *snapshots,
            *tables,
        ],
        jobs=[
            dg.define_asset_job(name, selection=selection, description=DESCRIPTIONS[name])
            for name, selection in jobs.items()
        ],
        sensors=[
            new_days_sensor(settings, sites, JOB, now=now),
            healing_sensor(settings, sites, JOB, now=now),
            coverage_sensor(sites, now=now),
            rollup_sensor(settings, sites, now=now),
            freshness_sensor(settings, sites, now=now),
            failed_run_sensor(settings),
            *(snapshots_sensor(settings, now=now) for _ in snapshots),
            *(tables_sensor(sites, now=now) for _ in tables),
        ],
        resources=own | dict(resources or {}),
        executor=dg.in_process_executor,
    )


def sites_of(settings: Settings) -> tuple[str, ...]:
    """The sites to backfill: `ACE_SITES`, or else every site of the key that is not archived.

    While the API is down, or asks for a pause, they are those that it listed last.

    Raises:
        SettingError: they are not set, and the API neither lists them nor has listed them before.
    """
    if settings.sites:
        return settings.sites
    if settings.api_key is None:
        raise SettingError(
            "neither ACE_SITES nor ACE_API_KEY is set, so no site is known",
            hint="set ACE_SITES=site-one,site-two, or ACE_API_KEY so that the API lists the sites of the key",
        )
    kept = KnownSites(settings.private, f"{settings.api_url} {key_id(settings.require_key())}")
    before = kept.read()
    try:
        longest_s = LOOK_S if before else math.inf
        client = open_client(settings, backoff=Backoff(tries=2, first_s=1, longest_s=longest_s), longest_s=longest_s)
        sites = tuple(site.name for site in client.sites())
    except BackfillError as error:
        if before and isinstance(error, TransientError | WaitTooLongError):
            _LOG.warning("the API does not list the sites of the key (%s): the last known list is used", error.message)
            return before
        raise SettingError(
            f"ACE_SITES is not set, and the API does not list the sites of the key: {error}",
            hint="set ACE_SITES=site-one,site-two to load without the API, or fix what the API reports",
        ) from None
    if not sites:
        raise SettingError("ACE_API_KEY has no site that is not archived", hint="set ACE_SITES, or use another key")
    kept.keep(sites)
    return sites
