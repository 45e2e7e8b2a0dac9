"""`backfill check`: checks of everything that a backfill needs.

Put here: the checks and their findings. Keep out: which values a setting accepts (`settings.py`), and whether stored
days are whole (`verify.py`).
"""

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient, key_id, open_client
from backfill_pipeline.control.output import echo
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.text import printable
from backfill_pipeline.errors import (
    BackfillError,
    KeyRefusedError,
    SettingError,
    ThrottledError,
    WaitTooLongError,
)
from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_verified, settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.store import Store

State = Literal["ok", "warn", "FAIL"]

CLOCK_WARN_S, CLOCK_FAIL_S = 30.0, 300.0
"""Seconds between this machine's clock and the API's: days become ready too early or too late, buckets refuse."""

LONGEST_S = 5.0
"""Seconds that `check` waits for a request at most; it reports a longer wait instead."""

ROOM_WARN, ROOM_FAIL = 5e9, 500e6
"""Free bytes: fetched pages are kept on disk, and Dagster's storage grows with every day."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        state: `ok`, `warn` or `FAIL`.
        name: what was checked.
        found: the result.
        next: what to do; empty when the state is `ok`.
        setting: whether a setting is wrong.
    """

    state: State
    name: str
    found: str
    next: str = ""
    setting: bool = False

    @property
    def line(self) -> str:
        """The finding for the terminal."""
        return printable(f"{self.state:4}  {self.name:10}  {self.found}{f' -> {self.next}' if self.next else ''}")


def checked(
    settings: Settings,
    *,
    daemon_is_alive: Callable[[], bool],
    free: Callable[[Path], float] = lambda folder: shutil.disk_usage(folder).free,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Check everything that a backfill needs; yield each finding at once. A failed check does not end the others.

    Args:
        settings: what to check.
        daemon_is_alive: whether Dagster's daemon sent a heartbeat lately.
        free: free bytes on the disk of a folder.
        now: Unix seconds.
    """
    yield Finding("ok", "settings", f"read; store {settings.store}, home {settings.home}")
    for exposure in exposed_secrets(settings):
        yield Finding("warn", "secrets", exposure.found, exposure.hint)
    budget = list(_tried("budget", "check BACKFILL_LIMITER", lambda: _budget(settings)))
    yield from budget
    if _failed(budget):
        yield Finding(
            "FAIL",
            "key",
            "not checked, since no request may be sent without the request budget",
            "fix the budget first",
        )
    else:
        yield from _api(settings, now)
    yield from _tried("store", "check BACKFILL_STORE", lambda: _store(settings_store(settings)))
    yield from _tried("daemon", "start it with `backfill up`", lambda: _daemon(daemon_is_alive))
    folders = {"disk home": settings.private}
    try:
        store = settings_store(settings)
    except BackfillError:
        store = None  # reported above
    if isinstance(store, LocalStore):
        folders["disk store"] = store.folder
    for name, folder in folders.items():
        yield from _tried(name, "free disk space", lambda name=name, folder=folder: _room(name, folder, free))  # type: ignore[misc]


def run_check(settings: Settings, *, as_json: bool) -> int:
    """Run the command: print each finding, return the exit code."""

    def daemon_is_alive() -> bool:
        from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - Dagster takes long to import

        return Gateway(settings).daemon_is_alive()

    findings = []
    for finding in checked(settings, daemon_is_alive=daemon_is_alive):
        findings.append(finding)
        if not as_json:
            echo(finding.line)
    if as_json:
        echo(json.dumps({"ready": not _failed(findings), "checks": [asdict(finding) for finding in findings]}))
    if any(finding.setting for finding in findings):
        return 2
    return 1 if _failed(findings) else 0


def _failed(findings: list[Finding]) -> bool:
    return any(finding.state == "FAIL" for finding in findings)


def _tried(name: str, todo: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    """Yield what `look` finds. An error is a finding too: its hint is what to do, or else `todo`."""
    try:
        yield look()
    except WaitTooLongError as error:
        yield Finding("warn", name, f"not checked: {error}", f"check again in {error.seconds:.0f} s")
    except ThrottledError as error:
        yield Finding("warn", name, str(error), "check again later; runs wait and continue")
    except BackfillError as error:
        found = " ".join(error.message.split())
        yield Finding("FAIL", name, found, error.hint or todo, setting=isinstance(error, SettingError))
    except OSError as error:
        yield Finding("FAIL", name, f"{error.strerror or type(error).__name__}: {error.filename}", todo)
    except Exception as surprise:  # noqa: BLE001 - the other checks run whatever happens in one
        yield Finding("FAIL", name, f"unexpected error: {type(surprise).__name__}", todo)


def _budget(settings: Settings) -> Finding:
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    settings.make_private()
    budget = open_budget(settings.limiter_url, key_id=key_id(key), per_minute=settings.requests_per_minute)
    wait, paused = budget.wait_now(), budget.paused()
    kind = settings.limiter_url.partition("://")[0]
    found = f"{settings.requests_per_minute} requests a minute, kept in {kind}; a request would wait {wait:.0f} s now"
    if wait <= LONGEST_S:
        return Finding("ok", "budget", found)
    why = "the API requested a pause" if paused else "the budget of this minute is used"
    return Finding("warn", "budget", f"{found}: {why}", f"check again in {wait:.0f} s; runs wait and continue")


def _api(settings: Settings, now: Callable[[], float]) -> Iterator[Finding]:
    """Check the API key, the clock and each site."""
    try:
        backoff = Backoff(tries=2, first_s=1, longest_s=LONGEST_S)
        client = open_client(settings, backoff=backoff, longest_s=LONGEST_S)
    except BackfillError as error:
        refusal = error

        def refuse() -> Finding:
            raise refusal

        yield from _tried("key", "set ACE_API_KEY", refuse)
        return
    listed: list[str] = []
    refused = False

    def look_at_key() -> Finding:
        nonlocal refused
        try:
            listed.extend(site.name for site in client.sites())
        except KeyRefusedError:
            refused = True
            raise
        if not listed:
            return Finding("warn", "key", "accepted, with no site that is not archived", "ask ACE for access to a site")
        return Finding("ok", "key", f"accepted by {settings.api_url}, {len(listed)} sites")

    yield from _tried("key", "check ACE_API_URL and the network", look_at_key)
    yield from _tried("clock", "check ACE_API_URL and the network", lambda: _clock(client, now))
    if refused:
        yield Finding("FAIL", "sites", "not checked, since the API key is refused", "set ACE_API_KEY, then check again")
        return
    for site in settings.sites or listed:
        yield from _tried(f"site {site}", "check ACE_SITES", lambda site=site: _site(client, site))  # type: ignore[misc]


def _site(client: AceClient, site: str) -> Finding:
    points = client.configured_points(site)
    if not points.names:
        todo = "have its points configured and collect-enabled in ACE, or leave the site out of ACE_SITES"
        return Finding(
            "warn", f"site {site}", "known, but none of its points is collect-enabled, so no row would be stored", todo
        )
    every = f", configured for one sample every {points.interval_s:.0f} s" if points.interval_s else ""
    return Finding("ok", f"site {site}", f"{len(points.names):,} points configured and collect-enabled{every}")


def _clock(client: AceClient, now: Callable[[], float]) -> Finding:
    ahead = client.clock_ahead(now)
    if ahead is None:
        return Finding(
            "warn", "clock", "the API sends no time to compare with", "check that this machine synchronises its clock"
        )
    apart = abs(ahead)
    found = f"{apart:.0f} s {'ahead of' if ahead > 0 else 'behind'} the API's"
    if apart <= CLOCK_WARN_S:
        return Finding("ok", "clock", found)
    return Finding("FAIL" if apart > CLOCK_FAIL_S else "warn", "clock", found, "set this machine's clock, in UTC")


def _store(store: Store) -> Finding:
    """Store an object as a day is stored, read it back and delete it, under a key that no day has."""
    key = f"backfill-check-{uuid.uuid4().hex}"
    data = key.encode()
    is_whole = put_verified(store, key, data).is_whole
    try:
        is_whole = is_whole and store.get(key) == data and key in [stat.key for stat in store.list(key)]
    except FileNotFoundError:
        is_whole = False
    if not is_whole:
        todo = "report this to the operator of the store: days would fail in the same way"
        return Finding("FAIL", "store", f"{store.url(key)} does not match what was written", todo)
    try:
        store.delete(key)
        why = f"{store.url(key)} is still there after a delete" if store.head(key) is not None else ""
    except BackfillError as error:
        why = error.message
    if why:
        todo = "delete it by hand; a backfill does not need this right"
        return Finding("warn", "store", f"written and read back, but {why}", todo)
    return Finding("ok", "store", f"{store.url('')}: an object was written, read back, listed and deleted")


def _daemon(is_alive: Callable[[], bool]) -> Finding:
    if is_alive():
        return Finding("ok", "daemon", "running")
    return Finding("FAIL", "daemon", "not running, so no day would be fetched", "start it with `backfill up`")


def _room(name: str, folder: Path, free: Callable[[Path], float]) -> Finding:
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    room = free(there)
    found = f"{room / 1e9:,.1f} GB free for {folder}"
    if room >= ROOM_WARN:
        return Finding("ok", name, found)
    return Finding("FAIL" if room < ROOM_FAIL else "warn", name, found, "free disk space, or choose another disk")
