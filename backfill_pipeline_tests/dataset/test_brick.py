"""Rules of the Brick model: valid by brickschema, with references to samples and BACnet objects, guesses marked."""

import re
from datetime import UTC, date, datetime

import brickschema
import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdflib import OWL, RDF, RDFS, XSD, Graph, Literal, URIRef

from backfill_pipeline.control.point_export import exported_points, stored_at, write_export
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.dataset import equipment, point_kinds
from backfill_pipeline.dataset.brick import BACNET, BRICK, REF, UNIT, VOCABULARY, brick_model, site_iri
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.dataset.catalogue import AT, all_sorts, span, spans
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.test_docs import TOP

PLACE = "/data/timeseries/*/*/*/north.parquet"


@pytest.fixture(scope="module", params=["1.5", "1.4"])
def ontology(request):
    return brickschema.Graph(load_brick=True, brick_version=request.param)


@pytest.fixture(scope="module")
def model():
    return Graph().parse(data=brick_model("north", spans(), PLACE), format="turtle")


def point(number, kind="analogInput", device=1001):
    return URIRef(f"{site_iri('north')}point/client%2Fnorth%2F10.0.1.5-{device}%2F{kind}%2F{number}")


def reference(model, subject, kind):
    (found,) = (one for one in model.objects(subject, REF.hasExternalReference) if (one, RDF.type, REF[kind]) in model)
    return found


def test_a_model_is_valid_by_bricks_own_shapes(ontology, model):
    """Any kind, unit and pair of equipment conforms; a series without a name does not, nor a point of a point."""
    checked = brickschema.Graph()
    checked += model
    checked.parse(data=brick_model("south", all_sorts(), PLACE), format="turtle")
    conforms, _, text = checked.validate([ontology])
    assert conforms, text
    series = reference(model, point(1), "TimeseriesReference")
    checked.remove((series, REF.hasTimeseriesId, None))
    checked.add((point(2), BRICK.isPointOf, point(1)))
    conforms, _, text = checked.validate([ontology])
    assert not conforms
    assert str(series) in text
    assert "A Point can be a Point of" in text


def test_every_class_is_one_of_bricks_and_not_deprecated(ontology):
    """All classes of the tables of kinds and of equipment are Brick's points and equipment."""
    for root, names in (
        ("Point", {brick for _, brick in point_kinds._ROWS}),
        ("Equipment", {brick for brick, _, _ in equipment._BY_KEY.values()}),
    ):
        known = set(ontology.transitive_subjects(RDFS.subClassOf, BRICK[root]))
        deprecated = set(ontology.subjects(OWL.deprecated, Literal("true", datatype=XSD.boolean)))
        assert {name for name in names if BRICK[name] not in known - deprecated} == set()


def test_a_point_has_its_class_unit_and_place(model):
    """Class, unit, equipment and floor of a point are those that its tags state, and nothing is marked as a guess."""
    assert (point(1), RDF.type, BRICK.Zone_Air_Temperature_Sensor) in model
    assert (point(1), BRICK.hasUnit, UNIT.DEG_C) in model
    base = site_iri("north")
    assert set(model.objects(point(1), BRICK.isPointOf)) == {
        URIRef(base + name) for name in ("equipment/VAV2_5", "floor/3", "room/301", "zone/Z1")
    }
    assert (URIRef(base + "equipment/AHU-1"), BRICK.feeds, URIRef(base + "equipment/VAV2_5")) in model
    assert (URIRef(base + "equipment/AHU-1"), BRICK.hasPart, URIRef(base + "equipment/SF-1")) in model
    assert (point(1), VOCABULARY.guessedFrom, None) not in model


def test_guesses_are_marked_and_unknown_units_stay_text(model):
    """A guessed class or piece of equipment names what it was guessed from; a unit in no table is kept as it is."""
    assert (point(2), VOCABULARY.guessedFrom, Literal("description")) in model
    assert (URIRef(site_iri("north") + "equipment/VAV-12"), VOCABULARY.guessedFrom, Literal("device name")) in model
    assert (point(4), VOCABULARY.unitText, Literal("furlongs")) in model
    assert (point(4), BRICK.hasUnit, None) not in model
    assert (point(3, "binaryInput"), VOCABULARY.unitText, None) not in model
    assert (point(8, "analogValue"), RDF.type, BRICK.Point) in model


def test_references_name_the_samples_and_the_bacnet_object(model):
    """The series is the `point_name` of the objects; the BACnet reference has object, device instance and address."""
    series = reference(model, point(1), "TimeseriesReference")
    assert model.value(series, REF.hasTimeseriesId) == Literal("client/north/10.0.1.5-1001/analogInput/1")
    assert model.value(series, REF.storedAt) == Literal(PLACE)
    found = reference(model, point(3, "binaryInput"), "BACnetReference")
    assert model.value(found, BACNET["object-identifier"]) == Literal("binary-input,3")
    device = model.value(found, BACNET.objectOf)
    assert model.value(device, BACNET["device-instance"]) == Literal(1001)
    assert model.value(device, BACNET.hasAddress) == Literal("10.0.1.5")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_survives_and_no_control_character_is_written(site, name, description):
    """Names and descriptions are read back as they were, and the model contains no control character but line ends."""
    one = span(name=name, object_description=description, kv_tags={"equip": description})
    text = brick_model(site, [one], PLACE)
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) is None
    read = Graph().parse(data=text, format="turtle")
    assert [str(found) for found in read.objects(None, REF.hasTimeseriesId)] == [name]
    label = one.description or name
    assert Literal(label) in set(read.objects(None, RDFS.label))


def test_the_same_points_give_the_same_text():
    """An export can be compared with an earlier one."""
    assert brick_model("north", spans(), PLACE) == brick_model("north", spans()[::-1], PLACE)


def test_the_pattern_of_objects_reads_the_days_of_the_site(tmp_path):
    """`ref:storedAt` is a pattern that DuckDB reads, whatever the site is called."""
    store = LocalStore(tmp_path / "a[b]")
    for site in ("s[1]", "s1"):
        put_day(store, day_rows(site, date(2025, 6, 1)))
    (sites,) = (
        duckdb.connect()
        .execute("SELECT list(DISTINCT site_name) FROM read_parquet(?)", [stored_at(store, "s[1]")])
        .fetchone()
    )
    assert sites == ["s[1]"]
    assert store.head(object_key("s1", date(2025, 6, 1)))


def test_the_question_of_the_docs_reads_the_samples_of_zone_temperatures(tmp_path, monkeypatch):
    """The ten lines of `docs/standards.md` read the samples of all zone air temperature sensors, and no others."""
    lines = re.search(r"```python zone\n(.*?)```", (TOP / "docs" / "standards.md").read_text("utf-8"), re.DOTALL)
    code = lines[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL_STORE", str(tmp_path / "data"))
    settings = Settings.load()
    store = settings_store(settings)
    rows = day_rows("my_site", date(2025, 6, 1))
    names = [one.name for one in spans()]
    put_day(
        store,
        DayRows(
            "my_site",
            rows.day,
            names[:3] + names[-1:],
            rows.chunks,
            Counts(rows.counts.fetched, rows.counts.fetched, {}),
        ),
    )
    update_catalogue(store, "my_site", spans(), AT)
    write_export(exported_points(settings, "my_site", "brick"), tmp_path / "my_site.ttl")
    told: dict[str, object] = {}
    exec(compile(code, "docs/standards.md", "exec"), told)  # noqa: S102 - our own page
    frame = told["rows"]
    zones = set(frame["point_name"])
    assert zones == {one.name for one in spans()[:3] if point_kinds.kind_of(one).brick == "Zone_Air_Temperature_Sensor"}
    assert zones
    assert frame["timestamp"].min() == datetime(2025, 6, 1, tzinfo=UTC)
    assert len(frame) == 144 * len(zones)
