"""Decoding: the bytes of an answer -> a `Page` of columns.

The vendor writes each row alike, so one compiled pass reads them without a Python object per sample
(`ace/json_scanner.py`), and what it only finds - values, times and rows that are written otherwise - is read here,
different tokens once each (`_together`). A page that is no list of rows as a whole is read row by row (`_any`). One set
of rules for values and times (`docs/ace-api.md` section 5) is behind both: how a page is written decides how fast it is
read, never what it says.

Put here: what an answer's text means. Keep out: loops over bytes (`ace/json_scanner.py`), whether a page makes progress
(`core/paging.py`) and which of its rows are kept (`core/clean.py`).
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backfill_pipeline.core.rows import NO_TIME, Example, Fault, Page
from backfill_pipeline.errors import ContractError, PageFailedError

Body = bytes | bytearray
"""An answer's bytes, unpacked."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"(?i)[+-]?(nan|inf|infinity)")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(Z|z|[+-][0-9]{2}:?[0-9]{2})?"
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DATE = re.compile(
    rf"(?i)(?:({'|'.join(_DAYS)}), )?[0-9]{{1,2}} (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec) "
    r"(?:[1-9][0-9])?[0-9]{2} [0-9]{2}:[0-9]{2}(?::[0-9]{2})? "
    r"(?:ut|utc|gmt|z|[ecmp][sd]t|[+-](?:[01][0-9]|2[0-3])[0-5][0-9])"
)
"""A date of e-mail and HTTP headers (RFC 822, 1123 and 5322): `Sat, 01 Mar 2025 00:00:07 GMT`."""
_EPOCH_NUMBER = re.compile(r"[0-9]{10,19}(\.[0-9]+)?")
_SPACE = " \t\r\n"

_Columns = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int32]]
"""Code, time, value, fault and text of rows."""

_APART = ",\n"

_ROW_LEAST = 24
"""No row is shorter: keys, marks and a name alone take more bytes."""

_PARTS_A_ROW = 32
"""Objects, lists and members that a row may have in JSON, on average: it has four, and more if names hold commas."""

_MOST = 500_000
"""Rows of the largest page that the API knows."""

_MORE = 2
"""Times the rows that were asked for: an answer with more is read row by row, if at all."""

_EXAMPLE = 2_000
"""Characters of an example that are kept: far more than a message shows, so that a key in it is found whole."""

_SHORT = 4_096
"""Bytes that what stands after the rows, and an answer that only says something, stay below."""


def decode_page(body: Body, rows: int = _MOST) -> Page:
    """Decode an answer of `timeseries/paginated`.

    Args:
        body: the whole answer, unpacked.
        rows: how many were asked for; an answer made of far more parts is not taken apart, since a few bytes each can
            become a hundred in memory.

    Returns:
        Its rows, in the API's order, and what it says of further ones.

    Raises:
        PageFailedError: the body is not whole JSON: cut, or not JSON at all.
        ContractError: it is whole JSON of another shape; nothing malformed is ever taken for an empty page.
    """
    return _together(body, rows) or _any(body, rows)


def get_ready() -> None:
    """Load the scanner, for half a second, so that the first page need not wait for it."""
    row = b'{"name": "a", "value": "1", "time": "2025-01-01T00:00:00"}'
    decode_page(b'{"point_samples": [' + row + b'], "next_cursor": null, "has_more": false}')


def parsed(body: Body, parts: int) -> Any:
    """The JSON of an answer with at most so many objects, lists and members.

    Raises:
        ValueError, RecursionError: it is no JSON, or nested too deep.
        ContractError: it has far more parts than what was asked for can have.
    """
    _bounded(body, parts)
    return json.loads(body)


def _bounded(body: Body, parts: int) -> None:
    found = sum(body.count(mark) for mark in (b"{", b"[", b","))
    if found > parts:
        raise ContractError(f"the answer has {found:,} parts, where what was asked for has {parts:,} at most")


def _any(body: Body, asked: int = _MOST) -> Page:
    """Any whole JSON, row by row."""
    try:
        answer = parsed(body, _parts(asked))
    except (ValueError, RecursionError) as error:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else f"{len(body):,} bytes that are not whole JSON"
        raise PageFailedError(f"the answer is {kind}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("point_samples"), list):
        said = answer.get("message") if isinstance(answer, dict) and len(body) < _SHORT else None
        raise ContractError(f"the answer has no list `point_samples`{f': {said!r:.200}' if said else ''}")
    cursor, has_more = _continuation(answer)
    rows = answer["point_samples"]
    if not all(isinstance(row, dict) for row in rows):
        raise ContractError("the answer's `point_samples` holds what is no sample")
    if rows and not any({"name", "value", "time"} <= row.keys() for row in rows):
        raise ContractError("no row of the answer has `name`, `value` and `time`")
    names: dict[str, int] = {}
    texts: dict[str, int] = {}
    try:
        code, time_us, value, fault, text = _row_by_row(rows, names, texts)
    except RecursionError as error:  # a list in a list ...: read, but too deep to be written
        raise PageFailedError(f"the answer is {len(body):,} bytes of lists that are nested too deep") from error
    page = _page(list(names), code, time_us, value, fault, cursor, has_more, lambda row: _example(rows[row]))
    return replace(page, texts=tuple(texts), text=text) if texts else page


def _parts(rows: int) -> int:
    return _PARTS_A_ROW * rows + 10_000


def _row_by_row(rows: Sequence[Mapping[str, Any]], names: dict[str, int], texts: dict[str, int]) -> "_Columns":
    """The columns of some rows; names and texts not yet in `names` and `texts` are added to them."""
    code = np.full(len(rows), -1, np.int32)
    for number, row in enumerate(rows):
        name = row.get("name")
        if isinstance(name, str) and name:
            code[number] = names.setdefault(name, len(names))
    time_us = np.array([_time(row.get("time")) for row in rows], np.int64)
    return code, time_us, *_values([row.get("value") for row in rows], texts)


def _values(
    values: Sequence[object], texts: dict[str, int]
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.int32]]:
    """The number, the fault and the text of each JSON value; texts not yet in `texts` are added to it.

    The text is an index into `texts`, and -1 where the value is not a text.
    """
    judged = [_value(value) for value in values]
    text = np.full(len(values), -1, np.int32)
    for number, (_, fault) in enumerate(judged):
        if fault is Fault.NOT_NUMERIC:
            text[number] = texts.setdefault(_text(values[number]), len(texts))
    return np.array([one for one, _ in judged], np.float64), np.array([why for _, why in judged], np.uint8), text


def _text(value: object) -> str:
    r"""A value that is not a number, as text: a string as the API sent it, anything else as its JSON.

    Half of a surrogate pair, which no file of UTF-8 can hold, becomes its escape, such as `\ud83d`.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _together(body: Body, rows: int = _MOST) -> Page | None:
    """The rows of a page that are written as the vendor writes them, together; None for a page of another shape.

    Every byte of the answer is accounted for: what is around the rows as JSON of its own, the rows by the scanner, and
    what that only found as JSON of its own. So a page read here is whole JSON and means what `_any` would say.
    """
    end = body.rfind(b"]")
    begin = body.find(b"[", 0, 64) + 1
    if not begin or end <= begin or body[begin : begin + 1] != b"{" or body[end - 1 : end] != b"}":
        return None
    if len(body) - end > _SHORT:  # too long for what it should say
        return None
    from backfill_pipeline.ace.json_scanner import scan  # noqa: PLC0415 - a compiler, which only who decodes should load

    try:
        answer = json.loads(body[:begin] + body[end:])
        if not isinstance(answer, dict) or answer.get("point_samples") != []:
            return None
        cursor, has_more = _continuation(answer)
        found = scan(body, begin, end, min((end - begin) // _ROW_LEAST, _MORE * rows) + 1)
        if found is None or 2 * len(found.odd_rows) > len(found.code):
            return None
        known = {name: code for code, name in enumerate(_strings(body, *found.names.T).to_pylist())}
        code, time_us, value, fault = found.code, found.time_us, found.value, found.fault
        texts: dict[str, int] = {}
        text: NDArray[np.int32] | None = None
        if len(found.odd_times):
            row, start, stop = found.odd_times.T
            tokens, which = _distinct(body, start, stop)
            time_us[row] = np.array([_time(token) for token in tokens], np.int64)[which]
        if len(found.odd_values):
            row, start, stop = found.odd_values.T
            tokens, which = _distinct(body, start, stop)
            text = np.full(len(code), -1, np.int32)
            value[row], fault[row], text[row] = (column[which] for column in _values(tokens, texts))
        if len(found.odd_rows):
            row, start, stop = found.odd_rows.T
            spans = zip(start.tolist(), stop.tolist(), strict=True)
            odd = parsed(b"[" + b",".join(body[first:last] for first, last in spans) + b"]", _parts(rows))
            text = np.full(len(code), -1, np.int32) if text is None else text
            code[row], time_us[row], value[row], fault[row], text[row] = _row_by_row(odd, known, texts)
        bare = fault == Fault.NOT_NUMERIC if text is None else (fault == Fault.NOT_NUMERIC) & (text < 0)
        if bare.any():  # the scanner reads one text by itself: true
            text = np.full(len(code), -1, np.int32) if text is None else text
            text[bare] = texts.setdefault("true", len(texts))
    except (ValueError, RecursionError):  # something in it is no JSON: `_any` says what is wrong with the whole
        return None

    def example(row: int) -> Example:
        for _, start, stop in found.odd_rows[found.odd_rows[:, 0] == row].tolist():
            return _example(json.loads(body[start:stop]))
        if code[row] < 0 or not names[code[row]].strip():
            return "name", json.dumps(names[code[row]] if code[row] >= 0 else "")
        ((_, start, stop),) = found.odd_times[found.odd_times[:, 0] == row].tolist()
        return _example({"name": "read", "time": json.loads(body[start:stop])})

    names = list(known)
    page = _page(names, code, time_us, value, fault, cursor, has_more, example)
    return replace(page, texts=tuple(texts), text=text) if texts else page


def _distinct(body: Body, start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[list[Any], NDArray[np.int32]]:
    """The different JSON tokens among the slices [start, end), parsed, and which one each slice is."""
    encoded = _strings(body, start, end).dictionary_encode()
    return _parsed(encoded.dictionary.to_pylist()), encoded.indices.to_numpy()


def _parsed(tokens: Sequence[str]) -> list[Any]:
    """JSON tokens, each parsed by itself."""
    # No string goes on past the end of a line: as many strings as tokens are one in each.
    parsed: list[Any] = json.loads(f"[{_APART.join(tokens)}]")
    if len(parsed) == len(tokens) and all(isinstance(one, str) for one in parsed):
        return parsed
    return [json.loads(token) for token in tokens]


def _page(
    names: list[str],
    code: NDArray[np.int32],
    time_us: NDArray[np.int64],
    value: NDArray[np.float64],
    fault: NDArray[np.uint8],
    cursor: str | None,
    has_more: bool,  # noqa: FBT001 - as the page has it
    example: Callable[[int], Example],
) -> Page:
    """A page, each row with its first fault; `example` shows what makes a row unreadable."""
    blank = [number for number, name in enumerate(names) if not name.strip()]
    if blank:
        code = np.where(np.isin(code, blank), np.int32(-1), code)
    unfit = (time_us == NO_TIME) | (code < 0)
    if unfit.any():
        fault = np.where(time_us == NO_TIME, np.uint8(Fault.BAD_TIME), fault)
        fault = np.where(code < 0, np.uint8(Fault.NO_NAME), fault)
        value = np.where(unfit, np.nan, value)
        return Page(names, code, time_us, value, fault, cursor, has_more, example(int(unfit.argmax())))
    return Page(names, code, time_us, value, fault, cursor, has_more)


def _example(row: Mapping[str, Any]) -> Example:
    """What makes an unreadable row so: its name or its time, as JSON."""
    name = row.get("name")
    member = "time" if isinstance(name, str) and name.strip() else "name"
    return member, json.dumps(row.get(member))[:_EXAMPLE]


def _continuation(answer: dict[str, Any]) -> tuple[str | None, bool]:
    cursor, has_more = answer.get("next_cursor"), answer.get("has_more")
    if not isinstance(has_more, bool) or not isinstance(cursor, str | None):
        raise ContractError("the answer does not say by `has_more` and `next_cursor` whether more rows follow")
    return cursor, has_more


def _strings(body: Body, start: NDArray[np.int64], end: NDArray[np.int64]) -> Any:
    """The slices [start, end) as an Arrow string array, cut without a Python object for each; in order, apart."""
    bounds = np.empty(2 * len(start) + 1, np.int32)
    bounds[0:-1:2], bounds[1:-1:2] = start, end
    bounds[-1] = end[-1]
    gaps = pa.StringArray.from_buffers(2 * len(start), pa.py_buffer(bounds), pa.py_buffer(body))
    return gaps.take(pa.array(np.arange(0, 2 * len(start), 2, dtype=np.int64)))


def _value(value: object) -> tuple[float, Fault]:
    """The number that a JSON value stands for, or why it stands for none."""
    if isinstance(value, str):
        text = value.strip(_SPACE)
        if not text:
            return math.nan, Fault.NULL_VALUE
        if _NOT_FINITE.fullmatch(text):
            return math.nan, Fault.NOT_FINITE
        if not _NUMBER.fullmatch(text):
            return math.nan, Fault.NOT_NUMERIC
        number = float(text)
    elif value is None:
        return math.nan, Fault.NULL_VALUE
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan, Fault.NOT_NUMERIC
    else:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    return (number, Fault.NONE) if math.isfinite(number) else (math.nan, Fault.NOT_FINITE)


def _time(value: object) -> int:
    """Unix microseconds of a time in any of the shapes that ACE was seen or said to send; `NO_TIME` for no time.

    A time without a zone is UTC. Of a number, its size tells seconds, milliseconds, microseconds and nanoseconds.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _epoch_us(repr(value))
    if not isinstance(value, str):
        return int(NO_TIME)
    text = value.strip(_SPACE)
    found = _TIME.fullmatch(text)
    if found is None:
        return _date_us(text) if _DATE.fullmatch(text) else _epoch_us(text)
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        instant = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
    except ValueError:
        return int(NO_TIME)
    us = (instant - _EPOCH) // timedelta(microseconds=1) + int((fraction or "")[:6].ljust(6, "0"))
    if zone and zone not in "Zz":
        sign = -1 if zone[0] == "-" else 1
        us -= sign * (int(zone[1:3]) * 60 + int(zone[-2:])) * 60_000_000
    return us


def _date_us(text: str) -> int:
    """Unix microseconds of a date as e-mail and HTTP headers have it; `NO_TIME` if there is no such date."""
    try:
        instant = parsedate_to_datetime(text)
    except ValueError:
        return int(NO_TIME)
    weekday = text[:3].lower()
    if weekday in _DAYS and _DAYS.index(weekday) != instant.weekday():
        return int(NO_TIME)
    if instant.tzinfo is None:  # "-0000": UTC, of an unknown zone
        instant = instant.replace(tzinfo=UTC)
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _epoch_us(text: str) -> int:
    if not _EPOCH_NUMBER.fullmatch(text):
        return int(NO_TIME)
    whole, _, fraction = text.partition(".")
    number = int(whole)
    for least, divide in ((10**17, 1000), (10**14, 1)):
        if number >= least:
            return number // divide
    if number >= 10**11:
        return number * 1000 + int(fraction[:3].ljust(3, "0"))
    return number * 1_000_000 + int(fraction[:6].ljust(6, "0"))
