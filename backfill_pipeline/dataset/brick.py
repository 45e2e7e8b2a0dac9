"""A site's points as a Brick model: classes, units, equipment, places, and where samples and BACnet objects are.

The model is Turtle, valid by the shapes of Brick 1.4 and 1.5. Each point has a `ref:TimeseriesReference` to the
stored objects and, where its BACnet object is known, a `ref:BACnetReference`. A guess carries `backfill:guessedFrom`.

Brick 1.4 and 1.5 write BACnet's terms in two namespaces, and their shapes require different ones, so the model has
both. Places are of RealEstateCore's classes, and of `brick:Location` as well: 1.4 requires it, 1.5 warns of it.

Put here: the triples. Keep out: what a point is (`point_kinds.py`, `units.py`), what it belongs to (`equipment.py`),
and files (`control/point_export.py`).
"""

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote

from rdflib import OWL, RDF, RDFS, Graph, Literal, Namespace, URIRef

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

BRICK = Namespace("https://brickschema.org/schema/Brick#")
REF = Namespace("https://brickschema.org/schema/Brick/ref#")
REC = Namespace("https://w3id.org/rec#")
BACNET = Namespace("http://data.ashrae.org/bacnet/2020#")
BACNET_1_5 = Namespace("http://data.ashrae.org/bacnet/")
QUDT = Namespace("http://qudt.org/schema/qudt/")
UNIT = Namespace("http://qudt.org/vocab/unit/")

VOCABULARY = Namespace("urn:backfill-vocabulary:")
"""Our own properties: `guessedFrom`, `unitText`, `notListedSince`."""

_PREFIXES = {
    "brick": BRICK,
    "ref": REF,
    "rec": REC,
    "bacnet": BACNET,
    "bacnet15": BACNET_1_5,
    "qudt": QUDT,
    "unit": UNIT,
    "backfill": VOCABULARY,
}
_PLACES = {"floor": REC.Level, "room": REC.Room, "zone": REC.HVACZone}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def brick_model(site: str, spans: Sequence[PointSpan], stored_at: str) -> str:
    """A site's Brick model as Turtle; the same points give the same text.

    Args:
        site: the site, as ACE spells it.
        spans: one row of the catalogue for each point (`core.catalogue.at_instant`).
        stored_at: where the site's objects are, for `ref:storedAt`: a path or URL with `*` for year, month and day.
    """
    graph = Graph()
    for prefix, namespace in _PREFIXES.items():
        graph.bind(prefix, namespace, replace=True)
    model = _Model(graph, site, stored_at)
    surroundings = surroundings_of(spans)
    for span in sorted(spans, key=lambda one: one.name):
        model.add_point(span, surroundings[span.name])
    text: str = graph.serialize(format="turtle", encoding=None)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04X}", text)


def site_iri(site: str) -> str:
    """What the names of all things of a site begin with."""
    return f"urn:backfill:{_quoted(site)}/"


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


class _Model:
    """The triples of one site."""

    def __init__(self, graph: Graph, site: str, stored_at: str) -> None:
        self.graph, self.base, self.stored_at = graph, site_iri(site), stored_at
        self.site = self._iri("site")
        self._known: set[URIRef] = set()
        self._typed(URIRef(self.base.rstrip("/")), OWL.Ontology, f"points of {printable(site)}")
        self._add_place(self.site, REC.Site, printable(site))

    def _iri(self, kind: str, *names: str) -> URIRef:
        return URIRef(self.base + "/".join([kind, *map(_quoted, names)]))

    def _add(self, subject: URIRef, predicate: URIRef, value: object) -> None:
        self.graph.add((subject, predicate, value if isinstance(value, URIRef) else Literal(value)))

    def _typed(self, subject: URIRef, kind: URIRef, label: str) -> None:
        self._add(subject, RDF.type, kind)
        self._add(subject, RDFS.label, label)

    def _once(self, iri: URIRef, add: Callable[[], None]) -> URIRef:
        if iri not in self._known:
            self._known.add(iri)
            add()
        return iri

    def add_point(self, span: PointSpan, around: Surroundings) -> None:
        """Add a point, what it belongs to, and its references."""
        point, kind = self._iri("point", span.name), kind_of(span)
        self._typed(point, BRICK[kind.brick], span.description or span.object_name or span.name)
        if kind.guessed_from:
            self._add(point, VOCABULARY.guessedFrom, kind.guessed_from)
        self._add_unit(point, span.unit)
        if span.valid_to is not None:
            self._add(point, VOCABULARY.notListedSince, span.valid_to)
        self._add(point, BRICK.isPointOf, self._equipment(around.equipment) or self.site)
        for place in around.places:  # not `hasLocation`, which Brick allows to equipment alone
            self._add(point, BRICK.isPointOf, self._place(place))
        series = self._iri("series", span.name)
        self._add(point, REF.hasExternalReference, series)
        self._add(series, RDF.type, REF.TimeseriesReference)
        self._add(series, REF.hasTimeseriesId, span.name)
        self._add(series, REF.storedAt, self.stored_at)
        if around.device is not None:
            device = self._device(around.device)
            self._add(point, BRICK.isHostedBy, device)
            self._add_object(point, device, span)

    def _add_unit(self, point: URIRef, text: str | None) -> None:
        unit = unit_of(text)
        if unit is not None and unit.qudt is not None:
            iri = UNIT[unit.qudt]
            self._once(iri, lambda: self._add(iri, RDF.type, QUDT.Unit))  # Brick's shapes do not contain QUDT's units
            self._add(point, BRICK.hasUnit, iri)
        elif not has_no_unit(text):
            self._add(point, VOCABULARY.unitText, text)

    def _add_object(self, point: URIRef, device: URIRef, span: PointSpan) -> None:
        """Add the BACnet object, when its type and number are known."""
        identifier = object_identifier(span)
        if identifier is None:
            return
        found = self._iri("object", span.name)
        self._add(point, REF.hasExternalReference, found)
        self._add(found, RDF.type, REF.BACnetReference)
        self._add(found, BACNET.objectOf, device)
        self._add(found, BACNET_1_5.contains, device)  # so Brick 1.5 names what Brick 1.4 names objectOf
        self._add(found, BACNET["object-identifier"], identifier)
        self._add(found, BACNET_1_5["object-identifier"], identifier)
        if span.object_name:
            self._add(found, BACNET["object-name"], span.object_name)
        if span.description:
            self._add(found, BACNET.description, span.description)

    def _device(self, device: Device) -> URIRef:
        iri = self._iri("device", device.id)

        def add() -> None:
            self._typed(iri, BRICK.BACnet_Controller, device.name or f"device {device.id}")
            self._add(iri, RDF.type, BACNET.BACnetDevice)
            self._add(iri, RDF.type, BACNET_1_5.device)
            self._add(iri, BRICK.hasLocation, self.site)
            if device.number is not None:
                self._add(iri, BACNET["device-instance"], device.number)
            if device.address:
                self._add(iri, BACNET.hasAddress, device.address)
            if device.description:
                self._add(iri, RDFS.comment, device.description)

        return self._once(iri, add)

    def _equipment(self, chain: Sequence[Equipment]) -> URIRef | None:
        """Add equipment from the plant to the innermost piece, with how each is related to the next; the last one."""
        outer: tuple[Equipment, URIRef] | None = None
        for one in chain:
            iri = self._piece(one)
            if outer is not None and outer[0].feeds(one):
                self._add(outer[1], BRICK.feeds, iri)
            elif outer is not None and outer[0].contains(one):
                self._add(outer[1], BRICK.hasPart, iri)
            outer = (one, iri)
        return outer[1] if outer else None

    def _piece(self, one: Equipment) -> URIRef:
        iri = self._iri("equipment", one.name)

        def add() -> None:
            self._typed(iri, BRICK[one.brick], one.name)
            self._add(iri, BRICK.hasLocation, self.site)
            if one.guessed_from:
                self._add(iri, VOCABULARY.guessedFrom, one.guessed_from)

        return self._once(iri, add)

    def _place(self, place: Place) -> URIRef:
        iri = self._iri(place.kind, place.name)
        return self._once(iri, lambda: self._add_place(iri, _PLACES[place.kind], place.name))

    def _add_place(self, iri: URIRef, kind: URIRef, label: str) -> None:
        self._typed(iri, kind, label)
        self._add(iri, RDF.type, BRICK.Location)
