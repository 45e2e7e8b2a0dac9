"""A site's points as two standards have to write them: stated kinds, guesses, equipment, places, odd texts."""

from datetime import UTC, datetime
from itertools import combinations

from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.dataset import equipment, point_kinds, units

AT = datetime(2025, 6, 1, tzinfo=UTC)


def item(number, description="", units=None, kind="analogInput", *, tags=(), device=1001, **more):
    """A point as ACE lists it; `more` are further members of its `bacnet_data`, but for `kv_tags` and `name`."""
    name = more.pop("name", f"client/north/10.0.1.5-{device}/{kind}/{number}")
    about = {
        "object_type": kind,
        "object_index": number,
        "object_description": description,
        "units": units,
        "device_id": device,
        "device_address": "10.0.1.5",
    }
    kv_tags = more.pop("kv_tags", {})
    return {
        "name": name,
        "marker_tags": list(tags),
        "kv_tags": kv_tags,
        "collect_interval": 300,
        "bacnet_data": about | more,
    }


def span(number=1, description="", units=None, kind="analogInput", **more):
    """The catalogue's row of one such point."""
    return described([item(number, description, units, kind, **more)], AT)[0]


def spans():
    """The catalogue of a site with one point of each sort."""
    items = [
        item(1, "ZN-T", "degreesCelsius", tags=["zone", "air", "temp", "sensor"],
             kv_tags={"vav": "VAV2_5", "ahu": "AHU-1", "floor": "3", "room": "301", "zone": "Z1"}),
        item(2, "Zone temperature", "degreesFahrenheit", kv_tags={"equip": "VAV2_5"}),
        item(3, "Fan status", "noUnits", "binaryInput", kv_tags={"fan": "SF-1", "ahu": "AHU-1"}),
        item(4, "Chilled water flow", "furlongs", kv_tags={"chiller": "CH-1"}),
        item(5, "", "kilowattHours", kv_tags={"meter": "1"}),
        item(6, "Valve", "percent", "analogOutput", device=7, device_name="VAV-12"),
        item(7, "Duct pressure", "inchesOfWater", kv_tags={"equipRef": "@p:demo:r:1 RTU-3"}),
        item(8, "Zone temperature deadband", "deltaDegreesKelvin", "analogValue"),
        item(9, "Zone temp setpoint", "degreesCelsius", "analogValue", device=8, device_id=None),
        item(10, "High temperature alarm", None, "binaryValue"),
        {"name": "client/north/weather/temp"},
    ]  # fmt: skip
    return described(items, AT)


def all_sorts():
    """A point of each kind and unit of the tables, and one for each pair of kinds of equipment and place."""
    kinds = [sorted(tags) for tags, _ in point_kinds._ROWS]
    names = list(units._BY_NAME)
    items = [
        item(number, "", names[number % len(names)], "analogValue", tags=tags) for number, tags in enumerate(kinds)
    ] + [
        item(1000 + number, "Temperature", names[number % len(names)], kv_tags={one: f"{one}-1", two: f"{two}-2"})
        for number, (one, two) in enumerate(combinations([*equipment._BY_KEY, "equip", "floor", "room", "zone"], 2))
    ]
    return described(items, AT)
