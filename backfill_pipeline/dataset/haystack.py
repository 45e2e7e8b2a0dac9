"""A site's points as a Project Haystack grid: site, places, devices, equipment and points, as Haystack JSON.

The grid is Haystack 4's JSON encoding ("Hayson"), which phable, SkySpark and Haxall read. A kind that was guessed has
the marker `guessed` and the tag `guessedFrom`. Times of samples are UTC, so `tz` is UTC.

Put here: the entities and their tags. Keep out: what a point is (`point_kinds.py`, `units.py`), what it belongs to
(`equipment.py`), and files (`control/point_export.py`).
"""

from collections.abc import Sequence
from typing import Any

from phable.io.ph_json import ph_to_json
from phable.kinds import Grid, Marker, Number, Ref

from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.core.text import printable
from backfill_pipeline.dataset.equipment import (
    Device,
    Equipment,
    Place,
    Surroundings,
    object_identifier,
    surroundings_of,
)
from backfill_pipeline.dataset.point_kinds import kind_of
from backfill_pipeline.dataset.units import has_no_unit, unit_of

_TAGS = {"differential": "delta"}
"""Tags of the table of kinds that Haystack writes in another way."""

_MARK = Marker()  # type: ignore[no-untyped-call] # phable annotates no result


def haystack_grid(site: str, spans: Sequence[PointSpan], stored_at: str) -> str:
    """A site's grid as Haystack JSON; the same points give the same text.

    Args:
        site: the site, as ACE spells it.
        spans: one row of the catalogue for each point (`core.catalogue.at_instant`).
        stored_at: where the site's objects are: a path or URL with `*` for year, month and day.
    """
    entities = _Entities(site, stored_at)
    surroundings = surroundings_of(spans)
    for span in sorted(spans, key=lambda one: one.name):
        entities.add_point(span, surroundings[span.name])
    rows = [*entities.others.values(), *entities.points]
    return str(ph_to_json(Grid.to_grid(rows)))


def haystack_id(*parts: str) -> str:
    """An id of letters, digits and `_:-.~`, as a reference allows; any other character is `~` and its UTF-8 bytes."""
    return ":".join(
        "".join(
            one
            if one.isascii() and (one.isalnum() or one in "_-.")
            else "".join(f"~{byte:02X}" for byte in one.encode("utf-8", "surrogatepass"))
            for one in part
        )
        for part in parts
    )


class _Entities:
    """The entities of one site: `others` by id, then `points`."""

    def __init__(self, site: str, stored_at: str) -> None:
        self.name = site
        self.site = Ref(haystack_id(site, "site"))
        self.points: list[dict[str, Any]] = []
        self.others: dict[str, dict[str, Any]] = {
            self.site.val: {
                "id": self.site,
                "dis": printable(site),
                "site": _MARK,
                "tz": "UTC",
                "storedAt": stored_at,
            }
        }

    def add_point(self, span: PointSpan, around: Surroundings) -> None:
        """Add a point, and what it belongs to."""
        kind = kind_of(span)
        entity: dict[str, Any] = {
            "id": Ref(haystack_id(self.name, "point", span.name)),
            "dis": span.description or span.object_name or span.name,
            "point": _MARK,
            "his": _MARK,
            "pointName": span.name,
            "siteRef": self.site,
            "tz": "UTC",
            "kind": "Bool" if "binary" in (span.object_type or "").lower() else "Number",
        }
        entity |= {_TAGS.get(tag, tag): _MARK for tag in sorted(kind.tags)}
        if "alarm" in entity:
            entity["sensor"] = _MARK  # each point is one of sensor, cmd and sp
        if kind.guessed_from:
            entity |= {"guessed": _MARK, "guessedFrom": kind.guessed_from}
        entity |= _unit(span.unit)
        if span.collect_interval:
            entity["hisCollectInterval"] = Number(span.collect_interval, "s")
        if span.valid_to is not None:
            entity["notListedSince"] = span.valid_to.date()
        device = self._device(around.device) if around.device else None
        equipment = self._equipment(around.equipment)
        if device is not None:
            entity["deviceRef"] = device
            if equipment is None:
                self.others[device.val]["equip"] = _MARK
        if equipment or device:
            entity["equipRef"] = equipment or device
        for place in around.places:
            entity[f"{place.kind}Ref"] = self._place(place)
        if identifier := object_identifier(span):
            entity["bacnetObject"] = identifier
        self.points.append(entity)

    def _device(self, device: Device) -> Ref:
        ref = Ref(haystack_id(self.name, "device", device.id))
        if ref.val not in self.others:
            entity = {
                "id": ref,
                "dis": device.name or f"device {device.id}",
                "device": _MARK,
                "controller": _MARK,
                "siteRef": self.site,
            }
            if device.number is not None:
                entity["bacnetDeviceInstance"] = Number(device.number)
            if device.address:
                entity["bacnetAddress"] = device.address
            if device.description:
                entity["doc"] = device.description
            self.others[ref.val] = entity
        return ref

    def _equipment(self, chain: Sequence[Equipment]) -> Ref | None:
        """Add equipment from the plant to the innermost piece; the last one.

        A fan or pump is a part of its air handler (`equipRef`). An air handler serves a terminal unit (`airRef`).
        """
        outer: tuple[Equipment, Ref] | None = None
        for one in chain:
            ref = Ref(haystack_id(self.name, "equip", one.name))
            entity = self.others.setdefault(ref.val, {"id": ref, "dis": one.name, "equip": _MARK, "siteRef": self.site})
            entity |= dict.fromkeys(sorted(one.tags), _MARK)
            if one.guessed_from:
                entity |= {"guessed": _MARK, "guessedFrom": one.guessed_from}
            if outer is not None and outer[0].feeds(one):
                entity["airRef"] = outer[1]
            elif outer is not None and outer[0].contains(one):
                entity["equipRef"] = outer[1]
            outer = (one, ref)
        return outer[1] if outer else None

    def _place(self, place: Place) -> Ref:
        ref = Ref(haystack_id(self.name, place.kind, place.name))
        entity = {"id": ref, "dis": place.name, "space": _MARK, "siteRef": self.site}
        self.others.setdefault(ref.val, entity | {place.kind: _MARK})
        return ref


def _unit(text: str | None) -> dict[str, str]:
    unit = unit_of(text)
    if unit is not None and unit.haystack is not None:
        return {"unit": unit.haystack}
    return {} if text is None or has_no_unit(text) else {"unitText": text}
