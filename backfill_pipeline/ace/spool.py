"""The spool: finished windows of days still being fetched, on local disk, so that a death costs no request twice.

A day's folder is named by everything that determines its rows; a window is one file, written whole or not at all.
Put here: how a finished window is kept and found again. Keep out: which windows to ask for (`core/windows.py`).
"""

import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import Window
from backfill_pipeline.core.rows import Chunk, Counts, Example, TextRows
from backfill_pipeline.errors import StoreRefusedError

FRESH_S = 24 * 3600
"""A window older than this, in seconds, is asked for again: late samples may have arrived since."""

_TRIES = 10
"""How often a window is written when its folder vanishes meanwhile."""

_VANISHED = (FileNotFoundError, FileExistsError)
"""What a folder that vanishes leads to; the second while it is made, when it was still there and then no more."""

_FORM = 1
"""Raise it when a kept window would read differently: cleaning rules, columns, the file itself."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One finished window.

    Attributes:
        window: what was asked for.
        chunk: its kept rows, sorted.
        counts: what arrived and what became of it.
        fetched_at: Unix seconds at which its last page arrived.
        on_marks: whether every row's time was a multiple of five minutes.
        instants: how many different times its rows have.
        named: whether it has a row of a point of the site, configured or not.
        stranger: a name of its rows that belongs to no point of the site; None if there is none.
        unreadable: an example of its rows that cannot be read; None if there is none.
    """

    window: Window
    chunk: Chunk
    counts: Counts
    fetched_at: float
    on_marks: bool
    instants: int
    named: bool = True
    stranger: str | None = None
    unreadable: Example | None = None


class DaySpool:
    """The finished windows of one site-day.

    Args:
        folder: where all spooled days live.
        site: the site's name.
        day: the UTC day.
        source: whatever else determines the rows: the API's address, the points.
    """

    def __init__(self, folder: Path, site: str, day: date, source: str) -> None:
        form = json.dumps([_FORM, site, day.isoformat(), source])
        self.folder = folder / f"{day.isoformat()}-{hashlib.sha256(form.encode()).hexdigest()[:24]}"

    def put(self, kept: Kept) -> None:
        """Keep a window, whole or not at all.

        Raises:
            StoreRefusedError: the disk refuses.
        """
        about = {
            "start": kept.window.start,
            "end": kept.window.end,
            "counts": asdict(kept.counts),
            "fetched_at": kept.fetched_at,
            "on_marks": kept.on_marks,
            "instants": kept.instants,
            "named": kept.named,
            "stranger": kept.stranger,
            "unreadable": kept.unreadable,
        }
        path = self.folder / f"{kept.window.start}-{kept.window.end}.npz"
        for left in reversed(range(_TRIES)):
            try:
                self._write(path, kept, about)
            except _VANISHED:  # another run has stored the day, and forgotten it just now
                if not left:
                    raise StoreRefusedError(
                        f"cannot keep a fetched window: {self.folder} vanishes again and again, or is no folder"
                    ) from None
            else:
                return

    def _write(self, path: Path, kept: Kept, about: dict[str, object]) -> None:
        part = path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(
                    file,
                    about=np.frombuffer(json.dumps(about).encode(), np.uint8),
                    code=kept.chunk.code,
                    ms=kept.chunk.ms,
                    value=kept.chunk.value,
                    **_text_arrays(kept.chunk.texts),  # type: ignore[arg-type]  # savez names its flags like arrays
                )
            part.replace(path)
        except _VANISHED:
            raise
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreRefusedError(
                f"cannot keep a fetched window in {self.folder}: {error.strerror}",
                hint="free disk space, or set DAGSTER_HOME to a folder that this user may write to",
            ) from error

    def get(self, now: float) -> Iterator[Kept]:
        """The windows kept so far that are fresh and whole, in time order, none overlapping another.

        A file that is old, cut or of another form counts as not there.

        Args:
            now: Unix seconds.
        """
        end = 0
        for path in sorted(self.folder.glob("*.npz"), key=_start):
            kept = _read(path)
            if kept is not None and 0 <= now - kept.fetched_at <= FRESH_S and kept.window.start >= end:
                end = kept.window.end
                yield kept

    def discard(self) -> None:
        """Forget the day: its object is stored and verified."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(folder: Path, now: float) -> None:
    """Remove the days in `folder` in which nothing is fresh any more: no attempt would use them.

    Args:
        folder: where all spooled days live.
        now: Unix seconds.
    """
    for day in folder.glob("*"):
        try:
            latest = max((path.stat().st_mtime for path in day.iterdir()), default=day.stat().st_mtime)
        except OSError:
            continue  # another process is removing it at this moment
        if now - latest > FRESH_S:
            shutil.rmtree(day, ignore_errors=True)


def _text_arrays(rows: TextRows | None) -> dict[str, NDArray[np.generic]]:
    """Rows of texts as arrays of a window's file; none for a window without texts."""
    if rows is None:
        return {}
    encoded = [text.encode() for text in rows.texts]
    return {
        "text_code": rows.code,
        "text_ms": rows.ms,
        "text": rows.text,
        "text_sizes": np.array([len(one) for one in encoded], np.int64),
        "text_bytes": np.frombuffer(b"".join(encoded), np.uint8),
    }


def _text_rows(file: Mapping[str, NDArray[Any]]) -> TextRows | None:
    if "text" not in file:
        return None
    data, ends = file["text_bytes"].tobytes(), np.cumsum(file["text_sizes"]).tolist()
    texts = tuple(data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False))
    return TextRows(file["text_code"], file["text_ms"], file["text"], texts)


def _start(path: Path) -> int:
    start = path.stem.partition("-")[0]
    return int(start) if start.isdigit() else 0


def _read(path: Path) -> Kept | None:
    try:
        # A zip file: every array carries a checksum. Opened here, since numpy leaves a cut one open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            chunk = Chunk(file["code"], file["ms"], file["value"], _text_rows(file))
        counts = Counts(**about["counts"])
        if counts.left_out.get("not_numeric"):
            return None  # of a version that stored no texts: they have to be requested again
        if "named" not in about and counts.fetched and not len(chunk):
            return None  # of a version that did not ask whether its rows are of the site
        example = about.get("unreadable")
        return Kept(
            Window(about["start"], about["end"]),
            chunk,
            counts,
            about["fetched_at"],
            about["on_marks"],
            about["instants"],
            about.get("named", True),
            about.get("stranger"),
            (example[0], example[1]) if example else None,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
