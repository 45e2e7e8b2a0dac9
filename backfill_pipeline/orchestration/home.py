"""Where Dagster keeps what it stores: below `DAGSTER_HOME/.dagster`, whatever the working directory.

Put here: Dagster's own storages with their folder fixed. Keep out: anything about days; `dagster.yaml` names these
classes, because a folder relative to `DAGSTER_HOME` can not be written there.
"""

from collections.abc import Mapping
from typing import Any, Self

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from backfill_pipeline.settings import Settings


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
