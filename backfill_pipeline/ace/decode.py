"""Decoding: the bytes of an answer -> a `Page` of columns.

The documented shape, and nothing but it, is read by numpy and Arrow straight from the bytes, without a Python object
per sample (`_documented`); every other body is read row by row (`_any`). Both follow one set of rules for values and
times (`ace-api.md` section 5), so that the shape of a page decides how fast it is read, never what it says.

Put here: what an answer's text means. Keep out: whether a page makes progress (`core/paging.py`) and which of its rows
are kept (`core/clean.py`).
"""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from backfill_pipeline.core.rows import NO_TIME, Fault, Page
from backfill_pipeline.errors import ContractError, PageFailedError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"(?i)[+-]?(nan|inf|infinity)")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(Z|z|[+-][0-9]{2}:?[0-9]{2})?"
)
_EPOCH_NUMBER = re.compile(r"[0-9]{10,19}(\.[0-9]+)?")
_BARE = re.compile(
    rb'((?:"value"|"time"): ?)(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?)?|true|false|NaN|-?Infinity)(?=[,}])'
)
_SPACE = " \t\r\n"
_DAY_US = 86_400_000_000


def decode_page(body: bytes) -> Page:
    """Decode an answer of `timeseries/paginated`.

    Args:
        body: the whole answer, unpacked.

    Returns:
        Its rows, in the API's order, and what it says of further ones.

    Raises:
        PageFailedError: the body is not whole JSON: cut, or not JSON at all.
        ContractError: it is whole JSON of another shape; nothing malformed is ever taken for an empty page.
    """
    # Without escapes no string holds a quote, so that these patterns can only be a row's own key and value; as text
    # they mean the same as bare.
    null = b'"value": null' if b'"value": ' in body[:2_000] else b'"value":null'
    plain = body.replace(null, null[:-4] + b'""')
    return _documented(plain) or _documented(_BARE.sub(rb'\1"\2"', plain)) or _any(body)


def _any(body: bytes) -> Page:
    """Any whole JSON, row by row."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else f"{len(body):,} bytes that are not whole JSON"
        raise PageFailedError(f"the answer is {kind}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("point_samples"), list):
        said = answer.get("message") if isinstance(answer, dict) else None
        raise ContractError(f"the answer has no list `point_samples`{f': {said!r:.200}' if said else ''}")
    cursor, has_more = _continuation(answer)
    rows = answer["point_samples"]
    if not all(isinstance(row, dict) for row in rows):
        raise ContractError("the answer's `point_samples` holds what is no sample")
    if rows and not any({"name", "value", "time"} <= row.keys() for row in rows):
        raise ContractError("no row of the answer has `name`, `value` and `time`")
    names: dict[str, int] = {}
    code = np.full(len(rows), -1, np.int32)
    for number, row in enumerate(rows):
        name = row.get("name")
        if isinstance(name, str) and name:
            code[number] = names.setdefault(name, len(names))
    time_us = np.array([_time(row.get("time")) for row in rows], np.int64)
    judged = [_value(row.get("value")) for row in rows]
    value = np.array([number for number, _ in judged], np.float64)
    fault = np.array([why for _, why in judged], np.uint8)
    return _page(list(names), code, time_us, value, fault, cursor, has_more)


def _documented(body: bytes) -> Page | None:
    """The documented shape: ASCII, no escapes, three strings a row in the documented order; None for any other."""
    end = body.rfind(b"]")
    begin = body.find(b"[", 0, 64) + 1
    if not begin or end < begin or not body.isascii() or b"\\" in body:
        return None
    try:
        answer = json.loads(body[:begin] + body[end:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or answer.get("point_samples") != [] or begin == end:
        return None
    cursor, has_more = _continuation(answer)
    text = np.frombuffer(body, np.uint8)[begin:end]
    quotes = np.flatnonzero(text == ord('"')).astype(np.int32)
    if not len(quotes) or len(quotes) % 12:
        return None
    at = quotes.reshape(-1, 12)
    space = int(at[0, 2] - at[0, 1] - 2)
    if space not in (0, 1) or not _shaped(text, at, b" " * space):
        return None
    del quotes
    data = pa.py_buffer(body[begin:end])
    encoded = _strings(data, at[:, 2] + 1, at[:, 3]).dictionary_encode()
    names = encoded.dictionary.to_pylist()
    code = encoded.indices.to_numpy().astype(np.int32, copy=False)
    if "" in names:
        code = np.where(code == names.index(""), np.int32(-1), code)
    time_us = _times(data, text, at[:, 10] + 1, at[:, 11])
    value, fault = _values(_strings(data, at[:, 6] + 1, at[:, 7]))
    return _page(names, code, time_us, value, fault, cursor, has_more)


def _page(
    names: list[str],
    code: NDArray[np.int32],
    time_us: NDArray[np.int64],
    value: NDArray[np.float64],
    fault: NDArray[np.uint8],
    cursor: str | None,
    has_more: bool,  # noqa: FBT001 - as the page has it
) -> Page:
    """A page, each row with its first fault."""
    fault = np.where(time_us == NO_TIME, np.uint8(Fault.BAD_TIME), fault)
    fault = np.where(code < 0, np.uint8(Fault.NO_NAME), fault)
    value = np.where(fault == Fault.NONE, value, np.nan)
    return Page(names, code, time_us, value, fault.astype(np.uint8), cursor, has_more)


def _continuation(answer: dict[str, Any]) -> tuple[str | None, bool]:
    cursor, has_more = answer.get("next_cursor"), answer.get("has_more")
    if not isinstance(has_more, bool) or not isinstance(cursor, str | None):
        raise ContractError("the answer does not say by `has_more` and `next_cursor` whether more rows follow")
    return cursor, has_more


def _shaped(text: NDArray[np.uint8], at: NDArray[np.int32], space: bytes) -> bool:
    """Whether every byte between the strings is exactly the documented one."""
    colon, comma = b":" + space, b"," + space
    between = [b"name", colon, None, comma, b"value", colon, None, comma, b"time", colon, None]
    for number, expected in enumerate(between):
        if expected is not None and not _all_are(text, at[:, number], at[:, number + 1], expected):
            return False
    head, tail = bytes(text[: at[0, 0]]), bytes(text[at[-1, 11] + 1 :])
    rows_apart = _all_are(text, at[:-1, 11], at[1:, 0], b"}," + space + b"{")
    return rows_apart and head.strip() == b"{" and tail.strip() == b"}"


def _all_are(text: NDArray[np.uint8], left: NDArray[np.int32], right: NDArray[np.int32], expected: bytes) -> bool:
    if not ((right - left) == len(expected) + 1).all():
        return False
    return all(bool((text[left + offset] == byte).all()) for offset, byte in enumerate(expected, 1))


def _strings(data: Any, start: NDArray[np.int32], end: NDArray[np.int32]) -> Any:
    """The slices [start, end) of `data` as an Arrow string array, cut without a Python object for each."""
    bounds = np.empty(2 * len(start) + 1, np.int32)
    bounds[0:-1:2], bounds[1::2] = start, end
    bounds[-1] = end[-1]
    gaps = pa.StringArray.from_buffers(2 * len(start), pa.py_buffer(bounds), data)
    return gaps.take(pa.array(np.arange(0, 2 * len(start), 2, dtype=np.int64)))


def _values(texts: Any) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    fault = np.zeros(len(texts), np.uint8)
    try:
        value = texts.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(texts, f"^{_NUMBER.pattern}$")
        good = pc.if_else(number, texts, "nan")
        value = good.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    odd = np.flatnonzero(~np.isfinite(value))
    if len(odd):
        distinct = texts.take(pa.array(odd)).dictionary_encode()
        judged = [_value(text) for text in distinct.dictionary.to_pylist()]
        which = distinct.indices.to_numpy()
        value[odd] = np.array([number for number, _ in judged])[which]
        fault[odd] = np.array([why for _, why in judged], np.uint8)[which]
    return value, fault


def _times(data: Any, text: NDArray[np.uint8], start: NDArray[np.int32], end: NDArray[np.int32]) -> NDArray[np.int64]:
    length = end - start
    time_us = np.full(len(start), NO_TIME, np.int64)
    read = np.zeros(len(start), bool)
    for size in (26, 19):
        rows = np.flatnonzero(length == size)
        if len(rows):
            found, good = _plain_times(text, start[rows], size)
            time_us[rows[good]] = found[good]
            read[rows[good]] = True
    odd = np.flatnonzero(~read)
    if len(odd):
        distinct = _strings(data, start[odd], end[odd]).dictionary_encode()
        found = np.array([_time(shape) for shape in distinct.dictionary.to_pylist()], np.int64)
        time_us[odd] = found[distinct.indices.to_numpy()]
    return time_us


def _plain_times(
    text: NDArray[np.uint8], start: NDArray[np.int32], size: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times `YYYY-MM-DDTHH:MM:SS[.ffffff]`, and for which rows this is their shape."""
    good = np.ones(len(start), bool)
    for offset, mark in ((4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":"), (19, ".")):
        if offset < size:
            good &= text[start + offset] == ord(mark)

    def number(first: int, last: int) -> NDArray[np.int64]:
        total = np.zeros(len(start), np.int64)
        for offset in range(first, last):
            digit = text[start + offset] - np.uint8(ord("0"))
            np.logical_and(good, digit <= 9, out=good)  # noqa: PLR2004 - a digit
            total = total * 10 + digit
        return total

    dates = number(0, 4) * 10_000 + number(5, 7) * 100 + number(8, 10)
    hours, minutes, seconds = number(11, 13), number(14, 16), number(17, 19)
    micros = number(20, 26) if size > 19 else np.int64(0)  # noqa: PLR2004 - the shorter form
    good &= (hours < 24) & (minutes < 60) & (seconds < 60)  # noqa: PLR2004 - the clock
    distinct, which = np.unique(dates, return_inverse=True)
    midnights = np.array([_midnight(int(date)) for date in distinct], np.int64)[which]
    good &= midnights != NO_TIME
    time_us: NDArray[np.int64] = midnights + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros
    return time_us, good


def _midnight(date: int) -> int:
    try:
        return (datetime(date // 10_000, date // 100 % 100, date % 100, tzinfo=UTC) - _EPOCH).days * _DAY_US
    except ValueError:
        return int(NO_TIME)


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
        return _epoch_us(text)
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
