"""Runs on several hosts: Dagster's own Celery launcher, set up by the settings, and its worker.

Put here: what that launcher lacks for our runs, and how a worker is begun. Keep out: what a run does. The choice is
told in `docs/decisions/0007-workers.md`; the instance that uses it is `deploy/dagster.yaml`.
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
        "workers on several hosts need an extra: python -m pip install 'backfill-pipeline[workers]'"
    ) from None

QUEUE = "dagster"

_PING_S = 2.0
_PINGS = 3

_CONFIG: dict[str, Any] = {
    # A run that waits behind another one on a busy host would be lost with it: a worker takes one when it is free.
    "worker_disable_prefetch": True,
    # Each run has a process of its own: its memory is given back, and the code is read anew.
    "worker_max_tasks_per_child": 1,
    # What is known of a run's task outlives the longest run.
    "result_expires": 60 * 60 * 24 * 30,
    "broker_connection_retry_on_startup": True,
    # A run that is at work goes on when the broker is away for a while.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}


class WorkersRunLauncher(CeleryRunLauncher):
    """Runs as tasks of Celery workers, whose death is noticed though nobody is left on their host to tell it."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure: the broker's URL, with its password, is a variable of each process."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Reach the broker that the settings name.

        Raises:
            SettingError: they name none.
        """
        return cls.of(Settings.load(), inst_data)

    @classmethod
    def of(cls, settings: Settings, inst_data: ConfigurableClassData | None = None) -> Self:
        """Reach the broker that `settings` name.

        Raises:
            SettingError: they name none.
        """
        if settings.broker is None:
            raise SettingError("BACKFILL_BROKER is not set: put the redis:// URL of the workers' broker there")
        url = _with_verification(settings.broker.get_secret_value())
        return cls(default_queue=QUEUE, broker=url, backend=url, config_source=dict(_CONFIG), inst_data=inst_data)

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; it is told to be ending, so that it ends as cancelled."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        return super().terminate(run_id)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """What the task says; where it says that it runs, whether its worker still answers."""
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
        """Nothing more than the health check said."""
        return None


def _with_verification(url: str) -> str:
    """A `rediss://` URL that asks for the server's certificate to be verified, as every other client does by default.

    Celery refuses a URL that does not mention it.
    """
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def workers_here(settings: Settings) -> list[str]:
    """The workers of this host that answer, by name.

    Raises:
        SettingError: no broker is set.
    """
    replies = WorkersRunLauncher.of(settings).celery.control.ping(timeout=_PING_S)
    return sorted(name for reply in replies for name in reply if name.endswith(f"@{socket.gethostname()}"))


def run_worker(settings: Settings, runs: int) -> None:
    """Execute runs of the broker on this host until ended.

    Args:
        settings: they name the broker.
        runs: how many at once.

    Raises:
        SettingError: no broker is set.
    """
    log_as_set(settings)
    app = WorkersRunLauncher.of(settings).celery
    create_execute_job_task(app)
    create_resume_job_task(app)
    # A new name each time: a worker that came back must not answer for the runs of the one that was killed.
    name = f"backfill-{uuid.uuid4().hex[:8]}@%h"
    app.worker_main(
        ["worker", "-n", name, "-Q", QUEUE, "--concurrency", str(runs), "--without-gossip", "--without-mingle",
         "--loglevel", "INFO"]
    )  # fmt: skip
