"""`backfill probe-api`: checks which facts about the API hold.

Put here: the facts, the expected answers, and the report. Keep out: how days are fetched (`ace/`). The requests are
written by hand, so that a fault of the client does not hide the behaviour of the API.

The report contains no API key, no name of a site or point, and no value: only requests, counts and statuses.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import requests

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import key_id, open_client
from backfill_pipeline.control.output import echo
from backfill_pipeline.control.probe_requests import Answer, Ask, asker, iso_time, naive_time
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.paging import Cursor
from backfill_pipeline.errors import KeyRefusedError, SettingError, StoreRefusedError, UsageError
from backfill_pipeline.settings import Settings

Verdict = Literal["holds", "FAILS", "unknown"]


_RATE = re.compile(r"rate-?limit|retry-after", re.IGNORECASE)


_WRONG_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.AAAA"


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact, and whether it holds.

    Attributes:
        fact: the expected fact.
        asked: the requests.
        status: HTTP statuses of the answers.
        expected: the expected answers.
        seen: the received answers.
        verdict: `holds`, `FAILS`, or `unknown` when the answers do not decide it.
        otherwise: the consequence for a backfill if the fact does not hold.
    """

    fact: str
    asked: Sequence[str]
    status: Sequence[int]
    expected: str
    seen: str
    verdict: Verdict
    otherwise: str


def facts(ask: Ask, day: date, now: datetime) -> Iterator[Fact]:
    """Check the facts one after the other.

    Args:
        ask: sends a request.
        day: a UTC day with samples.
        now: the current time, aware.
    """
    seen: list[Answer] = []

    def page(start: datetime, end: datetime, size: int, cursor: str | None = None, site: str = "{site}") -> Answer:
        query = {"start_time": iso_time(start), "end_time": iso_time(end), "page_size": str(size), "raw_data": "true"}
        answer = ask(f"/sites/{site}/timeseries/paginated", query | ({"cursor": cursor} if cursor else {}))
        seen.append(answer)
        return answer

    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    bad = ask("/sites/", {"per_page": "2"}, key=_WRONG_KEY)
    yield _wrong_key(bad)
    yield _unknown_site(page(noon, noon + timedelta(minutes=1), 3, site=f"no-site-{uuid.uuid4().hex[:8]}"))
    first = page(noon, noon + timedelta(hours=1), 500)
    yield _shape(first)
    yield _order(first)
    yield _packed(first)
    yield _garbage(first, page(noon, noon + timedelta(hours=1), 3, "garbage"))
    yield from _cursors(first, page)
    yield _end(first, page)
    newer = now.replace(microsecond=0) - timedelta(minutes=15)
    five, hour = timedelta(minutes=5), timedelta(hours=1)
    yield _fresh(page(newer - hour, newer - hour + five, 10_000), page(newer, newer + five, 10_000))
    ten = noon + timedelta(minutes=10)
    raw = page(noon, ten, 10_000)
    whole = ask("/sites/{site}/timeseries", {"start_time": iso_time(noon), "end_time": iso_time(ten)})
    seen.append(whole)
    yield _covered(raw, whole)
    yield _no_bare_nan(seen)
    yield _no_rate_limit([bad, *seen])


def _fact(told: str, answers: Sequence[Answer], expected: str, otherwise: str, holds: object, seen: str) -> Fact:
    """Create a fact; `holds` is None when the answers do not decide it."""
    verdict: Verdict = "unknown" if holds is None else "holds" if holds else "FAILS"
    return Fact(
        told, [one.asked for one in answers], [one.status for one in answers], expected, seen, verdict, otherwise
    )


def _wrong_key(answer: Answer) -> Fact:
    unhandled = answer.status == requests.codes.internal_server_error and b"unhandled" in answer.body
    holds = answer.status == requests.codes.unauthorized or unhandled
    return _fact(
        "a wrong API key is refused as such",
        [answer],
        "401, or 500 that says `unhandled`",
        "an expired API key looks like a failing API, so requests are retried for some minutes",
        None if answer.trouble else holds,
        answer.told(),
    )


def _unknown_site(answer: Answer) -> Fact:
    return _fact(
        "samples of an unknown site are refused",
        [answer],
        "403 or 404",
        "only the list of points, which is requested first, finds a misspelt site",
        None if answer.trouble else answer.status in (requests.codes.forbidden, requests.codes.not_found),
        answer.told(),
    )


def _shape(answer: Answer) -> Fact:
    said, rows = answer.said, answer.rows
    keys = isinstance(said, dict) and set(said) == {"point_samples", "next_cursor", "has_more"}
    odd = [
        row
        for row in rows or ()
        if set(row) != {"name", "value", "time"} or not isinstance(row["value"], str) or naive_time(row["time"]) is None
    ]
    return _fact(
        "samples have the documented form",
        [answer],
        "`point_samples`, `next_cursor` and `has_more`, and in each row a name, a value as text and a naive time",
        "other values and times are read more slowly, but another name for the rows fails every day",
        (None if rows == [] else keys and rows is not None and not odd) if not answer.trouble else None,
        f"{answer.told()}, {len(odd):,} of another form",
    )


def _order(answer: Answer) -> Fact:
    rows = answer.rows or []
    places = [(str(row.get("time")), str(row.get("name"))) for row in rows]
    return _fact(
        "rows are in order of time, then name",
        [answer],
        "ascending",
        "rows of one page may be in any order, but a page that goes back behind the previous page fails its day",
        places == sorted(places, key=lambda at: (naive_time(at[0]) or datetime.min, at[1])) if rows else None,  # noqa: DTZ901 - sorts first
        answer.told(),
    )


def _packed(answer: Answer) -> Fact:
    names = {name.lower(): value for name, value in answer.headers.items()}
    encoding = names.get("content-encoding", "none")
    return _fact(
        "answers are compressed with gzip when the client accepts it",
        [answer],
        "Content-Encoding: gzip",
        "a page takes about ten times the bytes, and on a slow network ten times the time",
        encoding == "gzip" if answer.rows else None,
        f"Content-Encoding: {encoding}",
    )


def _garbage(first: Answer, answer: Answer) -> Fact:
    return _fact(
        "an invalid cursor is an error",
        [answer],
        "an error, no rows",
        "a damaged cursor starts the window again, which the client detects, since rows go back in time",
        None if answer.trouble or not first.rows else answer.status >= requests.codes.bad_request,
        answer.told(),
    )


def _cursors(first: Answer, page: Callable[..., Answer]) -> Iterator[Fact]:
    """Request two pages inside one timestamp with the API's cursor, and a third with a computed one."""
    stands = "the API's cursor does not advance inside one timestamp"
    ours = "the API accepts a cursor that the client computes"
    stands_expected, ours_expected = (
        "the cursor of the second page equals the first one",
        "no row of the two previous pages",
    )
    stands_otherwise = "none: a correct cursor of the API equals the computed one"
    ours_otherwise = (
        "the client cannot go on inside one timestamp: use pages larger than a sweep, and report it to the project"
    )
    times = Counter(str(row.get("time")) for row in first.rows or ())
    text, rows = max(times.items(), key=lambda item: item[1], default=("", 0))
    size, at = next((size for size in (50, 10, 3) if rows > 3 * size), 0), naive_time(text)
    if not size or at is None:
        why = f"no timestamp has enough rows: {rows} at most"
        yield _fact(stands, [], stands_expected, stands_otherwise, None, why)
        yield _fact(ours, [], ours_expected, ours_otherwise, None, why)
        return
    start = at.replace(tzinfo=UTC)
    end = start + timedelta(seconds=1)
    one = page(start, end, size)
    sent = (one.said or {}).get("next_cursor") if isinstance(one.said, dict) else None
    two = page(start, end, size, sent or "")
    inside = all(answer.rows and {row.get("time") for row in answer.rows} == {text} for answer in (one, two))
    offsets = [answer.cursor.offset if answer.cursor else None for answer in (one, two)]
    told = inside and None not in offsets and sent
    yield _fact(
        stands,
        [one, two],
        stands_expected,
        stands_otherwise,
        offsets[0] == offsets[1] if told else None,
        f"pages of {size} of at least {rows} rows, offsets {offsets[0]} and {offsets[1]}",
    )
    position = one.cursor
    if not told or position is None:
        yield _fact(ours, [], ours_expected, ours_otherwise, None, "the two previous pages do not decide it")
        return
    three = page(start, end, size, Cursor(position.time_us, 2 * size, position.text).encode())
    before = {row.get("name") for answer in (one, two) for row in answer.rows or ()}
    # With the bug the second page has the rows after the first, since the first cursor is correct.
    again = sum(row.get("name") in before for row in three.rows or ())
    yield _fact(
        ours,
        [three],
        ours_expected,
        ours_otherwise,
        not again if three.rows else None,
        f"{three.told()}, {again} of them also in a previous page",
    )


def _end(first: Answer, page: Callable[..., Answer]) -> Fact:
    told, expected = "`end_time` is exclusive", "no row at exactly `end_time`"
    otherwise = "none: rows at the end of a window are dropped and counted"
    at = naive_time(str((first.rows or [{}])[-1].get("time")))
    if at is None:
        return _fact(told, [], expected, otherwise, None, "there is no row")
    end = at.replace(tzinfo=UTC)
    answer = page(end - timedelta(seconds=1), end, 500)
    rows = answer.rows
    there = sum(naive_time(str(row.get("time"))) == at for row in rows or ())
    verdict = None if rows is None or (answer.more and not there) else not there
    return _fact(told, [answer], expected, otherwise, verdict, f"{answer.told()}, {there} at `end_time`")


def _fresh(older: Answer, newer: Answer) -> Fact:
    before, after = len(older.rows or ()), len(newer.rows or ())
    told = older.rows and newer.rows is not None and not (older.more or newer.more)
    return _fact(
        "raw rows are complete after ten minutes",
        [older, newer],
        "five minutes have as many rows as five minutes an hour earlier, within 5 %",
        "samples arrive late: keep `ACE_RAW_LAG_HOURS` well above the delay",
        after >= 0.95 * before if told else None,
        f"{after:,} rows, an hour earlier {before:,}",
    )


def _covered(raw: Answer, whole: Answer) -> Fact:
    names = [{row.get("name") for row in answer.rows or ()} for answer in (raw, whole)]
    apart = len(names[0] ^ names[1])
    told = raw.rows and whole.rows is not None and not raw.more
    return _fact(
        "raw and aggregated samples have the same points",
        [raw, whole],
        "in ten minutes, at most 1 % of the points are in only one of them",
        "one of them lacks points: compare the names before you rely on a day",
        apart <= 0.01 * max(map(len, names)) if told else None,
        f"{len(names[0]):,} points raw, {len(names[1]):,} aggregated, {apart:,} in only one",
    )


def _no_bare_nan(answers: Sequence[Answer]) -> Fact:
    found: list[str] = []
    rows = 0
    for answer in answers:
        try:
            json.loads(answer.body, parse_constant=found.append)
        except (ValueError, RecursionError):
            continue
        rows += len(answer.rows or ())
    return _fact(
        "no value is a bare NaN or Infinity",
        [],
        "standard JSON in all answers",
        "none: such values are read and dropped as not finite, but other clients of the API may fail",
        not found if rows else None,
        f"{len(found):,} in {rows:,} rows",
    )


def _no_rate_limit(answers: Sequence[Answer]) -> Fact:
    names = sorted({name for answer in answers for name in answer.headers if _RATE.search(name)})
    refused = sum(answer.status == requests.codes.too_many_requests for answer in answers)
    return _fact(
        "the API announces no rate limit",
        [],
        "no header with a rate limit and no status 429 in all answers",
        "set `ACE_REQUESTS_PER_MINUTE` to the announced limit",
        not names and not refused if any(answer.status for answer in answers) else None,
        f"headers {', '.join(names) or 'none'}; {refused} answers of 429",
    )


def run_probe(settings: Settings, site: str | None, day: date | None, *, out: Path | None, as_json: bool) -> None:
    """Run the command: check and print each fact, write the report.

    Raises:
        SettingError: the API key is missing or refused.
        UsageError: the API key has no such site, or no site at all.
        BackfillError: the API does not answer.
    """
    now = datetime.now(UTC)
    client = open_client(settings, backoff=Backoff(tries=3, first_s=1))
    try:
        listed = [one.name for one in client.sites()]
    except KeyRefusedError as error:
        raise SettingError(error.message, hint=error.hint) from error
    chosen = site or next(iter(settings.sites or listed), None)
    if chosen not in listed:
        raise UsageError(
            f"the API key has no site {chosen!r}" if chosen else "the API key has no site",
            hint="" if chosen else "request access to a site from ACE",
        )
    day = day or (now - timedelta(hours=settings.raw_lag_hours + 24)).date()
    key = settings.require_key()
    budget = open_budget(settings.limiter_url, key_id=key_id(key), per_minute=settings.requests_per_minute)
    found: list[Fact] = []
    for fact in facts(asker(settings.api_url, key, chosen, budget), day, now):
        found.append(fact)
        if not as_json:
            more = f" -> {fact.otherwise}" if fact.verdict == "FAILS" else ""
            echo(f"{fact.verdict:7}  {fact.fact}: {fact.seen}{more}")
    report = {"made_at": now.isoformat(timespec="seconds"), "day": day.isoformat(), "facts": list(map(asdict, found))}
    if out is not None:
        try:
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise StoreRefusedError(
                f"cannot write the report to {out}: {error.strerror}", hint="name another --out"
            ) from None
    if as_json:
        echo(json.dumps(report))
    else:
        counts = Counter(fact.verdict for fact in found)
        requests_ = 1 + sum(len(fact.asked) for fact in found)
        echo(
            f"{counts['holds']} hold, {counts['FAILS']} do not, {counts['unknown']} are unknown; "
            f"about {requests_} requests"
        )
