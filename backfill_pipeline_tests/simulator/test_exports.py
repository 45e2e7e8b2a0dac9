"""Exports are read right, or refused with file and line: never misread."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backfill_pipeline.errors import UsageError
from backfill_pipeline.simulator.exports import replayed
from backfill_pipeline.simulator.world import midnight_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000_000
MARCH_1 = midnight_us(date(2025, 3, 1))
MARCH_13 = midnight_us(date(2025, 3, 13))


def read(tmp_path, data, name="site.csv", **options):
    """The rows of one file, and its points."""
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (site,) = replayed(path, **options).sites
    return [(at, point, json.loads(text)) for at, point, text in site.rows], [p["name"] for p in site.points()]


def refused(tmp_path, data, **options):
    """The message and the hint with which a file is refused; it names the file."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, data, **options)
    assert str(tmp_path / "site.csv") in caught.value.message
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2025-03-01T00:01:00", MARCH_1 + MINUTE),
        ("2025-03-01 0:01", MARCH_1 + MINUTE),
        ("2025-3-1 0:01:00.000000", MARCH_1 + MINUTE),
        ("2025/03/01 00:01", MARCH_1 + MINUTE),
        ("2025-03-01", MARCH_1),
        ("2025-02-28 24:00", MARCH_1),
        ("2025-03-01T00:01:00Z", MARCH_1 + MINUTE),
        ("2025-03-01 00:01 UTC", MARCH_1 + MINUTE),
        ("2025-03-01T01:01:00+01:00", MARCH_1 + MINUTE),
        ("2025-02-28 19:01:00-0500", MARCH_1 + MINUTE),
        ("20250301T000100", MARCH_1 + MINUTE),
        ("20250301T010100+01:00", MARCH_1 + MINUTE),
        ("1740787260", MARCH_1 + MINUTE),
        ("1740787260.25", MARCH_1 + MINUTE + 250_000),
        ("1740787260000", MARCH_1 + MINUTE),
        ("1740787260000000", MARCH_1 + MINUTE),
        ("3/13/2025 12:01 AM", MARCH_13 + MINUTE),
        ("3/13/2025 12:01:00 p.m.", MARCH_13 + 721 * MINUTE),
        ("3/13/2025, 1:01:00\u202fPM", MARCH_13 + 781 * MINUTE),
        ("13.03.2025 00:01", MARCH_13 + MINUTE),
        ("3-13-25 00:01", MARCH_13 + MINUTE),
        ("13/03/2025 00:01:00.5", MARCH_13 + MINUTE + 500_000),
        ("01-Mar-25 12:01:00 AM", MARCH_1 + MINUTE),
        ("1 March 2025 00:01", MARCH_1 + MINUTE),
        ("Mar 1, 2025 00:01", MARCH_1 + MINUTE),
        ("03/03/2025", midnight_us(date(2025, 3, 3))),
    ],
)
def test_usual_forms_of_a_timestamp_are_read(tmp_path, text, at):
    """ISO, day or month first, names of months, 12 and 24 hours, offsets, Unix times."""
    assert read(tmp_path, f'Time,SAT\n"{text}",12.5\n') == ([(at, "SAT", "12.5")], ["SAT"])


@pytest.mark.parametrize(
    "text",
    [
        *("45717.5", "20250301", "202503010001", "1.74E+09", "174078726", "-1740787260", "x", "", "12:00", "2025-03"),
        *(
            "2025-02-30",
            "13/13/2025",
            "2025-03-01 25:00",
            "2025-03-01 00:60",
            "3/13/2025 13:00 PM",
            "3/13/2025 0:30 PM",
        ),
        *("2025-03-01 00:00 EST", "2025-03-01 24:01", "01/Foo/2025", "1/1/1", "1969-12-31", " " * 200_000),
    ],
)
def test_what_is_not_a_timestamp_is_refused_with_its_line(tmp_path, text):
    """Serial dates of spreadsheets, cut numbers, days and hours that do not exist, names of time zones."""
    assert ", line 3: " in refused(tmp_path, f"Time,SAT\n2025-03-01T00:00:00,1\n{text},2\n").message


@pytest.mark.parametrize(
    ("dates", "orders"),
    [
        (["01/03/2025 00:00", "02/03/2025 00:00"], "--dates day-first or --dates month-first"),
        (["01.03.2025"], "--dates day-first or --dates month-first"),
        (["25/03/01"], "--dates day-first or --dates year-first"),
        (["01/02/03"], "--dates day-first or --dates month-first or --dates year-first"),
    ],
)
def test_an_order_of_day_and_month_that_no_line_decides_is_refused(tmp_path, dates, orders):
    """The message names the first line that can be read in two ways, and the options that decide."""
    error = refused(tmp_path, "Time,SAT\n" + "".join(f"{text},1\n" for text in dates))
    assert ", line 2: " in error.message
    assert error.hint == f"Name the order: {orders}"


@pytest.mark.parametrize("order", ["day-first", "month-first"])
def test_the_whole_column_decides_the_order_of_day_and_month(tmp_path, order):
    """One day above 12, however far down, decides it for all lines."""
    days = [date(2025, 3, 1) + timedelta(days=n) for n in range(13)]
    form = "%d/%m/%Y" if order == "day-first" else "%m/%d/%Y"
    rows, _ = read(tmp_path, "Time,SAT\n" + "".join(f"{day:{form}},1\n" for day in days))
    assert [at for at, _, _ in rows] == [midnight_us(day) for day in days]


def test_the_option_decides_an_ambiguous_order_and_is_held_against_the_column(tmp_path):
    """Each order gives its own days; an order that a line contradicts is refused with the line."""
    text = "Time,SAT\n01/03/2025,1\n02/03/2025,1\n"
    assert [at for at, _, _ in read(tmp_path, text, dates="day-first")[0]] == [MARCH_1, MARCH_1 + 1440 * MINUTE]
    months = [midnight_us(date(2025, 1, 3)), midnight_us(date(2025, 2, 3))]
    assert [at for at, _, _ in read(tmp_path, text, dates="month-first")[0]] == months
    assert ", line 4: " in refused(tmp_path, text + "13/03/2025,1\n", dates="month-first").message
    assert ", line 3: " in refused(tmp_path, "T,S\n13/01/2025,1\n01/13/2025,1\n").message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("13/03/2025 00:00", "2025-03-13 00:05"),
        ("2025-03-13 00:00", "1741824300"),
        ("1741824300", "1741824300000"),
        ("2025-03-13 00:00", "2025-03-13 00:00Z"),
        ("2025-03-13 00:00Z", "2025-03-13"),
        ("13/03/2025 1:00 PM", "13/03/2025 1:00"),
    ],
)
def test_a_column_of_several_forms_is_refused(tmp_path, first, second):
    """Spreadsheets rewrite some lines and not others: the line that differs is named."""
    assert ", line 3: " in refused(tmp_path, f"Time,SAT\n{first},1\n{second},2\n").message


def test_a_midnight_without_its_time_is_read(tmp_path):
    """Spreadsheets leave out 00:00."""
    rows, _ = read(tmp_path, "Time,SAT\n3/13/2025,1\n3/13/2025 12:01 AM,2\n")
    assert [at for at, _, _ in rows] == [MARCH_13, MARCH_13 + MINUTE]


def test_columns_without_name_are_no_points(tmp_path):
    """A comma at the end of header and lines is not a point; a value below a blank name is refused."""
    rows, points = read(tmp_path, "timestamp,SAT,RAT,\n2025-03-01T00:00:00,1,2,\n")
    assert points == ["RAT", "SAT"]
    assert len(rows) == 2
    assert ", line 3: '7' is in column 4" in refused(tmp_path, "t,a,b,\n2025-03-01,1,2,\n2025-03-02,1,2,7\n").message
    assert ", line 2: '7' is in column 3" in refused(tmp_path, "t,a\n2025-03-01,1,7\n").message


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", 1, "empty"),
        ("\n\n", 1, "empty"),
        ("\nTime,SAT\n", 2, "no lines below the header"),
        ("Time,SAT,RAT,SAT\n2025-03-01,1,2,3\n", 1, "columns 2 and 4 are both named 'SAT'"),
        ("2025-03-01,1\n2025-03-02,2\n", 1, "no header"),
        ("Time\n2025-03-01\n", 1, "names no point"),
        ("Time,\n2025-03-01,\n", 1, "names no point"),
        ("Site report\n\nTime,SAT\n2025-03-01,1\n", 3, "not a timestamp"),
        ('Time,SAT\n2025-03-01,"1\n2025-03-02,2\n', 2, "not a line of CSV"),
        (f"Time,SAT\n2025-03-01,{'9' * 200_000}\n", 2, "field larger than field limit"),
        (f"Time,{'S' * 200_000}\n2025-03-01,1\n", 1, "field larger than field limit"),
        ("Date,Time,SAT\n2025-03-01,00:05,1\n", 2, "two columns"),
        (b"Time,SAT\n2025-03-01,1\n2025-03-02,\xfc\n", 3, "0xfc is not UTF-8"),
        (b"Time,SAT\n2025-03-01,1\n2025-03-02,\0\n", 3, "zero byte"),
        ("Time,SAT\n2025-03-01,1".encode("utf-16-le") + b"\0", 2, "UTF-16"),
    ],
)
def test_a_file_that_is_not_an_export_is_refused_with_its_line(tmp_path, text, line, word):
    """Nothing, a header alone, names twice, titles above, quotes left open, cells too long, other encodings."""
    message = refused(tmp_path, text).message
    assert word in message
    assert f", line {line}: " in message


@pytest.mark.parametrize("name", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_that_show_themselves_are_read(tmp_path, name):
    """UTF-8 and UTF-16 with and without byte order mark, UTF-32 with."""
    assert read(tmp_path, "Zeit,Büro\r\n2025-03-01,1\r\n".encode(name)) == ([(MARCH_1, "Büro", "1")], ["Büro"])


def test_other_encodings_are_named_by_the_option(tmp_path):
    """Latin-1 is read as such only when the user names it: other encodings have the same bytes."""
    data = "Zeit,Büro\n2025-03-01,1\n".encode("latin-1")
    assert read(tmp_path, data, encoding="latin-1")[1] == ["Büro"]
    assert "--encoding latin-1" in refused(tmp_path, data).hint


def test_every_csv_of_a_folder_is_a_site(tmp_path):
    """`TREND.CSV` and `.tsv` are; hidden files, folders and other files are not; one name twice is refused."""
    (tmp_path / "TREND.CSV").write_text("t,a\n2025-03-01,1\n")
    (tmp_path / "b.tsv").write_text("t\ta\n2025-03-01\t1\n")
    (tmp_path / "._TREND.CSV").write_bytes(b"\0")
    (tmp_path / "readme.txt").write_text("no")
    (tmp_path / "folder.csv").mkdir()
    assert [site.name for site in replayed(tmp_path).sites] == ["TREND", "b"]
    (tmp_path / "b.csv").write_text("t,a\n2025-03-01,1\n")
    with pytest.raises(UsageError, match="two files for the site 'b'"):
        replayed(tmp_path)
    with pytest.raises(UsageError, match="no CSV file"):
        replayed(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["12,5", "1.234,5", "-7", "1.234"], ["12.5", "1234.5", "-7", "1234"]),
        (["12.5", "1,234.5", "1,234"], ["12.5", "1234.5", "1234"]),
        (["0,125", "1234,567"], ["0.125", "1234.567"]),
        (["12.5", "on, off", " 7 "], ["12.5", "on, off", " 7 "]),
        (["1.234", "72.345"], ["1.234", "72.345"]),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_numbers_get_a_decimal_point(tmp_path, cells, values, separator):
    """A decimal comma becomes a point, marks between thousands go; every other text stays to the letter."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator)
    writer.writerows([["t", "a"], *(("2025-03-01", cell) for cell in cells)])
    assert [value for *_, value in read(tmp_path, file.getvalue())[0]] == values


def test_a_comma_that_may_be_either_is_refused(tmp_path):
    """`1,234` alone, or both marks in one file; the option decides."""
    text = "t;a\n2025-03-01;1,234\n"
    assert ", line 2: the comma of '1,234' is ambiguous" in refused(tmp_path, text).message
    assert [read(tmp_path, text, decimal=mark)[0][0][2] for mark in ("comma", "point")] == ["1.234", "1234"]
    assert ", line 3: '12,5' has another" in refused(tmp_path, "t;a\n2025-03-01;12.5\n2025-03-02;12,5\n").message


def test_a_separator_is_named_by_the_first_line_of_a_spreadsheet(tmp_path):
    """`sep=;` above the header is read, and lines are counted with it."""
    assert read(tmp_path, "sep=;\r\nt;a\r\n2025-03-01;1\r\n")[1] == ["a"]
    assert ", line 4: " in refused(tmp_path, "sep=;\nt;a\n2025-03-01;1\nx;2\n").message


def test_lines_out_of_order_twice_or_short_are_served(tmp_path):
    """Lines in any order, one time twice, blank lines, lines that leave out blank cells at their end."""
    text = "t,a,b\n2025-03-01 00:01,3,4\n\n,,\n2025-03-01 00:00,1\n2025-03-01 00:01,5,6\n"
    path = tmp_path / "site.csv"
    path.write_text(text)
    world = replayed(path)
    rows = [(at, name, json.loads(value)) for at, name, value in world.window("site", MARCH_1, MARCH_1 + 2 * MINUTE)]
    later = MARCH_1 + MINUTE
    expected = [(later, "a", "3"), (later, "a", "5"), (later, "b", "4"), (later, "b", "6")]
    assert rows == [(MARCH_1, "a", "1"), (MARCH_1, "b", None), *expected]


FORMS = {
    "iso": "%Y-%m-%dT%H:%M:%S",
    "iso with offset": "%Y-%m-%dT%H:%M:%S+00:00",
    "day-first": "%d/%m/%Y %H:%M:%S",
    "month-first": "%m/%d/%Y %I:%M:%S %p",
    "dots": "%d.%m.%Y %H:%M:%S",
    "two digits": "%m/%d/%y %H:%M:%S",
    "name": "%d-%b-%Y %I:%M:%S %p",
    "seconds": None,
    "milliseconds": None,
}
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
numbers = st.decimals(-9999, 9999, places=2).map(str)


def written(at, form):
    """An instant as a program writes it."""
    if FORMS[form] is None:
        return str((at - EPOCH) // timedelta(seconds=1) * (1000 if form == "milliseconds" else 1))
    return at.strftime(FORMS[form])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_an_export_of_any_shape_is_replayed_as_it_was_or_refused_as_ambiguous(tmp_path_factory, data):
    """Separator, encoding, form of times, decimal mark, blank lines, a separator at the end of each line: one table."""
    points = data.draw(st.lists(names, min_size=1, max_size=3, unique=True), "points")
    # Unix times of ten digits begin in September 2001.
    moments = st.integers(10**9, 2_800_000_000).map(lambda seconds: EPOCH + timedelta(seconds=seconds))
    times = data.draw(st.lists(moments, min_size=1, max_size=6), "times")
    cells = [[data.draw(st.one_of(st.just(""), numbers)) for _ in points] for _ in times]
    form = data.draw(st.sampled_from(sorted(FORMS)), "form")
    separator = data.draw(st.sampled_from(",;\t|"), "separator")
    comma, tail = data.draw(st.booleans(), "comma"), data.draw(st.booleans(), "tail")
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]), "encoding")
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    end = [""] if tail else []
    writer.writerow(["Time", *points, *end])
    for at, row in zip(times, cells, strict=True):
        if data.draw(st.booleans()):
            writer.writerow([])
        writer.writerow([written(at, form), *(c.replace(".", ",") if comma else c for c in row), *end])
    assume(encoding != "utf-16-le" or file.getvalue().isascii())
    expected = [
        ((at - EPOCH) // timedelta(microseconds=1), point, cell or None)
        for at, row in zip(times, cells, strict=True)
        for point, cell in zip(points, row, strict=True)
    ]
    path = tmp_path_factory.mktemp("export")
    order = {"day-first": "day-first", "dots": "day-first"}.get(form, "month-first")
    assert read(path, file.getvalue().encode(encoding), dates=order)[0] == expected
    try:
        assert read(path, file.getvalue().encode(encoding))[0] == expected
    except UsageError as error:
        assert "ambiguous" in error.message  # noqa: PT017 - each other refusal would be a fault
        assert form in ("day-first", "month-first", "dots", "two digits")
        assert all(at.day <= 12 or form == "two digits" for at in times)
