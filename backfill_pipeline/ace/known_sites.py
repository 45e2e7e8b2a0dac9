"""The sites of a key as the API listed them last, kept on disk: a run that starts during an outage knows them.

Put here: how the list is kept. Keep out: when it is used (`orchestration/build.py`).
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path


class KnownSites:
    """The last list of a key's sites.

    Args:
        folder: where it is kept.
        source: whose list it is: the API's address and a fingerprint of the key.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._path = folder / f"sites-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"

    def keep(self, sites: Sequence[str]) -> None:
        """Keep a list. A disk that refuses costs the list only."""
        if tuple(sites) == self.read():
            return
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(list(sites)), "utf-8")
            part.replace(self._path)

    def read(self) -> tuple[str, ...]:
        """The list that is kept; empty when there is none that can be read."""
        try:
            sites = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return ()
        return tuple(sites) if isinstance(sites, list) and all(isinstance(site, str) for site in sites) else ()
