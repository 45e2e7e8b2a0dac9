"""The simulator held against the vendor's own description of the API (the part of it that a backfill asks for)."""

import json
from pathlib import Path

import jsonschema
import pytest
import requests

from backfill_pipeline.simulator.app import PAGE_SIZE, PER_PAGE, Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.services import HANGS_S

SWAGGER = json.loads((Path(__file__).parent / "ace-swagger-part.json").read_text(encoding="utf-8"))
WINDOW = {"start_time": "2025-03-01T00:00:00Z", "end_time": "2025-03-01T01:00:00Z"}


def nullable(schema):
    """The description names no field that may be null, and the live API sends null in most: allow it."""
    if isinstance(schema, dict):
        found = {key: nullable(value) for key, value in schema.items()}
        if isinstance(found.get("type"), str):
            found["type"] = [found["type"], "null"]
        return found
    return [nullable(item) for item in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="module")
def simulator():
    with Simulator(World([SiteSpec("north", 30)]), api_key="k") as running:
        yield running


def ask(simulator, path, **query):
    url = simulator.url + path.replace("{site_name}", "north")
    return requests.get(url, params=query, headers={"Authorization": "Bearer k"}, timeout=HANGS_S)


@pytest.mark.parametrize("path", sorted(SWAGGER["paths"]))
def test_every_answer_has_the_described_shape(simulator, path):
    """Types and names of all described fields, in lists, sites, points and samples."""
    answer = ask(simulator, path, **(WINDOW if "timeseries" in path else {}))
    assert answer.status_code == 200
    schema = SWAGGER["paths"][path]["get"]["responses"]["200"]["schema"]
    jsonschema.validate(answer.json(), {**nullable(schema), "definitions": nullable(SWAGGER["definitions"])})
    described = SWAGGER["definitions"].get(schema.get("$ref", "").rsplit("/", 1)[-1], {})
    assert set(described.get("properties", {})) <= set(answer.json())


def parameters(path):
    return {parameter["name"]: parameter for parameter in SWAGGER["paths"][path]["get"]["parameters"]}


@pytest.mark.parametrize(
    ("path", "name", "sizes"),
    [
        ("/sites/", "per_page", PER_PAGE),
        ("/sites/{site_name}/configured_points", "per_page", PER_PAGE),
        ("/sites/{site_name}/timeseries/paginated", "page_size", PAGE_SIZE),
    ],
)
def test_sizes_are_exactly_the_described_ones(simulator, path, name, sizes):
    """Both closed lists are the description's, each size is taken, and the default is the described one."""
    described = parameters(path)[name]
    assert tuple(described["enum"]) == sizes
    more = WINDOW if "timeseries" in path else {}
    for size in sizes:
        assert ask(simulator, path, **{name: size}, **more).status_code == 200
    assert ask(simulator, path, **{name: described["default"]}, **more).content == ask(simulator, path, **more).content


@pytest.mark.parametrize("missing", ["start_time", "end_time"])
def test_required_parameters_are_required(simulator, missing):
    """What the description calls required is a 400 when it is missing."""
    path = "/sites/{site_name}/timeseries/paginated"
    assert parameters(path)[missing]["required"]
    assert ask(simulator, path, **{key: value for key, value in WINDOW.items() if key != missing}).status_code == 400


def test_raw_data_is_off_by_default_as_described(simulator):
    """The described default, five-minute buckets, is what comes when nothing is asked."""
    path = "/sites/{site_name}/timeseries/paginated"
    assert parameters(path)["raw_data"]["default"] is False
    assert ask(simulator, path, **WINDOW).content == ask(simulator, path, raw_data="false", **WINDOW).content
