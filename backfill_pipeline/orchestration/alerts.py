"""Alerts: each event that needs an operator is sent once to `BACKFILL_ALERT_URL`.

Put here: which failed run needs an operator, what its alert contains, and how alerts are sent. Keep out: which findings
about a site's coverage are alerts (`coverage/findings.py`), and the services of `apprise` (`apprise_urls.py`).
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dagster as dg
import requests
from requests.utils import get_auth_from_url

from backfill_pipeline import apprise_urls
from backfill_pipeline.core.day_retries import FAILED_RETRY_H
from backfill_pipeline.core.text import printable
from backfill_pipeline.orchestration.failures import FAILED, FETCH_AGAIN, STOPPED_BY, DayError, failed_days
from backfill_pipeline.orchestration.history import ATTEMPT_TAG
from backfill_pipeline.orchestration.ui_links import day_url, run_url
from backfill_pipeline.settings import Settings

AGAIN_S = 24 * 3600
"""Seconds in which the same alert is not sent again."""

KEPT_S = 90 * 24 * 3600
"""Seconds for which sent alerts are recorded."""

_TIMEOUT_S = 10
_LINE = 1000
_LINKED_DAYS = 10
_SHOWN_ERRORS = 3


Facts = Mapping[str, str | list[str]]
"""Fields of a message."""


class Alerts:
    """Sends alerts to `BACKFILL_ALERT_URL`, each once; sends nothing when it is not set.

    Sent alerts are recorded in `.dagster/alerts.json`.

    Args:
        settings: they name the URL and the private folder.
        log: gets a warning when an alert cannot be sent.
        clock: Unix seconds.
    """

    def __init__(self, settings: Settings, log: logging.Logger, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._url = settings.alert_url.get_secret_value() if settings.alert_url else None
        self._file: Path = settings.private / "alerts.json"
        self._log = log
        self._clock = clock

    def send(self, kind: str, text: str, *, about: str, again_s: float = AGAIN_S, facts: Facts | None = None) -> bool:
        """Send one alert unless it was sent before; whether it was sent now.

        Args:
            kind: `run failed`, `stopped`, `silent` or `fell`.
            text: one line; chat services show it. It is cut after 1,000 characters.
            about: what makes it the same alert as an earlier one, with `kind`.
            again_s: seconds after which it may be sent again.
            facts: further fields of the message, such as `site`.
        """
        if self._url is None:
            return False
        name = hashlib.sha256(json.dumps([kind, about]).encode()).hexdigest()[:32]
        sent, now = self._sent(), self._clock()
        if now - sent.get(name, float("-inf")) < again_s:
            return False
        text = printable(" ".join(text.split()))[:_LINE]
        why_not = self._deliver(kind, text, facts or {})
        if why_not is not None:
            self._log.warning(f"the alert could not be sent to BACKFILL_ALERT_URL: {why_not}: {text}")
            return False
        kept = {key: at for key, at in sent.items() if now - at < KEPT_S} | {name: now}
        part = self._file.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(self._file)
        return True

    def _deliver(self, kind: str, text: str, facts: Facts) -> str | None:
        """Send a message; return why it could not be sent, without the URL, which may be a secret."""
        url = self._url or ""
        if not url.startswith(("http://", "https://")):
            lines = [text, *(f"{name}: {_listed(value)}" for name, value in facts.items())]
            sent = apprise_urls.send_text(url, f"backfill: {kind}", "\n".join(map(printable, lines)), _TIMEOUT_S)
            return None if sent else f"{url.partition('://')[0]} did not accept it"
        try:
            _post(url, {"text": text, "kind": kind, **facts})
        except requests.RequestException as error:  # its text may contain the URL
            status = "" if error.response is None else f" (HTTP {error.response.status_code})"
            return f"{type(error).__name__}{status}"
        return None

    def _sent(self) -> dict[str, float]:
        """When each recorded alert was sent."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(name): float(at) for name, at in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


def _listed(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _post(url: str, message: Facts) -> None:
    """Send a message to the URL and to no other place, and wait for the status alone.

    Raises:
        requests.RequestException: it did not arrive. A redirect counts as such: it could lead the message anywhere.
    """
    own = get_auth_from_url(url)
    with requests.post(
        url,
        json=message,
        timeout=_TIMEOUT_S,
        allow_redirects=False,
        stream=True,  # the body is not read, however long it is
        # Otherwise a password of the user's ~/.netrc would be sent along.
        auth=own if any(own) else lambda request: request,
    ) as answer:
        answer.raise_for_status()
        if answer.status_code >= requests.codes.multiple_choices:
            raise requests.HTTPError("a redirect is not followed", response=answer)


def send_failed_run(
    alerts: Alerts,
    run: dg.DagsterRun,
    error: str,
    *,
    stopped: bool = False,
    failed: Sequence[DayError] = (),
    command: str = "",
) -> bool:
    """Send the alert of a failed run that needs an operator; whether it was sent now.

    Args:
        alerts: sends it.
        run: the failed run.
        error: the message of the run's step.
        stopped: whether no further day could succeed. Otherwise a run that a sensor will launch again sends nothing.
        failed: the failed site-days.
        command: the command line that fetches them again.
    """
    link = run_url(alerts.settings, run.run_id)
    facts: dict[str, str | list[str]] = {"run_id": run.run_id, "run_url": link}
    if failed:
        facts["sites"] = sorted({one.site for one in failed})
        facts["days"] = sorted({one.day for one in failed})
        facts["day_urls"] = [day_url(alerts.settings, one.site, one.day) for one in failed[:_LINKED_DAYS]]
    if command:
        facts["command"] = command
    if stopped:  # a refused key fails every run: one alert a day, not one for each run
        return alerts.send("stopped", f"{error} Run: {link}", about=error[:200], facts=facts)
    attempt = run.tags.get(ATTEMPT_TAG, "")
    if attempt.isdecimal() and int(attempt) <= len(FAILED_RETRY_H):
        return False
    # The same alert by its error, not by its run: a sensor may launch such a run every quarter of an hour.
    text, about = f"run {run.run_id[:8]} failed", f"{run.job_name} {error[:500]}"
    if command:  # what to do comes first: the text is cut
        errors = "; ".join(f"{one.site} {one.day} ({one.error_type}: {one.text})" for one in failed[:_SHOWN_ERRORS])
        more = f"; and {len(failed) - _SHOWN_ERRORS} more" if len(failed) > _SHOWN_ERRORS else ""
        text = f"{text}. To fetch its failed days again, run: {command} . Details: {link} . Failed: {errors}{more}"
        return alerts.send("run failed", text, about=about, facts=facts)
    return alerts.send("run failed", f"{text}: {error} Details: {link}", about=about, facts=facts)


def failed_run_sensor(settings: Settings) -> dg.SensorDefinition:
    """Define the sensor that sends alerts of failed runs; it is on when `BACKFILL_ALERT_URL` is set."""

    @dg.run_failure_sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.alert_url else dg.DefaultSensorStatus.STOPPED,
        description="Sends to BACKFILL_ALERT_URL the runs that will not be retried, and a refused key or store; each "
        "once.",
    )
    def alerts(context: dg.RunFailureSensorContext) -> None:
        sender, run = Alerts(settings, context.log), context.dagster_run
        messages = [context.failure_event.message or ""]
        failed: list[DayError] = []
        command = ""
        for event in context.get_step_failure_events():
            data = event.step_failure_data
            ours = data.user_failure_data
            metadata = ours.metadata if ours is not None else {}
            failed += failed_days(metadata.get(FAILED))
            command = str(metadata[FETCH_AGAIN].value) if FETCH_AGAIN in metadata else command
            if ours is not None and STOPPED_BY in metadata:
                send_failed_run(sender, run, ours.description or "", stopped=True, failed=failed, command=command)
                return
            messages.insert(0, (ours.description if ours else None) or (data.error.message if data.error else ""))
        send_failed_run(sender, run, " ".join(messages), failed=failed, command=command)

    return alerts
