"""Assembly: settings -> Dagster definitions.

Put here: which assets, jobs and resources there are. Keep out: what they do.
"""

import dagster as dg

from backfill_pipeline.ace.client import open_client
from backfill_pipeline.errors import BackfillError, SettingError
from backfill_pipeline.orchestration.assets import timeseries_assets
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.settings import Settings

JOB = "backfill_job"


def build_defs(settings: Settings) -> dg.Definitions:
    """All definitions. Touches the network only when `ACE_SITES` is not set.

    Raises:
        SettingError: the sites are not set and cannot be asked for.
    """
    sites = settings.sites or _sites_of_the_key(settings)
    if not sites:
        raise SettingError("the ACE key has no site that is not archived: set ACE_SITES, or use another ACE_API_KEY")
    assets = timeseries_assets(settings, sites)
    objects = DayIOManager()
    return dg.Definitions(
        assets=[assets],
        jobs=[dg.define_asset_job(JOB, selection=dg.AssetSelection.assets(assets))],
        resources={"ace": AceResource(), "objects": objects, "io_manager": objects},
        executor=dg.in_process_executor,
    )


def _sites_of_the_key(settings: Settings) -> tuple[str, ...]:
    try:
        client = open_client(settings)
        return tuple(site.name for site in client.sites())
    except BackfillError as error:
        raise SettingError(
            f"ACE_SITES is not set, and the API could not be asked for the key's sites: {error}. "
            "Set ACE_SITES=site-one,site-two to load without the API, or mend what is said above"
        ) from None
