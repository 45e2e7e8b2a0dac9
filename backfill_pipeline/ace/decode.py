"""Decoding: the bytes of an answer -> a `Page` of columns.

The vendor writes each row alike, so rows are found by their ends, and what stands between the fixed bytes of all of
them is read together by numpy and Arrow, without a Python object per sample (`_together`). A row that is written
otherwise is read by itself, and a page that is no list of rows as a whole (`_any`). One set of rules for values and
times (`ace-api.md` section 5) is behind all three: how a page is written decides how fast it is read, never what it
says.

Put here: what an answer's text means. Keep out: whether a page makes progress (`core/paging.py`) and which of its rows
are kept (`core/clean.py`).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from backfill_pipeline.core.rows import NO_TIME, Fault, Page
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
_EPOCH_NUMBER = re.compile(r"[0-9]{10,19}(\.[0-9]+)?")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SPACE = " \t\r\n"
_DAY_US = 86_400_000_000

_TIME_SIZES = (28, 21, 29, 22, 25, 26, 34, 27, 31, 30, 13, 16, 10, 4)
"""Bytes of a time's token, the documented two first: also with Z, an offset, milliseconds, as epoch, null."""

_VALUE_REACH = 48
"""A value's key is looked for in so many bytes before the value's end; a longer value makes its row one of its own."""

_Columns = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint8]]
"""Code, time, value and fault of rows."""

_APART = ",\n"

_PIECE = 4_000_000
"""Bytes of a page that are worked on at once."""

_TAIL = 96
"""The last bytes of a row, gathered once, with a lane to spare: a time, its key, and `_VALUE_REACH` more."""

_TIME_PATTERN = b"0000-00-00T00:00:00.000000"


_ROW_LEAST = 24
"""No row is shorter: keys, marks and a name alone take more bytes."""

_PARTS_A_ROW = 32
"""Objects, lists and members that a row may have in JSON, on average: it has four, and more if names hold commas."""

_MOST = 500_000
"""Rows of the largest page that the API knows."""

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
    code, time_us, value, fault = _row_by_row(rows, names)
    return _page(list(names), code, time_us, value, fault, cursor, has_more)


def _parts(rows: int) -> int:
    return _PARTS_A_ROW * rows + 10_000


def _row_by_row(rows: Sequence[Mapping[str, Any]], names: dict[str, int]) -> "_Columns":
    """Code, time, value and fault of each row; names not yet in `names` are added to it."""
    code = np.full(len(rows), -1, np.int32)
    for number, row in enumerate(rows):
        name = row.get("name")
        if isinstance(name, str) and name:
            code[number] = names.setdefault(name, len(names))
    time_us = np.array([_time(row.get("time")) for row in rows], np.int64)
    judged = [_value(row.get("value")) for row in rows]
    value = np.array([number for number, _ in judged], np.float64)
    fault = np.array([why for _, why in judged], np.uint8)
    return code, time_us, value, fault


def _together(body: Body, rows: int = _MOST) -> Page | None:
    """The rows of a page that are written as the vendor writes them, together; None for a page of another shape.

    Every byte of the answer is accounted for: what is between the rows, each row's fixed bytes, and its name, value
    and time as JSON of their own. So a page read here is whole JSON and means what `_any` would say.
    """
    end = body.rfind(b"]")
    begin = body.find(b"[", 0, 64) + 1
    if not begin or end <= begin or body[begin : begin + 1] != b"{" or body[end - 1 : end] != b"}":
        return None
    if len(body) - end > _SHORT or len(body) < 2 * _TAIL:  # too long for what it should say, or too short to look at
        return None
    try:
        answer = json.loads(body[:begin] + body[end:])
        if not isinstance(answer, dict) or answer.get("point_samples") != []:
            return None
        cursor, has_more = _continuation(answer)
        known: dict[str, int] = {}
        codes: dict[str, int] = {}
        pieces = [_Rows(body, first, last, codes) for first, last in _pieces(body, begin, end)]
        if not any(piece.alike.any() for piece in pieces):
            return None
        if not all(piece.alike.all() for piece in pieces):
            _bounded(body, _parts(rows))
        columns = [piece.read(known) for piece in pieces]
    except (ValueError, RecursionError):  # something in it is no JSON: `_any` says what is wrong with the whole
        return None
    code, time_us, value, fault = (np.concatenate(column) for column in zip(*columns, strict=True))
    return _page(list(known), code, time_us, value, fault, cursor, has_more)


def _pieces(body: Body, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts of the rows' text, cut between rows, so that what is worked out of each stays in the processor's cache."""
    between = b"}, {" if b"}, {" in body[begin : begin + 2_000] else b"},{"
    while end - begin > _PIECE:
        cut = body.rfind(between, begin, begin + _PIECE)
        if cut < 0:
            raise ValueError("these are no rows")
        yield begin, cut + 1
        begin = cut + len(between) - 1
    yield begin, end


class _Rows:
    """Where the rows of a page and their parts stand: `{"name": NAME, "value": VALUE, "time": TIME}`.

    `alike[n]` says which rows are written so; the other methods speak of these rows only, in order. Tokens are parsed
    as JSON of their own when they are read.
    """

    def __init__(self, body: Body, begin: int, end: int, codes: dict[str, int]) -> None:
        space = b" " if body[begin + 8 : begin + 9] == b" " else b""
        opening = b'{"name":' + space
        value_key, time_key = (b"," + space + key + space for key in (b'"value":', b'"time":'))
        between = b"}," + space + b"{"
        text = np.frombuffer(body, np.uint8)
        marks = text[begin:end] == ord("}")
        if np.count_nonzero(marks) * _ROW_LEAST > end - begin:
            raise ValueError("these are no rows")
        stop = _places(marks) + begin
        alike = _reads(_gathered(body, stop, 16), 0, between + opening[1:])
        if not alike[:-1].all():
            stop = stop[_reads(_gathered(body, stop, 16), 0, between) | (stop == end - 1)]
            alike = _reads(_gathered(body, stop, 16), 0, between + opening[1:])
        self._body, self._time_key, self._codes = body, len(time_key), codes
        self._start = np.append(begin, stop[:-1] + len(between) - 1)
        self._stop = stop
        self._tail = _gathered(body, stop - _TAIL, _TAIL + 8)
        alike = np.append(body.startswith(opening, begin), alike[:-1]) & (stop >= _TAIL)
        self._value_at, self._value_end = np.zeros_like(stop), np.full_like(stop, -1)
        unknown = np.arange(len(stop))
        for size in _TIME_SIZES:
            tail = self._tail if len(unknown) == len(stop) else self._tail[unknown]
            place = _TAIL - size - len(time_key)
            found = _reads(tail, place, time_key)
            if found.any():
                rows = unknown[found]
                # The last colon before a value's end is the one of its key, unless the value itself holds one.
                near = (tail if found.all() else tail[found])[:, place - 1 : place - _VALUE_REACH - 1 : -1]
                self._value_end[rows] = stop[rows] - size - len(time_key)
                self._value_at[rows] = self._value_end[rows] - np.argmax(near == ord(":"), axis=1) + len(space)
                unknown = unknown[~found]
            if not len(unknown):
                break
        key_at = self._value_at - len(value_key)
        key = _gathered(body, key_at, 16)
        name_at = self._start + len(opening)
        alike &= _reads(key, 0, value_key) & (key_at > name_at)
        self._quoted = (key[:, len(value_key)] == ord('"')) & (text[self._value_end - 1] == ord('"'))
        self.alike = alike
        self._name_at, self._name_end = name_at, key_at
        self._chosen: Any = slice(None) if alike.all() else alike

    def read(self, known: dict[str, int]) -> "_Columns":
        """Code, time, value and fault of each row; names not yet in `known` are added to it."""
        if self.alike.all():
            return self._names(known), self._times(), *self._values()
        code, time_us, value, fault = _row_by_row(self._others(), known)
        if not self.alike.any():
            return code, time_us, value, fault
        at = np.argsort(~self.alike, kind="stable").argsort()  # those that are alike first, then the others
        values, faults = self._values()
        return (
            np.append(self._names(known), code)[at],
            np.append(self._times(), time_us)[at],
            np.append(values, value)[at],
            np.append(faults, fault)[at],
        )

    def _others(self) -> list[dict[str, Any]]:
        """The rows that are written otherwise, each parsed by itself."""
        places = zip(self._start[~self.alike].tolist(), self._stop[~self.alike].tolist(), strict=True)
        rows = [json.loads(self._body[start : stop + 1]) for start, stop in places]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a row is no object")
        return rows

    def _names(self, known: dict[str, int]) -> NDArray[np.int32]:
        """Each row's code, -1 where the name is none; names not yet in `known` are added to it."""
        encoded = _strings(self._body, self._name_at[self._chosen], self._name_end[self._chosen]).dictionary_encode()
        tokens = encoded.dictionary.to_pylist()
        new = [token for token in tokens if token not in self._codes]
        for token, name in zip(new, _parsed(new), strict=True):
            self._codes[token] = known.setdefault(name, len(known)) if isinstance(name, str) and name else -1
        codes = np.array([self._codes[token] for token in tokens], np.int32)
        which: NDArray[np.int32] = encoded.indices.to_numpy()
        return codes[which]

    def _times(self) -> NDArray[np.int64]:
        """Each row's Unix microseconds, or `NO_TIME`."""
        end = self._stop[self._chosen]
        start = self._value_end[self._chosen] + self._time_key
        tail = self._tail[self._chosen]
        time_us = np.full(len(start), NO_TIME, np.int64)
        for size in (28, 21):
            rows = np.flatnonzero(end - start == size)
            if len(rows):
                time_us[rows] = _plain_times((tail if len(rows) == len(tail) else tail[rows])[:, _TAIL - size : _TAIL])
        odd = np.flatnonzero(time_us == NO_TIME)
        if len(odd):
            tokens, which = _distinct(self._body, start[odd], end[odd])
            time_us[odd] = np.array([_time(token) for token in tokens], np.int64)[which]
        return time_us

    def _values(self) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Each row's number, or NaN and why it is none."""
        start, end = self._value_at[self._chosen], self._value_end[self._chosen]
        quoted = self._quoted[self._chosen] & (end - start > 1)
        inner = _strings(self._body, start + quoted, end - quoted)
        fault = np.zeros(len(start), np.uint8)
        try:
            number = inner.cast(pa.float64())
        except pa.ArrowInvalid:
            good = pc.match_substring_regex(inner, f"^{_NUMBER.pattern}$")
            number = pc.if_else(good, inner, "nan").cast(pa.float64())
        value = number.to_numpy(zero_copy_only=False).copy()
        if not quoted.all():
            bare = np.flatnonzero(~quoted)
            good = pc.match_substring_regex(inner.take(pa.array(bare)), f"^{_JSON_NUMBER.pattern}$")
            value[bare[~good.to_numpy(zero_copy_only=False)]] = np.nan
        odd = np.flatnonzero(~np.isfinite(value))
        if len(odd):
            tokens, which = _distinct(self._body, start[odd], end[odd])
            judged = [_value(token) for token in tokens]
            value[odd] = np.array([number for number, _ in judged])[which]
            fault[odd] = np.array([why for _, why in judged], np.uint8)[which]
        return value, fault


def _gathered(body: Body, at: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """The `size` bytes from each position on: uint8[n, size]; of positions outside of the body, other bytes."""
    places: NDArray[np.void] = np.ndarray((len(body) - size + 1,), f"V{size}", body, strides=(1,))
    found: NDArray[np.uint8] = places[at.clip(0, len(places) - 1)].view(np.uint8).reshape(-1, size)
    return found


def _places(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where few of many are true: as `flatnonzero`, eight at a time."""
    whole = len(marks) // 8 * 8
    lanes = marks[:whole].view("<u8")
    some = np.flatnonzero(lanes != 0)
    lane = lanes[some]
    if (np.bitwise_count(lane) > 1).any():
        return np.flatnonzero(marks)
    return np.append(some * 8 + np.bitwise_count(lane - 1) // 8, np.flatnonzero(marks[whole:]) + whole)


def _reads(block: NDArray[np.uint8], place: int, expected: bytes) -> NDArray[np.bool_]:
    """Which rows of bytes read `expected`, of at most 16 bytes, from `place` on."""
    same = np.ones(len(block), bool)
    for first in range(0, len(expected), 8):
        part = expected[first : first + 8]
        lane = np.ndarray((len(block),), "<u8", block, place + first, (block.shape[1],))
        same &= (lane & int.from_bytes(b"\xff" * len(part), "little")) == int.from_bytes(part, "little")
    return same


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
) -> Page:
    """A page, each row with its first fault."""
    unfit = (time_us == NO_TIME) | (code < 0)
    if unfit.any():
        fault = np.where(time_us == NO_TIME, np.uint8(Fault.BAD_TIME), fault)
        fault = np.where(code < 0, np.uint8(Fault.NO_NAME), fault)
        value = np.where(unfit, np.nan, value)
    return Page(names, code, time_us, value, fault, cursor, has_more)


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


def _plain_times(tokens: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Unix microseconds of tokens `"YYYY-MM-DDTHH:MM:SS[.ffffff]"`, `NO_TIME` for what is of another shape."""
    size = tokens.shape[1]
    pattern = np.frombuffer(b'"' + _TIME_PATTERN[: size - 2] + b'"', np.uint8)
    tokens = np.ascontiguousarray(tokens)
    whole = tokens.view(f"V{size}").ravel()
    first_of_run = np.flatnonzero(np.append(True, whole[1:] != whole[:-1]))  # thousands of points share a timestamp
    # Against the pattern, a digit leaves 0 to 9 and a mark leaves 0.
    digits = tokens[first_of_run] ^ pattern
    wrong = digits > np.where(pattern == ord("0"), np.uint8(9), np.uint8(0))
    good = ~wrong.any(axis=1) if wrong.any() else np.ones(len(digits), bool)
    pairs = digits[:, :-1] * np.uint8(10) + digits[:, 1:]  # the number of two digits that begins at each place

    def number(*places: int) -> NDArray[np.int64]:
        total = pairs[:, places[0] + 1].astype(np.int64)
        for place in places[1:]:
            total = total * 100 + pairs[:, place + 1]
        return total

    year_month, day, hour, minute, second = number(0, 2, 5), number(8), number(11), number(14), number(17)
    micros = number(20, 22, 24) if size > 21 else np.int64(0)  # noqa: PLR2004 - the shorter form
    year, month = np.divmod(year_month, 100)
    good &= (year >= 1) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004
    first = (year * 12 + month - 1 - 1970 * 12).astype("datetime64[M]")
    days = first.astype("datetime64[D]").astype(np.int64)
    good &= (day >= 1) & (day <= (first + 1).astype("datetime64[D]").astype(np.int64) - days)
    days += day - 1
    time_us: NDArray[np.int64] = days * _DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros
    return np.repeat(np.where(good, time_us, NO_TIME), np.diff(np.append(first_of_run, len(tokens))))


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
