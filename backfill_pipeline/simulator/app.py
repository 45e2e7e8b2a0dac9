"""An ACE API on loopback, as `docs/ace-api.md` describes the real one, including the bug of its cursor.

Put here: routes, authentication, answer formats, the allowed page sizes, the cursor. Keep out: sites and samples
(`world.py`) and faults (`faults.py`).
"""

import base64
import gzip
import hashlib
import json
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

from backfill_pipeline.simulator import descriptions
from backfill_pipeline.simulator.equipment import STAGES, changed
from backfill_pipeline.simulator.faults import Fault, Faults
from backfill_pipeline.simulator.world import Sample, World

PER_PAGE = (2, 10, 20, 30, 40, 50, 100, 500, 1000, 5000, 10000, 100000)
PAGE_SIZE = (3, 10, 50, 100, 500, 1000, 5000, 10000, 50000, 100000, 300000, 500000)
DEFAULT_KEY = "simulator-key"
BUCKET_US = 300_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SITE_FIELDS = (
    *("id", "name", "client", "address", "nice_name", "ansible_user", "vtron_user", "vtron_ip", "geo_location"),
    *("mqtt_prefix", "latitude", "longitude", "archived"),
)
_NO_RESULT = {"message": "A database result was required but none was found."}
_HTML = (
    "<!doctype html>\n<html lang=en>\n<title>{code} {what}</title>\n<h1>{what}</h1>\n"
    "<p>The requested URL was not found on the server.</p>\n"
)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request, and its answer.

    Attributes:
        arrival: seconds, monotonic.
        path: below `/api`.
        query: its parameters.
        status: HTTP status; 0 when the connection was cut.
        rows: samples in the answer.
    """

    arrival: float
    path: str
    query: dict[str, str]
    status: int
    rows: int


class _Answer(Exception):  # noqa: N818 - how a route ends early, not an error
    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not log a client that closed its connection: many tests do this on purpose."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Simulator:
    """The API, served by threads of this process; a context manager.

    Args:
        world: what to serve.
        api_key: the only accepted key, unless the caller changes `keys`.
        port: the port; 0 for a free one.
        host: where to listen.
        faults: the faults to apply.
        requests_per_minute: enforced over any sliding minute, with 429 and Retry-After; None: no limit.
        latency_s: seconds before each answer.
        latency_per_row_s: additional seconds for each row of it.
        fixed_cursor: serve cursors without the bug.
        bad_key: how a wrong key is answered: `error`, `jwt` or `500`.
        points_change_s: seconds between two changes of each site's list of points; None: the lists do not change.
        clock: seconds, monotonic; for the changes of the lists.
    """

    def __init__(
        self,
        world: World,
        *,
        api_key: str = DEFAULT_KEY,
        port: int = 0,
        host: str = "127.0.0.1",
        faults: Sequence[Fault] = (),
        requests_per_minute: int | None = None,
        latency_s: float = 0.0,
        latency_per_row_s: float = 0.0,
        fixed_cursor: bool = False,
        bad_key: str = "error",
        points_change_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.world = world
        self.host = host
        self.keys = {api_key}
        self.faults = Faults(faults)
        self.limit = requests_per_minute
        self.latency_s = latency_s
        self.latency_per_row_s = latency_per_row_s
        self.fixed_cursor = fixed_cursor
        self.bad_key = bad_key
        self.points_change_s = points_change_s
        self._clock = clock
        self._started = clock()
        self.down_until = 0.0  # of time.monotonic(): before it, no request is answered
        self.refused: dict[str, int] = {}  # status of each path that contains this part
        self.requests: list[LoggedRequest] = []
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"api": self})
        self.server = _Server((host, port), handler)
        self.server.daemon_threads = True
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, for `ACE_API_URL`."""
        return f"http://{self.host}:{self.server.server_address[1]}/api"

    def __enter__(self) -> Self:
        """Serve in the background."""
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
        if self._thread is not None:
            self._thread.join()

    def stage(self) -> int:
        """How many times the lists of points have changed."""
        if self.points_change_s is None:
            return 0
        return min(STAGES, int((self._clock() - self._started) / self.points_change_s))

    def over_limit(self, now: float) -> float | None:
        """Seconds to wait when the sliding minute is used up; None when the request may pass."""
        if self.limit is None:
            return None
        with self._lock:
            while self._recent and now - self._recent[0] >= 60:  # noqa: PLR2004 - a minute
                self._recent.popleft()
            if len(self._recent) >= self.limit:
                return 60 - (now - self._recent[0])
            self._recent.append(now)
        return None


class _Handler(BaseHTTPRequestHandler):
    api: ClassVar[Simulator]
    protocol_version = "HTTP/1.1"
    server_version = "ACE-simulator"
    disable_nagle_algorithm = True
    timeout = 120

    def log_message(self, *_: Any) -> None:
        """Write no log: `Simulator.requests` is the log."""

    def do_GET(self) -> None:
        """Answer a GET."""
        arrival = time.monotonic()
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        rows = 0
        try:
            status, body, headers = 200, self._route(arrival, parts.path, query), {}
            if isinstance(body, dict) and isinstance(body.get("point_samples"), list):
                rows = len(body["point_samples"])
        except _Answer as answer:
            status, body, headers = answer.status, answer.body, answer.headers
        except ConnectionAbortedError:
            status, body, headers = 0, None, {}
        self.api.requests.append(LoggedRequest(arrival, parts.path.removeprefix("/api"), query, status, rows))
        if not status:
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, body, headers)

    def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
        bare_nan, cut = headers.pop("x-bare-nan", None), headers.pop("x-cut", None)
        if isinstance(body, str):
            data, kind = body.encode(), "text/html; charset=utf-8"
        else:
            data, kind = (json.dumps(body) + "\n").encode(), "application/json"
        if bare_nan:
            data = data.replace(b'"value": "NaN"', b'"value": NaN')
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(data) > 1_000:  # noqa: PLR2004 - worth packing
            data = gzip.compress(data, 1)
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def _route(self, arrival: float, path: str, query: dict[str, str]) -> Any:
        if not path.startswith("/api/"):
            raise _Answer(404, _HTML.format(code=404, what="Not Found"))
        parts = [unquote(part) for part in path.removeprefix("/api/").split("/")]
        self._be_up(arrival)
        self._authenticate()
        wait = self.api.over_limit(arrival)
        if wait is not None:
            raise _Answer(429, {"message": "Too Many Requests"}, {"Retry-After": str(int(wait) + 1)})
        for word, status in self.api.refused.items():
            if word in parts:
                raise _Answer(status, {"message": "Forbidden"})
        if parts[0] in ("clients", "gateways") or parts[2:] == ["weather"]:
            return self._described(parts, path, query)
        return self._listed(parts, path, query)

    def _listed(self, parts: list[str], path: str, query: dict[str, str]) -> Any:
        match parts:
            case ["sites"] | ["points"]:
                raise _Answer(308, _HTML.format(code=308, what="Permanent Redirect"), {"Location": path + "/"})
            case ["sites", ""]:
                shown = query.get("show_archived", "").lower() in ("true", "1")
                sites = [_site(n, site) for n, site in enumerate(self.api.world.sites, 1)]
                return _page([site for site in sites if shown or not site["archived"]], query)
            case ["points", ""]:
                return _page([p for site in self.api.world.sites for p in site.points()], query)
            case ["sites", name]:
                found = self.api.world.site(name)
                if found is None:
                    raise _Answer(403, dict.fromkeys(_SITE_FIELDS))
                return _site(list(self.api.world.sites).index(found) + 1, found)
            case ["sites", name, "configured_points" | "points" as which]:
                site = self.api.world.site(name)
                if site is None:
                    raise _Answer(404, _NO_RESULT)
                listed = changed(site.points(), self.api.stage())
                return _page([p for p in listed if which == "points" or p["collect_enabled"]], query)
            case ["sites", name, "timeseries", "paginated"]:
                return self._paginated(name, query)
            case ["sites", name, "timeseries"]:
                start, end = _bounds(query)
                rows = list(_bucketed(self.api.world.window(name, start, end)))
                return {"point_samples": [_row(row) for row in rows]}
        raise _Answer(404, _HTML.format(code=404, what="Not Found"))

    def _described(self, parts: list[str], path: str, query: dict[str, str]) -> Any:
        sites = {descriptions.gateway_name(site.name): site.name for site in self.api.world.sites}
        match parts:
            case ["sites", name, "weather"]:
                return self._weather(name)
            case ["clients", name, "der_events"]:
                if name != descriptions.CLIENT:
                    raise _Answer(404, _NO_RESULT)
                past = query.get("get_past_events", "").lower() in ("true", "1")
                return _page(descriptions.der_events(datetime.now(UTC), past=past), query)
            case ["gateways"]:
                raise _Answer(308, _HTML.format(code=308, what="Permanent Redirect"), {"Location": path + "/"})
            case ["gateways", ""]:
                return _page([descriptions.gateway(site) for site in sites.values()], query)
            case ["gateways", name, "agent_configs" | "hawke_configuration" as which]:
                if name not in sites:
                    raise _Answer(404, _NO_RESULT)
                agents = which == "agent_configs"
                return _page(descriptions.agent_configs() if agents else descriptions.hawke_configuration(), query)
        raise _Answer(404, _HTML.format(code=404, what="Not Found"))

    def _weather(self, name: str) -> Any:
        end = (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)
        hour = 3_600_000_000
        known = self.api.world.site(name) is not None
        found = descriptions.weather(self.api.world.window(name, end - hour, end)) if known else {}
        if not found:
            raise _Answer(404, {"weather": None})
        return {"weather": found}

    def _be_up(self, arrival: float) -> None:
        if arrival < self.api.down_until:
            raise ConnectionAbortedError
        outage = self.api.faults.outage(arrival)
        if outage is None:
            return
        code = int(outage.options.get("code", "0"))
        if not code:
            raise ConnectionAbortedError
        raise _Answer(code, _HTML.format(code=code, what="Service Unavailable"))

    def _authenticate(self) -> None:
        given = self.headers.get("Authorization")
        if given is None:
            raise _Answer(401, {"message": "Error"})
        if given.removeprefix("Bearer ") not in self.api.keys or not given.startswith("Bearer "):
            raise {
                "error": _Answer(401, {"message": "Error"}),
                "jwt": _Answer(401, {"message": "JWT Signature Invalid"}),
                "500": _Answer(500, {"message": "An unhandled exception occurred."}),
            }[self.api.bad_key]

    def _paginated(self, name: str, query: dict[str, str]) -> Any:
        if self.api.world.site(name) is None:  # an assumption: the real answer is not known
            raise _Answer(404, _NO_RESULT)
        start, end = _bounds(query)
        size = _choice(query, "page_size", PAGE_SIZE, 10_000, "Number of records per page")
        raw = query.get("raw_data", "false").lower() in ("true", "1")
        active = self.api.faults.choose(name, _day(start), _day(end - 1))
        self._before(active, size)
        headers: dict[str, str] = {}
        source = self.api.world.window(name, start, end)
        if any(fault.kind == "other_site" for fault in active):
            other = next(site.name for site in self.api.world.sites if site.name != name)
            source = self.api.world.window(other, start, end)
        if not raw or any(fault.kind == "bucketed" for fault in active):
            source = list(_bucketed(source))
        answer = _paged(source, size, query.get("cursor"), fixed=self.api.fixed_cursor)
        nothing = not answer["point_samples"]  # a page that `cursor_field` empties has data
        if any(fault.kind == "cursor_field" for fault in active):
            answer = _demanding(answer, query.get("cursor"))
        time.sleep(self.api.latency_s + self.api.latency_per_row_s * len(answer["point_samples"]))
        for fault in active:
            if not isinstance(answer.get("point_samples"), list):
                break  # an earlier fault has replaced the answer
            if fault.kind == "no_data" and nothing:
                raise _Answer(404, {"message": "No data for time period"})
            if fault.kind == "empty_page" and answer["point_samples"]:
                position = query.get("cursor") or _cursor(start, 0)
                answer = {"point_samples": [], "next_cursor": position, "has_more": True}
            answer = self.api.faults.apply(fault, answer, first="cursor" not in query)
            headers |= {"truncate": {"x-cut": "1"}, "bare_nan": {"x-bare-nan": "1"}}.get(fault.kind, {})
        mask = self.headers.get("X-Fields")
        if mask:
            answer = {key: value for key, value in answer.items() if key in mask}
        if headers:
            raise _Answer(200, answer, headers)
        return answer

    def _before(self, active: Sequence[Fault], size: int) -> None:
        """Apply the faults that replace the whole answer."""
        for fault in active:
            options = fault.options
            if fault.kind == "reset":
                raise ConnectionAbortedError
            if fault.kind == "stall":
                time.sleep(float(options.get("seconds", "60")))
            elif fault.kind == "status":
                code = int(options.get("code", "500"))
                html = code > 501  # noqa: PLR2004 - from 502 on a proxy answers
                what = _HTML.format(code=code, what="Bad Gateway")
                raise _Answer(code, what if html else {"message": "An unhandled exception occurred."})
            elif fault.kind == "throttle":
                after = options.get("retry_after", "1")
                raise _Answer(429, {"message": "slow down"}, {} if after == "none" else {"Retry-After": after})
            elif fault.kind == "html":
                raise _Answer(200, _HTML.format(code=200, what="Welcome"))
            elif fault.kind == "expire":
                raise _Answer(401, {"message": "Error"})
            elif fault.kind == "forbid":
                raise _Answer(403, {"message": "Forbidden"})
            elif fault.kind in ("max_page", "slow_page") and size > int(options.get("rows", "50000")):
                if fault.kind == "slow_page":
                    raise _Answer(502, _HTML.format(code=502, what="Bad Gateway"))
                raise _invalid("page_size", f"Number of records per page {{error_msg}} {size} is not allowed")


def _paged(rows: Sequence[Sample], size: int, cursor: str | None, *, fixed: bool) -> dict[str, Any]:
    """One page, and a cursor whose offset counts the rows of this page alone: the API's own bug, unless `fixed`."""
    at, offset = _position(cursor)
    begin = 0
    if at is not None:
        first = bisect_left(rows, at, key=lambda row: row[0])
        later = bisect_right(rows, at, key=lambda row: row[0])
        begin = min(first + offset, later)
    page = rows[begin : begin + size]
    more = begin + size < len(rows)
    following = None
    if more:
        last = page[-1][0]
        run = next((n for n, row in enumerate(reversed(page)) if row[0] != last), len(page))
        following = _cursor(last, run + (offset if fixed and last == at else 0))
    return {"point_samples": [_row(row) for row in page], "next_cursor": following, "has_more": more}


def _demanding(answer: dict[str, Any], cursor: str | None) -> dict[str, Any]:
    """An answer whose cursor has one more field, and no rows unless the request's cursor has it as well."""
    if cursor is not None and cursor != _with_field(cursor):
        return {"point_samples": [], "next_cursor": _with_field(cursor), "has_more": True}
    following = answer["next_cursor"]
    return answer if following is None else answer | {"next_cursor": _with_field(following)}


def _with_field(cursor: str) -> str:
    """A cursor that also has a field that depends on its position; each position has one spelling."""
    fields = json.loads(base64.b64decode(cursor))
    position = {"offset": fields["offset"], "timestamp": fields["timestamp"]}
    token = hashlib.sha256(json.dumps(position).encode()).hexdigest()[:8]
    return base64.b64encode(json.dumps({"token": token, **position}).encode()).decode()


def _day(at_us: int) -> date:
    return (_EPOCH + timedelta(microseconds=at_us)).date()


def _bucketed(rows: Iterable[Sample]) -> Iterator[Sample]:
    """The aggregated series: one row per point and five minutes, on the mark."""
    seen: dict[tuple[int, str], str] = {}
    for at, name, value in rows:
        seen.setdefault((at // BUCKET_US * BUCKET_US, name), value)
    return iter([(at, name, value) for (at, name), value in sorted(seen.items())])


def _row(row: Sample) -> dict[str, Any]:
    return {"name": row[1], "value": json.loads(row[2]), "time": _time(row[0])}


def _time(at: int) -> str:
    """Naive, UTC, microseconds when they are not zero."""
    return (_EPOCH + timedelta(microseconds=at)).replace(tzinfo=None).isoformat()


def _cursor(at: int, offset: int) -> str:
    stamp = (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return base64.b64encode(json.dumps({"offset": offset, "timestamp": stamp}).encode()).decode()


def _position(cursor: str | None) -> tuple[int | None, int]:
    if cursor is None:
        return None, 0
    try:
        fields = json.loads(base64.b64decode(cursor, validate=True))
        stamp = datetime.fromisoformat(fields["timestamp"])
        stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
        return (stamp - _EPOCH) // timedelta(microseconds=1), int(fields["offset"])
    except (ValueError, KeyError, TypeError):
        raise _Answer(500, {"message": "An unhandled exception occurred."}) from None


def _bounds(query: dict[str, str]) -> tuple[int, int]:
    found = []
    for name, what in (("start_time", "start"), ("end_time", "end")):
        if name not in query:
            raise _invalid(name, f"ISO format {what} time Missing required parameter in the query string")
        try:
            instant = datetime.fromisoformat(query[name])
        except ValueError:
            raise _invalid(name, f"ISO format {what} time Invalid isoformat string: '{query[name]}'") from None
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        found.append((instant - _EPOCH) // timedelta(microseconds=1))
    return found[0], found[1]


def _choice(query: dict[str, str], name: str, allowed: Sequence[int], default: int, what: str) -> int:
    text = query.get(name, str(default))
    if text not in map(str, allowed):
        raise _invalid(name, f"{what} {{error_msg}} The value '{text}' is not a valid choice for '{name}'.")
    return int(text)


def _invalid(name: str, message: str) -> _Answer:
    return _Answer(400, {"errors": {name: message}, "message": "Input payload validation failed"})


def _page(items: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    size = _choice(query, "per_page", PER_PAGE, 10, "Results per page")
    number = query.get("page", "1")
    if not number.isdigit() or number == "0":
        raise _invalid("page", f"Page number invalid literal for int() with base 10: '{number}'")
    page = int(number)
    return {
        "page": page,
        "pages": -(-len(items) // size),
        "per_page": size,
        "total": len(items),
        "items": items[(page - 1) * size : page * size],
    }


def _site(number: int, site: Any) -> dict[str, Any]:
    return (
        dict.fromkeys(_SITE_FIELDS)
        | descriptions.site_secrets()
        | {
            "id": number,
            "name": site.name,
            "client": descriptions.CLIENT,
            "nice_name": site.name.replace("_", " ").title(),
            "latitude": 40.7,
            "longitude": -74.0,
            "archived": bool(getattr(site, "archived", False)),
        }
    )
