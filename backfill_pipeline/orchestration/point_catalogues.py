"""The assets `points/<site>`: what each point of a site is, shown in Dagster's UI.

A run that stores days updates the catalogue and records that as a materialisation. Materialising the asset by itself
rebuilds what stored days say of earlier points. Put here: the assets and what is shown of a catalogue. Keep out: what a
catalogue contains (`core/point_catalogue.py`) and where it is stored (`dataset/point_catalogue.py`).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from itertools import islice
from typing import Any

import dagster as dg

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.log_fields import fields
from backfill_pipeline.core.object_keys import points_key
from backfill_pipeline.core.point_catalogue import SCHEMA, PointSpan
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.configured_points import configured_names
from backfill_pipeline.dataset.point_catalogue import read_catalogue, rebuild_catalogue
from backfill_pipeline.errors import BackfillError
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import asset_key, asset_name, output_name, site_of
from backfill_pipeline.orchestration.ui_links import explore_link
from backfill_pipeline.settings import Settings

PREFIX = "points"

ROWS_SHOWN = 20
"""Rows of a catalogue that the UI shows, of the points that are listed now where there are any."""

_SHOWN = ("name", "description", "unit", "device_name", "object_name", "collect_interval", "valid_from", "valid_to")


def points_asset_key(site: str) -> dg.AssetKey:
    """The key of the asset of a site's catalogue, `points/<site>`."""
    return dg.AssetKey([PREFIX, asset_name(site)])


def point_catalogue_assets(
    settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]
) -> dg.AssetsDefinition:
    """One asset for the catalogue of each site, all of one op.

    Args:
        settings: the first day that there may be.
        sites: site names, distinct.
        now: the instant, aware.
    """
    keys = {output_name(site): points_asset_key(site) for site in sites}
    upstream = {f"days_of_{name}": asset_key(site) for name, site in zip(keys, sites, strict=True)}

    @dg.op(
        name=PREFIX,
        description="Rebuild catalogues of points from the footers of the stored days. It sends no request to the API.",
        ins={name: dg.In(dg.Nothing) for name in upstream},
        out={name: dg.Out(dg.Nothing, is_required=False) for name in keys},
    )
    def points(
        context: dg.OpExecutionContext, objects: dg.ResourceParam[DayIOManager]
    ) -> Iterator[dg.AssetMaterialization]:
        days = list(days_between(settings.first_day, max(settings.first_day, now().date())))
        failed: list[str] = []
        for site in sorted(site_of(key.path[-1]) for key in context.selected_asset_keys):
            try:
                spans = _rebuilt(objects, site, days, context.log)
            except BackfillError as error:
                failed.append(f"{site}: {error}")
                continue
            if spans:
                yield dg.AssetMaterialization(points_asset_key(site), metadata=catalogue_metadata(objects, site, spans))
            else:
                failed.append(f"{site}: no stored day names its points. A run that stores a day writes the catalogue")
        if failed:
            raise dg.Failure(printable("; ".join(failed)), allow_retries=False)

    return dg.AssetsDefinition(
        node_def=points,
        keys_by_input_name=upstream,
        keys_by_output_name=keys,
        specs=[_spec(site, settings) for site in sites],
        can_subset=True,
    )


def _spec(site: str, settings: Settings) -> dg.AssetSpec:
    return dg.AssetSpec(
        points_asset_key(site),
        deps=[asset_key(site)],
        skippable=True,
        group_name=PREFIX,
        kinds={"parquet"},
        description=f"What each point of site `{printable(site)}` is, and since when: names, units, descriptions, tags "
        "and devices, as the API lists them. Each run that stores a day updates it. Materialise it to add "
        "points that were configured earlier, from the footers of stored days.",
        metadata={
            "site": site,
            "store": settings.store,
            **explore_link(settings, site),
            "dagster/column_schema": dg.TableSchema([dg.TableColumn(one.name, str(one.type)) for one in SCHEMA]),
        },
    )


def _rebuilt(objects: DayIOManager, site: str, days: Sequence[date], log: logging.Logger) -> list[PointSpan]:
    def progress(read: int, of: int) -> None:
        log.info(printable(f"{site}: {read:,} of {of:,} days read"), extra=fields(site=site))

    spans = rebuild_catalogue(objects.store, site, configured_names(objects.store, site, days, progress=progress))
    return read_catalogue(objects.store, site) if spans is None else spans


def catalogue_metadata(
    objects: DayIOManager, site: str, spans: Sequence[PointSpan]
) -> dict[str, dg.MetadataValue[Any]]:
    """What Dagster shows of a catalogue: figures, its path and its first rows.

    Args:
        objects: the store.
        site: the site.
        spans: the catalogue's rows.
    """
    url = objects.store.url(points_key(site))
    link = url.startswith(("http://", "https://"))
    listed = [span for span in spans if span.valid_to is None]
    devices = {span.device_id or span.device_name or span.device_address for span in listed} - {None}
    return {
        "dagster/row_count": dg.MetadataValue.int(len(spans)),
        "path": dg.MetadataValue.url(url) if link else dg.MetadataValue.path(url),
        "points": dg.MetadataValue.int(len({span.name for span in spans})),
        "points_listed": dg.MetadataValue.int(len(listed)),
        "points_with_unit": dg.MetadataValue.int(sum(span.unit is not None for span in listed)),
        "units": dg.MetadataValue.int(len({span.unit for span in listed} - {None})),
        "devices": dg.MetadataValue.int(len(devices)),
        "first_rows": dg.MetadataValue.table(
            [dg.TableRecord(_shown(span)) for span in islice(listed or spans, ROWS_SHOWN)],
            dg.TableSchema(
                [dg.TableColumn(name, "int" if name == "collect_interval" else "string") for name in _SHOWN]
            ),
        ),
    }


def _shown(span: PointSpan) -> dict[str, Any]:
    values = {name: getattr(span, name) for name in _SHOWN}
    return {
        name: printable(value.isoformat() if isinstance(value, datetime) else value)
        if isinstance(value, str | datetime)
        else value
        for name, value in values.items()
    }
