"""Dagster's UI in a real browser: what an operator clicks does what it says, and what is shown is so."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date

from playwright.sync_api import Locator, Page, expect, sync_playwright

from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import Spoilt, day, stack
from backfill_pipeline_tests.services import HANGS_S, program

GROUP = "locations/backfill_pipeline.definitions/asset-groups/timeseries/lineage"


@contextmanager
def browser(url: str) -> Iterator[Page]:
    """A page of a headless Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program("chromium"))
        try:
            page = chromium.new_context(base_url=url, viewport={"width": 1500, "height": 950}).new_page()
            page.set_default_timeout(HANGS_S * 1000)
            expect.set_options(timeout=HANGS_S * 1000)
            yield page
        finally:
            chromium.close()


def launched(page: Page, place: str, days: str, *, unfinished: bool = False) -> str:
    """`Materialize` of a page, its dialog filled in and sent off: the id of what it launched."""
    page.goto(place)
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.locator(".dagster-dialog")
    dialog.get_by_text("Show all partitions").click()  # it begins with the last 90 days
    box = dialog.get_by_placeholder("ex: 20")
    box.fill(days)
    box.press("Enter")
    if unfinished:
        dialog.get_by_text("Backfill only failed and missing partitions within selection").click()
    dialog.get_by_role("button", name="Launch").click()
    told = page.get_by_text(re.compile(r"^(Created backfill|Launched run) "))
    expect(told).to_be_visible()
    return told.inner_text().split()[-1]


def status(page: Page) -> Locator:
    """The status on a backfill's page."""
    return page.get_by_text("Status", exact=True).locator("xpath=..")


def figures(site: str, page: Page) -> Locator:
    """A site's line on a backfill's page: per cent, then days targeted, in progress, succeeded, failed."""
    return page.locator("[class*=VirtualizedTable_row__]").filter(has_text=f"timeseries / {site}")


def cancel(page: Page) -> None:
    """Cancel the backfill of the page; click again when the page has redrawn itself between the clicks.

    Dagster's daemon reads a backfill and writes it back later: a cancel that lies between is undone, and clicked again.
    """
    while True:
        page.get_by_role("button").last.click()
        page.get_by_role("menuitem", name="Cancel backfill").click()
        page.locator(".dagster-dialog").get_by_role("button", name="Cancel backfill").click()
        with suppress(AssertionError):
            expect(status(page)).to_contain_text("Canceled", timeout=60_000)
            return
        page.reload()
        expect(status(page)).not_to_contain_text("Succeeded", timeout=20_000)


def test_a_backfill_is_launched_watched_cancelled_and_its_failed_day_run_again(tmp_path, monkeypatch):
    """In the UI: a backfill ends with one failed day, another is cancelled, and the failed day alone is run again."""
    program("chromium")
    spoilt = Spoilt(SiteSpec("a-b", 10), {date.fromisoformat(day(2))})
    with (
        Simulator(World([SiteSpec("north", 10), spoilt]), api_key="hush-hush") as simulator,
        stack(tmp_path / "home", simulator.url, ("north", "a-b"), monkeypatch) as made,
        made.webserver() as url,
        browser(url) as page,
    ):
        first = launched(page, GROUP, f"[{day(0)}...{day(4)}]")
        page.goto(f"runs/b/{first}")
        expect(status(page)).to_contain_text("Failed")
        expect(figures("a-b", page)).to_contain_text("100% completed5041")
        expect(figures("north", page)).to_contain_text("100% completed5050")

        page.goto(f"assets/timeseries/a-b?view=partitions&partition={day(2)}")
        expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible()

        simulator.latency_s = 3.0
        second = launched(page, GROUP, f"[{day(10)}...{day(69)}]")
        made.until(lambda: len(made.done("north")) > 6)
        page.goto(f"runs/b/{second}")
        expect(status(page)).to_contain_text("In progress")
        cancel(page)
        expect(status(page)).to_contain_text("Canceled")
        made.until(lambda: made.run_statuses(second) <= {"CANCELED", "SUCCESS"})  # a run may have ended just before
        assert "CANCELED" in made.run_statuses(second)
        simulator.latency_s = 0.0

        before = made.times_stored()
        spoilt.bad.clear()
        launched(page, "assets/timeseries/a-b?view=partitions", f"[{day(0)}...{day(4)}]", unfinished=True)
        made.until(lambda: day(2) in made.done("a-b"))
        page.goto(f"assets/timeseries/a-b?view=partitions&partition={day(2)}")
        expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
        expect(page.get_by_text(re.compile(r"a-b\.parquet$")).first).to_be_visible()  # the path, and the URI
        assert made.times_stored() == before | {("a-b", day(2)): 1}

        page.goto("assets/timeseries/a-b?view=checks&checkDetail=clean")
        tabs = page.get_by_role("tab", name="Partitions")
        expect(tabs).to_have_count(2)  # the asset's, and the check's
        tabs.last.click()
        expect(page.get_by_text(f"Passed ({len(made.done('a-b'))})")).to_be_visible()
