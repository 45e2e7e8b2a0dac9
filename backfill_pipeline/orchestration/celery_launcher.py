"""Runs on several hosts: Dagster's Celery run launcher, configured by the settings, and its worker.

Put here: additions to that launcher, and the start of a worker. Keep out: what a run does. The decision is described in
`docs/decisions/0007-workers.md`; `deploy/dagster.yaml` configures an instance with this launcher.
"""

import socket
import uuid
from collections.abc import Mapping
from typing import Any, Self

from dagster import DagsterRun

from backfill_pipeline.errors import SettingError
from backfill_pipeline.orchestration.dagster_internals import CheckRunHealthResult, ConfigurableClassData, WorkerStatus
from backfill_pipeline.orchestration.json_logs import log_as_set
from backfill_pipeline.settings import Settings

try:
    from dagster_celery.launcher import CeleryRunLauncher
    from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
    from dagster_celery.tasks import create_execute_job_task, create_resume_job_task
except ImportError:
    raise SettingError(
        "the run launcher for several hosts is not installed",
        hint="Run: python -m pip install 'backfill-pipeline[workers]'",
    ) from None

QUEUE = "dagster"

_PING_S = 2.0
_PINGS = 3

_CONFIG: dict[str, Any] = {
    # A worker takes a run only when it is free: a run that waited on a busy host would be lost with this host.
    "worker_disable_prefetch": True,
    # Each run has a separate process: its memory is freed, and it imports the present code.
    "worker_max_tasks_per_child": 1,
    # The state of a run's task is kept longer than the longest run.
    "result_expires": 60 * 60 * 24 * 30,
    "broker_connection_retry_on_startup": True,
    # A started run continues when the broker is unavailable for some time.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}


class WorkersRunLauncher(CeleryRunLauncher):
    """Launch runs as tasks of Celery workers, and detect workers that died."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure: the broker's URL, with its password, is a variable of each process."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Reach the broker that the settings name.

        Raises:
            SettingError: no broker is set.
        """
        return cls.of(Settings.load(), inst_data)

    @classmethod
    def of(cls, settings: Settings, inst_data: ConfigurableClassData | None = None) -> Self:
        """Reach the broker that `settings` name.

        Raises:
            SettingError: no broker is set.
        """
        if settings.broker is None:
            raise SettingError("BACKFILL_BROKER is not set", hint="Set it to the redis:// URL of the workers' broker")
        url = _with_verification(settings.broker.get_secret_value())
        return cls(default_queue=QUEUE, broker=url, backend=url, config_source=dict(_CONFIG), inst_data=inst_data)

    def terminate(self, run_id: str) -> bool:
        """Request the end of a run; its status becomes `CANCELING`, so that it ends as cancelled."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return the state of the run's task; for a started task, also whether its worker still answers."""
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "not handed to the broker yet")
        found = super().check_run_worker_health(run)
        if found.status is not WorkerStatus.RUNNING:
            return found
        about = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG]).info
        worker = about.get("hostname") if isinstance(about, dict) else None
        if worker is None or any(
            self.celery.control.ping(destination=[worker], timeout=_PING_S) for _ in range(_PINGS)
        ):
            return found
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            f"worker {worker} does not answer: killed, or its host is cut off; days it stored stay stored",
        )

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:  # noqa: ARG002, FBT001, FBT002 - Dagster's signature
        """Return nothing: the health check has all information."""
        return None


def _with_verification(url: str) -> str:
    """Add verification of the server's certificate to a `rediss://` URL, as every other client does by default.

    Celery refuses a URL without this parameter.
    """
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def workers_here(settings: Settings) -> list[str]:
    """Return the names of the workers of this host that answer.

    Raises:
        SettingError: no broker is set.
    """
    replies = WorkersRunLauncher.of(settings).celery.control.ping(timeout=_PING_S)
    return sorted(name for reply in replies for name in reply if name.endswith(f"@{socket.gethostname()}"))


def run_worker(settings: Settings, runs: int) -> None:
    """Execute runs of the broker on this host until ended.

    Args:
        settings: with the broker.
        runs: how many at the same time.

    Raises:
        SettingError: no broker is set.
    """
    log_as_set(settings)
    app = WorkersRunLauncher.of(settings).celery
    create_execute_job_task(app)
    create_resume_job_task(app)
    # A new name each time: a restarted worker must not answer for the runs of the killed worker.
    name = f"backfill-{uuid.uuid4().hex[:8]}@%h"
    app.worker_main(
        ["worker", "-n", name, "-Q", QUEUE, "--concurrency", str(runs), "--without-gossip", "--without-mingle",
         "--loglevel", "INFO"]
    )  # fmt: skip
