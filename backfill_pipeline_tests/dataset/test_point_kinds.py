"""Rules of kinds, units and equipment: tags state them, texts are guesses, and what is not known stays so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.dataset import point_kinds
from backfill_pipeline.dataset.equipment import surroundings_of
from backfill_pipeline.dataset.point_kinds import UNKNOWN_KIND, kind_of
from backfill_pipeline.dataset.units import has_no_unit, unit_of
from backfill_pipeline_tests.dataset.catalogue import span, spans


@pytest.mark.parametrize(
    ("tags", "kind", "brick", "guessed"),
    [
        ("zone air temp sensor", "analogValue", "Zone_Air_Temperature_Sensor", None),
        ("zone air temp sp cooling", "analogValue", "Cooling_Zone_Air_Temperature_Setpoint", None),
        ("supply air temperature sensor", "analogInput", "Discharge_Air_Temperature_Sensor", None),
        ("zone temp", "analogInput", "Zone_Air_Temperature_Sensor", None),
        ("zone temp", "analogValue", "Zone_Air_Temperature_Sensor", "object type"),
        ("damper", "analogOutput", "Damper_Position_Command", None),
        ("chilled water leaving temp sensor", "analogInput", "Leaving_Chilled_Water_Temperature_Sensor", None),
        ("elec power sensor", "analogInput", "Electric_Power_Sensor", None),
    ],
)
def test_tags_state_the_kind(tags, kind, brick, guessed):
    """Marker tags give the kind; a function that neither tags nor the BACnet object state is a guess."""
    found = kind_of(span(kind=kind, tags=tags.split()))
    assert (found.brick, found.guessed_from) == (brick, guessed)


def test_the_tags_of_each_row_give_its_class():
    """No row of the table hides another one."""
    for tags, brick in point_kinds._ROWS:
        assert kind_of(span(kind="analogValue", tags=sorted(tags))).brick == brick


@pytest.mark.parametrize(
    ("about", "brick", "source"),
    [
        ({"description": "Zone temperature"}, "Zone_Air_Temperature_Sensor", "description"),
        ({"object_name": "VAV_2_5_ZoneTemp"}, "Zone_Air_Temperature_Sensor", "object name"),
        ({"object_name": "OA-T"}, "Outside_Air_Temperature_Sensor", "object name"),
        ({"object_name": "ZN-SP", "units": "degreesFahrenheit"}, "Target_Zone_Air_Temperature_Setpoint", "object name"),
        ({"description": "Supply Fan Status", "kind": "binaryInput"}, "Fan_On_Off_Status", "description"),
        ({"description": "Heating valve", "kind": "analogOutput"}, "Valve_Position_Command", "description"),
        ({"description": "Room CO2", "units": "partsPerMillion"}, "Zone_CO2_Level_Sensor", "description"),
        ({"name": "client/zone_power/weather/dew_point"}, "Outside_Air_Dewpoint_Sensor", "name"),
        ({"units": "kilowatts"}, "Power_Sensor", "unit"),
    ],
)
def test_without_tags_the_kind_is_a_guess_that_names_its_source(about, brick, source):
    """Words of the description, the object's name or the point's own name, or the unit, give a guess."""
    found = kind_of(span(**about))
    assert (found.brick, found.guessed_from) == (brick, source)


@pytest.mark.parametrize(
    "about",
    [
        {"description": "Zone temperature deadband", "units": "deltaDegreesKelvin", "kind": "analogValue"},
        {"description": "Max air flow limit", "units": "cubicFeetPerMinute"},
        {"name": "client/zone_temp/10.0.0.1-1/analogValue/7/presentValue"},
        {"description": "Spare 3"},
        {},
    ],
)
def test_what_no_text_says_stays_unknown(about):
    """A deadband is not a temperature, and the names of client, site and device describe no point."""
    assert kind_of(span(**about)) == UNKNOWN_KIND


@given(st.text(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
def test_any_text_has_a_kind_and_surroundings(description, name, tags, kv_tags):
    """No text of a point fails the lookup."""
    one = span(
        description=description, object_name=name, device_name=name, tags=tags, kv_tags=kv_tags, units=description
    )
    assert kind_of(one).brick
    assert set(surroundings_of([one])) == {one.name}


@pytest.mark.parametrize(
    ("text", "qudt", "haystack"),
    [
        ("degreesCelsius", "DEG_C", "°C"),
        ("degrees-celsius", "DEG_C", "°C"),
        ("DEGREES_FAHRENHEIT", "DEG_F", "°F"),
        ("°F", "DEG_F", "°F"),
        ("cubicFeetPerMinute", "FT3-PER-MIN", "cfm"),
        ("kW", "KiloW", "kW"),
        ("MW", "MegaW", "MW"),
    ],
)
def test_a_unit_is_found_by_any_spelling_of_its_name_and_by_its_symbol(text, qudt, haystack):
    """BACnet's names are found however they are written; symbols only as they are, since mW is not MW."""
    found = unit_of(text)
    assert found is not None
    assert (found.qudt, found.haystack) == (qudt, haystack)


def test_an_unknown_unit_is_not_a_known_one_and_no_unit_is_none():
    """A text in no table has no unit; `noUnits` is not an unknown unit."""
    assert unit_of("furlongs") is unit_of("mw ") is None
    assert has_no_unit("noUnits")
    assert has_no_unit(None)
    assert not has_no_unit("furlongs")


def test_equipment_comes_from_tags_and_its_kind_from_the_surest_point():
    """The innermost piece is the point's own; a point that names it without a kind gets the kind of the others."""
    found = {name.rpartition("/")[2]: each for name, each in surroundings_of(spans()).items()}
    assert [(one.name, one.brick) for one in found["1"].equipment] == [("AHU-1", "AHU"), ("VAV2_5", "VAV")]
    assert found["2"].equipment == found["1"].equipment[1:]
    assert found["2"].equipment[0].guessed_from is None
    assert found["3"].equipment[0].contains(found["3"].equipment[1])
    assert found["1"].equipment[0].feeds(found["1"].equipment[1])
    assert [(one.kind, one.name) for one in found["1"].places] == [("floor", "3"), ("room", "301"), ("zone", "Z1")]
    (guess,) = found["6"].equipment
    assert (guess.name, guess.brick, guess.guessed_from) == ("VAV-12", "VAV", "device name")
    assert [(one.name, one.guessed_from) for one in found["7"].equipment] == [("RTU-3", "name")]
    assert [one.name for one in found["5"].equipment] == ["meter 1"]
