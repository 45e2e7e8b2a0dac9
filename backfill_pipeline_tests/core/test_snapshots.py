"""The documents of the snapshots: allowed fields, no secrets, the same bytes for the same answer."""

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.secret_fields import may_contain_secret, without_secrets
from backfill_pipeline.core.snapshots import KINDS, document, state_of

DAY, AT = date(2025, 6, 1), datetime(2025, 6, 1, 9, 30, tzinfo=UTC)
BY_NAME = {kind.name: kind for kind in KINDS}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def written(name, items):
    return json.loads(document(BY_NAME[name], "north", DAY, AT, items))


@given(
    st.sampled_from(KINDS).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys((*kind.kept, "other"), VALUES)), max_size=4),
        )
    ),
    st.randoms(),
)
def test_the_same_answer_in_any_order_gives_the_same_bytes(made, random):
    """Fields of any type are stored as strict JSON, and the order of the items does not change the bytes."""
    kind, items = made
    data = document(kind, "north", DAY, AT, items)
    shuffled = [dict(random.sample(list(item.items()), len(item))) for item in items]
    random.shuffle(shuffled)
    assert document(kind, "north", DAY, AT, shuffled) == data
    found = json.loads(data, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert found["state"] == state_of(data) == ("present" if items else "empty")
    assert all("other" not in item for item in found["items"])


def test_an_answer_of_403_or_404_is_recorded_as_absent():
    """`absent` differs from an answer without items."""
    assert (written("weather", None)["state"], written("weather", [])["state"]) == ("absent", "empty")


def test_a_field_that_is_not_allowed_is_not_stored():
    """A new field of the API is not stored before it is on the list, even if its name is harmless."""
    assert written("gateways", [{"name": "g", "interfaces": {"eth0": "x"}, "deploy_config": {"wifi": "x"}}])[
        "items"
    ] == [{"name": "g"}]


@pytest.mark.parametrize(
    "blob",
    [
        '{"login": {"name": "x"}}',
        '{"a": [{"apiKey": "x"}]}',
        '{"name": "password", "value": "x"}',
        '{"address": "tcp://host:22916?serverkey=abc"}',
        '{"url": "postgresql://reader:hunter2@host/db"}',
        '{"inner": "{\\"passwd\\": \\"x\\"}"}',
        '{"vpn-ip": "10.8.0.1"}',
        '{"vpnIp": "10.8.0.1"}',
        '{"community": "public"}',
        '{"k": "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MEFCQ0RFRg"}',
        '{"a": {"password": "x"}, "a": 1}',
        "interval: 300",
        '"text"',
        "[" * 100_000,
        "[" * 400 + "]" * 400,
        None,
        7,
    ],
)
def test_a_configuration_that_may_contain_a_secret_is_not_stored(blob):
    """The name and hash of the configuration stay, and the document states that its content is not stored."""
    item = {"config_name": "c", "config_hash": "h", "blob": blob}
    assert written("agent_configs", [item])["items"] == [{"blob_kept": False, "config_hash": "h", "config_name": "c"}]


def test_a_configuration_without_secrets_is_stored():
    """An ordinary driver configuration is stored as JSON."""
    blob = {"driver_type": "bacnet", "driver_config": {"device_id": 1001}, "interval": 300, "timezone": "UTC"}
    (item,) = written("agent_configs", [{"config_name": "devices/a", "blob": json.dumps(blob)}])["items"]
    assert (item["blob"], item["blob_kept"]) == (blob, True)


def test_an_allowed_field_of_an_unexpected_type_is_not_stored():
    """An object in place of a text may contain a secret under any name."""
    (item,) = written("gateways", [{"name": "g", "hw_type": {"wifi": "x"}, "software_type": ["x"]}])["items"]
    assert item == {"name": "g"}


@pytest.mark.parametrize("name", ["vpn_ip", "vpnIp", "vpn-ip", "device_token", "macAddress", "ansible_user"])
def test_a_secret_name_is_recognised_in_any_spelling(name):
    """The shared filter removes a member whatever its separators and capitals."""
    assert without_secrets({"a": [{name: "x", "b": 1}]}) == {"a": [{"b": 1}]}
    assert may_contain_secret([{name: "x"}])
