"""Alerts: what needs a person goes to a webhook, once; otherwise nothing is sent.

Put here: which failed run is one for a person, how a message leaves, and that it leaves once. Keep out: what in a
site's coverage is worth one (`coverage/findings.py`).
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import requests
from requests.utils import get_auth_from_url

from backfill_pipeline.core.day_retries import FAILED_RETRY_H
from backfill_pipeline.core.text import printable
from backfill_pipeline.orchestration.failures import STOPPED_BY
from backfill_pipeline.orchestration.history import ATTEMPT_TAG
from backfill_pipeline.settings import Settings

AGAIN_S = 24 * 3600
"""Seconds in which what was told is not told again."""

KEPT_S = 90 * 24 * 3600
"""Seconds for which it is remembered what was told."""

_TIMEOUT_S = 10
_LINE = 1000


class Alerts:
    """Sends alerts to `BACKFILL_ALERT_URL`, each once; sends nothing when it is not set.

    What was told is kept in `.dagster/alerts.json`.

    Args:
        settings: they name the URL and the private folder.
        log: takes a line when an alert cannot be sent.
        clock: Unix seconds.
    """

    def __init__(
        self, settings: Settings, log: Callable[[str], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = settings.alert_url.get_secret_value() if settings.alert_url else None
        self._file: Path = settings.private / "alerts.json"
        self._log = log
        self._clock = clock

    def send(self, kind: str, text: str, *, about: str, again_s: float = AGAIN_S, **facts: str) -> bool:
        """Send one alert unless it was sent before; whether it left now.

        Args:
            kind: `run failed`, `stopped`, `silent` or `fell`.
            text: one line for a person; chat services show it.
            about: what makes it the same alert as an earlier one, with `kind`.
            again_s: seconds after which it may be told again.
            facts: more for machines, such as `site`.
        """
        if self._url is None:
            return False
        name = hashlib.sha256(json.dumps([kind, about]).encode()).hexdigest()[:32]
        told, now = self._told(), self._clock()
        if now - told.get(name, float("-inf")) < again_s:
            return False
        text = printable(" ".join(text.split()))[:_LINE]
        try:
            self._post({"text": text, "kind": kind, **facts})
        except requests.RequestException as error:  # its text may hold the URL, which may be a secret
            status = "" if error.response is None else f" (HTTP {error.response.status_code})"
            self._log(f"the alert could not be sent to BACKFILL_ALERT_URL: {type(error).__name__}{status}: {text}")
            return False
        kept = {key: at for key, at in told.items() if now - at < KEPT_S} | {name: now}
        part = self._file.with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(self._file)
        return True

    def _post(self, message: dict[str, str]) -> None:
        """Send a message to the URL and to no other place, and wait for the status alone.

        Raises:
            requests.RequestException: it did not arrive. A redirect counts as such: it could lead the message anywhere.
        """
        url = self._url or ""
        own = get_auth_from_url(url)
        with requests.post(
            url,
            json=message,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
            stream=True,  # the body is not read, however long it is
            # Else a password of the user's ~/.netrc would be sent along.
            auth=own if any(own) else lambda request: request,
        ) as answer:
            answer.raise_for_status()
            if answer.status_code >= requests.codes.multiple_choices:
                raise requests.HTTPError("a redirect is not followed", response=answer)

    def _told(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(name): float(at) for name, at in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}


def tell_failed_run(alerts: Alerts, run: dg.DagsterRun, error: str, *, stopped: bool = False) -> bool:
    """Send the alert of a failed run that needs an operator; whether it was sent now.

    Args:
        alerts: sends it.
        run: the failed run.
        error: the message of the run's step.
        stopped: whether no further day could succeed. Otherwise a run that a sensor will launch again sends nothing.
    """
    if stopped:  # one refused key fails every run: one alert a day, not one for each run
        return alerts.send("stopped", error, about=error[:200], run_id=run.run_id)
    attempt = run.tags.get(ATTEMPT_TAG, "")
    if attempt.isdecimal() and int(attempt) <= len(FAILED_RETRY_H):
        return False
    # The same alert by its error, not by its run: a sensor may launch such a run every quarter of an hour.
    text = f"run {run.run_id[:8]} failed: {error}"
    return alerts.send("run failed", text, about=f"{run.job_name} {error[:500]}", run_id=run.run_id)


def failed_run_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that tells of failed runs; on when `BACKFILL_ALERT_URL` is set."""

    @dg.run_failure_sensor(
        name="alerts",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.alert_url else dg.DefaultSensorStatus.STOPPED,
        description="Tells BACKFILL_ALERT_URL of runs that failed for good, and of a refused key or store; each once.",
    )
    def alerts(context: dg.RunFailureSensorContext) -> None:
        sender, run = Alerts(settings, context.log.warning), context.dagster_run
        said = [context.failure_event.message or ""]
        for event in context.get_step_failure_events():
            data = event.step_failure_data
            ours = data.user_failure_data
            if ours is not None and STOPPED_BY in ours.metadata:
                tell_failed_run(sender, run, ours.description or "", stopped=True)
                return
            said.insert(0, (ours.description if ours else None) or (data.error.message if data.error else ""))
        tell_failed_run(sender, run, " ".join(said))

    return alerts
