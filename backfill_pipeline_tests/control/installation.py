"""An installation of its own for tests of `control`: a real Dagster instance, and a daemon's signs of life.

Put here: what stands in for runs, which would take long. Keep out: what a test expects.
"""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemotePartitionSetOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.utils import make_new_run_id
from dagster._daemon.types import DaemonHeartbeat

import backfill_pipeline
from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.service import Control
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.build import JOB
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.day_index import IndexedDay, record_days

TOP = Path(backfill_pipeline.__file__).parent.parent
SITES = ("north", "a-b")
NOW = datetime(2025, 6, 1, 13, tzinfo=UTC).timestamp()


class Installation:
    """A home whose Dagster instance is real; days are reported to it as a run would report them."""

    def __init__(self, home: Path, monkeypatch, **variables: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        ours = {
            "ACE_API_KEY": "hush-hush",
            "ACE_SITES": ",".join(SITES),
            "BACKFILL_FIRST_DAY": "2025-01-01",
            "BACKFILL_STORE": str(home / "data"),
            "DAGSTER_HOME": str(home),
            **variables,
        }
        for name, value in ours.items():
            monkeypatch.setenv(name, value)
        self.home = home
        self.settings = Settings.load(folder=home)
        self.gateway = Gateway(self.settings)
        self.instance = self.gateway.instance
        self.control = Control(self.gateway, self.settings, all_sites=lambda: self.settings.sites)
        self.beat()

    def beat(self, *, ago_s: float = 0.0) -> None:
        self.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago_s, "BACKFILL", None, []))

    def store(self, site: str, *days: date, rows: int = 10, **about: object) -> None:
        for day in days:
            path = self.object(site, day)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(100))
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key(site),
                    partition=str(day),
                    metadata={"dagster/row_count": rows, "bytes": 100, "requests": 2, "state": "stored", **about},
                )
            )
        shown = {name: about[name] for name in ("points_seen", "points_configured") if name in about}
        record_days(
            self.gateway.store,
            site,
            [
                IndexedDay(
                    day,
                    "stored" if rows else "empty",
                    rows,
                    100,
                    self.gateway.store.head(object_key(site, day)).etag,
                    "0" * 64,
                    fetched_at=datetime.now(UTC).replace(microsecond=0),
                    longest_gap_min=999 if about.get("thin") else 1,
                    **shown,
                )
                for day in days
            ],
        )

    def fail(self, site: str, *days: date, error: str = "it broke", **facts: str) -> None:
        for day in days:
            self.instance.report_runless_asset_event(
                dg.AssetObservation(
                    asset_key(site),
                    partition=str(day),
                    metadata={"state": "failed", "error": error, "error_type": "PageFailedError", **facts},
                )
            )

    def mark(self, backfill_id: str, status: BulkActionStatus) -> None:
        """As the daemon does at the end of a backfill."""
        found = self.instance.get_backfill(backfill_id).with_status(status)
        self.instance.update_backfill(found.with_end_timestamp(time.time()))

    def job_backfill(self, *days: date) -> list[str]:
        """What `dagster job backfill` leaves behind: a run for each day, and a backfill that is called complete."""
        origin = RemotePartitionSetOrigin(repository_origin=_ORIGIN, partition_set_name="backfill_job_partition_set")
        began = time.time()
        runs = [
            self.instance.create_run_for_job(
                _JOB,
                tags={BACKFILL_ID_TAG: "jobjobjo", PARTITION_NAME_TAG: str(day)},
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=RemoteJobOrigin(repository_origin=_ORIGIN, job_name=JOB),
            )
            for day in days
        ]
        self.instance.add_backfill(
            PartitionBackfill(
                "jobjobjo",
                BulkActionStatus.COMPLETED,
                from_failure=False,
                tags={},
                backfill_timestamp=began,
                partition_set_origin=origin,
                partition_names=[str(day) for day in days],
                backfill_end_timestamp=time.time(),
            )
        )
        return [run.run_id for run in runs]

    def end_run(self, run_id: str, event: dg.DagsterEventType = dg.DagsterEventType.RUN_SUCCESS) -> None:
        """As Dagster does at the end of a run."""
        self.instance.report_dagster_event(dg.DagsterEvent(event.value, JOB), run_id=run_id)

    def failed_run(
        self,
        backfill_id: str,
        message: str | None = None,
        days: Sequence[date] = (),
        sites: Sequence[str] = SITES,
        **tags: str,
    ) -> str:
        """A run of the backfill whose process ended, marked as failed as Dagster's run monitoring does."""
        run_id = self.run(backfill_id, days, sites, **tags)
        self.instance.report_run_failed(self.instance.get_run_by_id(run_id), message)
        return run_id

    def run(self, backfill_id: str, days: Sequence[date] = (), sites: Sequence[str] = SITES, **tags: str) -> str:
        """A run of the backfill that has started."""
        ends = {}
        if days:
            ends = {ASSET_PARTITION_RANGE_START_TAG: str(days[0]), ASSET_PARTITION_RANGE_END_TAG: str(days[-1])}
        run = dg.DagsterRun(
            JOB,
            run_id=make_new_run_id(),
            tags={BACKFILL_ID_TAG: backfill_id, **ends, **tags},
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=frozenset(asset_key(site) for site in sites) if days else None,
        )
        return self.instance.add_run(run).run_id

    def object(self, site: str, day: date) -> Path:
        """Where the object of a stored day is."""
        return self.home / "data" / object_key(site, day)

    def days(self, first: int, last: int) -> Sequence[date]:
        return [date(2025, 1, number) for number in range(first, last + 1)]


@dg.op
def _noop() -> None:
    """Do nothing."""


@dg.job
def _nothing() -> None:
    """Do nothing."""
    _noop()


_JOB = dg.Definitions(jobs=[_nothing]).get_job_def("_nothing")
_ORIGIN = RemoteRepositoryOrigin(
    code_location_origin=RegisteredCodeLocationOrigin(location_name="here"), repository_name="__repository__"
)
