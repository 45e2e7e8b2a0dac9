"""The scanner: one pass over the text of a page's rows, compiled to machine code by numba.

Rows as the vendor writes them are read here and now: names are told apart by their bytes, times and numbers become
what they stand for. What is written otherwise is only *found*: a value, a time, or a whole row that somebody else has
to parse (`Scanned.odd`). Nothing is skipped unseen: each byte between the brackets is one of a fixed sequence, of a
name, a value, a time, or of what was found.

Put here: loops over bytes. Keep out: what an odd value or time means, and whether the page as a whole is an answer
(`ace/decode.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from backfill_pipeline.core.rows import NO_TIME, Fault

F = TypeVar("F", bound=Callable[..., Any])

Bytes = NDArray[np.uint8]
Lanes = NDArray[np.uint64]
"""The same bytes, eight at a time from each place on."""

LONGEST_FIXED = 64
"""So many bytes may be looked at from a place without asking where the text ends; nearer to its end rows are odd."""

_NULL, _WORD = np.uint8(Fault.NULL_VALUE), np.uint8(Fault.NOT_NUMERIC)
_NONE = int(NO_TIME)


def _lane(text: bytes) -> np.uint64:
    """Up to eight bytes as they stand in memory, read as one number."""
    return np.uint64(int.from_bytes(text, "little"))


_NAME, _VALUE, _TIME = _lane(b'"name":'), _lane(b'"value":'), _lane(b'"time":')
_TRUE, _FALSE, _NULL_WORD = _lane(b"true"), _lane(b"fals"), _lane(b"null")
_SEVEN, _FOUR = np.uint64(2**56 - 1), np.uint64(2**32 - 1)

_LEAST_POWER, _MOST_POWER = -342, 308
_EXACT = 22
"""10 to this power and less is a float64 without error, and so is every whole number up to 2**53."""


def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The 128 leading bits of 5**q for each q, in two halves (Lemire 2021, Number parsing at a gigabyte per second)."""
    bits = []
    for q in range(_LEAST_POWER, _MOST_POWER + 1):
        if q >= 0:
            power = 5**q
            bits.append(power << 128 >> power.bit_length())
        else:
            power = 5**-q
            bits.append((1 << (power.bit_length() + 127)) // power + 1)
    return np.array([b >> 64 for b in bits], np.uint64), np.array([b & (2**64 - 1) for b in bits], np.uint64)


_HIGH, _LOW = _powers()
_TENS = 10.0 ** np.arange(_EXACT + 1)


def _compiled(function: F) -> F:
    """The function as machine code, kept on disk for the next process where a folder can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]  # numba ships no types
    except RuntimeError:  # no such folder: it is compiled anew in each process
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]  # as above


@_compiled
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The two halves of a product of two 64-bit numbers."""
    half, low = uint64(32), uint64(0xFFFFFFFF)
    low_low, low_high = (a & low) * (b & low), (a & low) * (b >> half)
    high_low, high_high = (a >> half) * (b & low), (a >> half) * (b >> half)
    middle = (low_low >> half) + (low_high & low) + (high_low & low)
    return high_high + (low_high >> half) + (high_low >> half) + (middle >> half), (low_low & low) | (middle << half)


@_compiled
def _nearest(digits: np.uint64, power: int) -> tuple[float, bool]:
    """The float64 nearest to digits * 10**power, and whether it could be told: never a guess.

    Clinger's exact case, else Lemire's method without its corners (subnormal, infinite: not told).
    """
    if digits == uint64(0):
        return 0.0, True
    if digits <= uint64(1) << uint64(53) and -_EXACT <= power <= _EXACT:
        return (digits / _TENS[-power] if power < 0 else digits * _TENS[power]), True
    if not _LEAST_POWER <= power <= _MOST_POWER:
        return 0.0, False
    zeros = 0
    while digits >> uint64(63) == uint64(0):
        digits <<= uint64(1)
        zeros += 1
    place = power - _LEAST_POWER
    high, low = _product(digits, _HIGH[place])
    if high & uint64(0x1FF) == uint64(0x1FF):
        more, _ = _product(digits, _LOW[place])
        low += more
        if low < more:
            high += uint64(1)
        if low == uint64(0xFFFFFFFFFFFFFFFF) and not -27 <= power <= 55:
            return 0.0, False
    upper = high >> uint64(63)
    shift = upper + uint64(9)
    mantissa = high >> shift
    exponent = ((217706 * power) >> 16) + int64(upper) - zeros + 1086  # 217706 / 2**16: log2(10)
    if low <= uint64(1) and -4 <= power <= 23 and mantissa & uint64(3) == uint64(1) and mantissa << shift == high:
        mantissa &= ~uint64(1)  # halfway between two: to the even one
    mantissa = (mantissa + (mantissa & uint64(1))) >> uint64(1)
    if mantissa == uint64(1) << uint64(53):
        mantissa >>= uint64(1)
        exponent += 1
    if not 0 < exponent < 2047:
        return 0.0, False
    return np.ldexp(float(mantissa), exponent - 1075), True


@_compiled
def _number(text: Bytes, at: int, bare: bool) -> tuple[float, int]:
    """The decimal number that begins at `at`: its value, and the place after it; -1 if there is none to be told.

    In a string: `[+-]?(d+(.d*)?|.d+)([eE][+-]?d+)?`; bare, as JSON has it. At most 19 digits.
    """
    minus = text[at] == ord("-")
    if minus or (text[at] == ord("+") and not bare):
        at += 1
    digits, power = uint64(0), 0
    start = at
    while ord("0") <= text[at] <= ord("9"):
        digits = digits * uint64(10) + uint64(text[at] - ord("0"))
        at += 1
    count = at - start
    if bare and (count == 0 or (count > 1 and text[start] == ord("0"))):
        return 0.0, -1
    if text[at] == ord("."):
        at += 1
        start = at
        while ord("0") <= text[at] <= ord("9"):
            digits = digits * uint64(10) + uint64(text[at] - ord("0"))
            at += 1
        power = start - at
        count -= power
        if bare and not power:
            return 0.0, -1
    if not 0 < count < 20:
        return 0.0, -1
    if text[at] | 32 == ord("e"):
        at += 1
        less = text[at] == ord("-")
        if less or text[at] == ord("+"):
            at += 1
        start, given = at, 0
        while ord("0") <= text[at] <= ord("9"):
            given = min(given * 10 + int64(text[at] - ord("0")), 99_999)
            at += 1
        if at == start:
            return 0.0, -1
        power += -given if less else given
    if bare and minus and digits == uint64(0) and power == 0:
        return 0.0, -1  # JSON's -0 is a whole number, and that has no sign
    value, told = _nearest(digits, power)
    return (-value if minus else value), (at if told else -1)


@_compiled
def _two(text: Bytes, at: int) -> int:
    return int(text[at] - ord("0")) * 10 + int(text[at + 1] - ord("0"))


@_compiled
def _instant(text: Bytes, at: int, size: int) -> int:
    """Unix microseconds of `YYYY-MM-DDTHH:MM:SS` (size 19) or `...SS.ffffff` (26); `NO_TIME` if it is neither."""
    for i in range(size):
        c = text[at + i]
        if i in (4, 7):
            if c != ord("-"):
                return _NONE
        elif i in (13, 16):
            if c != ord(":"):
                return _NONE
        elif i == 10:
            if c != ord("T"):
                return _NONE
        elif i == 19:
            if c != ord("."):
                return _NONE
        elif not ord("0") <= c <= ord("9"):
            return _NONE
    year, month, day = _two(text, at) * 100 + _two(text, at + 2), _two(text, at + 5), _two(text, at + 8)
    hour, minute, second = _two(text, at + 11), _two(text, at + 14), _two(text, at + 17)
    if year < 1 or not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 59:
        return _NONE
    longest = 31
    if month == 2:
        longest = 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    elif month in (4, 6, 9, 11):
        longest = 30
    if not 1 <= day <= longest:
        return _NONE
    # Days of the civil calendar, the year beginning in March, so that the leap day is its last.
    shifted = year - 1 if month < 3 else year
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719_468
    micros = (_two(text, at + 20) * 100 + _two(text, at + 22)) * 100 + _two(text, at + 24) if size > 19 else int64(0)
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + micros


@_compiled
def _alike(text: Bytes, lanes: Lanes, a: int, b: int, size: int) -> bool:
    """Whether the same `size` bytes stand at `a` and `b`."""
    i = 0
    while i + 8 <= size:
        if lanes[a + i] != lanes[b + i]:
            return False
        i += 8
    while i < size:
        if text[a + i] != text[b + i]:
            return False
        i += 1
    return True


@_compiled
def _after_text(text: Bytes, at: int, end: int) -> int:
    """The place after the string without escapes that begins at `at`, behind its quote; -1 if there is none."""
    while at < end and text[at] != ord('"'):
        if text[at] == ord("\\") or text[at] < ord(" "):
            return -1
        at += 1
    return at + 1 if at < end else -1


@_compiled
def _after_token(text: Bytes, at: int, end: int) -> int:
    """The place after the string or bare word that begins at `at`; -1 if there is none."""
    if text[at] == ord('"'):
        return _after_text(text, at + 1, end)
    start = at
    while at < end and text[at] != ord(",") and text[at] != ord("}"):
        c = text[at]
        if c <= ord(" ") or c == ord('"') or c == ord("{") or c == ord("[") or c == ord("]"):
            return -1
        at += 1
    return at if start < at < end else -1


@_compiled
def _after_row(text: Bytes, at: int, end: int) -> int:
    """The place after the object that begins at `at`, however it is written; -1 if it does not end before `end`."""
    depth, quoted = 0, False
    while at < end:
        c = text[at]
        if quoted:
            if c == ord("\\"):
                at += 1
            elif c == ord('"'):
                quoted = False
        elif c == ord('"'):
            quoted = True
        elif c == ord("{") or c == ord("["):
            depth += 1
        elif c == ord("}") or c == ord("]"):
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return -1


@_compiled
def _name(
    text: Bytes,
    lanes: Lanes,
    at: int,
    end: int,
    names: int,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    table: NDArray[np.int32],
) -> int:
    """Which name begins at `at`, behind its quote: one of the `names` known, or `names` itself, then put down.

    -1 if there is none without escapes, or no room for it.
    """
    size = _after_text(text, at, end) - 1 - at
    if size <= 0:
        return -1
    mixed = uint64(14695981039346656037)  # FNV-1a
    for place in range(at, at + size):
        mixed = (mixed ^ uint64(text[place])) * uint64(1099511628211)
    mask = uint64(len(table) - 1)
    slot = (mixed ^ (mixed >> uint64(29))) & mask
    while table[slot] >= 0:
        found = table[slot]
        if last[found] - first[found] == size and _alike(text, lanes, at, first[found], size):
            break
        slot = (slot + uint64(1)) & mask
    else:
        if names == len(first):
            return -1
        found = table[slot] = names
        first[names], last[names] = at, at + size
    return int(found)


@_compiled
def _scan(
    text: Bytes,
    lanes: Lanes,
    begin: int,
    end: int,
    code: NDArray[np.int32],
    time_us: NDArray[np.int64],
    value: NDArray[np.float64],
    fault: Bytes,
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    follows: NDArray[np.int32],
    table: NDArray[np.int32],
    odd: NDArray[np.int64],
    odds: NDArray[np.int64],
) -> tuple[int, int]:
    """Read rows from `begin` up to the list's closing bracket at `end`: how many there are, and how many names.

    -1 if these are no rows. `first` and `last` take the places of each name's text, `follows` the name that came after
    each; `table` finds a name by its hash; `odd` takes what was only found: row, start and end of values, times, rows.
    """
    limit = min(len(text) - LONGEST_FIXED, end)
    row, names, previous = 0, 0, -1
    time_at, time_size, time = 0, 0, _NONE  # the text of the last time, which thousands of rows may share
    at = begin
    while True:
        if row == len(code) or text[at] != ord("{"):
            return -1, 0
        code[row], time_us[row], value[row], fault[row] = -1, _NONE, np.nan, 0
        start, had, odd_value, odd_time = at, 0, 0, 0
        at += 1
        while at < limit:  # a member, each at most once
            word = lanes[at]
            if word & _SEVEN == _NAME:
                member, at = 1, at + 7
            elif word == _VALUE:
                member, at = 2, at + 8
            elif word & _SEVEN == _TIME:
                member, at = 4, at + 7
            else:
                break
            if had & member:
                break
            at += text[at] == ord(" ")
            if member == 1:
                found = follows[previous] if previous >= 0 else -1  # sweeps repeat: what came next the last time
                size = last[found] - first[found] if found >= 0 else 0
                if (
                    found < 0
                    or at + size >= limit
                    or text[at + 1 + size] != ord('"')
                    or (not _alike(text, lanes, at + 1, first[found], size))
                ):
                    found = _name(text, lanes, at + 1, limit, names, first, last, table)
                    if found < 0:
                        break
                    if found == names:
                        follows[found] = -1
                        names += 1
                    if previous >= 0:
                        follows[previous] = found
                if text[at] != ord('"'):
                    break
                code[row] = previous = found
                after = at + 2 + last[found] - first[found]
            elif member == 2:
                quoted = text[at] == ord('"')
                number, after = _number(text, at + quoted, not quoted)
                if after >= 0 and (text[after] == ord('"') if quoted else text[after] in (ord(","), ord("}"))):
                    value[row] = number
                    after += quoted
                elif lanes[at] & _FOUR == _NULL_WORD:
                    fault[row], after = _NULL, at + 4
                elif lanes[at] & _FOUR == _TRUE:
                    fault[row], after = _WORD, at + 4
                else:
                    after = _after_token(text, at, end)
                    odd_value = 1
                    odd[0, odds[0], 0], odd[0, odds[0], 1], odd[0, odds[0], 2] = row, at, after
            elif time_size and text[at + time_size - 1] == ord('"') and _alike(text, lanes, at, time_at, time_size):
                time_us[row], after = time, at + time_size
            else:
                size, moment = (19 if text[at + 20] == ord('"') else 26), _NONE
                if text[at] == ord('"') and text[at + size + 1] == ord('"'):
                    moment = _instant(text, at + 1, size)
                if moment != _NONE:
                    time_at, time_size, time = at, size + 2, moment
                    time_us[row], after = time, at + time_size
                else:
                    after = _after_token(text, at, end)
                    odd_time = 1
                    odd[1, odds[1], 0], odd[1, odds[1], 1], odd[1, odds[1], 2] = row, at, after
            if after < 0:
                break
            had, at = had | member, after
            if had == 7 or at >= limit or text[at] != ord(","):
                break
            at += 1 + (text[at + 1] == ord(" "))
        if had == 7 and text[at] == ord("}"):
            at += 1
            odds[0] += odd_value
            odds[1] += odd_time
        else:
            at = _after_row(text, start, end)
            if at < 0:
                return -1, 0
            odd[2, odds[2], 0], odd[2, odds[2], 1], odd[2, odds[2], 2] = row, start, at
            odds[2] += 1
        row += 1
        if at == end:
            return row, names
        if text[at] != ord(","):
            return -1, 0
        at += 1
        while text[at] in (ord(" "), ord("\n"), ord("\r"), ord("\t")):
            at += 1


@dataclass(frozen=True, slots=True)
class Scanned:
    """The n rows of a page as far as they are written as the vendor writes them.

    Attributes:
        code: int32[n], which of the names; -1 in odd rows.
        time_us: int64[n], Unix microseconds UTC; `NO_TIME` where it is odd.
        value: float64[n]; NaN where it is odd or none.
        fault: uint8[n], a `Fault`.
        names: int64[k, 2], where the text of each name begins and ends: distinct, without escapes, in order.
        odd_values, odd_times, odd_rows: int64[m, 3]: the row, and where its text begins and ends.
    """

    code: NDArray[np.int32]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]
    fault: NDArray[np.uint8]
    names: NDArray[np.int64]
    odd_values: NDArray[np.int64]
    odd_times: NDArray[np.int64]
    odd_rows: NDArray[np.int64]


def scan(body: bytes | bytearray, begin: int, end: int, most: int) -> Scanned | None:
    """Read the rows between `begin` and `end`.

    Args:
        body: the whole answer.
        begin: the place of the first row.
        end: the place of the bracket that closes the list.
        most: rows that it may hold.

    Returns:
        The rows; None if this is no list of at most so many objects.
    """
    if len(body) <= LONGEST_FIXED:
        return None
    text = np.frombuffer(body, np.uint8)
    lanes: NDArray[np.uint64] = np.ndarray((len(body) - 7,), "<u8", body, strides=(1,))
    code, time_us = np.empty(most, np.int32), np.empty(most, np.int64)
    value, fault = np.empty(most, np.float64), np.empty(most, np.uint8)
    first, last, follows = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int32)
    table = np.full(1 << (2 * most).bit_length(), -1, np.int32)  # less than half full: short ways to a free slot
    odd, odds = np.empty((3, most, 3), np.int64), np.zeros(3, np.int64)
    rows, names = _scan(text, lanes, begin, end, code, time_us, value, fault, first, last, follows, table, odd, odds)
    if rows < 0:
        return None
    found = [odd[kind, :count].copy() for kind, count in enumerate(odds)]
    return Scanned(
        code[:rows], time_us[:rows], value[:rows], fault[:rows],
        np.stack([first[:names], last[:names]], axis=1), *found,
    )  # fmt: skip
