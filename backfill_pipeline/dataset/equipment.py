"""Which equipment, places and devices a site's points belong to, as far as their tags and devices say.

A tag such as `vav: VAV2_5` names a piece of equipment and its kind, `equip: AHU-1` names one, `floor: 3` names a
place. Without such a tag a BACnet device whose own name begins with a kind of equipment (`VAV-12`) is taken for it, as
a guess.

Put here: how equipment, places and devices are found. Keep out: kinds of points (`point_kinds.py`) and the form of a
model (`brick.py`, `haystack.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from backfill_pipeline.core.point_catalogue import PointSpan

_AIR_HANDLER, _SERVED, _PART, _ANY = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Equipment:
    """A piece of equipment.

    Attributes:
        name: as the tag or device names it; the same name is the same equipment.
        brick: local name of its Brick class.
        tags: its Haystack markers, beside `equip`.
        rank: how far it is from the plant: a chiller is 0, an air handler 1, what it serves 2, a part of either 3;
            4 anything else.
        guessed_from: what its kind was guessed from; None when a tag states it, or when it has no kind.
    """

    name: str
    brick: str = "Equipment"
    tags: frozenset[str] = frozenset()
    rank: int = _ANY
    guessed_from: str | None = None

    def feeds(self, other: "Equipment") -> bool:
        """Whether it is an air handler, and the other one of the units that it serves."""
        return self.rank == _AIR_HANDLER and other.rank == _SERVED

    def contains(self, other: "Equipment") -> bool:
        """Whether the other one, such as a fan, is a part of it."""
        return self.rank < _PART and other.rank == _PART


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the building.

    Attributes:
        kind: `floor`, `room` or `zone`.
        name: as the tag names it.
    """

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Device:
    """A BACnet device, by its instance number; by its address where the number is not known.

    Attributes:
        number: its instance number.
        address: its network address.
        name: its object name.
        description: its description.
    """

    number: int | None
    address: str | None
    name: str | None
    description: str | None

    @property
    def id(self) -> str:
        """What distinguishes it from the site's other devices."""
        return str(self.number) if self.number is not None else str(self.address or self.name)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a point belongs to.

    Attributes:
        equipment: from the plant to the innermost piece, whose point it is.
        places: floor, room and zone, as far as they are known.
        device: the BACnet device.
    """

    equipment: tuple[Equipment, ...] = ()
    places: tuple[Place, ...] = ()
    device: Device | None = None


_KINDS = """
chiller         Chiller                             0 chiller
boiler          Boiler                              0 boiler
coolingTower    Cooling_Tower                       0 coolingTower
ahu             AHU                                 1 ahu
rtu             Rooftop_Unit                        1 ahu rtu
mau             Makeup_Air_Unit                     1 ahu mau
doas            Dedicated_Outdoor_Air_System_Unit   1 ahu doas
crac            Computer_Room_Air_Conditioning      1 ahu crac
vav             VAV                                 2 vav
cav             CAV                                 2 cav
fcu             Fan_Coil_Unit                       2 fcu
uh              Space_Heater                        2 unitHeater
unitHeater      Space_Heater                        2 unitHeater
chilledBeam     Chilled_Beam                        2 chilledBeam
heatExchanger   Heat_Exchanger                      3 heatExchanger
pump            Pump                                3 pump motor
fan             Fan                                 3 fan motor
thermostat      Thermostat                          4 thermostat
fumeHood        Fume_Hood                           4 fumeHood
elevator        Elevator                            4 elevator
weatherStation  Weather_Station                     4 weatherStation
meter           Meter                               4 meter
vfd             Variable_Frequency_Drive            4 vfd
"""
"""Key of a tag, Brick class, rank, Haystack markers."""

_BY_KEY = {
    key.lower(): (brick, int(rank), frozenset(tags))
    for key, brick, rank, *tags in (line.split() for line in _KINDS.strip().splitlines())
}
_NAMING = frozenset({"equip", "equipref", "equipment", "equipmentref", "equipname", "equip_name", "equip_id"})
"""Keys of tags that name a piece of equipment without its kind."""

_PLACES = {"floor": "floor", "floorref": "floor", "level": "floor", "room": "room", "roomref": "room", "zone": "zone"}
_MARKED = frozenset({"", "true", "false", "m:", "m", "marker", "✓", "yes", "no", "none", "null"})
_PREFIX = re.compile(r"(?i)([a-z]{2,})(?=[-_ .:#]*\d)")
_GENERIC = "Equipment"


def surroundings_of(spans: Sequence[PointSpan]) -> dict[str, Surroundings]:
    """What each point belongs to, by the point's name.

    The same piece of equipment may be described by several points: the one that states its kind counts for all.
    """
    found = {span.name: _surroundings(span) for span in spans}
    known: dict[str, Equipment] = {}
    devices: dict[str, Device] = {}
    for name in sorted(found):
        for one in found[name].equipment:
            other = known.get(one.name)
            if other is None or _certainty(one) > _certainty(other):
                known[one.name] = one
        device = found[name].device
        if device is not None and (device.id not in devices or _filled(device) > _filled(devices[device.id])):
            devices[device.id] = device
    return {
        name: Surroundings(
            tuple(sorted({known[one.name] for one in each.equipment}, key=lambda one: (one.rank, one.name))),
            each.places,
            devices[each.device.id] if each.device else None,
        )
        for name, each in found.items()
    }


def _certainty(one: Equipment) -> int:
    return 0 if one.brick == _GENERIC else 1 if one.guessed_from else 2


def _filled(device: Device) -> int:
    return sum(value is not None for value in (device.number, device.address, device.name, device.description))


def _surroundings(span: PointSpan) -> Surroundings:
    equipment, places = [], []
    for key, value in span.kv_tags:
        name, lower = _reference(value), key.lower().replace("-", "")
        if name.lower() in _MARKED:
            continue
        kind = _BY_KEY.get(lower.removesuffix("ref").removesuffix("_"))
        if kind is not None:
            equipment.append(Equipment(_named(key, name), kind[0], kind[2], kind[1]))
        elif lower in _NAMING:
            equipment.append(_named_equipment(span, name, "name"))
        elif lower in _PLACES:
            places.append(Place(_PLACES[lower], name))
    device = None
    if span.device_id is not None or span.device_address or span.device_name:
        device = Device(span.device_id, span.device_address, span.device_name, span.device_description)
    if not equipment and span.device_name:
        guess = _named_equipment(None, span.device_name, "device name")
        equipment += [guess] if guess.brick != _GENERIC else []
    return Surroundings(tuple(equipment), tuple(dict.fromkeys(places)), device)


def _named_equipment(span: PointSpan | None, name: str, source: str) -> Equipment:
    """Equipment of which only a name is known: its kind is that of the point's markers, or guessed from the name."""
    for marker in span.marker_tags if span else ():
        if kind := _BY_KEY.get(marker.lower()):
            return Equipment(name, kind[0], kind[2], kind[1])
    prefix = _PREFIX.match(name)
    kind = _BY_KEY.get(prefix[1].lower()) if prefix else None
    return Equipment(name, kind[0], kind[2], kind[1], source) if kind else Equipment(name)


def _reference(value: str) -> str:
    """The name in a tag's value; of a Haystack reference (`@p:site:r:1 AHU-1`) its display name, else its id."""
    text = value.strip().strip('"')
    if text.startswith(("@", "r:")):
        id_, _, shown = text.removeprefix("@").partition(" ")
        return shown.strip().strip('"') or id_
    return text


def _named(key: str, value: str) -> str:
    """The name of a piece of equipment; one that is a number alone gets the kind before it."""
    return value if any(letter.isalpha() for letter in value) else f"{key} {value}"


def object_identifier(span: PointSpan) -> str | None:
    """A BACnet object as the standard writes it, such as `analog-input,3`; None when type or number is not known."""
    if not span.object_type or span.object_index is None:
        return None
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", span.object_type).lower()
    return f"{kind},{span.object_index}"
