"""`backfill probe-api`: which facts about the API, on which this pipeline stands, hold where it is.

Put here: the questions, what was expected, what an answer shows, and the report. Keep out: how days are fetched
(`ace/`). The questions are put together by hand, so that a fault of the client does not hide what the API does.

The report holds no key, no name of a site or point, no value: only what was asked, counts, and how the API answers.
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
from backfill_pipeline.ace.client import key_id, open_client, to_stderr
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
        fact: what is believed.
        asked: the questions.
        status: HTTP statuses of their answers.
        expected: what the answers should be.
        seen: what they were.
        verdict: `holds`, `FAILS`, or `unknown` when it could not be told.
        otherwise: what follows for a backfill if it does not hold.
    """

    fact: str
    asked: Sequence[str]
    status: Sequence[int]
    expected: str
    seen: str
    verdict: Verdict
    otherwise: str


def facts(ask: Ask, day: date, now: datetime) -> Iterator[Fact]:
    """Ask what is to be known, one fact after the other.

    Args:
        ask: how to ask.
        day: a UTC day with samples.
        now: aware.
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
    """A fact; `holds` is None when it could not be told."""
    verdict: Verdict = "unknown" if holds is None else "holds" if holds else "FAILS"
    return Fact(
        told, [one.asked for one in answers], [one.status for one in answers], expected, seen, verdict, otherwise
    )


def _wrong_key(answer: Answer) -> Fact:
    unhandled = answer.status == requests.codes.internal_server_error and b"unhandled" in answer.body
    holds = answer.status == requests.codes.unauthorized or unhandled
    return _fact(
        "a wrong key is refused as such",
        [answer],
        "401, or 500 that says `unhandled`",
        "a key that expired would not be told from an API in trouble: tries end after some minutes instead of at once",
        None if answer.trouble else holds,
        answer.told(),
    )


def _unknown_site(answer: Answer) -> Fact:
    return _fact(
        "samples of an unknown site are refused",
        [answer],
        "403 or 404",
        "a misspelt site is found by its list of points alone, which is asked for first",
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
        "samples come in the documented shape",
        [answer],
        "`point_samples`, `next_cursor`, `has_more`; of each row name, value as text, naive time",
        "other values and times are read as well, more slowly; another key for the rows ends every day with an error",
        (None if rows == [] else keys and rows is not None and not odd) if not answer.trouble else None,
        f"{answer.told()}, {len(odd):,} of another shape",
    )


def _order(answer: Answer) -> Fact:
    rows = answer.rows or []
    places = [(str(row.get("time")), str(row.get("name"))) for row in rows]
    return _fact(
        "rows are in order of time, then name",
        [answer],
        "ascending",
        "rows out of order inside a page are fine; a page that goes back behind the one before fails its day",
        places == sorted(places, key=lambda at: (naive_time(at[0]) or datetime.min, at[1])) if rows else None,  # noqa: DTZ901 - sorts first
        answer.told(),
    )


def _packed(answer: Answer) -> Fact:
    names = {name.lower(): value for name, value in answer.headers.items()}
    encoding = names.get("content-encoding", "none")
    return _fact(
        "answers are packed when gzip is offered",
        [answer],
        "Content-Encoding: gzip",
        "a page takes some ten times the bytes on the way, and with a slow link as much longer",
        encoding == "gzip" if answer.rows else None,
        f"Content-Encoding: {encoding}",
    )


def _garbage(first: Answer, answer: Answer) -> Fact:
    return _fact(
        "a cursor that means nothing is an error",
        [answer],
        "an error, no rows",
        "a damaged cursor would begin the window anew; the walk finds that out, since rows would go back in time",
        None if answer.trouble or not first.rows else answer.status >= requests.codes.bad_request,
        answer.told(),
    )


def _cursors(first: Answer, page: Callable[..., Answer]) -> Iterator[Fact]:
    """Two pages inside one timestamp by the API's own cursor, and a third by ours."""
    stands = "the API's cursor stands still inside one timestamp"
    ours = "a cursor that the client computes is honoured"
    stands_expected, ours_expected = "the second page's cursor is the first one's", "rows of neither page before"
    stands_otherwise = "nothing: a cursor of ours equals one that is right"
    ours_otherwise = (
        "no page inside one timestamp could be passed: choose pages larger than a sweep, and tell the project"
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
        yield _fact(ours, [], ours_expected, ours_otherwise, None, "the two pages before told nothing")
        return
    three = page(start, end, size, Cursor(position.time_us, 2 * size, position.text).encode())
    before = {row.get("name") for answer in (one, two) for row in answer.rows or ()}
    # With the bug the second page holds the rows after the first, by the first one's cursor, which is right.
    again = sum(row.get("name") in before for row in three.rows or ())
    yield _fact(
        ours,
        [three],
        ours_expected,
        ours_otherwise,
        not again if three.rows else None,
        f"{three.told()}, {again} of them seen before",
    )


def _end(first: Answer, page: Callable[..., Answer]) -> Fact:
    told, expected = "`end_time` is exclusive", "no row at exactly `end_time`"
    otherwise = "nothing: rows at a window's end are left out, and counted, wherever the API counts them in"
    at = naive_time(str((first.rows or [{}])[-1].get("time")))
    if at is None:
        return _fact(told, [], expected, otherwise, None, "no row to ask for")
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
        "raw rows that are ten minutes old are all there",
        [older, newer],
        "five minutes of them hold as many rows as an hour before, within a twentieth",
        "samples come late: leave `ACE_RAW_LAG_HOURS` well above the delay",
        after >= 0.95 * before if told else None,
        f"{after:,} rows, an hour before {before:,}",
    )


def _covered(raw: Answer, whole: Answer) -> Fact:
    names = [{row.get("name") for row in answer.rows or ()} for answer in (raw, whole)]
    apart = len(names[0] ^ names[1])
    told = raw.rows and whole.rows is not None and not raw.more
    return _fact(
        "raw and aggregated samples are of the same points",
        [raw, whole],
        "ten minutes of both differ in no more than a hundredth of their points",
        "one of the two roads leaves points out: compare them by name before trusting a day",
        apart <= 0.01 * max(map(len, names)) if told else None,
        f"{len(names[0]):,} points raw, {len(names[1]):,} aggregated, {apart:,} in one alone",
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
        "JSON as the standard has it, in all answers above",
        "nothing: such values are read, and dropped as not finite; other readers of the API fail on them",
        not found if rows else None,
        f"{len(found):,} in {rows:,} rows",
    )


def _no_rate_limit(answers: Sequence[Answer]) -> Fact:
    names = sorted({name for answer in answers for name in answer.headers if _RATE.search(name)})
    refused = sum(answer.status == requests.codes.too_many_requests for answer in answers)
    return _fact(
        "the API announces no rate limit",
        [],
        "no header that names one, no 429, in all answers above",
        "let `ACE_REQUESTS_PER_MINUTE` follow what it announces",
        not names and not refused if any(answer.status for answer in answers) else None,
        f"headers {', '.join(names) or 'none'}; {refused} answers of 429",
    )


def run_probe(settings: Settings, site: str | None, day: date | None, *, out: Path | None, as_json: bool) -> None:
    """The command: ask, print each fact, write the report.

    Raises:
        SettingError: the key is missing or refused.
        UsageError: the key has no such site, or none at all.
        BackfillError: the API does not answer.
    """
    now = datetime.now(UTC)
    client = open_client(settings, backoff=Backoff(tries=3, first_s=1))
    try:
        listed = [one.name for one in client.sites()]
    except KeyRefusedError as error:
        raise SettingError(str(error)) from error
    chosen = site or next(iter(settings.sites or listed), None)
    if chosen not in listed:
        raise UsageError(
            f"the key has no site {chosen!r}" if chosen else "the key has no site: ask ACE for access to one"
        )
    day = day or (now - timedelta(hours=settings.raw_lag_hours + 24)).date()
    key = settings.require_key()
    budget = open_budget(
        settings.limiter_url, key_id=key_id(key), per_minute=settings.requests_per_minute, log=to_stderr
    )
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
            f"{counts['holds']} hold, {counts['FAILS']} do not, {counts['unknown']} could not be told; "
            f"about {requests_} requests"
        )
