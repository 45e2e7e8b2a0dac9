"""Answers of the simulated API other than samples: weather, DER events, gateways and their configurations.

As the real API does, it returns tokens, users and addresses of management networks among them. `SECRETS` names these
values, so that a test can search everything that a client stored.

Put here: the items of these answers. Keep out: routes and pages (`app.py`), sites and samples (`world.py`).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from backfill_pipeline.simulator.world import Sample

CLIENT = "demo"

SECRETS = (
    "simulated-device-token",
    "simulated-ansible-user",
    "simulated-vtron-user",
    "simulated-event-user",
    "simulated-password",
    "simulated-network-secret",
    "198.51.100.7",
    "02:00:5e:10:00:01",
)
"""Texts in these answers that a client must not store."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = "2025-01-15T08:00:00.250000"


def site_secrets() -> dict[str, str]:
    """Fields of a site that contain users and addresses."""
    return {
        "ansible_user": "simulated-ansible-user",
        "vtron_user": "simulated-vtron-user",
        "vtron_ip": "198.51.100.7",
    }


def weather(samples: Sequence[Sample]) -> dict[str, Any]:
    """The last sample of each weather point; empty when the samples contain none."""
    last = {name: (at, value) for at, name, value in samples if "/weather/" in name}
    return {
        name.rsplit("/", 1)[-1]: {
            "name": name,
            "value": json.loads(value),
            "time": (_EPOCH + timedelta(microseconds=at)).replace(tzinfo=None).isoformat(),
        }
        for name, (at, value) in sorted(last.items())
    }


def der_events(now: datetime, *, past: bool) -> list[dict[str, Any]]:
    """An event that is announced for tomorrow, or one that ended within the last day."""
    day = (now + timedelta(days=-1 if past else 1)).date().isoformat()
    return [
        {
            "id": f"event-{day}",
            "timezone": "America/Chicago",
            "event_start": f"{day}T18:00:00",
            "event_end": f"{day}T20:00:00",
            "event_type": "shed",
            "group_name": "all",
            "client": CLIENT,
            "created_by_user": "simulated-event-user",
            "cancelled": False,
            "title": "Peak load",
            "description": "Reduce the load of all air handlers",
            "updated": _STAMP,
            "created": _STAMP,
        }
    ]


def gateway_name(site: str) -> str:
    """The name of a site's only gateway."""
    return f"{site}-gateway"


def gateway(site: str) -> dict[str, Any]:
    """A site's gateway, with its token."""
    return {
        "name": gateway_name(site),
        "site": site,
        "client": CLIENT,
        "hw_type": "edge-1",
        "software_type": "volttron",
        "primary_mac": "02:00:5e:10:00:01",
        "vpn_ip": "198.51.100.7",
        "device_token": "simulated-device-token",
        "interfaces": {"eth0": {"address": "198.51.100.7"}},
        "deploy_config": {"wifi": "simulated-network-secret"},
        "device_token_expires": "2027-01-15T08:00:00",
        "archived": False,
        "updated": _STAMP,
    }


def agent_configs() -> list[dict[str, Any]]:
    """A configuration of a driver, one with a password, and one that is not JSON."""
    blobs = {
        "devices/ahu1": json.dumps({"driver_type": "bacnet", "interval": 300, "driver_config": {"device_id": 1001}}),
        "config": json.dumps({"broker": {"host": "broker.example", "login": {"password": "simulated-password"}}}),
        "registry.csv": "name,note\nAHU1,simulated-password\n",
    }
    return [
        {
            "id": f"config-{number}",
            "agent_identity": "platform.driver",
            "config_name": name,
            "config_hash": f"{number:064x}",
            "blob": blob,
            "active": True,
            "updated": _STAMP,
            "created": _STAMP,
        }
        for number, (name, blob) in enumerate(blobs.items(), 1)
    ]


def hawke_configuration() -> list[dict[str, Any]]:
    """A configuration of one Hawke agent."""
    return [
        {
            "hawke_identity": "hawke-1",
            "content_hash": f"{9:064x}",
            "content_blob": json.dumps({"points": [{"object": "analogInput/1", "interval": 300}]}),
            "updated": _STAMP,
            "created": _STAMP,
        }
    ]
