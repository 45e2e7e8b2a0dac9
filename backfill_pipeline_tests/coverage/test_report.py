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
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
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
