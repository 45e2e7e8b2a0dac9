"""The file `.env`: lines NAME=VALUE.

Put here: how the file is read, and which of its variables libraries get. Keep out: what a variable means
(`settings.py`).
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from backfill_pipeline.errors import SettingError

_FOR_LIBRARIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"}
"""Variables that libraries read, in addition to `AWS_...`; proxies also in lower case."""


def read_env_file(path: Path) -> dict[str, str | None]:
    """Read the variables of a `.env` file; empty when there is no file.

    Raises:
        SettingError: the file cannot be read, or a line is not NAME=VALUE. The line is not shown: it may be a secret.
    """
    try:
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8") as file:
            lines = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingError(f"{path} cannot be read ({why})", hint="make it a text file of lines NAME=VALUE") from None
    wrong = next((line.original.line for line in lines if line.error), None)
    if wrong is not None:
        raise SettingError(
            f"{path}, line {wrong}: the line is not NAME=VALUE",
            hint="write NAME=VALUE, or begin the line with #",
        )
    return {line.key: line.value for line in lines if line.key is not None}


def export_for_libraries(file: Mapping[str, str | None], *, ours: Collection[str | None]) -> None:
    """Add variables of `.env` that libraries read to the environment, unless they are set there.

    Args:
        file: the variables of the file.
        ours: variables that this project reads itself.
    """
    for name, value in file.items():
        is_theirs = name.startswith("AWS_") or name.upper() in _FOR_LIBRARIES
        is_set = any(os.environ.get(spelt) for spelt in (name, name.lower(), name.upper()))
        if value and is_theirs and name not in ours and not is_set:
            os.environ[name] = value
