"""Requests of `probe-api`, written by hand, and what their answers contain.

Put here: how a request is sent, and how an answer is read. Keep out: what the answers show (`probe_api.py`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

from backfill_pipeline.ace.budget import Budget
from backfill_pipeline.ace.client import Bearer
from backfill_pipeline.core.paging import Cursor
from backfill_pipeline.core.transport_faults import classify

MOST_BYTES = 64_000_000
"""The largest number of bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    Attributes:
        asked: the request, without API key, site and cursor.
        status: HTTP status; 0 without an answer.
        headers: the headers of the answer.
        body: the body, decompressed.
        trouble: why there is no answer; empty when there is one.
    """

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    trouble: str = ""

    @property
    def said(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def rows(self) -> list[dict[str, Any]] | None:
        """Its samples; None when it is not an answer with samples."""
        said = self.said
        rows = said.get("point_samples") if self.status == requests.codes.ok and isinstance(said, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None

    @property
    def more(self) -> bool:
        """Whether more rows follow."""
        said = self.said
        return isinstance(said, dict) and bool(said.get("has_more"))

    @property
    def cursor(self) -> Cursor | None:
        """Its cursor; None without a cursor that can be decoded."""
        said = self.said
        text = said.get("next_cursor") if isinstance(said, dict) else None
        return Cursor.decode(text) if isinstance(text, str) else None

    def told(self) -> str:
        """Describe the answer in a few words."""
        if self.trouble:
            return self.trouble
        rows = self.rows
        kind = "HTML" if self.body.lstrip()[:1] == b"<" else f"{len(self.body):,} bytes"
        return f"HTTP {self.status}, {kind if rows is None else f'{len(rows):,} rows'}"


Ask = Callable[..., Answer]
"""`ask(path, query, key=None)`; `{site}` in a path is replaced by the site."""


def asker(url: str, key: str, site: str, budget: Budget) -> Ask:
    """Return a function that sends a request to the API once, within the request budget."""
    session = requests.Session()

    def ask(path: str, query: Mapping[str, str], *, key: str = key) -> Answer:
        shown = {name: "(cursor)" if name == "cursor" else value for name, value in query.items()}
        asked = f"GET {path}?{'&'.join(f'{name}={value}' for name, value in shown.items())}"
        budget.acquire()
        try:
            with session.get(
                url.rstrip("/") + path.replace("{site}", quote(site, safe="")),
                params=dict(query),
                headers={"Accept-Encoding": "gzip"},
                auth=Bearer(key),
                timeout=(10, 60),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = bytearray()
                for part in answer.iter_content(1 << 18):
                    body += part
                    if len(body) > MOST_BYTES:
                        break
                return Answer(asked, answer.status_code, dict(answer.headers), bytes(body))
        except (requests.RequestException, OSError) as error:
            return Answer(asked, 0, {}, b"", f"no complete answer: {classify(error).found}")

    return ask


def iso_time(at: datetime) -> str:
    """Format a time as the API expects it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if at.microsecond else "%Y-%m-%dT%H:%M:%SZ")


def naive_time(text: object) -> datetime | None:
    """Parse a naive ISO time; None when the text is not one."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo is None else None
