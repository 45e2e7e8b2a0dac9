"""The simulator is the API as it was observed, bug included: tested before anything is tested against it."""

import base64
import json
from datetime import date

import pytest
import requests

from backfill_pipeline.simulator.app import DEFAULT_KEY, PAGE_SIZE, Simulator
from backfill_pipeline.simulator.exports import replayed
from backfill_pipeline.simulator.faults import KINDS, Fault
from backfill_pipeline.simulator.world import ScheduledSite, SiteSpec, TableSite, World, midnight_us
from backfill_pipeline_tests.services import HANGS_S

DAY = date(2025, 3, 1)
START = midnight_us(DAY)
WORLD = World([SiteSpec("north", 40), SiteSpec("old", 3, archived=True)])
WINDOW = {"start_time": "2025-03-01T00:00:00Z", "end_time": "2025-03-02T00:00:00Z"}


@pytest.fixture
def serve():
    """Serve a world for one test; gives a function that asks it."""
    running = []

    def start(world=WORLD, **options):
        simulator = Simulator(world, api_key="k", **options)
        simulator.__enter__()
        running.append(simulator)

        def ask(path, key="k", **query):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return requests.get(
                simulator.url + path, params=query, headers=headers, timeout=HANGS_S, allow_redirects=False
            )

        ask.simulator = simulator
        return ask

    yield start
    for simulator in running:
        simulator.__exit__()


def pages(ask, size, **query):
    """Walk as a plain client would, by the server's own cursor, for at most 40 pages."""
    cursor, found = {}, []
    for _ in range(40):
        page = ask("/sites/s/timeseries/paginated", page_size=size, raw_data="true", **WINDOW, **cursor, **query).json()
        found.append(page)
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return found


def two_sweeps(points: int) -> World:
    return World(
        [TableSite("s", [(START + sweep * 10**6 + 5, f"p{n:05}", '"1.5"') for sweep in (1, 2) for n in range(points)])]
    )


@pytest.mark.parametrize(
    ("bad", "status", "body"),
    [
        ("error", 401, {"message": "Error"}),
        ("jwt", 401, {"message": "JWT Signature Invalid"}),
        ("500", 500, {"message": "An unhandled exception occurred."}),
    ],
)
def test_a_wrong_key_is_refused_as_selected(serve, bad, status, body):
    """No key is 401, a wrong one any of the three answers that were seen."""
    ask = serve(bad_key=bad)
    assert ask("/sites/", key=None).status_code == 401
    answer = ask("/sites/", key="wrong")
    assert (answer.status_code, answer.json()) == (status, body)


def test_lists_are_pages_with_their_envelope(serve):
    """`page, pages, per_page, total, items`, ten a page unless asked otherwise."""
    ask = serve()
    page = ask("/sites/north/configured_points").json()
    assert list(page) == ["page", "pages", "per_page", "total", "items"]
    assert (page["page"], page["per_page"], page["total"], len(page["items"])) == (1, 10, 49, 10)
    assert all(point["collect_enabled"] for point in page["items"])
    assert len(page["items"][0]["bacnet_data"]) == 33
    assert ask("/sites/north/points", per_page=100).json()["total"] > 49
    assert ask("/sites/north/configured_points", page=99, per_page=100).json()["items"] == []


def test_archived_sites_are_listed_only_when_asked_for(serve):
    """`show_archived` brings them."""
    ask = serve()
    assert [site["name"] for site in ask("/sites/").json()["items"]] == ["north"]
    assert len(ask("/sites/", show_archived="True").json()["items"]) == 2


def test_paths_answer_as_the_real_ones(serve):
    """Redirect to the slash, HTML for what is not routed, 403 and 404 for an unknown site."""
    ask = serve()
    assert ask("/sites").status_code == 308
    assert "text/html" in ask("/nowhere").headers["Content-Type"]
    assert (ask("/sites/x").status_code, set(ask("/sites/x").json().values())) == (403, {None})
    assert ask("/sites/x/configured_points").status_code == 404


@pytest.mark.parametrize("size", [7, 25, 30_000, "x", 20])
def test_sizes_are_a_closed_list(serve, size):
    """Any other size is a 400 with the API's own body."""
    answer = serve()("/sites/north/timeseries/paginated", page_size=size, **WINDOW)
    assert answer.status_code == 400
    assert answer.json() == {
        "errors": {
            "page_size": f"Number of records per page {{error_msg}} The value '{size}' is not a valid choice "
            "for 'page_size'."
        },
        "message": "Input payload validation failed",
    }


def test_the_bounds_are_required(serve):
    """A missing bound is a 400 that names it."""
    answer = serve()("/sites/north/timeseries/paginated", start_time="2025-03-01T00:00:00Z")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["end_time"]


def test_an_empty_window_is_the_exact_body(serve):
    """200, Python's separators, a newline at the end."""
    answer = serve()(
        "/sites/north/timeseries/paginated", start_time="2001-01-01T00:00:00Z", end_time="2001-01-02T00:00:00Z"
    )
    assert answer.content == b'{"point_samples": [], "next_cursor": null, "has_more": false}\n'


@pytest.mark.parametrize(("size", "stalls_at"), [(50, 100), (100, 200), (500, 1000)])
def test_the_cursor_stalls_inside_one_timestamp_as_measured(serve, size, stalls_at):
    """A plain loop over rows that share a timestamp is given the same page for ever."""
    found = pages(serve(two_sweeps(1611)), size)
    assert len(found) == 40
    assert len({json.dumps(page) for page in found}) == stalls_at // size
    assert found[-1] == found[-2]


@pytest.mark.parametrize("options", [{"size": 50, "fixed_cursor": True}, {"size": 5000}])
def test_a_repaired_cursor_and_a_large_page_bring_every_row_once(serve, options):
    """Without the bug, or with pages above the largest group, a plain loop completes."""
    ask = serve(two_sweeps(500), fixed_cursor=options.get("fixed_cursor", False))
    rows = [row["name"] + row["time"] for page in pages(ask, options["size"]) for row in page["point_samples"]]
    assert len(rows) == len(set(rows)) == 1000


def test_raw_data_is_off_unless_asked_for(serve):
    """Without it every time is a multiple of five minutes; with it times carry microseconds, values are strings."""
    ask = serve()
    buckets = ask("/sites/north/timeseries/paginated", page_size=10000, **WINDOW).json()["point_samples"]
    raw = ask("/sites/north/timeseries/paginated", page_size=10000, raw_data="true", **WINDOW).json()["point_samples"]
    assert all(row["time"][14:16] in ("00", "05", *map(str, range(10, 60, 5))) for row in buckets)
    assert all(row["time"].endswith(":00") for row in buckets)
    assert any("." in row["time"] for row in raw)
    assert all(row["value"] is None or isinstance(row["value"], str) for row in raw)
    assert [(row["time"], row["name"]) for row in raw] == sorted((row["time"], row["name"]) for row in raw)


def test_the_limit_is_enforced_over_a_sliding_minute(serve):
    """The request above it is a 429 that says when to come back."""
    ask = serve(requests_per_minute=3)
    assert [ask("/sites/").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert int(ask("/sites/").headers["Retry-After"]) >= 59


def test_any_day_can_be_made_again_without_state():
    """The same seed, site and day are the same rows, whatever was asked for before."""
    one, two = SiteSpec("a", 20), SiteSpec("a", 20)
    two.samples(date(2025, 3, 2))
    assert list(one.samples(DAY)) == list(two.samples(DAY))
    assert list(SiteSpec("a", 20, seed=2).samples(DAY)) != list(one.samples(DAY))
    assert SiteSpec("a", 20).samples(date(2023, 12, 31)) == ()


def test_an_export_is_served_to_the_letter(serve, tmp_path):
    """Headers keep colons and spaces, cells their text, blank cells are null values; the file's name is the site's."""
    (tmp_path / "My Site.csv").write_text(
        "Datetime,AHU: Temp ,Fan,Odd\n9/13/2017 0:00,72.29,,on\n9/13/2017 0:01,-0.04,1,\n", encoding="utf-8"
    )
    world = replayed(tmp_path)
    ask = serve(world)
    window = {"start_time": "2017-09-13T00:00:00Z", "end_time": "2017-09-14T00:00:00Z"}
    rows = ask("/sites/My%20Site/timeseries/paginated", raw_data="true", **window).json()["point_samples"]
    assert [(row["time"], row["name"], row["value"]) for row in rows] == [
        ("2017-09-13T00:00:00", "AHU: Temp ", "72.29"),
        ("2017-09-13T00:00:00", "Fan", None),
        ("2017-09-13T00:00:00", "Odd", "on"),
        ("2017-09-13T00:01:00", "AHU: Temp ", "-0.04"),
        ("2017-09-13T00:01:00", "Fan", "1"),
        ("2017-09-13T00:01:00", "Odd", None),
    ]
    minute = 1505260800000
    assert world.truth("My Site", date(2017, 9, 13)) == [
        (minute, "AHU: Temp ", 72.29),
        (minute + 60_000, "AHU: Temp ", -0.04),
        (minute + 60_000, "Fan", 1.0),
    ]


@pytest.mark.parametrize("text", ["nonsense", "truncate:share", "truncate:share=x", "message:day=2025-02-30"])
def test_a_fault_that_makes_no_sense_is_refused(text):
    """Unknown kinds and broken options are errors, not silence."""
    with pytest.raises(ValueError):
        Fault.parse(text)


def test_an_outage_is_of_the_whole_api_and_ends(serve):
    """While it lasts, an outage answers no request, of lists neither; then the API is as before."""
    ask = serve(faults=[Fault.parse("outage:seconds=0.5,code=503")])
    assert ask("/sites/").status_code == 503
    while ask("/sites/").status_code != 200:
        pass
    assert ask("/sites/").status_code == 200


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"stall", "max_page", "slow_page", "outage"}))
def test_each_fault_changes_the_answer(serve, kind):
    """What a fault does is seen on the wire, and only as often as it was asked for."""
    path, query = "/sites/north/timeseries/paginated", {"page_size": 500, "raw_data": "true", **WINDOW}
    if kind == "no_data":
        query |= {"start_time": "2001-01-01T00:00:00Z", "end_time": "2001-01-02T00:00:00Z"}
    if kind in ("late_cursor", "more_at_end"):
        query |= {"page_size": PAGE_SIZE[-1]}
    honest = serve()
    first = honest(path, **query)
    cursor = {} if kind != "repeat_last" else {"cursor": first.json()["next_cursor"]}
    if kind == "bare_nan":
        query |= {"page_size": PAGE_SIZE[-1]}
    plain = honest(path, **query, **cursor)
    ask = serve(faults=[Fault(kind, times=1 if kind != "repeat_last" else None)])
    if cursor:
        ask(path, **query)
    try:
        answer = ask(path, **query, **cursor)
        assert (answer.status_code, answer.content) != (plain.status_code, plain.content)
    except requests.RequestException:
        assert kind in ("truncate", "reset")
    if not cursor:
        assert ask(path, **query).content == plain.content


def test_a_cursor_with_another_field_has_to_be_sent_back_verbatim(serve):
    """Without the field, or with that of another position, a page is empty and its cursor has the right one."""
    ask = serve(faults=[Fault("cursor_field")])

    def page(cursor=None):
        sent = {"cursor": cursor} if cursor else {}
        return ask("/sites/north/timeseries/paginated", page_size=500, raw_data="true", **WINDOW, **sent).json()

    right = page()["next_cursor"]
    fields = json.loads(base64.b64decode(right))
    for changed in ({**fields, "token": ""}, {name: fields[name] for name in ("offset", "timestamp")}):
        answer = page(base64.b64encode(json.dumps(changed).encode()).decode())
        assert answer == {"point_samples": [], "next_cursor": right, "has_more": True}
    assert len(page(right)["point_samples"]) == 500


def test_pages_above_a_size_can_be_refused(serve):
    """Refused as a 400 that names the parameter, or by a proxy's 502."""
    for kind, status in (("max_page", 400), ("slow_page", 502)):
        ask = serve(faults=[Fault.parse(f"{kind}:rows=1000")])
        path = "/sites/north/timeseries/paginated"
        assert ask(path, page_size=5000, **WINDOW).status_code == status
        assert ask(path, page_size=1000, **WINDOW).status_code == 200


def test_a_fault_strikes_one_day_of_one_site(serve):
    """Requests that touch the day of the site are answered otherwise, all others as without the fault."""
    world = World([SiteSpec("north", 5), SiteSpec("south", 5)])
    ask = serve(world, faults=[Fault.parse("message:site=north,day=2025-03-02")])

    def has_samples(site, start, end):
        bounds = {"start_time": f"2025-03-{start}Z", "end_time": f"2025-03-{end}Z"}
        return "point_samples" in ask(f"/sites/{site}/timeseries/paginated", raw_data="true", **bounds).json()

    assert has_samples("north", "01T00:00:00", "02T00:00:00")
    assert not has_samples("north", "02T00:00:00", "02T01:00:00")
    assert not has_samples("north", "02T23:00:00", "03T00:00:00")
    assert not has_samples("north", "01T00:00:00", "04T00:00:00")
    assert has_samples("north", "03T00:00:00", "04T00:00:00")
    assert has_samples("south", "02T00:00:00", "03T00:00:00")


def test_a_site_may_start_late_and_have_empty_days():
    """No rows on these days, in every window; the points and the other days are the site's."""
    site = SiteSpec("north", 5)
    world = World([ScheduledSite(site, date(2025, 3, 2), frozenset({date(2025, 3, 4)}))])
    days = [date(2025, 3, number) for number in range(1, 6)]
    assert [bool(world.truth("north", day)) for day in days] == [False, True, True, False, True]
    assert world.truth("north", days[1]) == World([site]).truth("north", days[1])
    assert {at // 86_400_000_000 for at, *_ in world.window("north", midnight_us(days[0]), midnight_us(days[4]))} == {
        midnight_us(day) // 86_400_000_000 for day in days[1:3]
    }
    assert world.sites[0].points() == site.points()


@pytest.mark.parametrize("count", [10, 20, 60, 200])
def test_points_are_described_as_a_building_has_them(count):
    """Each point has a description, a unit, tags and a device with one name; its own name is that of its samples."""
    points = SiteSpec("a", count).points()
    devices = {}
    for point in points:
        about = point["bacnet_data"]
        assert about["object_description"]
        assert about["units"]
        assert point["marker_tags"]
        if "/weather/" not in point["name"]:
            assert f"-{about['device_id']}/{about['object_type']}/{about['object_index']}" in point["name"]
            assert devices.setdefault(about["device_id"], about["device_name"]) == about["device_name"]
            assert point["kv_tags"]["equip"] == about["device_name"]
    units = {point["name"]: point["bacnet_data"]["units"] for point in points}
    assert {units[name] for _, name, _ in SiteSpec("a", count).samples(DAY)} >= {"degreesCelsius", "percent"}


def test_lists_of_points_change_over_time_where_that_is_asked_for():
    """By the clock a device is renamed, a unit and an interval change, a point leaves and comes back, one is new."""
    now, world = [0.0], World([SiteSpec("north", 40)])
    with Simulator(world, points_change_s=10, clock=lambda: now[0]) as simulator:

        def listed(seconds):
            now[0] = seconds
            answer = requests.get(
                f"{simulator.url}/sites/north/configured_points?per_page=500",
                headers={"Authorization": f"Bearer {DEFAULT_KEY}"},
                timeout=HANGS_S,
            )
            return {point["name"]: point for point in answer.json()["items"]}

        before, renamed, other, gone, back, later = (listed(seconds) for seconds in (9, 10, 20, 30, 40, 400))
    names = list(before)
    assert before == {point["name"]: point for point in world.sites[0].points() if point["collect_enabled"]}
    assert renamed[names[0]]["bacnet_data"]["device_name"] == f"{before[names[0]]['bacnet_data']['device_name']} east"
    assert other[names[1]]["bacnet_data"]["units"] == "degreesFahrenheit"
    assert other[names[2]]["collect_interval"] == 600
    assert before.keys() - gone.keys() == {names[3]}
    assert [point["bacnet_data"]["units"] for name, point in gone.items() if name not in before] == ["partsPerMillion"]
    assert back.keys() - gone.keys() == {names[3]}
    assert later == back
