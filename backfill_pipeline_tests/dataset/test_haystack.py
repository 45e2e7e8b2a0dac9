"""Rules of the Haystack grid: entities whose references resolve, units, one function for each point, guesses marked."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phable import Marker, Number, Ref, ph_from_json

from backfill_pipeline.dataset.haystack import haystack_grid, haystack_id
from backfill_pipeline_tests.dataset.catalogue import span, spans

PLACE = "/data/timeseries/*/*/*/north.parquet"


@pytest.fixture(scope="module")
def rows():
    return ph_from_json(haystack_grid("north", spans(), PLACE)).rows


def of_point(rows, number):
    (found,) = (row for row in rows if str(row.get("pointName", "")).endswith(f"/{number}"))
    return found


def test_the_grid_has_site_equipment_devices_places_and_points(rows):
    """Each sort of entity is there, and each reference is the id of an entity of the grid."""
    for marker in ("site", "equip", "ahu", "vav", "device", "floor", "room", "zone", "point"):
        assert any(row.get(marker) == Marker() for row in rows), marker
    ids = [row["id"].val for row in rows]
    assert len(set(ids)) == len(ids)
    assert {value.val for row in rows for value in row.values() if isinstance(value, Ref)} == set(ids)
    assert all(row["siteRef"] == rows[0]["id"] for row in rows[1:])


def test_a_point_has_tags_unit_interval_and_references(rows):
    """A point whose tags state its kind has them, its unit's symbol and its equipment, and is not a guess."""
    found = of_point(rows, 1)
    assert {"point", "his", "zone", "air", "temp", "sensor"} <= {
        tag for tag, value in found.items() if value == Marker()
    }
    assert (found["kind"], found["unit"], found["tz"]) == ("Number", "°C", "UTC")
    assert found["hisCollectInterval"] == Number(300, "s")
    assert "guessed" not in found
    names = {row["id"].val: row for row in rows}
    vav = names[found["equipRef"].val]
    assert (vav["dis"], names[vav["airRef"].val]["dis"]) == ("VAV2_5", "AHU-1")
    assert names[found["deviceRef"].val]["bacnetDeviceInstance"] == Number(1001)
    assert found["bacnetObject"] == "analog-input,1"
    fan = names[of_point(rows, 3)["equipRef"].val]
    assert (fan["dis"], names[fan["equipRef"].val]["dis"]) == ("SF-1", "AHU-1")


def test_guesses_are_marked_and_unknown_units_stay_text(rows):
    """A guess has the marker `guessed` and names its source; a unit that Haystack does not know is text."""
    assert (of_point(rows, 2)["guessed"], of_point(rows, 2)["guessedFrom"]) == (Marker(), "description")
    assert "unit" not in of_point(rows, 4)
    assert of_point(rows, 4)["unitText"] == "furlongs"
    assert not {"unit", "unitText"} & of_point(rows, 3).keys()
    assert of_point(rows, 3)["kind"] == "Bool"


def test_a_point_of_a_known_kind_has_one_function(rows):
    """Haystack requires one of `sensor`, `cmd` and `sp`; a point of unknown kind claims none."""
    for row in rows:
        if "point" in row:
            functions = {"sensor", "cmd", "sp"} & row.keys()
            assert len(functions) == (0 if "deadband" in row["dis"] else 1), row["dis"]


def test_a_point_without_equipment_belongs_to_its_device(rows):
    """Tools of Haystack need an `equipRef`: without equipment it is the device, which then is equipment as well."""
    found = of_point(rows, 8)
    device = next(row for row in rows if row["id"] == found["equipRef"])
    assert device["equip"] == device["device"] == Marker()


@given(st.text(), st.text())
def test_ids_have_allowed_characters_and_differ_with_the_name(one, two):
    """An id has only characters that a reference allows, and different names have different ids."""
    assert re.fullmatch(r"[A-Za-z0-9_:.~-]*", haystack_id(one))
    assert (haystack_id(one, two) == haystack_id(two, one)) == (one == two)
    assert (haystack_id(one) == haystack_id(two)) == (one == two)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_survives(text):
    """A description is read back as it was, and the text has neither line breaks nor control characters."""
    grid = haystack_grid(text, [span(object_description=text, object_name=text)], PLACE)
    assert grid.isascii()
    assert grid.isprintable()
    assert len({row.get("pointName") for row in json.loads(grid)["rows"]}) == 2


def test_the_same_points_give_the_same_text():
    """An export can be compared with an earlier one."""
    assert haystack_grid("north", spans(), PLACE) == haystack_grid("north", spans()[::-1], PLACE)
