"""The Dagster instance, as the rest of `control` sees it.

Put here: every call of Dagster's own API that a command needs. Keep out: what commands print.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._core.utils import make_new_backfill_id

from backfill_pipeline.core.day import partition_key
from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.orchestration.partitions import asset_key, site_of
from backfill_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class DayDone:
    """A day as its newest materialisation has it."""

    site: str
    day: str
    rows: int
    bytes: int
    requests: int
    path: str


class Gateway:
    """One Dagster instance.

    Args:
        settings: their `home` holds `dagster.yaml`; the process's `DAGSTER_HOME` must name the same folder.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.instance = dg.DagsterInstance.from_config(str(settings.home))

    def launch(self, sites: Sequence[str], days: Sequence[date]) -> str:
        """Ask for a partition backfill; the daemon takes it on. Its id."""
        backfill_id: str = make_new_backfill_id()
        graph = build_defs(self.settings).get_repository_def().asset_graph
        self.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=backfill_id,
                asset_graph=graph,
                partition_names=[partition_key(day) for day in days],
                asset_selection=[asset_key(site) for site in sites],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=self.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        return backfill_id

    def days_done(self, sites: Sequence[str]) -> list[DayDone]:
        """Every day that is stored and recorded, by site and day."""
        found: dict[tuple[str, str], DayDone] = {}
        for site in sites:
            records = self.instance.fetch_materializations(asset_key(site), limit=1000, ascending=True).records
            for record in records:
                made = record.asset_materialization
                if made is None or made.partition is None:
                    continue
                facts = {name: value.value for name, value in made.metadata.items()}
                found[site, made.partition] = DayDone(
                    site_of(made.asset_key.path[-1]),
                    made.partition,
                    int(str(facts["dagster/row_count"])),
                    int(str(facts["bytes"])),
                    int(str(facts["requests"])),
                    str(facts["path"]),
                )
        return [found[key] for key in sorted(found)]

    def failure(self, backfill_id: str) -> str | None:
        """What ended the backfill or one of its runs badly; None when nothing did."""
        backfill = self.instance.get_backfill(backfill_id)
        if backfill is not None and backfill.error is not None:
            return backfill.error.message
        runs = self.instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}))
        failed = [run for run in runs if run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)]
        return f"run {failed[0].run_id} ended as {failed[0].status.value.lower()}" if failed else None

    def is_over(self, backfill_id: str) -> bool:
        """Whether all runs of the backfill have ended, and there was one."""
        runs = self.instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}))
        return bool(runs) and all(run.is_finished for run in runs)
