"""The settings: one typed, frozen object, read once from environment variables or a `.env` file.

Put here: every variable that the project reads, with its default, its check and its description. No other module reads
the environment. Keep out: what a setting configures (a client, a store, a schedule).
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from backfill_pipeline import setting_formats as formats
from backfill_pipeline.env_file import export_for_libraries, read_env_file
from backfill_pipeline.errors import SettingError


class Settings(BaseModel):
    """All settings; the alias of each field is the name of its variable.

    Build it with `Settings.load()`; tests and callers may also pass fields by name.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore", hide_input_in_errors=True)

    api_key: Annotated[SecretStr, AfterValidator(formats.in_a_header)] | None = Field(
        None,
        alias="ACE_API_KEY",
        description="bearer key, in visible ASCII characters; never printed, logged or stored",
    )
    api_url: Annotated[str, AfterValidator(formats.http_url)] = Field(
        "https://flightdeck.aceiot.cloud/api", alias="ACE_API_URL", description="the base URL of the ACE API, http(s)"
    )
    sites: Annotated[tuple[str, ...], BeforeValidator(formats.site_names)] = Field(
        (),
        alias="ACE_SITES",
        description="comma-separated site names; empty: every site of the key that is not archived",
    )
    requests_per_minute: int = Field(
        50,
        ge=1,
        le=100_000,
        alias="ACE_REQUESTS_PER_MINUTE",
        description="the key's budget, shared by every process that uses it: a whole number from 1",
    )
    max_page_size: Annotated[int, AfterValidator(formats.page_size)] = Field(
        100_000,
        alias="ACE_MAX_PAGE_SIZE",
        description=f"the largest page the client may ask for: one of {', '.join(map(str, formats.PAGE_SIZES))}",
    )
    outage_minutes: float = Field(
        60,
        ge=0,
        le=10_000,
        alias="ACE_OUTAGE_MINUTES",
        description="how long a run waits while the API does not answer at all, before days fail; 0: no wait",
    )
    max_windows: int = Field(
        8,
        ge=1,
        le=64,
        alias="ACE_MAX_WINDOWS",
        description="how many windows of a site are requested concurrently: a whole number from 1 to 64",
    )
    accept_marks: bool = Field(
        default=False,
        alias="ACE_ACCEPT_MARKS",
        description="accept raw data whose times are all on five-minute marks: true or false",
    )
    raw_lag_hours: float = Field(
        12,
        ge=0,
        le=24 * 365,
        allow_inf_nan=False,
        alias="ACE_RAW_LAG_HOURS",
        description="a day is ready this many hours after it ends: a number from 0",
    )
    first_day: Annotated[date, AfterValidator(formats.known_day)] = Field(
        date(2024, 1, 1), alias="BACKFILL_FIRST_DAY", description="first daily partition, as YYYY-MM-DD"
    )
    new_days: int = Field(
        7,
        ge=0,
        le=366,
        alias="BACKFILL_NEW_DAYS",
        description="how many of the latest ready days the sensor for new days begins with: a whole number from 0 (it "
        "and `healing` are off) to 366",
    )
    snapshots_from: Annotated[date, AfterValidator(formats.known_day)] | None = Field(
        None,
        alias="BACKFILL_SNAPSHOTS_FROM",
        description="the first day of the snapshots, as YYYY-MM-DD; empty: no snapshots",
    )
    days_per_run: int = Field(
        30,
        ge=1,
        le=1000,
        alias="BACKFILL_DAYS_PER_RUN",
        description="how many days one run of a backfill fetches: a whole number from 1 to 1000",
    )
    sites_at_once: int = Field(
        4,
        ge=1,
        le=64,
        alias="BACKFILL_SITES_AT_ONCE",
        description="how many sites one run fetches concurrently: a whole number from 1 to 64",
    )
    grace_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        alias="BACKFILL_GRACE_SECONDS",
        description="how long running days may continue after a cancel, in seconds: a number from 0 to 3600",
    )
    state_numbers: Path | None = Field(
        None,
        alias="BACKFILL_STATE_NUMBERS",
        description='JSON file of the numbers of states: {"occupied": 1, "NAME OF A POINT": {"auto": 2}}',
    )
    checks: Literal["warn", "error"] = Field(
        "warn", alias="BACKFILL_CHECKS", description="what a check that does not pass shows: warn or error"
    )
    log: Literal["text", "json"] = Field(
        "text",
        alias="BACKFILL_LOG",
        description="how runs, daemon, webserver and `backfill serve` write their logs: text, or json for one object "
        "a line",
    )
    alert_url: Annotated[SecretStr, AfterValidator(formats.alert_url)] | None = Field(
        None,
        alias="BACKFILL_ALERT_URL",
        description="where alerts that need an operator are sent: the http(s) URL of a webhook, or, with the extra "
        "`[alerts]`, a URL of `apprise` such as mailto://USER:PASSWORD@HOST",
    )
    ui_url: Annotated[str, AfterValidator(formats.http_url)] | None = Field(
        None,
        alias="BACKFILL_UI_URL",
        description="the address of Dagster's UI in a browser, for the links in alerts; unset: http://127.0.0.1:3000, "
        "or the port of `backfill up`",
    )
    store: Annotated[str, AfterValidator(formats.store_url)] = Field(
        "./data", alias="BACKFILL_STORE", description="a folder, file:///folder, or s3://bucket[/prefix]"
    )
    compression: Literal["snappy", "zstd"] = Field(
        "snappy", alias="BACKFILL_COMPRESSION", description="how objects are compressed: snappy or zstd"
    )
    row_group_rows: int = Field(
        65_536,
        ge=1_000,
        le=10_000_000,
        alias="BACKFILL_ROW_GROUP_ROWS",
        description="rows a row group of an object, at most: a whole number from 1000 to 10000000",
    )
    timestamp_encoding: Literal["auto", "delta", "dictionary"] = Field(
        "auto",
        alias="BACKFILL_TIMESTAMP_ENCODING",
        description="how an object's timestamps are encoded: auto (the smaller one, for each object), delta, or "
        "dictionary for readers without DELTA_BINARY_PACKED",
    )
    limiter: Annotated[str, AfterValidator(formats.limiter_url)] | None = Field(
        None,
        alias="BACKFILL_LIMITER",
        repr=False,  # its URL may contain a password
        description="where the budget is kept: sqlite:///FILE, postgresql://... or redis://...",
    )
    run_storage: Annotated[SecretStr, AfterValidator(formats.postgres_url)] | None = Field(
        None,
        alias="BACKFILL_RUN_STORAGE",
        description="where Dagster keeps runs, events and schedules: postgresql://USER:PASSWORD@HOST/DATABASE; unset: "
        "SQLite below DAGSTER_HOME",
    )
    broker: Annotated[SecretStr, AfterValidator(formats.redis_url)] | None = Field(
        None,
        alias="BACKFILL_BROKER",
        description="the Redis server through which runs reach workers on other hosts: redis://:PASSWORD@HOST/0",
    )
    token: Annotated[SecretStr, AfterValidator(formats.in_a_header)] | None = Field(
        None,
        alias="BACKFILL_TOKEN",
        description="bearer token of the HTTP control API, in visible ASCII characters",
    )
    table_catalog: Annotated[str, AfterValidator(formats.catalog_url)] | None = Field(
        None,
        alias="BACKFILL_TABLE_CATALOG",
        repr=False,  # its URL may contain a password
        description="the catalogue of Iceberg tables: sqlite:///FILE, postgresql://... or the http(s) URL of a REST "
        "catalogue",
    )
    table_token: Annotated[SecretStr, AfterValidator(formats.in_a_header)] | None = Field(
        None,
        alias="BACKFILL_TABLE_TOKEN",
        description="bearer token of the REST catalogue, in visible ASCII characters",
    )
    table_warehouse: str | None = Field(
        None,
        alias="BACKFILL_TABLE_WAREHOUSE",
        description="the warehouse of the catalogue: a name for a REST catalogue, a folder or s3:// URL for SQL",
    )
    owners: Annotated[tuple[str, ...], BeforeValidator(formats.owner_names)] = Field(
        (),
        alias="BACKFILL_OWNERS",
        description="comma-separated owners of the assets, as Dagster shows them: e-mail addresses, or team:NAME",
    )
    time_zones: Annotated[tuple[tuple[str, str], ...], BeforeValidator(formats.time_zones)] = Field(
        (),
        alias="BACKFILL_TIME_ZONES",
        description="time zones of the sites, for reading and charts: one IANA name for all sites, such as "
        "Europe/Berlin, or SITE=NAME for some, separated by commas",
    )
    explore_url: Annotated[str, AfterValidator(formats.http_url)] | None = Field(
        None,
        alias="BACKFILL_EXPLORE_URL",
        description="the address of `backfill explore` in a browser, such as http://127.0.0.1:8643",
    )
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(formats.host_names)] = Field(
        (),
        alias="BACKFILL_ALLOWED_HOSTS",
        description="comma-separated host names without scheme and port, such as dagster.example",
    )
    s3_access_key_id: str | None = Field(
        None, alias="AWS_ACCESS_KEY_ID", description="access key of the bucket; unset: the usual AWS chain"
    )
    s3_secret_access_key: SecretStr | None = Field(
        None, alias="AWS_SECRET_ACCESS_KEY", description="secret of the bucket; unset: the usual AWS chain"
    )
    s3_session_token: SecretStr | None = Field(
        None, alias="AWS_SESSION_TOKEN", description="session token of a temporary access key"
    )
    s3_endpoint_url: Annotated[str, AfterValidator(formats.http_url)] | None = Field(
        None,
        alias="AWS_ENDPOINT_URL_S3",
        description="the bucket's endpoint, for R2 the account's: an http(s) URL",
    )
    s3_region: str | None = Field(None, alias="AWS_REGION", description="the bucket's region; `auto` for R2")
    home: Path = Field(
        default_factory=lambda: find_home(Path.cwd()),
        alias="DAGSTER_HOME",
        description="the folder that holds dagster.yaml; run storage lives in .dagster/ below it",
    )

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, *, folder: Path | None = None) -> "Settings":
        """Read the settings from the environment, and unset variables from `.env` in `folder`.

        Variables of `.env` that libraries read (other variables of AWS, proxies, CA certificates) are added to the
        process's environment, unless `environment` is given.

        Args:
            environment: variables by name; None: the environment of the process. Empty values count as unset.
            folder: the folder of `.env`; None: the working directory.

        Raises:
            SettingError: the first wrong variable with its value (never a secret) and the expected one; or a fault of
                `.env`.
        """
        folder = folder or Path.cwd()
        file = read_env_file(folder / ".env")
        if environment is None:
            export_for_libraries(file, ours={field.alias for field in cls.model_fields.values()})
        found: dict[str, Any] = {**file, **(os.environ if environment is None else environment)}
        found = {name: value for name, value in found.items() if value not in (None, "")}
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise _setting_error(error, found) from None

    @property
    def private(self) -> Path:
        """The folder for run storage, budget and spool: `.dagster/` below `home`."""
        return self.home / ".dagster"

    @property
    def limiter_url(self) -> str:
        """The URL of the request budget; by default a SQLite file in the private folder."""
        return self.limiter or f"sqlite:///{(self.private / 'budget.sqlite').absolute().as_posix()}"

    @property
    def secrets(self) -> frozenset[str]:
        """All texts that no log may contain: each secret, and the password of each URL, as written and decoded."""
        values = [getattr(self, name) for name in type(self).model_fields]
        whole = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
        texts = whole | {value for value in values if isinstance(value, str)}
        inner = {formats.password_in(text) for text in texts}
        return frozenset(text for text in whole | inner | set(map(unquote, inner)) if text)

    def make_private(self) -> Path:
        """Create the private folder for this user alone, if it does not exist.

        Returns:
            The folder. If it could not be created, its first use fails.
        """
        with suppress(OSError):
            self.private.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.private

    def require_key(self) -> str:
        """Return the API key.

        Raises:
            SettingError: no key is set.
        """
        if self.api_key is None:
            raise SettingError(
                "ACE_API_KEY is not set", hint="put your ACE API key into the environment or a .env file"
            )
        return self.api_key.get_secret_value()

    def require_home(self) -> Path:
        """Return `home`, absolute, after a check that it can be used; create `private`.

        Raises:
            SettingError: there is no `dagster.yaml`, or this user cannot read it or write below it.
        """
        home = self.home.absolute()
        try:
            if not (home / "dagster.yaml").is_file():
                raise SettingError(
                    f"DAGSTER_HOME is {str(home)!r}, a folder without dagster.yaml",
                    hint="set DAGSTER_HOME to the folder of this project's dagster.yaml, or make such a folder: "
                    "backfill init FOLDER",
                )
            self.private.mkdir(mode=0o700, parents=True, exist_ok=True)
            denied = next(
                (path for path in (home / "dagster.yaml", self.private) if not os.access(path, os.R_OK)), None
            )
            if denied is None and not os.access(self.private, os.W_OK | os.X_OK):
                denied = self.private
            why = f"no permission for {denied}" if denied else None
        except OSError as error:
            why = f"{error.strerror} ({error.filename})"
        if why:
            raise SettingError(
                f"DAGSTER_HOME is {str(home)!r}, which cannot be used: {why}",
                hint="let this user read dagster.yaml there and write to .dagster, or name another folder",
            )
        return home

    def time_zone_of(self, site: str) -> str | None:
        """Return the IANA name of a site's time zone; None when `BACKFILL_TIME_ZONES` has none for it."""
        zones = dict(self.time_zones)
        return zones.get(site, zones.get(""))

    def ready_at(self, day: date) -> datetime:
        """Return the time from which `day` may be fetched: its end plus the lag, aware, UTC."""
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        return end + timedelta(hours=self.raw_lag_hours)


def find_home(folder: Path) -> Path:
    """Find the nearest folder with `dagster.yaml`, upwards from `folder`; `folder` itself if there is none."""
    for candidate in (folder, *folder.parents):
        if (candidate / "dagster.yaml").is_file():
            return candidate
    return folder


def requests_ca_bundle() -> str | None:
    """The file of CA certificates in `REQUESTS_CA_BUNDLE`, which requests and botocore read as well."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or None


def has_desktop() -> bool:
    """Whether this process can open a browser window: always on Windows and macOS, else with a display server."""
    displays = (os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))
    return sys.platform in {"win32", "darwin"} or any(displays)


def _setting_error(error: ValidationError, found: Mapping[str, Any]) -> SettingError:
    """The error of the first wrong setting."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    field = next(f for f in Settings.model_fields.values() if f.alias == name)
    # A URL may contain a password before its `@`. An access key is not shown either.
    secret = "SecretStr" in str(field.annotation) or "ACCESS_KEY" in name or "@" in str(found.get(name))
    held = "a value that is not shown" if secret else repr(str(found.get(name)))
    others = "" if error.error_count() == 1 else f" ({error.error_count() - 1} more settings are wrong)"
    return SettingError(f"{name} is {held}, which is not valid{others}", hint=f"expected: {field.description}")
