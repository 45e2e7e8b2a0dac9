"""The files of a new `DAGSTER_HOME`, for an installation without the clone: `dagster.yaml` and `workspace.yaml`.

Both are copies of the files at the top of the project; a test compares them.

Put here: which files a home consists of, and how they are written. Keep out: what they mean.
"""

import os
from importlib.resources import files
from pathlib import Path

from backfill_pipeline.errors import UsageError

FILES = ("dagster.yaml", "workspace.yaml")

_ENV = """\
# Settings of this folder: see `backfill check`, and docs/settings.md for all of them.
ACE_API_KEY=
#ACE_SITES=my_site,another_site
BACKFILL_STORE=./data
"""


def text_of(name: str) -> str:
    """The text of one of `FILES`."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def write_home(folder: Path) -> list[Path]:
    """Write `dagster.yaml`, `workspace.yaml` and a `.env` with the settings to fill in; return the files written.

    A file that is there already stays as it is, so that the command can be repeated.

    Raises:
        UsageError: the folder cannot be written.
    """
    texts = {name: text_of(name) for name in FILES} | {".env": _ENV}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            try:
                # Only its user can read it: the key comes into .env.
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if name == ".env" else 0o644)
            except FileExistsError:
                continue
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            written.append(path)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be used: {error.strerror}", hint="name a folder in which this user can write"
        ) from None
    return written
