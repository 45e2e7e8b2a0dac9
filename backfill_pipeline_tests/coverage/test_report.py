"""The report: whole in one file, right at the edges, and inert whatever sites and points are called."""

import io
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.coverage.canvas import SCALE
from backfill_pipeline.coverage.pictures import calendar, fill_of, grid, points_map, shared_folder
from backfill_pipeline.coverage.point_changes import Change, PointChange
from backfill_pipeline.coverage.report import Report, html, png
from backfill_pipeline.coverage.silent_points import never_reported
from backfill_pipeline.coverage.table import SiteDay, State

NOW = datetime(2025, 1, 1, tzinfo=UTC)
HOSTILE = "</title><script>alert(1)</script>&\"'\u202e\x00\ud800]]>"


def days_of(first, count):
    return [first + timedelta(days=n) for n in range(count)]


def table_of(site, days, state=State.STORED):
    return [SiteDay(site, day, state, 10, 1, 2, 3, 60.0) for day in days]


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_names_are_text_and_nothing_is_fetched():
    """No tag but our own comes of a name, and no address but data stands in the page."""
    days = days_of(date(2024, 12, 31), 2)
    each = {day: PointDays([HOSTILE], *(np.ones(1, int) for _ in range(5))) for day in days}
    failed = SiteDay(HOSTILE, days[1], State.FAILED, note=HOSTILE)
    table = [*table_of(HOSTILE, days[:1]), failed]
    page = html(Report(table, NOW, HOSTILE, each, [PointChange(days[1], HOSTILE, Change.FLAT, note=HOSTILE)]))
    tags = Tags(page)
    assert "script" not in tags.seen
    assert tags.links
    assert all(link.startswith(("data:image/png;base64,", "#site-")) for link in tags.links)
    assert page.count("</title><script>") == 0
    page.encode("utf-8")
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("first", "count"),
    [(date(2024, 2, 29), 1), (date(2024, 1, 1), 366), (date(2023, 12, 31), 2), (date(2024, 12, 30), 2), (date.max, 1)],
)
def test_every_day_lies_in_the_picture_and_none_on_another(first, count):
    """Leap day, first and last day of a year, one day: as many boxes as days, each within the drawing."""
    days = days_of(first, count) if first != date.max else [first]
    canvas = calendar("s", table_of("s", days))
    root = ET.fromstring(canvas.to_svg("x"))  # noqa: S314 - our own
    boxes = [
        (float(rect.get("x")), float(rect.get("y")))
        for rect in root
        if rect.tag.endswith("rect") and len(rect) and rect[0].text.startswith(tuple(map(str, days)))
    ]
    assert len(boxes) == len(set(boxes)) == len(days)
    assert all(0 <= x < canvas.width - 13 and 0 <= y < canvas.height - 13 for x, y in boxes)


def test_a_day_has_its_colour_in_the_png():
    """2024 began on a Monday, so that the leap day lies in the ninth week, on the fourth line."""
    image = Image.open(io.BytesIO(png(Report(table_of("s", [date(2024, 2, 29)]), NOW))))
    x, y = 44 + 8 * 15 + 6, 76 + 3 * 15 + 6
    assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((x * SCALE, y * SCALE))) == fill_of(
        table_of("s", [date.min])[0]
    )


def test_the_states_differ_without_colour():
    """Every state but `stored` differs from each other in lightness or carries a mark of its own."""
    drawn = {
        calendar("s", [SiteDay("s", date(2024, 1, 1), state)]).to_svg("x").split("Jan</text>")[0] for state in State
    }
    assert len(drawn) == len(State)


def test_a_site_without_points_has_a_map_that_says_so():
    """No stored day at all."""
    canvas = points_map("s", [date(2024, 2, 29)], {})
    assert "No stored day" in canvas.to_svg("x")
    canvas.to_image()


def test_the_grid_holds_each_point_against_its_own_busiest_day():
    """Points and days in order; days that say nothing are dark for every point."""
    days = days_of(date(2024, 2, 28), 3)
    zeros = np.zeros(2, int)
    each = {
        days[0]: PointDays(["a", "b"], np.array([10, 0]), zeros, zeros, zeros, zeros),
        days[2]: PointDays(["b", "c"], np.array([5, 4]), zeros, zeros, zeros, np.array([1, 0])),
    }
    share, flat, known = grid(["a", "b", "c"], days, each)
    assert share.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert flat.tolist() == [[False] * 3, [False, False, True], [False] * 3]
    assert known.tolist() == [[True, False, False], [True, False, True], [False, False, True]]


def test_thousands_of_points_share_rows_of_the_map():
    """The picture stays of a size that can be looked at."""
    names = [f"p/{number:05}" for number in range(4572)]
    ones = np.ones(len(names), int)
    canvas = points_map("s", [date(2024, 2, 29)], {date(2024, 2, 29): PointDays(names, ones, ones, ones, ones, ones)})
    assert canvas.height < 1200
    assert "a row is 6 points" in canvas.to_svg("x")


def test_only_whole_folders_are_left_out_of_names():
    """Two names that begin alike within a folder keep it."""
    assert shared_folder(["a/bc/1", "a/bd/2"]) == "a/"
    assert shared_folder(["a/b", "c"]) == shared_folder(["a/b"]) == shared_folder([]) == ""


def test_the_worst_site_comes_first_and_the_others_in_natural_order():
    """A failed day outweighs thin ones; the table links to each calendar, and the list names the command."""
    day = [date(2025, 1, 1)]
    table = [
        *table_of("s10", day),
        *table_of("s2", day),
        *table_of("thin", day, State.THIN),
        SiteDay("bad", day[0], State.FAILED, note="it broke"),
    ]
    report = Report(table, NOW)
    page = html(report)
    assert list(report.by_site()) == ["bad", "thin", "s2", "s10"]
    for number, site in enumerate(report.by_site()):
        assert f'<a href="#site-{number}">{site}</a>' in page
        assert f'<section id="site-{number}"><div class="wide"><svg' in page
        assert f'aria-label="Calendar of {site}"' in page.partition(f'id="site-{number}"')[2].partition(">")[2][:400]
    assert "it broke. Run: backfill start --from 2025-01-01 --to 2025-01-01 --site bad" in page
    assert "Nothing: no failed day" in html(Report(table[:2], NOW))


def test_years_are_drawn_latest_first_and_quiet_years_are_not_drawn():
    """A backfill of one spring has one band, whatever the range of the report is."""
    years = [date(2023, 5, 1), date(2024, 5, 1), date(2025, 5, 1)]
    drawn = calendar("s", [*table_of("s", years[:2]), *table_of("s", years[2:], State.NEVER_ASKED)]).to_svg("x")
    assert ">2025</text>" not in drawn
    assert drawn.index(">2024</text>") < drawn.index(">2023</text>")


def test_points_that_never_reported_are_named_in_natural_order():
    """Points with a row on any day, and points that are not configured on the latest day, are not among them."""
    days, zeros = days_of(date(2024, 2, 28), 2), np.zeros(4, int)
    each = {
        days[0]: PointDays(["a2", "a10", "b", "gone"], np.array([0, 0, 3, 0]), zeros, zeros, zeros, zeros),
        days[1]: PointDays(["a2", "a10", "b"], np.array([0, 0, 0]), *[zeros[:3]] * 4),
    }
    assert never_reported(each) == ["a2", "a10"]
    page = html(Report(table_of("s", days), NOW, "s", each))
    assert "<p>2: a2, a10</p>" in page
