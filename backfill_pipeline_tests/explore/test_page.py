"""The page in a real browser: find, choose, zoom, send, download; and no name runs a script."""

from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from backfill_pipeline.control.explore_server import explore_app
from backfill_pipeline_tests.control.serving import served
from backfill_pipeline_tests.explore.stored import HOSTILE, POINTS, SITE, stored_site
from backfill_pipeline_tests.services import HANGS_S, program

VIEW = "/?" + urlencode(
    [("site", SITE), *(("point", name) for name in POINTS), ("from", "2025-03-24"), ("to", "2025-04-07")]
)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    program("chromium")
    with served(explore_app(stored_site(tmp_path_factory.mktemp("explore")))) as client:
        yield client.url


@contextmanager
def opened(url, **about):
    """A page, with its requests to other servers, its dialogs and its errors."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program("chromium"))
        try:
            page = chromium.new_context(base_url=url, **about).new_page()
            page.set_default_timeout(HANGS_S * 1000)
            expect.set_options(timeout=HANGS_S * 1000)
            page.faults = []
            page.on("dialog", lambda dialog: (page.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
            page.on("pageerror", lambda error: page.faults.append(f"error {error}"))
            page.on("console", lambda line: page.faults.append(line.text) if line.type == "error" else None)
            page.on("request", lambda one: None if is_own(one.url, url) else page.faults.append(one.url))
            yield page
        finally:
            chromium.close()


def is_own(address, url):
    return address.startswith((url, "data:", "blob:"))


def settled(page):
    expect(page.locator("#chart")).to_have_attribute("aria-busy", "false")


def test_a_point_is_found_by_words_charted_zoomed_and_sent(url):
    """Typed words find a point; the chart zooms by buttons to finer columns; the address holds the view."""
    with opened(url) as page:
        page.goto(f"/?site={SITE}&from=2025-03-24&to=2025-04-07")
        page.get_by_label("Find points").last.fill("supply degc")
        expect(page.locator("#results button")).to_have_count(1)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("3,456 samples")
        expect(page.locator("#status")).to_contain_text("Days that are not stored: 2")
        expect(page.locator("#chart")).to_have_attribute("data-shaded", "1")
        expect(page.locator("#chart canvas").first).to_be_visible()
        page.get_by_role("button", name="Day").click()
        expect(page.locator("#status")).to_contain_text("288 samples")
        sent = parse_qs(urlsplit(page.url).query)
        assert sent["point"] == ["ahu/supply temp"]
        assert sent["from"] == ["2025-04-06T00:00:00.000Z"]
        with page.expect_download() as found:
            page.get_by_role("link", name="Download CSV").click()
        assert found.value.suggested_filename == "north_2025-04-06_2025-04-07.csv"
        address = page.url
        page.goto(address)
        expect(page.locator("#status")).to_contain_text("288 samples")
        assert page.faults == []


def test_the_wheel_zooms_to_finer_columns(url):
    """After a turn of the wheel the server sends the samples of the narrower span."""
    with opened(url) as page:
        page.goto(VIEW)
        expect(page.locator("#status")).to_contain_text("10,368 samples")
        settled(page)
        box = page.locator("#chart").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 150)
        page.mouse.wheel(0, -600)
        expect(page.locator("#status")).not_to_contain_text("10,368 samples")
        expect(page.locator("#status")).to_contain_text("samples, one column")
        sent = parse_qs(urlsplit(page.url).query)
        assert sent["from"][0] > "2025-03-24T00"
        assert sent["to"][0] < "2025-04-07"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 1300), ("dark", 390)])
def test_no_name_runs_a_script_and_no_other_server_is_asked(url, scheme, width):
    """Names with markup are shown as text in list, chart and tooltip; the page fits a phone; all comes from here."""
    with opened(url, color_scheme=scheme, viewport={"width": width, "height": 860}) as page:
        page.goto(VIEW)
        settled(page)
        box = page.locator("#chart").bounding_box()
        for part in range(1, 20):
            page.mouse.move(box["x"] + box["width"] * part / 20, box["y"] + box["height"] / 2)
        expect(page.locator("#chosen")).to_contain_text(HOSTILE.partition("\n")[0])
        assert page.locator("img[src=x], #chosen script, #results script, b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
        assert dark == (scheme == "dark")
        assert page.faults == []


def test_the_keyboard_reaches_everything_in_order(url):
    """The first stop skips to the chart; then site, words, points, chosen points, range, and each has a name."""
    with opened(url) as page:
        page.goto(VIEW)
        settled(page)
        expect(page.locator("#results button")).to_have_count(3)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the chart"
        reached = []
        for _ in range(5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.closest('ul').id"))
        assert reached == ["site", "words", "results", "results", "results"]
        names = page.locator("button, select, input").evaluate_all(
            "all => all.map(one => one.ariaLabel || one.labels[0]?.textContent || one.textContent)"
        )
        assert all(name.strip() for name in names)
