"""A forecast, held against what the same days really took."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import pytest
from click.testing import CliRunner

from backfill_pipeline.ace.client import open_client
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.estimate import planned, save_plan, saved_plan
from backfill_pipeline.errors import ContractError, KeyRefusedError, SiteRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, TableSite, World
from backfill_pipeline.storage.days import put_day, settings_encoding, settings_store
from backfill_pipeline_tests.control.installation import Installation

FIRST = date(2025, 1, 1)
NOW = datetime(2025, 6, 1, tzinfo=UTC)


def day(number):
    return FIRST + timedelta(days=number)


def settings_of(simulator, folder, **fields):
    return Settings(
        **{
            "api_key": "hush-hush",
            "api_url": simulator.url,
            "requests_per_minute": 100_000,
            "first_day": FIRST,
            "store": str(folder / "data"),
            "home": folder,
            **fields,
        }
    )


def forecast_of(settings, sites, days, stored=None, **options):
    client = open_client(settings)
    return planned(settings, client, settings_store(settings), sites, days, stored or {}, now=lambda: NOW, **options)


def really(settings, simulator, sites, days):
    """What a fetch and a put of these days take, a fetcher for each run of days."""
    before, took = len(simulator.requests), dict.fromkeys(("samples", "rows", "bytes"), 0)
    store, encoding = settings_store(settings), settings_encoding(settings)
    for site in sites:
        runs = groupby(enumerate(days), key=lambda pair: pair[0] // settings.days_per_run)
        for _, run in runs:
            fetcher = Fetcher(
                open_client(settings),
                spool=settings.private / "spool",
                max_page_size=settings.max_page_size,
                max_windows=settings.max_windows,
            )
            for fetched in fetcher.days(site, [day for _, day in run]):
                assert fetched.rows is not None, fetched.error
                stored = put_day(store, fetched.rows, facts=fetched.facts, encoding=encoding)
                took["samples"] += fetched.rows.counts.fetched
                took["rows"] += stored.rows
                took["bytes"] += stored.bytes
    return took | {"requests": len(simulator.requests) - before}


class Clock:
    """Time that passes only while an answer is waited for."""

    def __init__(self, seconds):
        self.seconds, self.now = seconds, 0.0

    def __call__(self):
        self.now += self.seconds
        return self.now


DAYS = [day(number) for number in range(12)]
SMALL = SiteSpec("small", 40)
LARGER = SiteSpec("larger", 100, 60)
GAPS = SiteSpec("gaps", 60, first_day=day(3), empty_days=frozenset(map(day, (5, 6, 7, 11))))


@pytest.mark.parametrize(
    ("sites", "fields", "length"),
    [
        ([SMALL], {}, 12),
        ([LARGER], {"max_page_size": 50_000}, 4),
        ([GAPS], {}, 12),
        ([GAPS], {"max_page_size": 5_000, "max_windows": 2}, 12),
        ([SMALL], {"max_page_size": 1_000, "days_per_run": 5}, 12),
        ([SiteSpec("tiny", 10)], {"max_page_size": 50}, 12),
        ([SMALL, GAPS, SiteSpec("other", 150, 600)], {"max_page_size": 10_000, "compression": "zstd"}, 12),
    ],
    ids=["small", "larger", "gaps", "gaps in parts", "small pages", "pages below a sweep", "several"],
)
def test_a_forecast_is_within_15_percent_of_what_comes(tmp_path, sites, fields, length):
    """Samples, rows, requests and bytes, whether a page is a day or a part of one; the probes are few."""
    names = [site.name for site in sites]
    with Simulator(World(sites), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path, **fields)
        forecast = forecast_of(settings, names, DAYS[:length])
        asked = len(simulator.requests)
        took = really(settings, simulator, names, DAYS[:length])
    foreseen = forecast.facts()
    assert {name: foreseen[name] / took[name] for name in took} == dict.fromkeys(took, pytest.approx(1, abs=0.15))
    assert all(foreseen["low"][name] <= foreseen[name] <= foreseen["high"][name] for name in took)
    assert foreseen["requests_asked"] == asked


@pytest.mark.parametrize(
    "sweeps", [[1000 if number % 7 < 5 else 100 for number in range(28)], [50 * number for number in range(1, 31)]]
)
def test_weeks_and_growth_are_foreseen(tmp_path, sweeps):
    """Quiet weekends do not fall between the probes, and a small first day does not tell what large objects take."""
    rows = [
        (
            (1_735_689_600 + number * 86_400) * 1_000_000 + at * 86_400_000_000 // count,
            f"p{point}",
            f"{at % 97}.{point}",
        )
        for number, count in enumerate(sweeps)
        for at in range(count)
        for point in range(4)
    ]
    days = [day(number) for number in range(len(sweeps))]
    with Simulator(World([TableSite("uneven", rows)]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path, max_page_size=1_000)
        foreseen = forecast_of(settings, ["uneven"], days).facts()
        took = really(settings, simulator, ["uneven"], days)
    assert {name: foreseen[name] / took[name] for name in took} == dict.fromkeys(took, pytest.approx(1, abs=0.15))
    assert foreseen["low"]["samples"] <= took["samples"] <= foreseen["high"]["samples"]


def test_days_that_are_stored_are_not_counted_and_tell_what_a_row_takes(tmp_path):
    """Of 12 days 5 are stored: the forecast is for 7, with the bytes a row of their objects, and fetches none whole."""
    with Simulator(World([SMALL]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path, max_page_size=5_000)
        really(settings, simulator, ["small"], DAYS[:5])
        asked = len(simulator.requests)
        foreseen = forecast_of(settings, ["small"], DAYS, {"small": set(DAYS[:5])}).facts()
        probed = len(simulator.requests) - asked
        took = really(settings, simulator, ["small"], DAYS[5:])
    assert (foreseen["site_days"], foreseen["site_days_done"]) == (7, 5)
    assert foreseen["bytes"] / took["bytes"] == pytest.approx(1, abs=0.15)
    assert foreseen["by_site"][0]["site_days"] == 7
    assert probed <= 8


def test_with_nothing_to_do_nothing_is_asked(tmp_path):
    """All days stored: zeros everywhere, and a line that says so."""
    with Simulator(World([SMALL]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path)
        forecast = forecast_of(settings, ["small"], DAYS, {"small": set(DAYS)})
        assert not simulator.requests
    assert (forecast.facts()["requests"], forecast.facts()["hours"], forecast.facts()["site_days_done"]) == (0, 0, 12)
    assert list(forecast.lines())[-1] == "nothing to do: all of these days are stored"


def test_a_site_without_any_sample_costs_two_requests_a_day_and_an_empty_object(tmp_path):
    """What the API has nothing of is foreseen as well: the old years of a new building."""
    site = SiteSpec("later", 20, first_day=date(2026, 1, 1))
    with Simulator(World([site]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path)
        foreseen = forecast_of(settings, ["later"], DAYS).facts()
        took = really(settings, simulator, ["later"], DAYS)
    assert foreseen["samples"] == foreseen["rows"] == 0
    assert foreseen["site_days_empty"] == 12
    assert foreseen["requests"] == took["requests"]
    assert foreseen["bytes"] == pytest.approx(took["bytes"], rel=0.02)


def test_hours_are_the_budgets_or_the_answers(tmp_path):
    """A small budget sets the pace; with a large one slow answers do, as many side by side as may be asked for."""
    with Simulator(World([SMALL]), api_key="hush-hush") as simulator:
        few = forecast_of(settings_of(simulator, tmp_path / "few", requests_per_minute=30), ["small"], DAYS)
        slow = forecast_of(settings_of(simulator, tmp_path / "slow", max_windows=1), ["small"], DAYS, clock=Clock(10.0))
    assert few.hours.likely == pytest.approx(few.facts()["requests"] / 30 / 60, rel=0.01)
    assert slow.hours.likely == pytest.approx(slow.facts()["requests"] * 10 / 3600, rel=0.01)


def test_uncertainty_comes_from_the_probes_and_is_told(tmp_path):
    """Days that differ widen the bounds; the lines say how many days were probed, and for how many requests."""
    start, rows = 1_735_689_600, []
    for number in range(12):
        every = 60 if number < 6 else 600
        rows += [((start + number * 86_400 + s) * 1_000_000 + 7, "p", "1.5") for s in range(0, 86_400, every)]
    with Simulator(World([TableSite("uneven", rows)]), api_key="hush-hush") as simulator:
        forecast = forecast_of(settings_of(simulator, tmp_path), ["uneven"], DAYS)
    samples = forecast.figures["samples"]
    assert (samples.low, samples.high) == (12 * 144, 12 * 1440)
    assert samples.likely == pytest.approx(len(rows), rel=0.15)
    told = "\n".join(forecast.lines())
    assert "5 sampled days, 5 of them fetched whole, with 13 requests" in told
    assert "1,728 .. 17,280" in told


def test_pages_too_small_to_judge_are_said_to_be(tmp_path):
    """Where eight pages hold less than two samples of each point, the points' own intervals are believed, and told."""
    site = SiteSpec("wide", 200, 300)
    with Simulator(World([site]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path, max_page_size=10, requests_per_minute=50)
        forecast = forecast_of(settings, ["wide"], DAYS[:2])
    assert forecast.facts()["samples"] == pytest.approx(2 * 209 * 288, rel=0.05)
    assert "too small for wide" in forecast.ground()


def test_a_plan_is_kept_for_a_start_over_the_same_sites_and_range(tmp_path):
    """It comes back for the same question, in any order of sites, and for no other."""
    with Simulator(World([SMALL, GAPS]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path)
        forecast = forecast_of(settings, ["small", "gaps"], DAYS)
    assert saved_plan(settings, ["small", "gaps"], DAYS[0], DAYS[-1]) is None
    save_plan(settings, forecast)
    assert saved_plan(settings, ["gaps", "small"], DAYS[0], DAYS[-1]) == forecast.facts()
    assert saved_plan(settings, ["small"], DAYS[0], DAYS[-1]) is None
    assert saved_plan(settings, ["gaps", "small"], DAYS[0], DAYS[-2]) is None
    (settings.private / "plan.json").write_text("{", encoding="utf-8")
    assert saved_plan(settings, ["gaps", "small"], DAYS[0], DAYS[-1]) is None


def test_a_refused_key_or_site_ends_the_plan(tmp_path):
    """No forecast stands on a guess."""
    with Simulator(World([SMALL]), api_key="another") as simulator, pytest.raises(KeyRefusedError):
        forecast_of(settings_of(simulator, tmp_path), ["small"], DAYS)
    with Simulator(World([SMALL]), api_key="hush-hush") as simulator, pytest.raises(SiteRefusedError, match="nowhere"):
        forecast_of(settings_of(simulator, tmp_path), ["nowhere"], DAYS)


@pytest.mark.parametrize(
    ("fault", "said"), [("bad_time", "can be read: the `time` of one is"), ("other_site", "samples of another site")]
)
def test_pages_that_no_day_is_stored_from_are_no_forecast(tmp_path, fault, said):
    """A site whose rows cannot be read, or belong to another site, ends the plan; it does not cost 0 rows."""
    world = World([SMALL, SiteSpec("other", 20)])
    with Simulator(world, api_key="hush-hush", faults=[Fault.parse(fault)]) as simulator:
        settings = settings_of(simulator, tmp_path)
        with pytest.raises(ContractError, match=said):
            forecast_of(settings, ["small"], DAYS[:1])


def test_names_with_spaces_around_them_are_counted(tmp_path):
    """The forecast is that of the same days without the spaces."""
    forecasts = []
    for faults in ([], [Fault("padded")]):
        with Simulator(World([SMALL]), api_key="hush-hush", faults=faults) as simulator:
            forecasts.append(forecast_of(settings_of(simulator, tmp_path), ["small"], DAYS[:2]).facts()["rows"])
    assert forecasts[0] == forecasts[1] > 0


def test_a_page_size_that_the_api_refuses_or_cannot_send_is_stepped_down_from(tmp_path):
    """The probe meets the API's limits as a fetch would, and plans with the size that arrives."""
    with Simulator(World([SMALL]), api_key="hush-hush", faults=[Fault.parse("max_page:rows=5000")]) as simulator:
        settings = settings_of(simulator, tmp_path)
        foreseen = forecast_of(settings, ["small"], DAYS[:4]).facts()
        took = really(settings_of(simulator, tmp_path, max_page_size=5_000), simulator, ["small"], DAYS[:4])
    assert foreseen["requests"] == pytest.approx(took["requests"], rel=0.15)


def test_a_start_carries_the_plan_that_was_made_for_it_and_status_holds_it_against_what_came(tmp_path, monkeypatch):
    """By the commands themselves; not with `--force`, since a plan leaves out what is stored, nor for another range."""
    made = Installation(tmp_path, monkeypatch)
    days = ["--from", "2025-01-01", "--to", "2025-01-03"]

    def asked(*words):
        return CliRunner().invoke(backfill, words, catch_exceptions=False).stdout

    with Simulator(World([SiteSpec("north", 20), SiteSpec("a-b", 20)]), api_key="hush-hush") as simulator:
        monkeypatch.setenv("ACE_API_URL", simulator.url)
        plan = json.loads(asked("plan", *days, "--json"))
    asked("start", *days)
    made.store("north", *made.days(1, 3), rows=plan["rows"] // 6)
    assert json.loads(asked("status", "--json"))["forecast"] == plan
    assert "compared with the estimate of `backfill plan`: rows" in asked("status")
    asked("cancel")
    asked("start", *days, "--force")
    assert made.gateway.newest().forecast is None
