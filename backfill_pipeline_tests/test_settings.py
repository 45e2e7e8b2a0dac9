"""The settings: defaults, checks, and messages of one line that hold no secret."""

import sys
from datetime import UTC, date, datetime

import pytest

from backfill_pipeline.errors import SettingError
from backfill_pipeline.settings import Settings


def test_without_any_variable_the_defaults_hold(tmp_path):
    """An empty environment gives the documented defaults."""
    settings = Settings.load({}, folder=tmp_path)
    assert settings.api_url == "https://flightdeck.aceiot.cloud/api"
    assert settings.sites == ()
    assert settings.requests_per_minute == 50
    assert settings.max_page_size == 100_000
    assert settings.raw_lag_hours == 12
    assert settings.first_day == date(2024, 1, 1)
    assert settings.store == "./data"
    assert (settings.compression, settings.row_group_rows) == ("snappy", 65_536)


def test_the_environment_wins_over_the_env_file(tmp_path):
    """`.env` fills in what the environment leaves unset; empty values count as unset."""
    (tmp_path / ".env").write_text("ACE_SITES=one,two\nACE_REQUESTS_PER_MINUTE=7\n")
    settings = Settings.load({"ACE_SITES": "", "ACE_REQUESTS_PER_MINUTE": "9"}, folder=tmp_path)
    assert settings.requests_per_minute == 9
    assert Settings.load({"ACE_SITES": " a b ,ç,,a b"}, folder=tmp_path).sites == ("a b", "ç")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACE_API_URL", "ftp://x"),
        ("ACE_REQUESTS_PER_MINUTE", "0"),
        ("ACE_REQUESTS_PER_MINUTE", "many"),
        ("ACE_MAX_PAGE_SIZE", "30000"),
        ("ACE_RAW_LAG_HOURS", "-1"),
        ("ACE_RAW_LAG_HOURS", "nan"),
        ("BACKFILL_FIRST_DAY", "2024-02-30"),
        ("BACKFILL_FIRST_DAY", "1969-12-31"),
        ("BACKFILL_STORE", "gs://bucket"),
        ("BACKFILL_STORE", "s3://"),
        ("BACKFILL_LIMITER", "mysql://x"),
        ("BACKFILL_COMPRESSION", "gzip"),
        ("BACKFILL_LOG", "xml"),
        ("BACKFILL_ROW_GROUP_ROWS", "0"),
        ("BACKFILL_TIMESTAMP_ENCODING", "plain"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(tmp_path, name, value):
    """The message names the variable, its value and the expected one."""
    with pytest.raises(SettingError) as caught:
        Settings.load({name: value}, folder=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
    assert value in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("url", "is_valid"),
    [
        ("https://hooks.example/x", True),
        ("mailto://me:hush@example.org", True),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/", True),
        ("mailtoo://me:hush@example.org", False),
        ("https://", False),
        ("hush", False),
    ],
)
def test_alerts_go_to_a_webhook_or_to_a_service_of_apprise(tmp_path, caplog, url, is_valid):
    """Another URL is refused by the variable's name, and neither logged nor shown."""
    if is_valid:
        assert Settings.load({"BACKFILL_ALERT_URL": url}, folder=tmp_path).alert_url is not None
        return
    with pytest.raises(SettingError, match=r"BACKFILL_ALERT_URL is a value that is not shown.*\[alerts\]") as caught:
        Settings.load({"BACKFILL_ALERT_URL": url}, folder=tmp_path)
    assert "hush" not in str(caught.value) + caplog.text


def test_a_service_of_apprise_needs_the_extra(tmp_path, monkeypatch):
    """Without the package, its URLs are refused with the name of the extra; a webhook is accepted."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert Settings.load({"BACKFILL_ALERT_URL": "https://hooks.example/x"}, folder=tmp_path).alert_url is not None
    with pytest.raises(SettingError, match=r"\[alerts\]"):
        Settings.load({"BACKFILL_ALERT_URL": "mailto://me:hush@example.org"}, folder=tmp_path)


def test_a_wrong_value_that_may_hold_a_password_is_not_shown(tmp_path):
    """A URL with a user and password is kept out of the message."""
    with pytest.raises(SettingError) as caught:
        Settings.load({"BACKFILL_LIMITER": "postgres://me:hush@host/db"}, folder=tmp_path)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("key", ["hush\nhush", "hush hush", "h\u00fcsh", "\U0001f600", "hush\x00"])
@pytest.mark.parametrize("name", ["ACE_API_KEY", "BACKFILL_TOKEN"])
def test_a_key_that_no_request_can_carry_is_refused_and_not_shown(tmp_path, name, key):
    """A line end or another script in a key is told by the variable's name alone."""
    with pytest.raises(SettingError) as caught:
        Settings.load({name: key}, folder=tmp_path)
    assert str(caught.value).startswith(name)
    assert key not in str(caught.value)


def test_the_key_is_in_no_text_of_the_settings(tmp_path):
    """Neither repr nor str nor JSON of the settings shows the key, the token or the store's secret."""
    secrets = {"ACE_API_KEY": "k-1", "BACKFILL_TOKEN": "t-1", "AWS_SECRET_ACCESS_KEY": "s-1"}
    settings = Settings.load(secrets, folder=tmp_path)
    text = f"{settings!r} {settings} {settings.model_dump_json()}"
    assert not any(secret in text for secret in secrets.values())
    assert settings.require_key() == "k-1"


def test_a_missing_key_says_what_to_set(tmp_path):
    """Whoever needs the key and has none is told the variable."""
    with pytest.raises(SettingError, match="ACE_API_KEY is not set"):
        Settings.load({}, folder=tmp_path).require_key()


def test_a_day_is_ready_when_the_lag_after_its_end_has_passed(tmp_path):
    """Readiness counts from the day's end, in UTC."""
    settings = Settings.load({"ACE_RAW_LAG_HOURS": "6"}, folder=tmp_path)
    assert settings.ready_at(date(2024, 2, 29)) == datetime(2024, 3, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("held", "said"),
    [(b"\xff\xfe\x00hush", "not UTF-8"), (b"ACE_SITES=a\njust hush words\n", "line 2"), (b'A="hush\n', "line 1")],
)
def test_an_env_file_that_is_none_is_one_line(tmp_path, held, said):
    """The file and the line are named, and nothing of what stands there is told: it may be a secret."""
    (tmp_path / ".env").write_bytes(held)
    with pytest.raises(SettingError) as caught:
        Settings.load({}, folder=tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path / ".env") in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_home_in_which_nothing_can_work_is_one_line(tmp_path):
    """No `dagster.yaml`, or no folder to write to: DAGSTER_HOME and the reason are named; else `.dagster` is made."""
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(SettingError, match=r"DAGSTER_HOME is .* without dagster\.yaml"):
        settings.require_home()
    settings.home.mkdir()
    (settings.home / "dagster.yaml").touch()
    settings.private.touch()
    with pytest.raises(SettingError, match=r"DAGSTER_HOME is .* cannot be used: .*\.dagster"):
        settings.require_home()
    settings.private.unlink()
    assert settings.require_home() == settings.home
    assert settings.private.is_dir()
