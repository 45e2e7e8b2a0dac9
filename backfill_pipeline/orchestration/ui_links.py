"""Links to pages of Dagster's UI and of `backfill explore`.

Put here: the address of a run, of an asset, of a partition and of a site's chart. Keep out: where the links are shown.
"""

from datetime import date, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import dagster as dg

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


def explore_link(settings: Settings, site: str, day: date | None = None) -> dict[str, dg.MetadataValue[Any]]:
    """Metadata with a link to the page of a site in `backfill explore`; empty without `BACKFILL_EXPLORE_URL`.

    Args:
        settings: they name the address of `backfill explore`.
        site: the site.
        day: the UTC day that the page shows; None: the latest year.
    """
    if settings.explore_url is None:
        return {}
    span = {} if day is None else {"from": f"{day}", "to": f"{day + timedelta(days=1)}"}
    return {"explore": dg.MetadataValue.url(f"{settings.explore_url}/?{urlencode({'site': site, **span})}")}
