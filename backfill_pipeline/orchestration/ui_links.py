"""Links to pages of Dagster's UI.

Put here: the address of a run, of an asset and of a partition. Keep out: where the links are shown.
"""

from urllib.parse import quote, urlencode

from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings

_LOCAL = "http://127.0.0.1:3000"
"""The address of `dagster dev` and of `backfill up`."""


def run_url(settings: Settings, run_id: str) -> str:
    """The page of a run."""
    return f"{settings.ui_url or _LOCAL}/runs/{run_id}"


def site_url(settings: Settings, site: str) -> str:
    """The page of a site's asset."""
    return f"{settings.ui_url or _LOCAL}/assets/{'/'.join(quote(part, safe='') for part in asset_key(site).path)}"


def day_url(settings: Settings, site: str, day: str) -> str:
    """The page of a site-day: the asset's partition."""
    return f"{site_url(settings, site)}?{urlencode({'view': 'partitions', 'partition': day})}"
