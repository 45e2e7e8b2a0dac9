"""URLs of the package `apprise`: e-mail, Teams, Slack and further services for alerts.

Put here: whether such a URL is valid, and how a text is sent to it. Keep out: which alerts are sent
(`orchestration/alerts.py`), and plain webhooks, which need no package.
"""

import importlib.util
import logging
import warnings
from typing import Any


def is_installed() -> bool:
    """Whether the package is installed: the extra `alerts`."""
    return importlib.util.find_spec("apprise") is not None


def is_valid(url: str) -> bool:
    """Whether the package accepts a URL; no connection is opened."""
    return is_installed() and _service(url) is not None


def send_text(url: str, title: str, text: str, timeout_s: float) -> bool:
    """Send a text to the service of a URL; whether the service accepted it.

    Args:
        url: a valid URL of the package.
        title: the subject, for services that have one.
        text: plain text.
        timeout_s: seconds after which the service counts as not reached.
    """
    service = _service(url)
    if service is None:
        return False
    import apprise  # noqa: PLC0415 - an extra

    services = apprise.Apprise()
    services.add(service)
    return bool(services.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT, timeout=timeout_s))


def _service(url: str) -> Any:
    """The service of a URL; None when the package does not accept it."""
    import apprise  # noqa: PLC0415 - an extra

    # Its log lines may contain the URL, which may be a secret.
    logging.getLogger("apprise").disabled = True
    # A redirect could lead the message anywhere, as for a webhook.
    asset = apprise.AppriseAsset(http_redirects=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its imports
        return apprise.Apprise.instantiate(url, asset=asset)
