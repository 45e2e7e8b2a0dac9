"""What `dagster.yaml` names: Dagster's own storages below `DAGSTER_HOME/.dagster`, and a launcher that misses the dead.

Put here: Dagster's own classes with a folder fixed, or with what they lack. Keep out: anything about days. A folder
relative to `DAGSTER_HOME` can not be written into `dagster.yaml`, hence the classes.
"""

from collections.abc import Mapping
from typing import Any, Self

import psutil
from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from backfill_pipeline.settings import Settings

_CLOCK_S = 2.0
"""How far two readings of the machine's clocks may lie apart."""


class HomeStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite files."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Open it below the home."""
        return cls(str(Settings.load().private), inst_data)


class HomeArtifacts(LocalArtifactStorage):
    """Files that runs leave behind."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Open it below the home."""
        return cls(str(Settings.load().private), inst_data)


class HomeComputeLogs(LocalComputeLogManager):
    """What runs print."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Open it below the home."""
        return cls(str(Settings.load().private / "compute_logs"), inst_data=inst_data)


class HomeRunLauncher(DefaultRunLauncher):
    """Runs as processes of this machine, whose death is noticed.

    Dagster's own notices a dead run only while the server that started it lives: after a power cut, or when the daemon
    was killed as well, its runs would count as started, and hold their places in the queue, for ever.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """It does: Dagster's run monitoring then asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process that said it executes `run` is still that process."""
        said = [
            (record.timestamp, int(str(record.dagster_event.engine_event_data.metadata["pid"].value)))
            for record in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
            if record.dagster_event and "pid" in record.dagster_event.engine_event_data.metadata
        ]
        if not said:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has spoken yet")
        then, pid = said[-1]
        try:
            process = psutil.Process(pid)
            # A process that began after the words were said has but the number of the one that said them.
            alive = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= then + _CLOCK_S
        except psutil.NoSuchProcess:
            alive = False
        except psutil.AccessDenied:
            alive = True
        if alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"process {pid} is gone: killed, or the machine went down; days it stored stay stored"
        )
