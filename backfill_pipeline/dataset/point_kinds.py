"""What kind of point it is, in the words of two standards: Brick classes and Project Haystack tags.

A point's tags give its kind. Without tags the kind is guessed from its description, its object's name, its own name or
its unit, and `PointKind.guessed_from` says so.

Put here: the table of kinds, the words that mean them, and how a point is looked up. Keep out: units (`units.py`),
equipment (`equipment.py`) and what a model looks like (`brick.py`, `haystack.py`).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.dataset.units import unit_of

_KINDS = """
temp sensor                              Temperature_Sensor
air temp sensor                          Air_Temperature_Sensor
room zone air temp sensor                Room_Air_Temperature_Sensor
zone air temp sensor                     Zone_Air_Temperature_Sensor
discharge air temp sensor                Discharge_Air_Temperature_Sensor
return air temp sensor                   Return_Air_Temperature_Sensor
mixed air temp sensor                    Mixed_Air_Temperature_Sensor
outside air temp sensor                  Outside_Air_Temperature_Sensor
exhaust air temp sensor                  Exhaust_Air_Temperature_Sensor
outside air wetBulb temp sensor          Outside_Air_Wet_Bulb_Temperature_Sensor
outside air wetBulb sensor               Outside_Air_Wet_Bulb_Temperature_Sensor
dewPoint sensor                          Dewpoint_Sensor
outside air dewPoint sensor              Outside_Air_Dewpoint_Sensor
water temp sensor                        Water_Temperature_Sensor
water entering temp sensor               Entering_Water_Temperature_Sensor
water leaving temp sensor                Leaving_Water_Temperature_Sensor
chilled water temp sensor                Chilled_Water_Temperature_Sensor
chilled water entering temp sensor       Entering_Chilled_Water_Temperature_Sensor
chilled water leaving temp sensor        Leaving_Chilled_Water_Temperature_Sensor
hot water entering temp sensor           Entering_Hot_Water_Temperature_Sensor
hot water leaving temp sensor            Leaving_Hot_Water_Temperature_Sensor
condenser water temp sensor              Condenser_Water_Temperature_Sensor
condenser water entering temp sensor     Entering_Condenser_Water_Temperature_Sensor
condenser water leaving temp sensor      Leaving_Condenser_Water_Temperature_Sensor
temp sp                                  Temperature_Setpoint
temp cool sp                             Cooling_Temperature_Setpoint
temp heat sp                             Heating_Temperature_Setpoint
air temp sp                              Air_Temperature_Setpoint
room zone air temp sp                    Room_Air_Temperature_Setpoint
zone air temp sp                         Target_Zone_Air_Temperature_Setpoint
zone air temp cool sp                    Cooling_Zone_Air_Temperature_Setpoint
zone air temp heat sp                    Heating_Zone_Air_Temperature_Setpoint
zone air temp effective sp               Effective_Target_Zone_Air_Temperature_Setpoint
zone air temp effective cool sp          Effective_Cooling_Zone_Air_Temperature_Setpoint
zone air temp effective heat sp          Effective_Heating_Zone_Air_Temperature_Setpoint
zone air temp occ cool sp                Occupied_Cooling_Zone_Air_Temperature_Setpoint
zone air temp occ heat sp                Occupied_Heating_Zone_Air_Temperature_Setpoint
zone air temp unocc cool sp              Unoccupied_Cooling_Zone_Air_Temperature_Setpoint
zone air temp unocc heat sp              Unoccupied_Heating_Zone_Air_Temperature_Setpoint
discharge air temp sp                    Discharge_Air_Temperature_Setpoint
discharge air temp cool sp               Discharge_Air_Temperature_Cooling_Setpoint
discharge air temp heat sp               Discharge_Air_Temperature_Heating_Setpoint
return air temp sp                       Return_Air_Temperature_Setpoint
mixed air temp sp                        Mixed_Air_Temperature_Setpoint
outside air temp sp                      Outside_Air_Temperature_Setpoint
water temp sp                            Water_Temperature_Setpoint
chilled water temp sp                    Chilled_Water_Temperature_Setpoint
chilled water leaving temp sp            Leaving_Chilled_Water_Temperature_Setpoint
hot water temp sp                        Hot_Water_Temperature_Setpoint
hot water leaving temp sp                Leaving_Hot_Water_Temperature_Setpoint
condenser water leaving temp sp          Leaving_Condenser_Water_Temperature_Setpoint
humidity sensor                          Humidity_Sensor
zone air humidity sensor                 Zone_Air_Humidity_Sensor
discharge air humidity sensor            Discharge_Air_Humidity_Sensor
return air humidity sensor               Return_Air_Humidity_Sensor
mixed air humidity sensor                Mixed_Air_Humidity_Sensor
outside air humidity sensor              Outside_Air_Humidity_Sensor
exhaust air humidity sensor              Exhaust_Air_Humidity_Sensor
humidity sp                              Humidity_Setpoint
zone air humidity sp                     Zone_Air_Humidity_Setpoint
discharge air humidity sp                Discharge_Air_Humidity_Setpoint
return air humidity sp                   Return_Air_Humidity_Setpoint
enthalpy sensor                          Enthalpy_Sensor
outside air enthalpy sensor              Outside_Air_Enthalpy_Sensor
return air enthalpy sensor               Return_Air_Enthalpy_Sensor
co2 sensor                               CO2_Level_Sensor
zone air co2 sensor                      Zone_CO2_Level_Sensor
return air co2 sensor                    Return_Air_CO2_Sensor
outside air co2 sensor                   Outside_Air_CO2_Sensor
co2 sp                                   CO2_Setpoint
co sensor                                CO_Level_Sensor
tvoc sensor                              TVOC_Level_Sensor
pm25 sensor                              PM2.5_Level_Sensor
illuminance sensor                       Illuminance_Sensor
pressure sensor                          Pressure_Sensor
air pressure sensor                      Air_Pressure_Sensor
static pressure sensor                   Static_Pressure_Sensor
static air pressure sensor               Air_Static_Pressure_Sensor
discharge air static pressure sensor     Discharge_Air_Static_Pressure_Sensor
exhaust air static pressure sensor       Exhaust_Air_Static_Pressure_Sensor
differential pressure sensor             Differential_Pressure_Sensor
differential air pressure sensor         Air_Differential_Pressure_Sensor
filter differential pressure sensor      Filter_Differential_Pressure_Sensor
water pressure sensor                    Water_Pressure_Sensor
water differential pressure sensor       Water_Differential_Pressure_Sensor
chilled water differential pressure sensor  Chilled_Water_Differential_Pressure_Sensor
hot water differential pressure sensor   Hot_Water_Differential_Pressure_Sensor
pressure sp                              Pressure_Setpoint
air pressure sp                          Air_Pressure_Setpoint
static pressure sp                       Static_Pressure_Setpoint
discharge air static pressure sp         Discharge_Air_Static_Pressure_Setpoint
exhaust air static pressure sp           Exhaust_Air_Static_Pressure_Setpoint
differential pressure sp                 Differential_Pressure_Setpoint
water differential pressure sp           Water_Differential_Pressure_Setpoint
chilled water differential pressure sp   Chilled_Water_Differential_Pressure_Setpoint
hot water differential pressure sp       Hot_Water_Differential_Pressure_Setpoint
flow sensor                              Flow_Sensor
air flow sensor                          Air_Flow_Sensor
discharge air flow sensor                Discharge_Air_Flow_Sensor
return air flow sensor                   Return_Air_Flow_Sensor
mixed air flow sensor                    Mixed_Air_Flow_Sensor
outside air flow sensor                  Outside_Air_Flow_Sensor
exhaust air flow sensor                  Exhaust_Air_Flow_Sensor
water flow sensor                        Water_Flow_Sensor
chilled water flow sensor                Chilled_Water_Flow_Sensor
hot water flow sensor                    Hot_Water_Flow_Sensor
condenser water flow sensor              Condenser_Water_Flow_Sensor
naturalGas flow sensor                   Natural_Gas_Flow_Sensor
flow sp                                  Flow_Setpoint
air flow sp                              Air_Flow_Setpoint
discharge air flow sp                    Discharge_Air_Flow_Setpoint
outside air flow sp                      Outside_Air_Flow_Setpoint
exhaust air flow sp                      Exhaust_Air_Flow_Setpoint
water flow sp                            Water_Flow_Setpoint
chilled water flow sp                    Chilled_Water_Flow_Setpoint
hot water flow sp                        Hot_Water_Flow_Setpoint
damper sensor                            Damper_Position_Sensor
damper cmd                               Damper_Position_Command
damper sp                                Damper_Position_Setpoint
valve sensor                             Valve_Position_Sensor
valve cmd                                Valve_Position_Command
fan run sensor                           Fan_On_Off_Status
fan run cmd                              Fan_Command
fan cmd                                  Fan_Command
fan speed cmd                            Fan_Speed_Command
pump run sensor                          Pump_On_Off_Status
pump run cmd                             Pump_Command
pump cmd                                 Pump_Command
speed sensor                             Speed_Sensor
speed cmd                                Speed_Command
speed sp                                 Speed_Setpoint
run sensor                               On_Off_Status
run cmd                                  On_Off_Command
enable cmd                               Enable_Command
enable sensor                            Enable_Status
mode sensor                              Mode_Status
mode cmd                                 Mode_Command
cool cmd                                 Cooling_Command
heat cmd                                 Heating_Command
occ sensor                               Occupancy_Sensor
occ run sensor                           Occupancy_Status
occ mode sensor                          Occupied_Mode_Status
occ cmd                                  Occupancy_Command
occ mode cmd                             Occupancy_Command
motion sensor                            Motion_Sensor
power sensor                             Power_Sensor
elec power sensor                        Electric_Power_Sensor
elec active power sensor                 Active_Power_Sensor
active power sensor                      Active_Power_Sensor
reactive power sensor                    Reactive_Power_Sensor
energy sensor                            Energy_Sensor
elec energy sensor                       Electric_Energy_Sensor
reactive energy sensor                   Reactive_Energy_Sensor
pf sensor                                Power_Factor_Sensor
volt sensor                              Voltage_Sensor
current sensor                           Current_Sensor
freq sensor                              Frequency_Sensor
freq cmd                                 Frequency_Command
water level sensor                       Water_Level_Sensor
wind speed sensor                        Wind_Speed_Sensor
wind direction sensor                    Wind_Direction_Sensor
solar irradiance sensor                  Solar_Irradiance_Sensor
alarm                                    Alarm
air alarm                                Air_Alarm
temp alarm                               Temperature_Alarm
humidity alarm                           Humidity_Alarm
co2 alarm                                CO2_Alarm
pressure alarm                           Pressure_Alarm
smoke alarm                              Smoke_Alarm
"""
"""Project Haystack tags of a point, then its Brick class, which Brick 1.4 and 1.5 both have."""

_ROWS = tuple((frozenset(line.split()[:-1]), line.split()[-1]) for line in _KINDS.strip().splitlines())

_FUNCTIONS = frozenset({"sensor", "cmd", "sp", "alarm"})
_PLACES = frozenset({"zone", "discharge", "return", "mixed", "outside", "exhaust"})
_FLUIDS = frozenset({"water", "steam", "naturalGas", "refrig"})
_CARRIERS = _PLACES | _FLUIDS | {"air", "hot", "chilled", "condenser", "room", "entering", "leaving"}

_WORDS = {
    **dict.fromkeys(("temperature", "temp", "tmp", "temps"), "temp"),
    **dict.fromkeys(("zone", "zn"), "zone"),
    **dict.fromkeys(("room", "space", "rm"), "room zone"),
    **dict.fromkeys(("discharge", "disch", "supply", "sup"), "discharge"),
    **dict.fromkeys(("return", "ret", "rtn"), "return"),
    **dict.fromkeys(("mixed", "mix"), "mixed"),
    **dict.fromkeys(("outside", "outdoor", "outdoors", "ambient"), "outside"),
    **dict.fromkeys(("exhaust", "exh", "relief"), "exhaust"),
    "weather": "outside",
    **dict.fromkeys(("da", "sa"), "discharge air"),
    "ra": "return air",
    "ma": "mixed air",
    "oa": "outside air",
    "ea": "exhaust air",
    **dict.fromkeys(("dat", "sat"), "discharge air temp"),
    "rat": "return air temp",
    "mat": "mixed air temp",
    "oat": "outside air temp",
    "zat": "zone air temp",
    "znt": "zone temp",
    "oah": "outside air humidity",
    "air": "air",
    "water": "water",
    "steam": "steam",
    "gas": "naturalGas",
    "chilled": "chilled",
    **dict.fromkeys(("chw", "chws", "chwr", "chwst", "chwrt"), "chilled water"),
    "hot": "hot",
    **dict.fromkeys(("hw", "hws", "hwr", "hhw"), "hot water"),
    "condenser": "condenser",
    **dict.fromkeys(("cdw", "cdws", "cdwr", "cndw"), "condenser water"),
    **dict.fromkeys(("entering", "ent"), "entering"),
    **dict.fromkeys(("leaving", "lvg"), "leaving"),
    **dict.fromkeys(("setpoint", "setpoints", "stpt", "setpt", "sp", "spt", "setp"), "sp"),
    **dict.fromkeys(("command", "cmd", "commanded"), "cmd"),
    **dict.fromkeys(("sensor", "feedback", "fdbk"), "sensor"),
    **dict.fromkeys(("status", "sts"), "run sensor"),
    **dict.fromkeys(("alarm", "alm"), "alarm"),
    **dict.fromkeys(("run", "running"), "run"),
    **dict.fromkeys(("enable", "enabled", "ena"), "enable"),
    "mode": "mode",
    **dict.fromkeys(("humidity", "hum", "humid", "rh"), "humidity"),
    "co2": "co2",
    "co": "co",
    **dict.fromkeys(("voc", "tvoc"), "tvoc"),
    "pm25": "pm25",
    **dict.fromkeys(("illuminance", "lux"), "illuminance"),
    **dict.fromkeys(("pressure", "press", "prs", "pres"), "pressure"),
    "static": "static",
    **dict.fromkeys(("differential", "diff", "delta"), "differential"),
    "filter": "filter",
    **dict.fromkeys(("flow", "airflow", "flw"), "flow"),
    "cfm": "air flow",
    "gpm": "water flow",
    **dict.fromkeys(("damper", "dmpr", "dpr"), "damper"),
    **dict.fromkeys(("valve", "vlv"), "valve"),
    "fan": "fan",
    "pump": "pump",
    **dict.fromkeys(("speed", "spd"), "speed"),
    **dict.fromkeys(("cooling", "cool", "clg", "clng"), "cool"),
    **dict.fromkeys(("heating", "heat", "htg"), "heat"),
    **dict.fromkeys(("effective", "eff"), "effective"),
    **dict.fromkeys(("occupied", "occupancy", "occ"), "occ"),
    **dict.fromkeys(("unoccupied", "unocc", "unoc"), "unocc"),
    "motion": "motion",
    **dict.fromkeys(("power", "kw"), "power"),
    **dict.fromkeys(("energy", "kwh"), "energy"),
    **dict.fromkeys(("electric", "electrical", "elec"), "elec"),
    "reactive": "reactive",
    "active": "active",
    "pf": "pf",
    **dict.fromkeys(("voltage", "volt", "volts"), "volt"),
    **dict.fromkeys(("current", "amps", "amp"), "current"),
    **dict.fromkeys(("frequency", "freq"), "freq"),
    "level": "level",
    "wind": "wind",
    **dict.fromkeys(("direction", "deg"), "direction"),
    "solar": "solar",
    "irradiance": "irradiance",
    **dict.fromkeys(("dewpoint", "dewpt"), "dewPoint"),
    **dict.fromkeys(("enthalpy", "enth"), "enthalpy"),
    "smoke": "smoke",
}
"""Words and abbreviations in names, descriptions and tags, with the Haystack tags that they mean."""

_PAIRS = {
    "dew point": "dewPoint",
    "wet bulb": "wetBulb temp",
    "power factor": "pf",
    "carbon dioxide": "co2",
    "feels like": "unlike",
    "wetbulb temp": "wetBulb temp",
}
_UNLIKE = frozenset({
    "unlike", "deadband", "limit", "offset", "gain", "schedule", "timer", "time", "delay", "bias", "reset", "adjust",
    "adj", "min", "max", "minimum", "maximum", "average", "avg", "integral", "proportional", "pid", "band", "setback",
    "priority", "override", "count", "counter", "trend", "fault", "failure", "test",
})  # fmt: skip
"""Words that change the meaning of the words beside them: nothing is guessed from such a text."""

_MARKED = frozenset({"", "true", "1", "m:", "m", "marker", "✓", "yes"})
"""Values that mark a tag with a value as a marker."""

_BY_UNIT = {
    **dict.fromkeys(("DEG_C", "DEG_F", "K"), "temp"),
    **dict.fromkeys(("PERCENT_RH",), "humidity"),
    **dict.fromkeys(("PA", "KiloPA", "HectoPA", "PSI", "IN_H2O", "IN_HG", "BAR", "MilliBAR", "MilliM_HG"), "pressure"),
    **dict.fromkeys(("W", "KiloW", "MegaW"), "power"),
    **dict.fromkeys(("W-HR", "KiloW-HR", "MegaW-HR"), "energy"),
    **dict.fromkeys(("FT3-PER-MIN", "M3-PER-HR", "M3-PER-SEC", "L-PER-SEC", "L-PER-MIN", "GAL_US-PER-MIN"), "flow"),
    **dict.fromkeys(("V", "KiloV"), "volt"),
    "A": "current",
    "HZ": "freq",
    "LUX": "illuminance",
}
_QUANTITIES = frozenset(_BY_UNIT.values()) | {
    "dewPoint", "enthalpy", "co2", "co", "tvoc", "pm25", "pf", "speed", "occ", "damper", "valve", "run", "enable",
    "mode", "motion", "level", "direction", "irradiance", "cool", "heat", "alarm", "wetBulb", "fan", "pump",
}  # fmt: skip
"""Tags that a text needs so that it describes a point."""


@dataclass(frozen=True, slots=True)
class PointKind:
    """What kind of point it is.

    Attributes:
        brick: local name of its Brick class; `Point` when nothing is known.
        tags: its Haystack markers, the function (`sensor`, `cmd` or `sp`) among them when it is known.
        guessed_from: what the kind was guessed from (`description`, `object name`, `name`, `unit`, `object type`); None
            when its tags state it, or when nothing is known.
    """

    brick: str
    tags: frozenset[str]
    guessed_from: str | None = None


UNKNOWN_KIND = PointKind("Point", frozenset())


def kind_of(span: PointSpan) -> PointKind:
    """The kind of a point: stated by its tags, else guessed from its texts, else from its unit.

    A guess from a text needs a word for the quantity, or a unit that shows it.
    """
    stated = _stated(span)
    if stated is not None:
        return stated
    best: tuple[int, PointKind] | None = None
    measured, markers = _measured(span), _markers(span)
    texts = {"description": span.description, "object name": span.object_name, "name": _own_name(span)}
    for source, text in texts.items():
        words = _words(text or "")
        tags = _meant(words)
        if not tags or _UNLIKE.intersection(words):
            if words and tags:
                return UNKNOWN_KIND  # such as a deadband: the words beside it do not say what it is
            continue
        tags |= markers
        if measured and not tags & _QUANTITIES:
            tags |= {measured}
        function = _function(tags, span)
        row = _row(tags | {function}) if tags & _QUANTITIES else None
        if row and (best is None or len(row[0]) > best[0]):
            best = (len(row[0]), PointKind(row[1], row[0], source))
    if best is not None:
        return best[1]
    row = _row(frozenset({measured, _function(frozenset(), span)})) if measured else None
    return PointKind(row[1], row[0], "unit") if row else UNKNOWN_KIND


def _stated(span: PointSpan) -> PointKind | None:
    """The kind that the tags state; None when they state none."""
    tags = _markers(span)
    if not tags & _QUANTITIES:
        return None
    function = _function(tags, span)
    row = _row(tags | {function})
    if row is None:
        return None
    known = tags & _FUNCTIONS or _by_object(span) is not None
    return PointKind(row[1], row[0] | tags & _CARRIERS, None if known else "object type")


def _markers(span: PointSpan) -> frozenset[str]:
    """The Haystack tags of a point's markers, and of tags whose value says that they are markers."""
    markers = {*span.marker_tags, *(key for key, value in span.kv_tags if value.strip().lower() in _MARKED)}
    return _meant([word for tag in sorted(markers) for word in (_words(tag) or [tag])])


def _row(tags: frozenset[str]) -> tuple[frozenset[str], str] | None:
    """The row that has most of the tags, and no tag more; None when no row is within them."""
    return max((row for row in _ROWS if row[0] <= tags), key=lambda row: len(row[0]), default=None)


def _meant(words: Iterable[str]) -> frozenset[str]:
    """The Haystack tags that words mean; a place in a text that names no fluid is a place of air."""
    found: set[str] = set()
    for word in words:
        found.update(_WORDS.get(word, word if word in _TAGS else "").split())
    if "t" in words and found & _PLACES:
        found.add("temp")  # as in ZN-T and OA-T
    if found & _PLACES and not found & _FLUIDS:
        found.add("air")
    return frozenset(found)


_TAGS = frozenset(tag for tags, _ in _ROWS for tag in tags)


def _function(tags: frozenset[str], span: PointSpan) -> str:
    """Whether it is a sensor, a command, a setpoint or an alarm: by its tags, then by its BACnet object."""
    for function in ("alarm", "sp", "cmd", "sensor"):
        if function in tags:
            return function
    return _by_object(span) or ("cmd" if tags & {"enable"} else "sensor")


def _by_object(span: PointSpan) -> str | None:
    """What BACnet says of the function: an input is measured, an output is commanded, a value may be either."""
    kind = (span.object_type or "").lower()
    return "sensor" if "input" in kind else "cmd" if "output" in kind else None


def _measured(span: PointSpan) -> str | None:
    """The quantity that the unit shows, as a Haystack tag."""
    unit = unit_of(span.unit)
    return _BY_UNIT.get(unit.qudt or "") if unit else None


def _own_name(span: PointSpan) -> str:
    """What of a point's name describes it: neither client and site, nor device, object type and number."""
    return " ".join(part for part in span.name.split("/")[2:] if not _ADDRESS.fullmatch(part))


_ADDRESS = re.compile(
    r"(?i)[\d.:-]+|(analog|binary|multi-?state|accumulator|device|char\w*)-?(input|output|value)?|present-?value"
)


@lru_cache(maxsize=65536)
def _words(text: str) -> tuple[str, ...]:
    """The words of a name: parts at any other character, at a change to capitals and before numbers, pairs joined."""
    parts = list(_split(text))
    found = []
    for number, word in enumerate(parts):
        pair = f"{word} {parts[number + 1]}" if number + 1 < len(parts) else ""
        found += _PAIRS.get(pair, "").split()
        found.append(word)
    return tuple(found)


def _split(text: str) -> Iterator[str]:
    text = re.sub(r"(?i)pm2\.5", "pm25", text)
    for part in re.findall(r"[Cc][Oo]2|[Pp][Mm]25|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+", text):
        yield part.lower()
