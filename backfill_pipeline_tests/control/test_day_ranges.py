"""Which ranges can be asked for, and what is said of the others."""

import sys
from datetime import UTC, date, datetime

import pytest

from backfill_pipeline.control.cli import main
from backfill_pipeline.control.day_ranges import checked_days, named_sites
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import day_rows

DAYS = [date(2025, 3, 1), date(2025, 3, 2)]

SETTINGS = Settings(first_day=date(2025, 1, 10), raw_lag_hours=12)
NOON = datetime(2025, 3, 2, 12, 0, tzinfo=UTC)


def test_a_range_is_every_day_of_it_both_ends_included():
    """From the first day there is to the last that is ready; a single day is a range too."""
    days = checked_days(SETTINGS, date(2025, 1, 10), date(2025, 3, 1), NOON)
    assert (days[0], days[-1], len(days)) == (date(2025, 1, 10), date(2025, 3, 1), 51)
    assert checked_days(SETTINGS, date(2025, 3, 1), date(2025, 3, 1), NOON) == [date(2025, 3, 1)]


@pytest.mark.parametrize(
    ("first", "last", "now", "words"),
    [
        (date(2025, 2, 2), date(2025, 2, 1), NOON, ["2025-02-01", "before"]),
        (date(2025, 1, 9), date(2025, 2, 1), NOON, ["2025-01-09", "2025-01-10", "BACKFILL_FIRST_DAY"]),
        (date(2025, 2, 1), date(2025, 3, 2), NOON, ["2025-03-02", "2025-03-03 12:00 UTC", "ACE_RAW_LAG_HOURS"]),
        (date(2025, 2, 1), date(2025, 3, 1), NOON.replace(hour=11, minute=59), ["2025-03-02 12:00 UTC"]),
    ],
)
def test_any_other_range_is_told_of_in_one_line_that_says_what_to_ask_for(first, last, now, words):
    """Reversed, too early, not yet ready: to the minute, in UTC."""
    with pytest.raises(UsageError) as caught:
        checked_days(SETTINGS, first, last, now)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


@pytest.fixture
def key_of_two(tmp_path):
    """Settings without ACE_SITES, with a key of two sites; the API is real, the store a folder."""
    with Simulator(World([SiteSpec("north", 3), SiteSpec("south", 3)]), api_key="hush-hush") as api:
        yield (
            Settings(
                api_url=api.url,
                api_key="hush-hush",
                store=str(tmp_path / "data"),
                home=tmp_path,
                requests_per_minute=5000,
            ),
            api,
        )


def test_without_ace_sites_a_command_reads_every_site_of_the_key(key_of_two):
    """None named: all sites of the key. One named: that one. An unknown one is refused with the known ones."""
    settings, _ = key_of_two
    assert named_sites(settings, (), DAYS) == ("north", "south")
    assert named_sites(settings, ("south",), DAYS) == ("south",)
    with pytest.raises(UsageError, match=r"'typo'.*north, south") as caught:
        named_sites(settings, ("south", "typo"), DAYS)
    assert caught.value.about == "site"


def test_a_site_that_is_stored_needs_no_api(key_of_two):
    """A site that the key does not list, such as an archived one, is read where it has an object on one of the days."""
    settings, api = key_of_two
    put_day(settings_store(settings), day_rows("archived", DAYS[0]))
    assert named_sites(settings, ("archived",), DAYS) == ("archived",)
    assert not api.requests
    assert named_sites(settings, ("north", "archived"), DAYS) == ("north", "archived")
    with pytest.raises(UsageError):
        named_sites(settings, ("archived",), DAYS[1:])


@pytest.mark.parametrize("words", [["--from", "2025-03-01", "--to", "2025-03-02"], ["--list"]])
def test_points_of_an_unknown_site_are_refused(key_of_two, tmp_path, monkeypatch, words):
    """Exit code 2 and the sites that there are, not `no change`."""
    settings, _ = key_of_two
    for name, value in {
        "ACE_API_URL": settings.api_url,
        "ACE_API_KEY": "hush-hush",
        "BACKFILL_STORE": settings.store,
        "DAGSTER_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ACE_SITES", raising=False)
    monkeypatch.setattr(sys, "argv", ["backfill", "points", "--site", "typo", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
