"""The page's routes: what they answer, to whom, and how they fail."""

import io
from urllib.parse import urlencode

import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
import requests
from click.testing import CliRunner

from backfill_pipeline import read
from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.explore_server import explore_app, run_explore
from backfill_pipeline.errors import SettingError
from backfill_pipeline.explore.app import build_app
from backfill_pipeline.explore.figure import COLORS
from backfill_pipeline_tests.control.serving import served
from backfill_pipeline_tests.explore.stored import HOSTILE, POINTS, SITE, stored_site

VIEW = {"site": SITE, "point": POINTS[0], "from": "2025-03-24", "to": "2025-04-07", "tz": "Europe/Berlin"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return stored_site(tmp_path_factory.mktemp("explore"))


@pytest.fixture(scope="module")
def page(settings):
    with served(explore_app(settings)) as client:
        yield client


def asked(path, **changed):
    return f"{path}?{urlencode(VIEW | changed, doseq=True)}"


@pytest.mark.parametrize("words", ["supply", "degc", "AHU-1 temp", "TEMP of"])
def test_points_are_found_by_words(page, words):
    """Words of the name, the unit, the device and the description find a point."""
    found = page.get("/points?" + urlencode({"site": SITE, "words": words})).json()
    assert [one["name"] for one in found["points"]] == ["ahu/supply temp"]
    assert found["all"] == 3


def test_a_chart_has_the_figures_of_read_chart(page, settings):
    """Each sample is counted, missing days are gaps, and times are of the chosen zone."""
    found = page.get(asked("/chart", point=POINTS, width=300)).json()
    assert [one["name"] for one in found["series"]][:2] == POINTS[:2]
    for one in found["series"]:
        assert sum(one["count"]) == 12 * 288
        assert one["mean"].count(None) == 1
    assert found["missing"] == 2
    assert found["series"][0]["when"][0] == "2025-03-24 01:00:00 CET"
    assert "item" not in found


def test_days_that_are_not_stored_are_one_span(page):
    """Two missing days beside each other are shaded as one."""
    found = page.get(asked("/days")).json()["days"]
    assert [one["state"] for one in found] == ["never asked"]
    assert (found[0]["end"] - found[0]["start"]) == 2 * 86_400_000


def test_a_download_has_all_samples_of_the_view(page, settings):
    """CSV and Parquet have the rows of `read.samples`."""
    start, end = (f"2025-03-24T0{hour}:00Z" for hour in (3, 5))
    view = {"from": start, "to": end, "point": POINTS}
    as_csv = arrow_csv.read_csv(
        io.BytesIO(page.get(asked("/download", format="csv", **view)).content),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
    )
    as_parquet = pq.read_table(io.BytesIO(page.get(asked("/download", format="parquet", **view)).content))
    assert as_parquet.num_rows == as_csv.num_rows == 3 * 24
    assert as_csv["value"].to_pylist() == as_parquet["value"].to_pylist()
    assert set(as_csv["point_name"].to_pylist()) == set(POINTS)
    expected = read.samples(SITE, *(as_time(text) for text in (start, end)), points=POINTS, settings=settings).arrow()
    assert as_parquet.equals(expected)


def as_time(text):
    from datetime import datetime  # noqa: PLC0415 - used here alone

    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("path", "changed", "words"),
    [
        ("/chart", {"point": "no such point"}, "no such point"),
        ("/chart", {"point": [f"p{number}" for number in range(9)]}, "the view has 9 points"),
        ("/chart", {"from": "yesterday"}, "from 'yesterday' is not a time"),
        ("/chart", {"to": "2025-03-24"}, "is empty or longer"),
        ("/chart", {"from": "2001-01-01"}, "is empty or longer"),
        ("/chart", {"tz": "Mars/Base"}, "Mars/Base"),
        ("/chart", {"width": "-1"}, "width '-1' is not a number"),
        ("/chart", {"theme": "red"}, "theme 'red'"),
        ("/points", {"site": ""}, "site is missing"),
        ("/download", {"format": "xls"}, "format 'xls'"),
    ],
)
def test_a_wrong_view_is_one_line(page, path, changed, words):
    """Status 400 with a message that shows the wrong value."""
    answer = page.get(asked(path, **changed))
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


def test_the_coverage_page_is_served(page):
    """`/coverage` shows the report of the site, without scripts."""
    answer = page.get(asked("/coverage"))
    assert "<h1>Coverage, 2025-03-24 to 2025-04-06</h1>" in answer.text
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/bokeh.min.js", "/sites", "/points?site=north", "/nothing?site="])
def test_each_answer_forbids_scripts_of_others(page, path):
    """Scripts come from this server only, inline scripts do not run, and no answer names another server."""
    answer = page.get(path)
    if path.startswith("/nothing"):
        assert answer.status_code == 404
        return
    assert answer.status_code == 200
    assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    if path == "/":
        assert "//" not in answer.text
        assert "<script>" not in answer.text


def test_pages_of_other_origins_and_other_hosts_are_refused(page):
    """Without a token the check of Host and Origin decides, as for `serve`."""
    assert page.get("/sites", headers={"Origin": "http://evil.example"}).status_code == 403
    assert page.get("/sites", headers={"Host": "evil.example"}).status_code == 403


def test_with_a_token_every_path_needs_it(settings):
    """The token is the password of Basic authentication, or a bearer token."""
    guarded = settings.model_copy(update={"token": type(settings).load({"BACKFILL_TOKEN": "hush"}).token})
    with served(explore_app(guarded)) as client:
        for path in ("/", "/page.js", "/sites", "/coverage"):
            assert client.get(path).status_code == 401
        assert client.get("/sites", auth=("any", "wrong")).status_code == 401
        assert client.get("/sites", headers={"Authorization": "Basic %%"}).status_code == 401
        assert client.get("/sites", auth=("any", "hush")).json() == {"sites": [SITE], "zones": {}}
        assert client.get("/sites", headers={"Authorization": "Bearer hush"}).status_code == requests.codes.ok


def test_other_machines_reach_the_page_only_with_a_token(settings):
    """Without BACKFILL_TOKEN a host that is not loopback is refused."""
    with pytest.raises(SettingError, match="BACKFILL_TOKEN is not set"):
        run_explore(settings, "0.0.0.0", 0)  # noqa: S104 - it is refused


def test_without_the_extra_the_command_names_it(settings, monkeypatch):
    """A missing package is one line with the command that installs it, and exit code 2."""
    for name in ("bokeh", "backfill_pipeline.explore.app"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.delitem(__import__("sys").modules, "backfill_pipeline.explore.app")
    monkeypatch.setattr("backfill_pipeline.settings.Settings.load", lambda *_: settings)
    done = CliRunner().invoke(backfill, ["explore", "--port", "0"])
    assert isinstance(done.exception, SettingError)
    assert done.exception.exit_code == 2
    assert "bokeh" in str(done.exception)
    assert "backfill-pipeline[explore]" in str(done.exception)


def test_hostile_names_stay_names(page):
    """A name with markup, quotes and a line break is found and charted as it is."""
    found = page.get("/points?" + urlencode({"site": SITE, "words": "onerror"})).json()
    assert [one["name"] for one in found["points"]] == [HOSTILE]
    assert found["points"][0]["shown"].isprintable()
    assert page.get(asked("/chart", point=HOSTILE, figure=1)).status_code == 200


def test_an_unexpected_error_is_an_answer_without_its_text(settings):
    """Status 500 as JSON, which the page shows; the text of the error stays in the server."""

    def fail():
        raise RuntimeError("hush")

    with served(build_app(settings, fail, lambda *_: b"")) as client:
        answer = client.get("/sites")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal"
    assert "hush" not in answer.text


def test_the_page_and_the_figure_have_the_same_colours(page):
    """The colour beside a name is the colour of its line."""
    script = page.get("/page.js").text
    for theme, colors in COLORS.items():
        assert f"{theme}: {list(colors)}".replace("'", '"') in script
