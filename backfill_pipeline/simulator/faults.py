"""Faults of the simulated API: wrong answers and missing answers, on request.

Put here: each known or possible fault of the API, by name, and which requests it affects. Keep out: correct answers
(`app.py`).
"""

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

KINDS = {
    "truncate": "the body ends in mid-transfer, shorter than its Content-Length",
    "reset": "the connection is cut before an answer",
    "outage": "no answer to any request for `seconds` (default 60): the connection is cut, or HTTP `code`",
    "stall": "no answer for `seconds` (default 60)",
    "status": "an error answer of `code` (default 500), JSON below 502 and HTML from there",
    "throttle": "429 with `retry_after` (default 1; a number, an HTTP date, or `none`)",
    "html": "200 with an HTML page",
    "message": "200 with a message and no samples",
    "wrong_key": "200 with `data` in place of `point_samples`",
    "null_samples": "200 with `point_samples: null`",
    "max_page": "400 for pages above `rows` (default 50000)",
    "slow_page": "502 for pages above `rows` (default 50000)",
    "expire": "401 from this request on",
    "forbid": "403 for samples",
    "no_data": "404 instead of an empty window",
    "null_cursor": "`next_cursor` null although there are rows and `has_more` is true",
    "garbage_cursor": "an unreadable `next_cursor`",
    "late_cursor": "a cursor although `has_more` is false",
    "cursor_field": "cursors have one more field; a page is empty until its cursor is sent back verbatim",
    "more_at_end": "`has_more` true and `next_cursor` null on the last page, and in an empty window",
    "empty_page": "an empty page that carries a cursor, before the rows",
    "no_rows": "an empty answer, as if the window had no samples",
    "repeat_last": "the last row of the previous page, again, before the rows of this page",
    "repeat_row": "one row of the page twice",
    "shuffle": "rows out of order",
    "outside": "a row with a time outside the window",
    "bare_nan": "a bare NaN token among the values",
    "numbers": "values as JSON numbers",
    "zulu": "times with a Z",
    "offset": "times with +00:00",
    "epoch_ms": "times as epoch milliseconds",
    "rfc822": "times as in HTTP headers, `Sat, 01 Mar 2025 00:00:07 GMT`",
    "bad_time": "unreadable times, `01/03/2025 00:00`, in every `every`-th row (default 1: in all rows)",
    "no_name": "an empty name in every `every`-th row (default 1: in all rows)",
    "padded": "names with a space at the end",
    "bucketed": "aggregated data although raw data was requested",
    "other_site": "samples of another site of the key",
}
"""Kind of fault -> what it does."""

OPTIONS: dict[str, Callable[[str], Any]] = {
    "seconds": float,
    "code": int,
    "rows": int,
    "retry_after": str,
    "every": int,
}
"""Options of a kind in addition to `share`, `after`, `times`, `site` and `day`."""


@dataclass
class Fault:
    """One fault, and which requests it affects.

    Attributes:
        kind: one of `KINDS`.
        share: share of sample requests that it affects, 0..1.
        after: number of sample requests before the first one that it may affect.
        times: largest number of requests that it affects.
        site: the affected site; all when None.
        day: the affected UTC day: requests for any samples of it; all when None.
        options: further options of the kind.
    """

    kind: str
    share: float = 1.0
    after: int = 0
    times: int | None = None
    site: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    day: date | None = None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Parse `KIND[:key=value,...]`, such as `truncate:share=0.1` or `status:code=502,times=3`.

        Raises:
            ValueError: the kind does not exist, or a part is not `key=value`.
        """
        kind, _, rest = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"fault {kind!r} does not exist; choose from {', '.join(KINDS)}")
        options = {}
        for part in filter(None, rest.split(",")):
            key, separator, value = part.partition("=")
            if not separator:
                raise ValueError(f"{part!r} of fault {kind!r} is not key=value")
            options[key] = value
        try:
            share, after = float(options.pop("share", "1")), int(options.pop("after", "0"))
            times = int(options.pop("times")) if "times" in options else None
            site = options.pop("site", None)
            day = date.fromisoformat(options.pop("day")) if "day" in options else None
            numbers = [OPTIONS[key](value) for key, value in options.items() if key in OPTIONS]
        except ValueError:
            raise ValueError(f"a part of fault {text!r} is not a number, or not a day as YYYY-MM-DD") from None
        if not 0 <= share <= 1 or after < 0 or (times or 0) < 0 or not all(map(_fits, numbers)):
            raise ValueError(f"a part of fault {text!r} is out of bounds: share is 0 to 1, the others from 0 on")
        unknown = next((key for key in options if key not in OPTIONS), None)
        if unknown is not None:
            known = ", ".join(("share", "after", "times", "site", "day", *OPTIONS))
            raise ValueError(f"fault {kind!r} takes no {unknown!r}; choose from {known}")
        return cls(kind, share, after, times, site, options, day)


class Faults:
    """All faults of a simulator; a seeded random choice selects the affected requests."""

    def __init__(self, faults: Sequence[Fault], seed: int = 1) -> None:
        self._faults = faults
        self._rng = random.Random(seed)  # noqa: S311 - a world, not a secret
        self._lock = threading.Lock()
        self._requests = 0
        self._affected = [0] * len(faults)
        self._down_since: dict[int, float] = {}
        self.last_row: dict[str, Any] | None = None

    def outage(self, now: float) -> Fault | None:
        """Return the fault because of which the whole API is down now, or None.

        Args:
            now: seconds, monotonic.
        """
        with self._lock:
            for number, fault in enumerate(self._faults):
                if fault.kind == "outage" and self._requests >= fault.after:
                    since = self._down_since.setdefault(number, now)
                    if now - since < float(fault.options.get("seconds", "60")):
                        return fault
        return None

    def choose(self, site: str, first: date, last: date) -> list[Fault]:
        """Choose the faults of the next sample request, which is for samples of `first` to `last`."""
        with self._lock:
            self._requests += 1
            found = []
            for number, fault in enumerate(self._faults):
                if fault.kind == "outage":
                    continue
                chosen = self._rng.random() < fault.share
                spent = fault.times is not None and self._affected[number] >= fault.times
                is_meant = fault.site in (None, site) and (fault.day is None or first <= fault.day <= last)
                if chosen and not spent and self._requests > fault.after and is_meant:
                    self._affected[number] += 1
                    found.append(fault)
            return found

    def apply(self, fault: Fault, answer: dict[str, Any], *, first: bool) -> dict[str, Any]:
        """Apply a fault to an answer; `first` for the first page of a window."""
        rows = list(answer["point_samples"])
        more = answer["has_more"]
        kind = fault.kind
        if kind == "null_cursor" and more and rows:
            return answer | {"next_cursor": None}
        if kind == "more_at_end" and not more:
            return answer | {"next_cursor": None, "has_more": True}
        if kind == "garbage_cursor" and more:
            return answer | {"next_cursor": "?garbage?"}
        if kind == "late_cursor" and not more:
            return answer | {"next_cursor": "bGF0ZQ=="}
        if kind == "wrong_key":
            return {"data": rows, "next_cursor": None, "has_more": False}
        if kind == "null_samples":
            return answer | {"point_samples": None}
        if kind == "message":
            return {"message": "An unhandled exception occurred."}
        if kind == "no_rows":
            return {"point_samples": [], "next_cursor": None, "has_more": False}
        if not rows:
            return answer
        if kind == "repeat_last" and not first and self.last_row is not None:
            rows.insert(0, self.last_row)
        if kind == "repeat_row":
            rows.insert(len(rows) // 2, rows[len(rows) // 2])
        if kind == "shuffle":
            self._rng.shuffle(rows)
        if kind == "outside":
            rows.insert(0, rows[0] | {"time": "2001-01-01T00:00:00"})
        if kind in ("numbers", "zulu", "offset", "epoch_ms", "rfc822", "bad_time", "no_name", "padded"):
            every = max(1, int(fault.options.get("every", "1")))
            rows = [row if number % every else _reshaped(kind, row) for number, row in enumerate(rows)]
        self.last_row = rows[-1]
        return answer | {"point_samples": rows}


def _fits(value: object) -> bool:
    return not isinstance(value, int | float) or 0 <= value < float("inf")


def _reshaped(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    if kind == "numbers":
        try:
            return row | {"value": json.loads(row["value"])}
        except (TypeError, ValueError):
            return row
    if kind == "no_name":
        return row | {"name": ""}
    if kind == "padded":
        return row | {"name": f"{row['name']} "}
    if not isinstance(row["time"], str) or row["time"].endswith(("Z", "+00:00")):
        return row
    try:
        instant = datetime.fromisoformat(row["time"]).replace(tzinfo=UTC)
    except ValueError:  # another fault has reshaped it already
        return row
    if kind in ("rfc822", "bad_time"):
        return row | {
            "time": format_datetime(instant, usegmt=True) if kind == "rfc822" else f"{instant:%d/%m/%Y %H:%M}"
        }
    if kind == "epoch_ms":
        return row | {"time": (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)}
    return row | {"time": row["time"] + ("Z" if kind == "zulu" else "+00:00")}
