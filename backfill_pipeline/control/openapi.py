"""The OpenAPI 3.1 description of the HTTP control API.

Put here: paths, fields and statuses. Keep out: how requests are answered (`http.py`).
"""

from typing import Any

_DAY = {"type": "string", "format": "date"}
_INSTANT = {"type": "string", "format": "date-time"}
_COUNT = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}


def openapi(version: str) -> dict[str, Any]:
    """Return the description; `version` is the version of the package."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "backfill_pipeline",
            "version": version,
            "description": "Start, watch and cancel backfills of building sensor history.",
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _object({"error": _TEXT, "message": _TEXT})},
        },
        "security": [{"token": []}],
        "paths": {
            "/": {
                "get": {
                    "summary": "Service name and version",
                    "security": [],
                    "responses": {"200": _answer(_object({"service": _TEXT, "version": _TEXT}))},
                }
            },
            "/backfill/start": {
                "post": {
                    "summary": "Start a backfill of the days that are not stored yet",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _START}}},
                    "responses": {
                        "202": _answer(_STARTED),
                        **_errors(
                            {
                                "400": "Bad or missing dates, or an unknown site",
                                "408": "The body did not arrive in time",
                                "409": "A backfill is running and force_restart is false",
                                "413": "The body is too large",
                                "503": "Dagster's daemon does not run, or the list of sites is not available",
                            }
                        ),
                    },
                }
            },
            "/backfill/status": {
                "get": {
                    "summary": "The status of a backfill; of the latest one without an id",
                    "parameters": [_ID],
                    "responses": {"200": _answer(_STATUS), **_errors({"404": "No such backfill"})},
                }
            },
            "/backfill/cancel": {
                "post": {
                    "summary": "Cancel the running backfill: its running days complete",
                    "parameters": [_ID],
                    "responses": {"200": _answer(_CANCELLED), **_errors({"404": "No backfill to cancel"})},
                }
            },
            "/backfill/errors": {
                "get": {
                    "summary": "Each failed site-day with its error, latest first",
                    "parameters": [_ID],
                    "responses": {
                        "200": _answer({"type": "array", "items": _FAILURE}),
                        **_errors({"404": "No such backfill"}),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Metrics for Prometheus, of all sites or of the named sites",
                    "parameters": [_SITES],
                    "responses": {
                        "200": {"description": "Figures", "content": {"text/plain": {"schema": _TEXT}}},
                        **_errors({"400": "No such site"}),
                    },
                }
            },
            "/openapi.json": {
                "get": {
                    "summary": "This description",
                    "responses": {"200": _answer({"type": "object"}), **_errors({})},
                }
            },
        },
    }


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


_FORBIDDEN = {"403": "Without BACKFILL_TOKEN: the request names another Host or Origin than this server's own"}


def _errors(meanings: dict[str, str]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    busy = "Too many requests are open, or the installation is not ready"
    meanings = {"401": "The token is missing or wrong", **_FORBIDDEN, "503": busy, **meanings}
    return {status: {"description": meaning, "content": error} for status, meaning in meanings.items()}


_ID = {"name": "backfill_id", "in": "query", "required": False, "schema": {"type": "string"}}

_SITES = {"name": "site", "in": "query", "required": False, "schema": {"type": "array", "items": {"type": "string"}}}

_START = {
    "type": "object",
    "properties": {
        "start_date": _DAY,
        "end_date": _DAY,
        "force_restart": {"type": "boolean", "default": False},
        "sites": {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}, "minItems": 1},
    },
    "required": ["start_date", "end_date"],
}

_STARTED = _object(
    {
        "status": {"const": "started"},
        "backfill_id": _TEXT,
        "start_date": _DAY,
        "end_date": _DAY,
        "estimated_days": _COUNT,
        "message": _TEXT,
    }
)

_STATUS = _object(
    {
        "status": {"enum": ["not_started", "in_progress", "completed", "cancelled", "failed"]},
        "backfill_id": _or_null(_TEXT),
        "start_date": _or_null(_DAY),
        "end_date": _or_null(_DAY),
        "current_date": _or_null(_DAY),
        "days_completed": _COUNT,
        "days_total": _COUNT,
        "progress_percent": {"type": "number", "minimum": 0, "maximum": 100},
        "records_processed": _COUNT,
        "started_at": _or_null(_INSTANT),
        "last_updated": _or_null(_INSTANT),
        "estimated_completion": _or_null(_INSTANT),
        "message": _or_null(_TEXT),
        "api_down_since": _or_null(_INSTANT),
    }
)

_CANCELLED = _object(
    {"status": {"const": "cancelled"}, "backfill_id": _TEXT, "days_completed": _COUNT, "message": _TEXT}
)

_FAILURE = _object(
    {
        "backfill_id": _TEXT,
        "timestamp": _INSTANT,
        "error": _TEXT,
        "kind": _TEXT,
        "hint": _TEXT,
        "context": _object({"site": _or_null(_TEXT), "date": _or_null(_DAY)}),
    }
)
