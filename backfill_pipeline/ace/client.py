"""The client of the ACE API: one method for each thing that is asked of it.

Put here: authentication, transport, and what each answer means (`docs/ace-api.md` sections 1 and 4). Keep out: decoding
of sample pages (`ace/decode.py`), the budget (`ace/budget.py`), and the order in which a day is asked for
(`ace/fetch.py`). Lists are retried here, by `ace/retry.py`; a page of samples is not: its walk decides how.
"""

import contextlib
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from backfill_pipeline import __version__
from backfill_pipeline.ace.budget import Budget, open_budget
from backfill_pipeline.ace.decode import Body, decode_page, parsed
from backfill_pipeline.ace.outage import OUTAGE_FAULTS, OUTAGE_STATUSES, AnsweredBefore, OutageGate, Report
from backfill_pipeline.ace.receive_buffers import PART_BYTES, ReceiveBuffers
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff, retry_after_s
from backfill_pipeline.core.day import DAY_S, Window, iso
from backfill_pipeline.core.point_catalogue import PointSpan, described, packed, unpacked
from backfill_pipeline.core.rows import Page
from backfill_pipeline.core.transport_faults import SETTINGS_FAULTS, FaultKind, TransportFault, classify, status_fault
from backfill_pipeline.errors import (
    ContractError,
    KeyRefusedError,
    PageFailedError,
    RequestRefusedError,
    SiteRefusedError,
    ThrottledError,
    TransientError,
    UnreachableError,
    concerning,
)
from backfill_pipeline.settings import Settings

LIST_SIZE = 10_000
"""Items a page of the point and site lists: one request for all but the largest sites (docs/ace-api.md section 3)."""

DECODERS = 2
"""Threads that decode: enough to keep up, and few, since each keeps its working memory."""

_ROW_BYTES = 1_024
"""No row of a page is longer than this on average: names have at most 512 characters."""

_ITEM_BYTES, _ITEM_PARTS = 8_192, 200
"""Bytes, and members in JSON, that an item of a list has at most on average: a point has some fifty."""

_SHORT = 100_000
"""Bytes; a longer answer is not looked into for what it says."""

_LONG_KEY = 8
"""Characters from which a key is known by itself wherever it stands."""

FIRST_ANSWER_S = 5.0
"""How long an API that never answered is retried, in seconds: a network may come up a little after this process."""

_EMPTY = decode_page(b'{"point_samples": [], "next_cursor": null, "has_more": false}\n')


@dataclass(frozen=True, slots=True)
class Site:
    """A site of the key."""

    name: str
    nice_name: str | None
    archived: bool


@dataclass(frozen=True, slots=True)
class PointList:
    """The configured, collect-enabled points of a site.

    Attributes:
        site: the site's name.
        names: point names, sorted, distinct.
        rows_a_day: samples that they send a day if each keeps its interval (a minute where it names none).
        interval_s: the median of their intervals in seconds; None when none of them names one.
        packed: the list itself, by `core.catalogue.packed`: what it says of each point, for the points' catalogue.
        listed_at: when the list was fetched, aware; None when it was not.
    """

    site: str
    names: tuple[str, ...]
    rows_a_day: int
    interval_s: float | None = None
    packed: bytes = field(default=b"", repr=False, compare=False)
    listed_at: datetime | None = field(default=None, compare=False)

    def described(self) -> list[PointSpan]:
        """Describe each listed point for the points' catalogue: some 0.2 ms a point, so that few callers need it."""
        return described(unpacked(self.packed), self.listed_at) if self.listed_at is not None else []

    @property
    def sha256(self) -> str:
        """A hash of the names: two days with the same hash were filtered alike."""
        return hashlib.sha256("\n".join(self.names).encode("utf-8", "surrogatepass")).hexdigest()


class Bearer(requests.auth.AuthBase):
    """Sets the key itself, so that no `.netrc` of the machine can replace it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the header."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class AceClient:
    """The ACE API, as far as a backfill needs it. Safe for use by several threads.

    Args:
        url: base URL, ending in `/api`.
        key: the bearer key.
        budget: asked before every request that leaves.
        retries: how the lists are tried again.
        clock: seconds, monotonic; for deadlines.
        patience: factor on all time-outs.
        now: Unix seconds; when a list was fetched.
        outage: where requests wait while the API is down; by default they do not.
    """

    def __init__(
        self,
        url: str,
        key: str,
        budget: Budget,
        *,
        retries: Retries | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = 1.0,
        now: Callable[[], float] = time.time,
        outage: OutageGate | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.budget = budget
        self.retries = retries or Retries()
        self._auth = Bearer(key)
        self._key = key.encode("utf-8", "surrogatepass")
        self._clock = clock
        self._patience = patience
        self._now = now
        self.outage = outage or OutageGate()
        self._local = threading.local()
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._buffers = ReceiveBuffers()
        self._proved = False  # whether any answer has shown that the key is good
        self._unhandled = 0
        self._silent_since: float | None = None  # since when an API that never answered does not answer

    def sites(self) -> list[Site]:
        """Every site of the key that is not archived, sorted by name.

        Raises:
            BackfillError: what `_listed` raises.
        """
        items = self._listed("/sites/", "the sites of the key")
        sites = [Site(str(item["name"]), item.get("nice_name"), bool(item.get("archived"))) for item in items]
        return sorted((site for site in sites if not site.archived), key=lambda site: site.name)

    def configured_points(self, site: str) -> PointList:
        """Every configured point of a site that is collect-enabled, checked against the list's own `total`.

        Raises:
            SiteRefusedError: the API does not know the site, or not for this key.
            ContractError: the list stays shorter than its own total.
        """
        with concerning(site):
            items = self._listed(f"{_site_path(site)}/configured_points", "the configured points")
        enabled = {str(item["name"]): item.get("collect_interval") for item in items if _true(item)}
        seconds = [i for i in enabled.values() if isinstance(i, int) and i > 0]
        rows = sum(-(-DAY_S // s) for s in seconds) + 1440 * (len(enabled) - len(seconds))
        at = datetime.fromtimestamp(self._now(), UTC).replace(microsecond=0)
        usual = float(median(seconds)) if seconds else None
        return PointList(site, tuple(sorted(enabled)), rows, usual, packed(items), at)

    def known_points(self, site: str) -> frozenset[str]:
        """The names of all points of a site, configured or not.

        Raises:
            BackfillError: what `configured_points` raises.
        """
        with concerning(site):
            items = self._listed(f"{_site_path(site)}/points", "all points")
        return frozenset(str(item["name"]) for item in items)

    def records(self, path: str, what: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """All items of a paged list, as parsed JSON objects that need not have a name.

        Args:
            path: below the base URL.
            what: what is requested, for messages.
            query: further parameters.

        Raises:
            SiteRefusedError, RequestRefusedError: among others for 403 and 404.
            BackfillError: what `configured_points` raises.
        """
        return self._listed(path, what, query or {}, identity=lambda item: json.dumps(item, sort_keys=True))

    def document(self, path: str, what: str) -> dict[str, Any]:
        """One JSON object that is not paged; arguments and errors as of `records`."""

        def attempt(_failures: int) -> dict[str, Any]:
            _, body = self._get(path, {}, what, rows=1, most=_ITEM_BYTES, no_data_is_empty=False)
            answer = _json_of(body, what)
            if not isinstance(answer, dict):
                raise ContractError(f"{what}: the answer is not a JSON object ({_message(body)})")
            return answer

        return self.retries.run(what, attempt)

    def page(self, site: str, window: Window, size: int, cursor: str | None) -> Page:
        """One page of raw samples, decoded; not tried again when it fails.

        Args:
            site: the site's name.
            window: what to ask for.
            size: rows at most; one of the API's page sizes.
            cursor: where to go on, or None for the window's start.

        Raises:
            PageFailedError: it did not arrive whole.
            ThrottledError: the API asked us to slow down.
            RequestRefusedError, KeyRefusedError, SiteRefusedError, ContractError: trying again cannot help.
        """
        query = {
            "start_time": iso(window.start),
            "end_time": iso(window.end),
            "page_size": str(size),
            "raw_data": "true",
        }
        if cursor is not None:
            query["cursor"] = cursor
        path = f"{_site_path(site)}/timeseries/paginated"
        what = f"samples, {iso(window.start)} to {iso(window.end)}, {size} a page"
        with concerning(site, datetime.fromtimestamp(window.start, UTC).date()):
            status, body = self._get(path, query, what, rows=size, most=size * _ROW_BYTES, no_data_is_empty=True)
            if status == requests.codes.not_found:
                return _EMPTY
            page = self._decoders.submit(decode_page, body, size).result()
        self._buffers.give(body)
        return page

    @property
    def waited(self) -> float:
        """Seconds that this thread's last request waited for the budget, and for an outage to end."""
        return getattr(self._local, "waited", 0.0)

    @property
    def first_byte_s(self) -> float:
        """Seconds from sending this thread's last request to the first byte of its answer."""
        return getattr(self._local, "first_byte_s", 0.0)

    def clock_ahead(self, now: Callable[[], float] = time.time) -> float | None:
        """Seconds that this machine's clock is ahead of the API's, to a second; None when the API names no time.

        Args:
            now: Unix seconds.

        Raises:
            PageFailedError: the API does not answer.
        """
        self.budget.acquire()
        try:
            with self._session().get(
                f"{self.url}/sites/",
                params={"per_page": "2"},
                auth=self._auth,
                timeout=10 * self._patience,
                allow_redirects=False,
                stream=True,
            ) as answer:
                here, there = now(), answer.headers.get("Date")
            return None if there is None else here - parsedate_to_datetime(there).timestamp()
        except (requests.RequestException, OSError) as error:
            raise self._unanswered(_fault(error), "the API's time", is_outage=False) from error
        except (ValueError, TypeError, OverflowError):
            return None

    def _listed(
        self,
        path: str,
        what: str,
        query: Mapping[str, str] | None = None,
        *,
        identity: Callable[[dict[str, Any]], object] | None = None,
    ) -> list[dict[str, Any]]:
        """All items of a paged list; what tells two items apart is `identity`, by default the name.

        A list that changes while it is read can repeat or skip items: it is read again when what came does not
        agree with its own total.
        """

        def attempt(failures: int) -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = []
            total = 0
            for page in self._list_pages(path, what, query or {}, named=identity is None):
                items += page["items"]
                total = page["total"]
            distinct = {identity(item) if identity else item["name"] for item in items}
            if len(items) < total or (len(distinct) < total and not failures):
                message = f"{what}: {len(distinct)} different items arrived of a total of {total}"
                if failures < 2:  # noqa: PLR2004 - two more readings tell a changing list from a wrong one
                    raise PageFailedError(message, size_related=False)
                raise ContractError(f"{message}, three times in a row; nothing was fetched with a partial list")
            return items

        return self.retries.run(what, attempt)

    def _list_pages(self, path: str, what: str, more: Mapping[str, str], *, named: bool) -> Iterator[dict[str, Any]]:
        received, number = 0, 1
        while True:
            query = {**more, "page": str(number), "per_page": str(LIST_SIZE)}
            status, body = self._get(
                path, query, what, rows=LIST_SIZE, most=LIST_SIZE * _ITEM_BYTES, no_data_is_empty=number > 1
            )
            if status == requests.codes.not_found:
                return
            page = _list_page(body, what, named=named)
            yield page
            received += len(page["items"])
            pages = page.get("pages")
            last = isinstance(pages, int) and number >= pages and received >= page["total"]
            if not page["items"] or received >= page["total"] or last:
                return
            number += 1

    def _get(
        self, path: str, query: Mapping[str, str], what: str, *, rows: int, most: int, no_data_is_empty: bool
    ) -> tuple[int, Body]:
        """Get an answer to one request: its status (200, or 404 where that means no data) and body.

        While the API is down the request waits, and is sent again once the API answers: that is not a failure of it.
        """
        began, lost = self._clock(), 0.0
        while True:
            ended = self.outage.wait()
            lost = self._clock() - began
            try:
                answer = self._sent(path, query, what, rows=rows, most=most, no_data_is_empty=no_data_is_empty)
            except TransientError as error:
                if not self.outage.rides_out(error, self._probe, ended):
                    raise
            else:
                self._local.waited += lost
                self.outage.answered()
                return answer

    def _probe(self) -> None:
        """Send the smallest useful request. Any answer shows that the API is there, whatever it says.

        Raises:
            TransientError: the API does not answer.
        """
        with contextlib.suppress(KeyRefusedError, SiteRefusedError, RequestRefusedError):
            self._sent("/sites/", {"per_page": "2"}, "the API", rows=2, most=2 * _ITEM_BYTES, no_data_is_empty=False)

    def _sent(
        self, path: str, query: Mapping[str, str], what: str, *, rows: int, most: int, no_data_is_empty: bool
    ) -> tuple[int, Body]:
        """Send one request, within the budget."""
        self._local.waited = self.budget.acquire()
        read_s = (30 + rows * 0.0005) * self._patience
        started, begun = self._clock(), False
        try:
            with self._session().get(
                self.url + path,
                params=query,
                auth=self._auth,
                timeout=(10 * self._patience, read_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                begun = True
                self._local.first_byte_s = self._clock() - started
                body = self._body(answer, most=most + 1_000_000, until=started + 2 * read_s)
                status, headers = answer.status_code, answer.headers
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            fault = _fault(error)
            if begun and fault.kind not in (FaultKind.TIMEOUT, FaultKind.OTHER):
                fault = TransportFault(FaultKind.CUT)
            raise self._unanswered(fault, what, is_outage=not begun and fault.kind in OUTAGE_FAULTS) from error
        if len(self._key) >= _LONG_KEY and self._key in body:  # an error may show part of any answer
            body = body.replace(self._key, b"(the key)")
        if (instead := status_fault(status, headers.get("Location"))) is not None:
            raise self._unanswered(instead, what, is_outage=True)
        try:
            return self._judged(status, headers, body, what, no_data_is_empty=no_data_is_empty)
        except TransientError as error:
            error.is_outage = status in OUTAGE_STATUSES
            raise

    def _unanswered(self, fault: TransportFault, what: str, *, is_outage: bool) -> PageFailedError | UnreachableError:
        """Make the error of a request without an answer: a wrong setting when the API never answered, or a failure."""
        is_http = self.url.startswith("http://")
        text, hint = f"{what}: {fault.found}", fault.hint(url="ACE_API_URL", ca="REQUESTS_CA_BUNDLE", http=is_http)
        is_setting = fault.kind in SETTINGS_FAULTS
        if is_outage and not self.outage.has_answered and fault.kind is not FaultKind.TIMEOUT:
            now = self._clock()
            self._silent_since = now if self._silent_since is None else self._silent_since
            if is_setting or now - self._silent_since >= FIRST_ANSWER_S:
                return UnreachableError(text, hint=hint)
        error = PageFailedError(text, size_related=not is_setting, hint=hint)
        error.is_outage = is_outage
        return error

    def _judged(
        self, status: int, headers: Mapping[str, str], body: Body, what: str, *, no_data_is_empty: bool
    ) -> tuple[int, Body]:
        """Turn a status and body into data or the error that it means."""
        codes = requests.codes
        if status == codes.ok and not (len(body) < 1_000 and b"JWT" in body):  # noqa: PLR2004 - a short answer
            self._proved = True
            return status, body
        said = _message(body)
        wait = retry_after_s(headers.get("Retry-After"), headers.get("Date"), time.time())
        if status == codes.too_many_requests or wait is not None:
            pause = 10.0 if wait is None else wait
            self.budget.pause(pause)
            raise ThrottledError(f"{what}: the API asked us to wait (HTTP {status})", retry_after=wait)
        if status == codes.unauthorized or "JWT" in said:
            raise KeyRefusedError(
                f"{what}: the API refused the key (HTTP {status}, {said})",
                hint="check ACE_API_KEY, and whether the key has expired",
            )
        if status == codes.forbidden:
            raise SiteRefusedError(
                f"{what}: refused (HTTP 403, {said})",
                hint="check the site's name, and that the API key may read the site",
            )
        if status == codes.not_found:
            if "database result was required" in said:
                raise SiteRefusedError(
                    f"{what}: the API does not know this site (HTTP 404)", hint="check the site's name"
                )
            if no_data_is_empty and not _is_html(body):
                return status, b""
            raise RequestRefusedError(f"{what}: not found (HTTP 404, {said})", status=status, hint="check ACE_API_URL")
        if status >= codes.internal_server_error or status == codes.request_timeout:
            if "unhandled exception" in said and not self._proved:
                self._unhandled += 1
                if self._unhandled > 1:
                    raise KeyRefusedError(
                        f"{what}: HTTP {status}, {said}, on the first calls: this is how the API answers some bad keys",
                        hint="check ACE_API_KEY",
                    )
            raise PageFailedError(f"{what}: HTTP {status}, {said}")
        hint = ""
        if status == codes.bad_request and _is_html(body) and self.url.startswith("http://"):
            hint = "check ACE_API_URL: a port that speaks https needs https://"
        raise RequestRefusedError(f"{what}: HTTP {status}, {said}", status=status, fields=_fields(body), hint=hint)

    def _body(self, answer: requests.Response, *, most: int, until: float) -> Body:
        """Receive a whole body, unpacked; limit its size and the time that it takes."""
        body, size = self._buffers.take(), 0
        for part in answer.raw.stream(PART_BYTES, decode_content=True):
            end = size + len(part)
            if end <= len(body):
                memoryview(body)[size:end] = part  # `body[size:end] = part` copies the part twice
            else:
                body[size:] = part
            size = end
            if size > most:
                raise PageFailedError(f"{urlsplit(answer.url).path}: the answer is longer than {most:,} bytes")
            if self._clock() > until:
                raise PageFailedError(f"{urlsplit(answer.url).path}: the answer came too slowly, {size:,} bytes so far")
        del body[size:]  # what is left of an earlier answer
        return body

    def _session(self) -> requests.Session:
        """This thread's own session: connections are kept, but never shared between threads."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers.update(
                {
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                    "User-Agent": f"backfill-pipeline/{__version__}",
                }
            )
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=0))
            self._local.session = session
        return session


def open_client(
    settings: Settings,
    *,
    stop: threading.Event | None = None,
    backoff: Backoff | None = None,
    longest_s: float = math.inf,
    outage_minutes: float = 0.0,
    report: Report = lambda _since: None,
    has_answered: bool = False,
) -> AceClient:
    """A client as the settings describe it, with the shared budget opened.

    Args:
        settings: the settings; their key is required.
        stop: once set, waits end with `StoppedError`.
        backoff: how often lists are tried; the usual way when None.
        longest_s: a longer wait for the budget raises `WaitTooLongError`, in seconds.
        outage_minutes: how long requests wait while the API is down; 0: they fail at once.
        has_answered: whether the API is known to have answered before, on whatever host.
        report: told since when the API has not answered, and (None) when it answers again.
    """
    key = settings.require_key()
    stop = stop or threading.Event()
    settings.make_private()
    budget = open_budget(
        settings.limiter_url,
        key_id=key_id(key),
        per_minute=settings.requests_per_minute,
        stop=stop,
        longest_s=longest_s,
    )
    before = AnsweredBefore(settings.private, settings.api_url)
    outage = OutageGate(
        minutes=outage_minutes,
        answered=has_answered or bool(before),
        remember=before.keep,
        stop=stop,
        report=report,
    )
    retries = Retries(backoff or Backoff(), stop)
    return AceClient(settings.api_url, key, budget, retries=retries, outage=outage)


def key_id(key: str) -> str:
    """A short fingerprint of the key: tells keys apart, and does not lead back to one."""
    return hashlib.sha256(b"backfill-pipeline\0" + key.encode()).hexdigest()[:16]


def _site_path(site: str) -> str:
    return f"/sites/{quote(site, safe='')}"


def _true(point: Mapping[str, Any]) -> bool:
    """Whether a point is collect-enabled; the list should hold no other (docs/ace-api.md section 1)."""
    return str(point.get("collect_enabled", False)).lower() in ("true", "1")


def _json_of(body: Body, what: str) -> Any:
    try:
        return parsed(body, LIST_SIZE * _ITEM_PARTS)
    except (ValueError, RecursionError) as error:
        raise PageFailedError(f"{what}: the answer is not whole JSON ({_message(body)})") from error
    except ContractError as error:
        raise ContractError(f"{what}: {error.message}", hint=error.hint) from None


def _list_page(body: Body, what: str, *, named: bool = True) -> dict[str, Any]:
    page = _json_of(body, what)
    items = page.get("items") if isinstance(page, dict) else None
    total = page.get("total") if isinstance(page, dict) else None
    if not isinstance(items, list) or not isinstance(total, int):
        raise ContractError(f"{what}: the answer has no `items` and `total` ({_message(body)})")
    if not all(isinstance(item, dict) for item in items):
        raise ContractError(f"{what}: the list contains an item that is not an object")
    if named and not all(isinstance(item.get("name"), str) for item in items):
        raise ContractError(f"{what}: the list holds an item without a name")
    return dict(page)


def _is_html(body: Body) -> bool:
    return body.lstrip()[:1] == b"<"


def _message(body: Body) -> str:
    """What the answer says, in one short line."""
    if _is_html(body):
        return "an HTML page"
    if len(body) > _SHORT:
        return f"{len(body):,} bytes"
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return f"{len(body):,} bytes that are not JSON"
    if isinstance(said, dict) and "errors" in said:
        return repr(said["errors"])[:200]
    return repr(said.get("message"))[:200] if isinstance(said, dict) and "message" in said else "without a message"


def _fields(body: Body) -> tuple[str, ...]:
    if len(body) > _SHORT:
        return ()
    try:
        errors = json.loads(body)["errors"]
        return tuple(str(name) for name in errors)
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def _fault(error: Exception) -> TransportFault:
    """Why a request got no answer. The settings check the API's own URL, so that a wrong URL is a proxy's."""
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidProxyURL):
        return TransportFault(FaultKind.PROXY, "its URL is not valid, or its kind is not supported")
    return classify(error)
