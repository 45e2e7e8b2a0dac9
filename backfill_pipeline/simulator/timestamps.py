"""A column of timestamps as exports write them -> Unix microseconds.

A single value such as `01/03/2025` does not show the order of day and month; the whole column may. Put here: the forms
of timestamps and the order of their parts. Keep out: files (`exports.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from backfill_pipeline.errors import UsageError, quoted

Order = Literal["day-first", "month-first", "year-first"]
"""How the parts of a date such as `01/03/25` are ordered."""

ORDERS: dict[Order, tuple[int, int, int]] = {
    "day-first": (2, 1, 0),
    "month-first": (2, 0, 1),
    "year-first": (0, 1, 2),
}
"""Order -> at which places of a date year, month and day are."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *(("jan", "january"), ("feb", "february"), ("mar", "march"), ("apr", "april"), ("may",), ("jun", "june")),
            *(("jul", "july"), ("aug", "august"), ("sep", "sept", "september"), ("oct", "october")),
            *(("nov", "november"), ("dec", "december")),
        ),
        1,
    )
    for name in names
}
_LONGEST = 60
_UNIT_DIGITS = {10: 6, 13: 3, 16: 0}
"""Digits of a Unix time between 2001 and 2286 -> digits that its unit has more than microseconds."""

_TIME = re.compile(
    r"(?P<date>.+?)(?:(?:T|,?\s+)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?)?",
    re.ASCII | re.DOTALL,
)
_ISO = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", re.ASCII)
_NUMERIC = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d\d)", re.ASCII)
_NAMED = re.compile(r"(\d{1,2})[-/.\s]+([A-Za-z]{3,9})[-/.,\s]+(\d{4}|\d\d)", re.ASCII)
_NAMED_FIRST = re.compile(r"([A-Za-z]{3,9})\.?\s+(\d{1,2}),?\s+(\d{4})", re.ASCII)
_NUMBER = re.compile(r"(\d{10}|\d{13}|\d{16})(?:\.(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stamp:
    """One timestamp, parsed.

    Attributes:
        line: where it is.
        text: as it is written.
        form: what all timestamps of a column have in common: kind of date, 12 or 24 hours, time zone.
        parts: the numbers of its date in the order in which they are written; none for a Unix time.
        short: whether its year has two digits.
        rest: microseconds since the midnight of its date, UTC; of a Unix time since 1970.
    """

    line: int
    text: str
    form: tuple[str, ...]
    parts: tuple[int, ...]
    short: bool
    rest: int


def stamp(line: int, text: str) -> Stamp | None:
    """Parse a timestamp; None when the text is not a timestamp."""
    if len(text) > _LONGEST:
        return None
    shown, text = text, re.sub(r"\s", " ", text.strip())
    number = _NUMBER.fullmatch(text)
    if number is not None:
        digits = _UNIT_DIGITS[len(number[1])]
        rest = int(number[1] + (number[2] or "")[:digits].ljust(digits, "0"))
        return Stamp(line, shown, ("Unix time", f"{len(number[1])} digits"), (), short=False, rest=rest)
    found = _TIME.fullmatch(text)
    date = None if found is None else _date(found["date"])
    since = None if found is None else _of_day(found)
    if found is None or date is None or since is None:
        return _compact(line, shown, text)
    kind, parts, short = date
    clock = "" if found["hour"] is None else "12 hours" if found["half"] else "24 hours"
    form = (kind, clock, "time zone" if found["zone"] else "no time zone")
    return Stamp(line, shown, form, parts, short, since)


def column(stamps: Sequence[Stamp], where: str, order: Order | None = None) -> list[int]:
    """Unix microseconds of the timestamps of a whole column.

    Args:
        stamps: all of the column.
        where: the file, for messages.
        order: of day, month and year, where the column does not show it.

    Raises:
        UsageError: the timestamps differ in form, no order fits them all, or more than one does with different results.
    """
    _same_form(stamps, where)
    if not stamps:
        return []
    is_numeric = stamps[0].form[0] == "numeric"
    candidates: list[Order] = [order] if order else [each for each in ORDERS if _may_be(each, stamps)]
    if not is_numeric:
        candidates = ["year-first"]
    readings: dict[Order, list[int]] = {}
    wrong = stamps[0]
    for candidate in candidates:
        read = [_micros(each, ORDERS[candidate]) for each in stamps]
        if None in read:
            wrong = max(wrong, stamps[read.index(None)], key=lambda each: each.line)
        else:
            readings[candidate] = [at for at in read if at is not None]
    if not readings:
        tried = f": --dates {order} does not fit" if order else ": no order of day and month fits all lines up to it"
        raise UsageError(
            f"{where}, line {wrong.line}: {quoted(wrong.text)} is not a valid timestamp{tried if is_numeric else ''}"
        )
    first, *others = readings.values()
    for other in others:
        differs = next((n for n, (one, two) in enumerate(zip(first, other, strict=True)) if one != two), None)
        if differs is not None:
            raise UsageError(
                f"{where}, line {stamps[differs].line}: {quoted(stamps[differs].text)} is ambiguous: all dates of the "
                f"file can be {' or '.join(readings)}",
                hint=f"Name the order: {' or '.join(f'--dates {name}' for name in readings)}",
            )
    return first


def _date(text: str) -> tuple[str, tuple[int, ...], bool] | None:
    """The kind of a date, its numbers, and whether its year has two digits."""
    if found := _ISO.fullmatch(text):
        return "year first", (int(found[1]), int(found[3]), int(found[4])), False
    if found := _NUMERIC.fullmatch(text):
        return "numeric", (int(found[1]), int(found[3]), int(found[4])), len(found[4]) == 2  # noqa: PLR2004 - digits
    if (found := _NAMED.fullmatch(text)) and found[2].lower() in _MONTHS:
        year = int(found[3]) if len(found[3]) > 2 else _full_year(int(found[3]))  # noqa: PLR2004 - digits
        return "name of the month", (year, _MONTHS[found[2].lower()], int(found[1])), False
    if (found := _NAMED_FIRST.fullmatch(text)) and found[1].lower() in _MONTHS:
        return "name of the month", (int(found[3]), _MONTHS[found[1].lower()], int(found[2])), False
    return None


def _of_day(found: "re.Match[str]") -> int | None:
    """Microseconds from the date's midnight, its time zone taken into account; None when the time does not exist."""
    if found["hour"] is None:
        return 0
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"] or 0)
    part = int((found["part"] or "0")[:6].ljust(6, "0"))
    if found["half"]:
        if not 1 <= hour <= 12:  # noqa: PLR2004 - hours of a clock face
            return None
        hour = hour % 12 + (12 if found["half"] in "Pp" else 0)
    ends_day = (hour, minute, second, part) == (24, 0, 0, 0)
    if not ends_day and (hour > 23 or minute > 59 or second > 59):  # noqa: PLR2004 - of a day
        return None
    zone = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", found["zone"] or "", re.ASCII)
    away = 0 if zone is None else (int(zone[2]) * 60 + int(zone[3] or 0)) * (-1 if zone[1] == "-" else 1)
    return (hour * 3600 + (minute - away) * 60 + second) * 1_000_000 + part


def _compact(line: int, shown: str, text: str) -> Stamp | None:
    """ISO 8601 without separators, such as `20250301T000500Z`."""
    if not re.fullmatch(r"\d{8}T\d{4,6}(Z|[+-]\d\d:?\d\d)?", text, re.ASCII):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    zone = "no time zone" if at.tzinfo is None else "time zone"
    since = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    return Stamp(line, shown, ("compact", zone), (), short=False, rest=since)


def _same_form(stamps: Sequence[Stamp], where: str) -> None:
    """Refuse a column whose timestamps are of several kinds: some of them would be misread."""
    first: dict[int, Stamp] = {}
    for each in stamps:
        for place, value in enumerate(each.form):
            one = first.setdefault(place, each) if value else each
            if one.form[place] != value:
                raise UsageError(
                    f"{where}, line {each.line}: {quoted(each.text)} has another form than {quoted(one.text)} in line "
                    f"{one.line}",
                    hint="Write all timestamps of the file in one form",
                )


def _may_be(order: Order, stamps: Sequence[Stamp]) -> bool:
    """Whether the digits of the years allow the order: a year has four digits, or two at both ends of a date."""
    if order == "year-first":
        return all(each.short and re.match(r"\s*\d\d\D", each.text) for each in stamps)
    return True


def _micros(each: Stamp, places: tuple[int, int, int]) -> int | None:
    """Unix microseconds by an order of the date's numbers; None when there is no such date from 1970 on."""
    if not each.parts:
        return each.rest
    year, month, day = (each.parts[place] for place in places)
    try:
        midnight = datetime(_full_year(year) if each.short else year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return (midnight - _EPOCH) // _MICROSECOND + each.rest if midnight >= _EPOCH else None


def _full_year(year: int) -> int:
    return year + (2000 if year < 70 else 1900)  # noqa: PLR2004 - as POSIX reads it: no earlier than 1970
