"""Snapshots: daily copies of what the API reports only for the present, such as weather and gateways.

A snapshot is one JSON document for each kind, subject and UTC day. The subject is a site, or a client for DER events.

Put here: the kinds, the fields that are stored, the form of a document. Keep out: requests (`ace/snapshots.py`) and the
store (`dataset/snapshots.py`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from backfill_pipeline.core.secret_fields import is_secret_text, may_contain_secret

FORM = 1
"""The version of the documents; it increases when readers must treat older documents differently."""

State = Literal["present", "empty", "absent"]
"""`present`: the API returned items; `empty`: it returned no items; `absent`: it returned 403 or 404."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of snapshot.

    Attributes:
        name: the name of the kind in object keys and assets.
        description: one sentence about the content.
        kept: the fields of the API that are stored; every other field is dropped.
        subject: what one document is about.
        configuration: the field that contains a configuration as JSON text; empty if there is none.
    """

    name: str
    description: str
    kept: tuple[str, ...]
    subject: Literal["site", "client"] = "site"
    configuration: str = ""


KINDS = (
    Kind(
        "sites",
        "Name, client, address and position of each site.",
        ("id", "name", "client", "address", "nice_name", "geo_location", "latitude", "longitude", "archived"),
    ),
    Kind("weather", "The last known weather of each site.", ("quantity", "name", "value", "time")),
    Kind(
        "der_events",
        "Active, upcoming and just ended DER events of each client.",
        (
            *("id", "client", "timezone", "event_start", "event_end", "event_type", "group_name", "cancelled", "title"),
            *("description", "updated", "created"),
        ),
        subject="client",
    ),
    Kind(
        "gateways",
        "The gateways of each site, without addresses and tokens.",
        ("name", "site", "client", "hw_type", "software_type", "archived", "updated"),
    ),
    Kind(
        "agent_configs",
        "The active agent configurations of each site's gateways.",
        (
            *("gateway", "id", "agent_identity", "config_name", "config_hash", "active", "updated", "created"),
            "blob",
        ),
        configuration="blob",
    ),
    Kind(
        "hawke_configuration",
        "The latest Hawke configurations of each site's gateways.",
        ("gateway", "hawke_identity", "content_hash", "updated", "created", "content_blob"),
        configuration="content_blob",
    ),
)
"""All kinds, in the order in which a run requests them."""


def document(kind: Kind, subject: str, day: date, at: datetime, items: Iterable[Mapping[str, Any]] | None) -> bytes:
    """A snapshot as JSON; the same arguments give the same bytes.

    Args:
        kind: the kind.
        subject: the site or client.
        day: the UTC day of `at`.
        at: when the API responded, aware.
        items: the items as parsed JSON objects in any order; None if the API returned 403 or 404.
    """
    kept = None if items is None else sorted({_json(_kept(kind, item)) for item in items})
    state: State = "absent" if kept is None else "present" if kept else "empty"
    head = {
        "form": FORM,
        "kind": kind.name,
        kind.subject: subject,
        "day": day.isoformat(),
        "fetched_at": at.isoformat(timespec="seconds"),
        "state": state,
    }
    return f'{_json(head)[:-1]},"items":[{",".join(kept or ())}]}}\n'.encode("ascii")


def state_of(data: bytes) -> State | None:
    """The state of a stored document; None when the data is not a snapshot."""
    try:
        found = json.loads(data)["state"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if found in ("present", "empty", "absent") else None


def _kept(kind: Kind, item: Mapping[str, Any]) -> dict[str, Any]:
    """The allowed fields of an item that are not secret; a configuration only if it may not contain a secret.

    The API documents no allowed field as an object or a list. Such a value may contain anything, so it is dropped.
    """
    found = {
        field: item[field]
        for field in kind.kept
        if field in item
        and field != kind.configuration
        and not isinstance(item[field], dict | list)
        and not is_secret_text(item[field])
    }
    if kind.configuration:
        configuration = _configuration(item.get(kind.configuration))
        found[f"{kind.configuration}_kept"] = configuration is not None
        if configuration is not None:
            found[kind.configuration] = configuration
    return found


def _configuration(text: object) -> Any:
    """A configuration that is a JSON object or list without a possible secret; None for any other."""
    value = text
    if isinstance(text, str):
        try:
            value = json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list) and not may_contain_secret(value) else None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object.

    Raises:
        ValueError: two members have the same name; a JSON parser would drop one of them.
    """
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("two members have the same name")
    return dict(pairs)


def _json(value: Any) -> str:
    return json.dumps(_finite(value), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    """The value with infinite and NaN numbers as text, since JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
