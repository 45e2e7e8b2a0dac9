"""Command lines that messages suggest, quoted so that an operator can copy them into a shell.

Put here: the command lines of messages. Keep out: what the commands do (`control/`).
"""

import os
import shlex
import subprocess
from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta
from typing import Any

MOST_SITES = 20
"""The most sites that a command names. With more, `--site` is left out, and the command uses all of `ACE_SITES`."""


def shell_line(words: Sequence[str]) -> str:
    """Join words into a command line, quoted for this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def range_words(site_days: Iterable[tuple[str, date]], all_sites: Collection[str] = ()) -> list[str]:
    """The options `--from`, `--to` and `--site` that cover some site-days.

    Args:
        site_days: one or more site-days.
        all_sites: the sites of ACE_SITES. `--site` is left out if the days belong to all of these sites, or to more
            than `MOST_SITES`.
    """
    pairs = list(site_days)
    days = [day for _, day in pairs]
    sites = sorted({site for site, _ in pairs})
    named = [word for site in sites for word in ("--site", site)]
    if all_sites and (len(sites) > MOST_SITES or set(sites) == set(all_sites)):
        named = []
    return ["--from", str(min(days)), "--to", str(max(days)), *named]


def named_days(site_days: Iterable[tuple[str, date]], most: int = 5) -> str:
    """List site-days as text, such as `north 2025-03-04 to 2025-03-30, south 2025-03-05`.

    Args:
        site_days: the site-days.
        most: the most ranges of days that are listed; the remaining days are counted.
    """
    spans: list[list[Any]] = []
    for site, day in sorted(site_days):
        if spans and spans[-1][0] == site and day - spans[-1][2] == timedelta(days=1):
            spans[-1][2] = day
        else:
            spans.append([site, day, day])
    named = [f"{site} {first}" + (f" to {last}" if last > first else "") for site, first, last in spans[:most]]
    left = sum((last - first).days + 1 for _, first, last in spans[most:])
    return ", ".join(named) + (f" and {left} more" if left else "")


def repair_command(
    site_days: Iterable[tuple[str, date]], all_sites: Collection[str] = (), *, deep: bool = False
) -> str:
    """The command that fetches missing and damaged days again.

    Args:
        site_days: the days.
        all_sites: the sites of ACE_SITES.
        deep: whether only a check of all rows finds the damage.
    """
    words = ["backfill", "verify", *range_words(site_days, all_sites), *(["--deep"] if deep else []), "--repair"]
    return shell_line(words)


def start_command(site_days: Iterable[tuple[str, date]], all_sites: Collection[str] = ()) -> str:
    """The command that fetches the days that are not stored."""
    return shell_line(["backfill", "start", *range_words(site_days, all_sites)])
