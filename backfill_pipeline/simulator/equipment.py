"""What the simulated points are: air handlers, zones, chillers and weather, and how their list changes over time.

Put here: descriptions, units, tags and devices that fit the names and values of `world.py`, and the changes of a list.
Keep out: names and samples.
"""

from collections.abc import Sequence
from typing import Any

_Kind = tuple[str, str, str, str]
"""Description, object name, unit, and marker tags."""

_AIR_HANDLER: dict[str, tuple[_Kind, ...]] = {
    "analogInput": (
        ("Supply air temperature", "SA-T", "degreesCelsius", "discharge air temp sensor"),
        ("Return air temperature", "RA-T", "degreesCelsius", "return air temp sensor"),
        ("Mixed air temperature", "MA-T", "degreesCelsius", "mixed air temp sensor"),
        ("Filter differential pressure", "FLT-DP", "pascals", "filter air pressure sensor"),
        ("Supply fan power", "SF-KW", "kilowatts", "discharge fan elec power sensor"),
    ),
    "analogValue": (
        ("Supply air temperature setpoint", "SA-T-SP", "degreesCelsius", "discharge air temp sp"),
        ("Cooling valve command", "CLG-V", "percent", "cool valve cmd"),
        ("Heating valve command", "HTG-V", "percent", "heat valve cmd"),
        ("Supply fan speed command", "SF-SPD", "percent", "discharge fan speed cmd"),
    ),
    "binaryInput": (("Humidifier water meter, pulses", "HUM-WM", "perMinute", "water meter sensor"),),
}
_ZONES: dict[str, tuple[_Kind, ...]] = {
    "analogInput": (
        ("Zone {zone} temperature", "ZN-T", "degreesCelsius", "zone air temp sensor"),
        ("Zone {zone} discharge air temperature", "DA-T", "degreesCelsius", "discharge air temp sensor"),
        ("Zone {zone} relative humidity", "ZN-RH", "percentRelativeHumidity", "zone air humidity sensor"),
    ),
    "analogValue": (
        ("Zone {zone} temperature setpoint", "ZN-T-SP", "degreesCelsius", "zone air temp sp"),
        ("Zone {zone} damper command", "DMP", "percent", "damper cmd"),
        ("Zone {zone} reheat valve command", "RH-V", "percent", "reheat valve cmd"),
    ),
    "binaryInput": (("Zone {zone} heat meter, pulses", "HM", "perMinute", "heat meter sensor"),),
}
_CHILLER: dict[str, tuple[_Kind, ...]] = {
    "analogInput": (
        ("Condenser water entering temperature", "CW-ET", "degreesCelsius", "condenser water entering temp sensor"),
        ("Condenser water leaving temperature", "CW-LT", "degreesCelsius", "condenser water leaving temp sensor"),
        ("Compressor current", "COMP-A", "amperes", "compressor elec current sensor"),
        ("Chilled water flow", "CHW-F", "litersPerSecond", "chilled water flow sensor"),
    ),
    "analogValue": (
        ("Chiller demand limit", "CH-DL", "percent", "chiller demand sp"),
        ("Condenser water temperature setpoint", "CW-T-SP", "degreesCelsius", "condenser water temp sp"),
    ),
    "binaryInput": (("Electric meter, pulses", "EM", "perMinute", "elec meter sensor"),),
}
_DEVICES = (("CH", "Chiller", _CHILLER), ("AHU", "Air handling unit", _AIR_HANDLER), ("VAV", "Zone controller", _ZONES))

_WEATHER = {
    "temp": ("Outdoor air temperature", "degreesCelsius"),
    "feels_like": ("Outdoor apparent temperature", "degreesCelsius"),
    "pressure": ("Barometric pressure", "inchesOfMercury"),
    "humidity": ("Outdoor relative humidity", "percentRelativeHumidity"),
    "dew_point": ("Outdoor dew point", "degreesCelsius"),
    "clouds": ("Cloud cover", "percent"),
    "wind_speed": ("Wind speed", "kilometersPerHour"),
    "wind_deg": ("Wind direction", "degreesAngular"),
    "wet_bulb": ("Outdoor wet bulb temperature", "degreesCelsius"),
}

STAGES = 4
"""Changes of a list, one after the other; then it stays as it is."""


def described(number: int, device: int, kind: str) -> dict[str, Any]:
    """Describe a point of a controller: its fields beside name and interval.

    Args:
        number: of the point within its site.
        device: of its controller.
        kind: the BACnet object type.
    """
    prefix, what, kinds = _DEVICES[device % len(_DEVICES)]
    title, object_name, unit, markers = kinds[kind][number // 3 % len(kinds[kind])]
    zone, name = 1 + number // 9 % 40, f"{prefix}-{device}"
    return {
        "bacnet_data": {
            "device_address": f"10.0.{device // 250}.{device % 250}",
            "device_id": device,
            "device_name": name,
            "device_description": what,
            "object_type": kind,
            "object_index": number,
            "object_name": object_name,
            "object_description": title.format(zone=zone),
            "units": unit,
        },
        "kv_tags": {"equip": name, "floor": str(1 + zone // 10)} | ({"zone": str(zone)} if "{zone}" in title else {}),
        "marker_tags": markers.split(),
    }


def described_weather(what: str) -> dict[str, Any]:
    """Describe a point of the weather service: its fields beside name and interval."""
    title, unit = _WEATHER[what]
    return {
        "bacnet_data": {
            "device_name": "Weather service",
            "device_description": "",
            "object_name": what,
            "object_description": title,
            "units": unit,
        },
        "marker_tags": ["weather", "sensor"],
    }


def changed(points: Sequence[dict[str, Any]], stage: int) -> list[dict[str, Any]]:
    """The list of a site's points after some changes, each beside those before it.

    1: the first point's controller has another name. 2: the second point has another unit, the third another interval.
    3: the fourth point leaves the list, and a new one is in it. 4: the fourth point is back.

    Args:
        points: the list, at least four points long; a shorter one does not change.
        stage: how many changes there have been.
    """
    if stage < 1 or len(points) < 4:  # noqa: PLR2004 - as above
        return list(points)
    found = [dict(point) for point in points]
    device = found[0]["bacnet_data"].get("device_id")
    for point in found:
        if point["bacnet_data"].get("device_id") == device:
            point["bacnet_data"] = point["bacnet_data"] | {"device_name": f"{point['bacnet_data']['device_name']} east"}
    if stage >= 2:  # noqa: PLR2004 - the second change
        found[1]["bacnet_data"] = found[1]["bacnet_data"] | {"units": "degreesFahrenheit"}
        found[2]["collect_interval"] = 2 * found[2]["collect_interval"]
    if stage >= 3:  # noqa: PLR2004 - the third change
        new = found[0]["name"].rpartition("/")[0]
        about = found[0]["bacnet_data"] | {
            "object_name": "CO2",
            "object_description": "Carbon dioxide",
            "units": "partsPerMillion",
        }
        found.append(found[0] | {"id": 990_001, "name": f"{new}/990001", "bacnet_data": about, "marker_tags": ["co2"]})
    if stage == 3:  # noqa: PLR2004 - as above
        del found[3]
    return found
