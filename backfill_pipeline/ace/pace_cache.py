"""What a site's answers have taught, kept on disk for the next run: page size, density, windows at once.

A hint and no more: without it a run learns it all anew, in some pages. Put here: how it is kept. Keep out: what is
learnt (`core/windows.py`).
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from backfill_pipeline.core.windows import SitePace

FRESH_S = 7 * 24 * 3600
"""What was learnt longer ago than this, in seconds, is left: the API, or the site, may be another by now."""


def recall(folder: Path, source: str, pace: SitePace, now: float) -> None:
    """Let `pace` start with what is kept, if that is fresh and whole.

    Args:
        folder: where it is kept.
        source: whose answers they were: the API's address and the site.
        pace: how the site is asked.
        now: Unix seconds.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        kept = json.loads(_path(folder, source).read_bytes())
        if isinstance(kept, dict) and 0 <= now - float(kept.get("at", 0)) <= FRESH_S:
            pace.recall(kept)


def keep(folder: Path, source: str, known: Mapping[str, float], now: float) -> None:
    """Keep what a pace has `learnt()`. A disk that refuses, or a file cut by a death, costs the hint only."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _path(folder, source).write_text(json.dumps({"at": now, **known}), "utf-8")


def _path(folder: Path, source: str) -> Path:
    return folder / f"pace-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"
