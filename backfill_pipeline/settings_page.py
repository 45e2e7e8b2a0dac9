"""The page `docs/settings.md`, made from the settings themselves.

    python -m backfill_pipeline.settings_page > docs/settings.md

Put here: what the page says about each setting beyond its description. Keep out: the settings (`settings.py`).
"""

import sys
from enum import Enum
from pathlib import PurePath

from pydantic.fields import FieldInfo

from backfill_pipeline.settings import Settings

_HEAD = """# Settings

Every setting is a variable of the environment. A file `.env` in the working directory may hold the same variables; the
environment replaces what the file says. Only `ACE_API_KEY` has no default that works.

A wrong value ends each command with one line that names the variable, the value and what is expected (exit code 2).
`backfill check` tries the settings on the API and on the store. The command that makes this page from the settings is
`python -m backfill_pipeline.settings_page > docs/settings.md`.
"""

_GROUPS = (
    ("The API", ("ACE_",)),
    ("Days, runs and the store", ("BACKFILL_",)),
    ("Bucket", ("AWS_",)),
    ("Dagster", ("DAGSTER_",)),
)
"""Headings, and how the variables below each begin."""

_MORE = {
    "BACKFILL_ALERT_URL": "See [Alerts](coverage.md#alerts).",
    "BACKFILL_ALLOWED_HOSTS": "Needed behind a reverse proxy; without it, the webserver, `backfill serve` and "
    "`backfill explore` answer to loopback names only ([Operating](operating.md)).",
    "BACKFILL_BROKER": "Needs the extra `[workers]`; see [Several machines](scale.md).",
    "BACKFILL_EXPLORE_URL": "See [Explore](explore.md).",
    "BACKFILL_LIMITER": "Unset: a SQLite file below `DAGSTER_HOME`. Processes on several machines share a budget "
    "through `postgresql://` (extra `[postgres]`) or `redis://` (extra `[redis]`).",
    "BACKFILL_LOG": "See [Operating](operating.md).",
    "BACKFILL_RUN_STORAGE": "Needs the extra `[postgres]`.",
    "BACKFILL_SNAPSHOTS_FROM": "See [Snapshots](snapshots.md).",
    "BACKFILL_STATE_NUMBERS": "For `read.states`; see [Reading](reading.md).",
    "BACKFILL_TABLE_CATALOG": "Needs the extra `[table]`; see [Tables](tables.md).",
    "BACKFILL_TABLE_WAREHOUSE": "Unset, for SQL: `table/iceberg` in the store.",
    "BACKFILL_TIMESTAMP_ENCODING": "See [Reading](reading.md).",
    "BACKFILL_TOKEN": "Without it, the HTTP API and `backfill explore` listen on loopback only.",
}
"""What the page adds to the description of a setting."""

_TAIL = """
## Variables of libraries

`.env` may also contain the variables that libraries read: `AWS_PROFILE`, `AWS_CONFIG_FILE`,
`AWS_SHARED_CREDENTIALS_FILE`, `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`, other `AWS_...` variables, `REQUESTS_CA_BUNDLE`,
`HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. They apply to writing and to reading.
"""


def settings_page() -> str:
    """The text of `docs/settings.md`: a table of variable, default and meaning for each group of settings."""
    fields = [field for field in Settings.model_fields.values() if field.alias]
    parts = [_HEAD]
    for heading, beginnings in _GROUPS:
        rows = [_row(field) for field in fields if field.alias and field.alias.startswith(beginnings)]
        parts.append("\n".join([f"## {heading}\n", "| variable | default | meaning |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts) + _TAIL


def _row(field: FieldInfo) -> str:
    alias = field.alias or ""
    meaning = f"{field.description}. {_MORE.get(alias, '')}".strip().replace("|", "\\|")
    return f"| `{alias}` | {_default(field)} | {meaning[0].upper()}{meaning[1:]} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        return "the nearest folder upwards that holds `dagster.yaml`"
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, Enum) else value.as_posix() if isinstance(value, PurePath) else value}`"


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(settings_page())


if __name__ == "__main__":
    main()
