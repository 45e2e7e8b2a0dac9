"""Secrets that others can read: a key that crosses the network unencrypted, a `.env` file with open permissions.

Put here: what is looked at, and the sentence for it. Keep out: who reports it (`check`, `up`, `start` and each run).
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from backfill_pipeline.core.loopback import is_loopback
from backfill_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Exposure:
    """A secret that others can read or change.

    Attributes:
        found: what is wrong.
        hint: what to do.
    """

    found: str
    hint: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.found}. {self.hint[:1].upper()}{self.hint[1:]}"


def exposed_secrets(settings: Settings, *, folder: Path | None = None) -> list[Exposure]:
    """List what exposes a secret of these settings.

    Args:
        settings: the settings.
        folder: where `.env` is; the working directory when None, as for `Settings.load`.
    """
    return [*_key_in_the_clear(settings), *_open_file((folder or Path.cwd()) / ".env")]


def _key_in_the_clear(settings: Settings) -> list[Exposure]:
    parts = urlsplit(settings.api_url)
    if settings.api_key is None or parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return []
    found = f"ACE_API_URL begins with http://, so that the API key crosses the network to {parts.hostname} unencrypted"
    return [Exposure(found, "write https:// instead")]


def _open_file(path: Path) -> list[Exposure]:
    """A file whose mode lets the group or others in. Windows has other rights, which its users inherit."""
    if os.name == "nt":
        return []
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []
    verbs = [verb for verb, bits in (("read", 0o044), ("changed", 0o022)) if mode & bits]
    if not verbs:
        return []
    found = f"{path.absolute()} can be {' and '.join(verbs)} by other users of this machine (mode {mode:04o})"
    return [Exposure(found, f"run `chmod 600 {path.name}` there")]
