"""What `dagster.yaml` names: Dagster's own storages, placed by the settings, and a launcher that misses the dead.

Put here: Dagster's own classes with a folder fixed, or with what they lack. Keep out: anything about days. A folder
relative to `DAGSTER_HOME` can not be written into `dagster.yaml`, hence the classes.
"""

from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
from dagster import DagsterEventType, DagsterRun
from sqlalchemy.exc import SQLAlchemyError

from backfill_pipeline.errors import SettingError
from backfill_pipeline.orchestration.dagster_internals import (
    CheckRunHealthResult,
    ComputeLogManager,
    ConfigurableClassData,
    DagsterStorage,
    DefaultRunLauncher,
    LocalArtifactStorage,
    LocalComputeLogManager,
    NoOpComputeLogManager,
    WorkerStatus,
)
from backfill_pipeline.orchestration.json_logs import log_as_set
from backfill_pipeline.orchestration.sqlite_storage import LockingSqliteStorage
from backfill_pipeline.settings import Settings

_CLOCK_S = 2.0
"""Largest difference between two readings of the machine's clocks, in seconds."""

ANSWERS_S = 5
"""Seconds within which a server has to answer a command."""


class HomeStorage(LockingSqliteStorage):
    """Runs, events and schedules: SQLite files, or the Postgres database that `BACKFILL_RUN_STORAGE` names.

    Each process reads the URL from its environment. Dagster passes only this class's name from process to process and
    shows it in its UI, without configuration: the password is only in the environment.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # Dagster takes any storage
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 - Dagster's signature
    ) -> DagsterStorage:
        """Open it where the settings say.

        Raises:
            SettingError: the database cannot be used, or its driver is not installed.
        """
        settings = Settings.load()
        log_as_set(settings)  # of every process that opens the instance: daemon, webserver, run
        if settings.run_storage is None:
            return cls(str(settings.make_private()), inst_data)
        return postgres_storage(settings.run_storage.get_secret_value(), inst_data)


def postgres_storage(url: str, inst_data: ConfigurableClassData | None = None) -> DagsterStorage:
    """Dagster's storage in a Postgres database; missing tables are created.

    Args:
        url: `postgresql://...`.
        inst_data: Dagster's record of how it was configured.

    Raises:
        SettingError: the database cannot be used, or its driver is not installed.
    """
    try:
        from dagster_postgres import DagsterPostgresStorage  # noqa: PLC0415 - only needed with Postgres
        from dagster_postgres.utils import DagsterPostgresException, create_pg_engine  # noqa: PLC0415
    except ImportError:
        raise SettingError(
            "BACKFILL_RUN_STORAGE is a postgresql:// URL, and its driver is not installed",
            hint="Run: python -m pip install 'backfill-pipeline[postgres]'",
        ) from None
    try:
        # SQLAlchemy's default driver has changed between versions: the one that the extra installs is named.
        address = url.replace("postgresql://", "postgresql+psycopg2://", 1)
        storage = DagsterPostgresStorage(address, inst_data=inst_data)
        # Dagster opens a connection for each query, which takes ten times as long as the query. A sensor reads
        # a thousand sites, and a run stores six events a day. One connection is kept, and tested before it is used.
        storage.event_log_storage._engine = create_pg_engine(  # type: ignore[attr-defined]  # noqa: SLF001
            address, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True, pool_recycle=300
        )
    except (DagsterPostgresException, SQLAlchemyError) as error:
        raise _unusable(url, error.__cause__ or error) from None
    return storage


def check_postgres(settings: Settings) -> None:
    """Check within seconds that the database of `BACKFILL_RUN_STORAGE`, if any, answers.

    Dagster itself retries for longer, to survive a restart of the server, and logs each retry.

    Raises:
        SettingError: the database does not answer.
    """
    if settings.run_storage is None:
        return
    url = settings.run_storage.get_secret_value()
    try:
        import psycopg2  # noqa: PLC0415 - only needed with Postgres
    except ImportError:
        return  # reported when the storage is opened
    try:
        psycopg2.connect(url, connect_timeout=ANSWERS_S).close()
    except psycopg2.Error as error:
        raise _unusable(url, error) from None


def _unusable(url: str, error: BaseException) -> SettingError:
    parts = urlsplit(url)
    return SettingError(
        f"BACKFILL_RUN_STORAGE: the database {parts.hostname}{parts.path} cannot be opened ({type(error).__name__})",
        hint="Check that the server is running, and the user, password and database of the URL",
    )


class HomeArtifacts(LocalArtifactStorage):
    """Files that runs leave behind."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003 - Dagster's signature
        """Open it below the home."""
        return cls(str(Settings.load().make_private()), inst_data)


class HomeComputeLogs(LocalComputeLogManager):
    """What runs print, in files that the UI shows; with `BACKFILL_LOG=json` it stays on their standard error.

    Into those files it goes through a copying process, which may cut a line in two where several runs write.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # Dagster accepts any compute log manager
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 - Dagster's signature
    ) -> ComputeLogManager:
        """Open it below the home."""
        settings = Settings.load()
        if settings.log == "json":
            return NoOpComputeLogManager(inst_data)
        return cls(str(settings.make_private() / "compute_logs"), inst_data=inst_data)


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
            WorkerStatus.FAILED,
            f"process {pid} ended: it was killed, or the machine stopped. Its stored days stay stored",
        )
