"""Exports of building automation systems, read as the sites of a world.

Exports differ in encoding, separator, decimal mark and form of the timestamps. A file with more than one possible
reading is refused, with the line. Put here: files, cells and columns. Keep out: timestamps (`timestamps.py`).
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backfill_pipeline.errors import UsageError, quoted
from backfill_pipeline.simulator.timestamps import Order, column, stamp
from backfill_pipeline.simulator.world import Sample, TableSite, World

DecimalMark = Literal["comma", "point"]

_SUFFIXES = (".csv", ".tsv")
_SEPARATORS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d)?(\s*[AaPp]\.?[Mm]\.?)?", re.ASCII)
_WITH_POINT = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
"""A number with commas between thousands."""
_WITH_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+", re.ASCII)
"""A number with a decimal comma."""
_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a file: its cells, and the number of the line where it begins."""

    number: int
    cells: list[str]

    def cell(self, place: int) -> str:
        """The cell at a place; blank where the line has fewer cells, as some programs leave out blank ones."""
        return self.cells[place] if place < len(self.cells) else ""


def replayed(
    path: Path, *, dates: Order | None = None, decimal: DecimalMark | None = None, encoding: str | None = None
) -> World:
    """A world of real exports: each wide CSV file is a site, named like the file.

    The first column is a timestamp, in UTC unless it has an offset. Every other column is a point; its name is not
    changed. A cell's text is sent unchanged, but numbers get a decimal point and no marks between thousands.
    A blank cell is a null value.

    Args:
        path: one file, or a folder of them.
        dates: the order of day, month and year where a file does not show it.
        decimal: the decimal mark where a file does not show it.
        encoding: of the files' text, where it is neither UTF-8 nor UTF-16.

    Raises:
        UsageError: a file cannot be read, or more than one reading is possible; the message names file and line.
    """
    files = [path]
    if path.is_dir():
        found = (file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and not file.name.startswith("."))
        files = sorted(file for file in found if file.is_file())
    if not files:
        raise UsageError(f"{path} has no CSV file")
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path} has two files for the site {quoted(twice)}", hint="Rename one of them")
    return World([_site(file, dates, decimal, encoding) for file in files])


def _site(path: Path, dates: Order | None, decimal: DecimalMark | None, encoding: str | None) -> TableSite:
    header, lines = _table(path, _text(path, encoding))
    points = _points(path, header, lines)
    stamps = []
    for line in lines:
        found = stamp(line.number, line.cell(0))
        if found is None:
            raise UsageError(f"{path}, line {line.number}: {quoted(line.cell(0))} is not a timestamp")
        stamps.append(found)
    if not any(each.form[1] for each in stamps) and all(_TIME_OF_DAY.fullmatch(line.cell(1).strip()) for line in lines):
        raise UsageError(
            f"{path}, line {lines[0].number}: date and time of day are in two columns", hint="Join them into one"
        )
    mark = _decimal_mark(path, lines, list(points)) if decimal is None else decimal
    rows: list[Sample] = [
        (at, name, _json(line.cell(place), mark))
        for at, line in zip(column(stamps, str(path), dates), lines, strict=True)
        for place, name in points.items()
    ]
    return TableSite(path.stem, rows, frozenset(points.values()))


def _text(path: Path, encoding: str | None) -> str:
    """The text of a file: UTF-8, or UTF-16 with or without a byte order mark, unless an encoding is named."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    name = encoding or next((name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    if name == "utf-8" and encoding is None:
        even, odd = data[::2].count(0), data[1::2].count(0)
        if max(even, odd) > len(data) // 8:  # the high bytes of ASCII characters
            name = "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(name, "replace").count("\n") + 1
        raise UsageError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not {name.removesuffix('-sig').upper()} text",
            hint="Name the encoding, such as --encoding latin-1 or --encoding cp1252",
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{path}, line {line}: the file is not text (it has a zero byte)")
    return text.removeprefix("\ufeff")


def _table(path: Path, text: str) -> tuple[Line, list[Line]]:
    """The header and the lines below it, by the separator with which the first cell of a line is a timestamp."""
    named = re.match(r"\s*sep=(.)\r?\n", text)
    separators: Sequence[str] = (named[1],) if named else _SEPARATORS
    skipped = 0
    if named:
        skipped, text = named[0].count("\n"), text[named.end() :]
    best: tuple[Line, list[Line]] | None = None
    refused: UsageError | None = None
    first = Line(1, [])
    for separator in separators:
        try:
            records = _records(path, text, separator, skipped)
            header, below = next(records, Line(1, [])), next(records, None)
            if len(header.cells) >= len(first.cells):
                first = below or header
            if below is None or stamp(below.number, below.cell(0)) is None or stamp(1, header.cell(0)) is not None:
                continue
            if len(header.cells) > max(1, len(best[0].cells) if best else 0):
                best = header, [below, *records]
        except UsageError as error:
            refused = refused or error
    if best is not None:
        return best
    if refused is not None:
        raise refused
    raise _no_table(path, text, first, skipped)


def _no_table(path: Path, text: str, first: Line, skipped: int) -> UsageError:
    records = list(_records(path, text, "\0", skipped))
    if not records:
        return UsageError(f"{path}, line 1: the file is empty")
    if len(records) == 1:
        return UsageError(f"{path}, line {records[0].number}: there are no lines below the header")
    hint = "The first line must name the timestamp column and the points, separated by comma, semicolon, tab or |"
    if stamp(1, re.split(r"[,;\t|]", records[0].cell(0))[0]) is not None:
        return UsageError(f"{path}, line {records[0].number}: there is no header", hint=hint)
    if stamp(1, first.cell(0)) is not None:
        return UsageError(f"{path}, line {records[0].number}: the header names no point", hint=hint)
    return UsageError(f"{path}, line {first.number}: {quoted(first.cell(0))} is not a timestamp", hint=hint)


def _records(path: Path, text: str, separator: str, skipped: int) -> Iterator[Line]:
    """The lines that are not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1 + skipped
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{path}, line {number}: not a line of CSV: {error}") from None
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield Line(number, cells)


def _points(path: Path, header: Line, lines: Sequence[Line]) -> dict[int, str]:
    """Place -> name of each column that has a name; a column without one must be blank."""
    points = {place: name for place, name in enumerate(header.cells) if place and name.strip()}
    if not points:
        raise UsageError(f"{path}, line {header.number}: the header names no point")
    seen: dict[str, int] = {}
    for place, name in points.items():
        if seen.setdefault(name, place) != place:
            raise UsageError(
                f"{path}, line {header.number}: columns {seen[name] + 1} and {place + 1} are both named {quoted(name)}",
                hint="Give each point a different name",
            )
    for line in lines:
        for place, cell in enumerate(line.cells):
            if place and place not in points and cell.strip():
                raise UsageError(
                    f"{path}, line {line.number}: {quoted(cell)} is in column {place + 1}, which has no name",
                    hint=f"Name the column in line {header.number}",
                )
    return points


def _decimal_mark(path: Path, lines: Iterable[Line], places: Sequence[int]) -> DecimalMark | None:
    """The decimal mark of a file's numbers; None when no number contains a comma.

    Raises:
        UsageError: the cells show both marks, or a comma may be a decimal mark or separate thousands.
    """
    cells = [(line, line.cell(place).strip()) for line in lines for place in places]
    if not any("," in cell for _, cell in cells):
        return None
    comma = point = either = None
    for line, cell in cells:
        as_point, as_comma = _WITH_POINT.fullmatch(cell), _WITH_COMMA.fullmatch(cell)
        if as_point and as_comma:
            either = either or (line, cell)
        elif as_comma:
            comma = comma or (line, cell)
        elif as_point or (_POINT.fullmatch(cell) and not _THOUSANDS.fullmatch(cell)):
            point = point or (line, cell)
    hint = "Name the decimal mark: --decimal comma or --decimal point"
    if comma and point:
        later, earlier = sorted((comma, point), key=lambda each: -each[0].number)
        raise UsageError(
            f"{path}, line {later[0].number}: {quoted(later[1])} has another decimal mark than {quoted(earlier[1])} in "
            f"line {earlier[0].number}",
            hint=hint,
        )
    if either and not comma and not point:
        raise UsageError(
            f"{path}, line {either[0].number}: the comma of {quoted(either[1])} is ambiguous: a decimal mark, or "
            "between thousands",
            hint=hint,
        )
    return "comma" if comma else "point" if point or either else None


def _json(cell: str, mark: DecimalMark | None) -> str:
    """A cell as the API sends it."""
    number = cell.strip()
    if not number:
        return "null"
    if mark == "comma" and (_WITH_COMMA.fullmatch(number) or _THOUSANDS.fullmatch(number)):
        return json.dumps(number.replace(".", "").replace(",", "."))
    if mark == "point" and _WITH_POINT.fullmatch(number):
        return json.dumps(number.replace(",", ""))
    return json.dumps(cell)
