"""Rules of the points' catalogue: what is kept of a point, and when it gets a new row."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.point_catalogue import (
    at_instant,
    described,
    from_table,
    matches,
    merged,
    packed,
    to_table,
    unpacked,
)

AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
LATER = AT + timedelta(days=30)


def point(name="a/b/1", **changes):
    bacnet = {
        "device_address": "10.0.0.10",
        "device_id": 100,
        "object_type": "analogInput",
        "object_index": 1,
        "object_name": "ZN-T",
        "device_name": "VAV-2-5",
        "object_description": "Zone temperature",
        "units": "degreesCelsius",
        "present_value": "21.5",
        "model_name": "property: unknown-property",
    } | changes.pop("bacnet", {})
    return {
        "id": 7,
        "name": name,
        "client": "a",
        "site": "b",
        "kv_tags": {"vav": "VAV2_5"},
        "bacnet_data": bacnet,
        "marker_tags": ["zone", "temp"],
        "collect_config": {},
        "point_type": None,
        "collect_enabled": True,
        "collect_interval": 300,
        "updated": "2025-12-01T23:46:12.058246",
        "created": "2024-02-14T19:43:07.623281",
    } | changes


def test_what_ace_says_of_a_point_has_a_column_each():
    """Name, unit, description, object, device, tags and interval of a point are columns of its row."""
    (span,) = described([point()], AT)
    assert (span.name, span.unit, span.description) == ("a/b/1", "degreesCelsius", "Zone temperature")
    assert (span.object_name, span.object_type, span.object_index) == ("ZN-T", "analogInput", 1)
    assert (span.device_name, span.device_id, span.device_address) == ("VAV-2-5", 100, "10.0.0.10")
    assert span.kv_tags == (("vav", "VAV2_5"),)
    assert span.marker_tags == ("temp", "zone")
    assert (span.collect_interval, span.collect_enabled, span.point_type) == (300, True, None)
    assert span.valid_from == datetime(2024, 2, 14, 19, 43, 7, 623000, tzinfo=UTC)
    assert json.loads(span.raw)["bacnet_data"]["present_value"] == "21.5"


@pytest.mark.parametrize(
    "change",
    [
        {"updated": "2026-01-01T00:00:00"},
        {"bacnet": {"present_value": "30"}},
        {"bacnet": {"status_flags": "in-alarm"}},
        {"unheard_of": 1},
    ],
)
def test_an_observation_is_not_a_change(change):
    """A new present value, or ACE's `updated`, begins no row: the last day on which the point was seen moves on."""
    known = described([point()], AT)
    (span,) = merged(known, described([point(**change)], LATER), LATER)
    assert (span.first_seen, span.last_seen) == (AT.date(), LATER.date())
    assert span.valid_to is None


@pytest.mark.parametrize(
    "change",
    [
        {"bacnet": {"units": "degreesFahrenheit"}},
        {"bacnet": {"object_description": "Return air"}},
        {"bacnet": {"device_name": "VAV-2-6"}},
        {"bacnet": {"cov_increment": "0.5"}},
        {"kv_tags": {"vav": "VAV2_6"}},
        {"marker_tags": ["zone"]},
        {"collect_interval": 60},
        {"collect_enabled": False},
        {"collect_config": {"cov": True}},
    ],
)
def test_a_change_of_what_a_point_is_closes_its_row_and_begins_another(change):
    """A changed unit, description, tag, device or interval is a new row; the row before ends at that instant."""
    spans = merged(described([point()], AT), described([point(**change)], LATER), LATER)
    assert [(span.valid_to, span.valid_from >= LATER) for span in spans] == [(LATER, False), (None, True)]


def test_a_point_that_comes_back_after_a_year_has_two_rows():
    """A point that leaves the list has its row closed; when the list names it again, a new row begins."""
    gone, back = AT + timedelta(days=1), AT + timedelta(days=366)
    spans = merged(described([point()], AT), described([point("a/b/2")], gone), gone)
    assert spans[0].valid_to == gone
    spans = merged(spans, described([point(), point("a/b/2")], back), back)
    assert [(s.name, s.valid_to) for s in spans] == [("a/b/1", gone), ("a/b/1", None), ("a/b/2", None)]
    assert spans[1].valid_from == back


@pytest.mark.parametrize(
    "field",
    [
        {"bacnet": {"device_token": "x"}},
        {"bacnet": {"nested": {"vpn_ip": "10.8.0.1"}}},
        {"collect_config": {"mqtt_password": "x", "username": "x", "api_key": "x"}},
        {"kv_tags": {"secret": "x"}},
        {"device_token": "x"},
        {"ansible_user": "x"},
        {"vtron_ip": "10.8.0.1"},
        {"bacnet": {"note": "Bearer abcdefghijkl"}},
        {"bacnet": {"url": "https://me:word@host/"}},
        {"marker_tags": ["eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"]},
    ],
)
def test_what_looks_like_a_secret_is_not_kept(field):
    """Tokens, passwords, users and management addresses reach no column, whichever field of a point holds them."""
    (span,) = described([point(**field)], AT)
    text = json.dumps([span.raw, span.kv_tags, span.marker_tags])
    for secret in ("token", "10.8", "password", "username", "api_key", "secret", "Bearer", "word@", "eyJ", "ansible"):
        assert secret not in text


CONFIDENTIAL = (
    *("device_token", "device_token_expires", "vpn_ip", "primary_mac", "interfaces", "deploy_config", "auth_token"),
    *("ansible_user", "vtron_user", "vtron_ip", "created_by_user", "bus_contact", "tech_contact", "blob"),
    *("content_blob", "deviceToken", "vpnIp", "VPN-IP", "createdByUser", "management address"),
)
"""Fields of gateways, sites, agents, clients and events in the API's description that hold what must not be kept."""

KEPT = (
    *("device_address", "device_id", "object_type", "object_index", "object_name", "device_name"),
    *("object_description", "device_description", "scrape_interval", "scrape_enabled", "present_value"),
)
"""All fields of `bacnet_data` in the API's description."""


@pytest.mark.parametrize("name", CONFIDENTIAL)
def test_confidential_fields_of_the_api_are_kept_nowhere(name):
    """Tokens, users and management addresses are dropped, whichever field of a point holds them, at any depth."""
    value = "leaked-1.2.3.4"
    for item in (
        point(**{name: value}),
        point(bacnet={name: value, "deep": [{"deeper": {name: [value]}}]}),
        point(collect_config={"agent": {name: {"x": value}}}),
        point(kv_tags={name: value, "list": [{name: value}]}),
        point(marker_tags=[{name: value}]),
    ):
        (span,) = described([item], AT)
        assert "leaked" not in repr(span)
        assert span.means(described([item], AT)[0])


@pytest.mark.parametrize("name", KEPT)
def test_every_documented_field_of_a_point_is_kept(name):
    """Each field that the API's description gives `bacnet_data` is a column or is kept as JSON."""
    value = 77 if name in ("device_id", "object_index") else "kept-77"
    (span,) = described([point(bacnet={name: value})], AT)
    assert "77" in repr(span)


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abcdefghijkl",
        "https://me:word@host/",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        '{"mqtt": {"password": "hunter2"}}',
        '"{\\"device_token\\": \\"abc123\\"}"',
        "user=me;pwd=hunter2",
        "API-Key: abcdef",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_texts_that_hold_a_secret_are_kept_nowhere(text):
    """A text with a token, a key or a password is dropped in each field of a point, as a value and as a tag's name."""
    for item in (
        point(bacnet={"object_description": text, "note": text, "list": [text]}),
        point(bacnet={"device_name": text}, kv_tags={"note": text, text: "x"}, marker_tags=[text]),
        point(point_type=text, collect_config={"x": {"y": text}}),
    ):
        (span,) = described([item], AT)
        assert text not in repr(span)
        assert json.dumps(text)[1:-1] not in span.raw


def test_a_description_is_not_taken_for_a_secret():
    """Words of buildings that look like those of secrets are kept."""
    texts = ["Key card reader", "Basic refrigeration", "Author: plant", "Pass-through damper", "Pinned value", "pwd"]
    for text in texts:
        (span,) = described([point(bacnet={"object_description": text})], AT)
        assert span.description == text


@pytest.mark.parametrize("depth", [3, 39, 41, 200, 900])
def test_a_deeply_nested_field_fails_no_list(depth):
    """A field nested hundreds of levels deep is cut at a depth and fails neither its list nor other points."""
    deep = "x"
    for _ in range(depth):
        deep = {"a": deep}
    items = [point(collect_config=deep), point("a/b/2")]
    first, second = described(unpacked(packed(items)), AT)
    assert second.description == "Zone temperature"
    assert ("nested deeper" in first.raw) == (depth > 40)
    assert len(first.raw) < 1_000


def test_a_list_is_kept_in_little_memory_and_comes_back_as_it_was():
    """A list of 2,000 points packs to less than 100 bytes a point, without a loss."""
    items = [point(f"a/b/{n}", id=n, odd=[None, 1.5, "\ud800é"]) for n in range(2000)]
    data = packed(items)
    assert unpacked(data) == items
    assert len(data) < 200_000
    assert unpacked(b"") == []


@pytest.mark.parametrize(
    "odd",
    [
        {"bacnet_data": None},
        {"bacnet_data": "None"},
        {"bacnet_data": [1, 2]},
        {"kv_tags": ["a", "b"]},
        {"kv_tags": {"n": 1, "deep": {"x": [1]}}},
        {"marker_tags": {"a": 1}},
        {"marker_tags": [1, None, {"x": 2}, "a"]},
        {"collect_interval": "None"},
        {"collect_interval": "soon"},
        {"id": 2**70},
        {"created": "yesterday", "updated": 17},
        {"collect_enabled": "maybe"},
        {"point_type": {"x": 1}},
    ],
)
def test_odd_fields_are_kept_and_fail_nothing(odd):
    """A field of another type than ACE's description gives it is kept as JSON, and survives a round trip."""
    spans = described([point(**odd)], AT)
    assert from_table(to_table(spans)) == spans
    (key, value), *_ = odd.items()
    if value not in (None, "None") and key not in ("kv_tags", "marker_tags", "created"):
        assert json.dumps(value, separators=(",", ":"), sort_keys=True) in spans[0].raw


def test_names_that_differ_in_case_are_two_points():
    """Point names are compared with their case."""
    assert [s.name for s in described([point("a/B"), point("a/b")], AT)] == ["a/B", "a/b"]


def test_an_older_list_that_arrives_late_loses_nothing():
    """Of two runs that list the points at nearly the same time, either order of writing keeps all points."""
    before = described([point()], AT)
    old = described([point(), point("a/b/new-in-old")], LATER)
    new_at = LATER + timedelta(seconds=5)
    new = described([point(collect_interval=60)], new_at)
    spans = merged(merged(before, new, new_at), old, LATER)
    assert [(s.name, s.collect_interval) for s in spans] == [("a/b/1", 300), ("a/b/1", 60), ("a/b/new-in-old", 300)]
    for one in (s for s in spans if s.name == "a/b/1"):
        assert one.valid_to is None or one.valid_from < one.valid_to


def test_at_an_instant_each_point_has_one_row():
    """At an instant the valid row counts; before the first row of a point, its first one."""
    spans = merged(described([point()], AT), described([point(collect_interval=60)], LATER), LATER)
    assert [s.collect_interval for s in at_instant(spans, AT)] == [300]
    assert [s.collect_interval for s in at_instant(spans, LATER)] == [60]
    assert [s.collect_interval for s in at_instant(spans, datetime(1990, 1, 1, tzinfo=UTC))] == [300]
    assert [s.collect_interval for s in at_instant(spans, None)] == [60]


@pytest.mark.parametrize("words", ["zone TEMP", "vav2_5", "degreescelsius", "VAV-2-5", "vav:VAV2_5", "10.0.0.10 zn-t"])
def test_words_find_a_point_in_any_field(words):
    """A point is found when each word occurs in its name, description, unit, tags or device."""
    (span,) = described([point()], AT)
    assert matches(span, words)
    assert not matches(span, f"{words} nowhere")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"name": st.sampled_from(["x", "X", "y"])}, optional={
    "bacnet_data": JSON, "kv_tags": JSON, "marker_tags": JSON, "collect_config": JSON, "collect_interval": JSON,
    "created": JSON, "id": JSON, "point_type": JSON, "collect_enabled": JSON,
}), max_size=4))  # fmt: skip
def test_any_list_survives_and_the_same_list_changes_nothing(items):
    """Whatever the fields hold: the rows survive a round trip, and merging the same list again changes nothing."""
    spans = merged([], described(items, AT), AT)
    assert from_table(to_table(spans)) == spans
    assert merged(spans, described(items, AT), AT) == spans


@given(
    st.lists(st.tuples(st.integers(0, 4), st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2)))), max_size=6)
)
def test_spans_of_a_point_never_overlap(lists):
    """Whatever lists arrive in whatever order, the spans of a point follow each other without overlapping."""
    spans = []
    for hour, listed in lists:
        at = AT + timedelta(hours=hour)
        items = [{"name": name, "collect_interval": interval} for name, interval in listed]
        spans = merged(spans, described(items, at), at)
    for name in "ab":
        own = [span for span in spans if span.name == name]
        for one, two in pairwise(own):
            assert one.valid_to is not None
            assert one.valid_to <= two.valid_from
        assert all(s.first_seen <= s.last_seen <= date(2025, 6, 2) for s in own)
