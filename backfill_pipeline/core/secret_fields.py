"""The filter that keeps secrets out of stored descriptions.

The points' catalogue and the snapshots store the API's descriptions of points, sites and gateways. Only fields of a
list of allowed fields are stored. This filter then removes fields whose name or text looks like a secret.

Put here: which names and texts look like a secret. Keep out: the lists of allowed fields (`core/point_catalogue.py`,
`core/snapshots.py`).
"""

import re
from functools import lru_cache
from typing import Any

SECRET_NAME = re.compile(
    r"token|secret|passw|pwd|passphrase|credential|private|auth(?!or)|api_?key|access_?key|bearer|cookie|session"
    r"|(^|_)(ssh|shared|encryption)_?key|^key$|(^|_)(user|username|login|vpn|ssh|psk|pin|mac|contact|interfaces)(_|$)"
    r"|ansible|vtron|(^|_)blob$|deploy_config|(mgmt|management)_?(ip|address|net)"
)
"""Names of fields that are never stored, at any depth: secrets, users, addresses of management networks.

Names are compared in lower case with words separated by underscores: `vpnIp` and `VPN-IP` become `vpn_ip`.
"""

SECRET_VALUE = re.compile(
    r"(?i)eyJ[\w-]{6,}\.[\w-]{6,}|-----BEGIN|\bbearer\s+\S{8,}|://[^/\s:@]+:[^/\s@]+@|\b(AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|(passw(or)?d|passphrase|pwd|secret|token|(api|access|private|shared)[_-]?key)[\\\"']*\s*[:=]\s*[\\\"']*[^\s\\\"']{3,}"
)
"""Texts that are never stored: JSON web tokens, keys in PEM form, bearer headers, URLs with a password, access keys,
and texts that contain the name and the value of a secret, such as JSON inside a text."""

DEEPEST = 40
"""The most levels of nested lists and objects that are stored of a field; ACE's fields have two."""

_SHORTEST_SECRET, _CACHED_TEXT = 7, 80
"""Characters of the shortest text that `SECRET_VALUE` can find, and of the texts whose finding is worth a cache."""

_CONFIGURATION_NAME = re.compile(r"community|passcode|certificate|(^|_)(wpa|otp|salt|vip)(_|$)|key$")
_CONFIGURATION_TEXT = re.compile(
    r"(?i:token|secret|passw|passphrase|passcode|credential|private|api[_-]?key|server_?key|public_?key)"
    r"|\b[0-9a-fA-F]{32,}\b|\b(?=\w*[a-z])(?=\w*[A-Z])(?=\w*\d)[\w+/=-]{32,}"
)

_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9_]+")


def without_secrets(value: Any, depth: int = 0) -> Any:
    """A JSON value without the fields that look like a secret, at any depth."""
    if isinstance(value, str):
        return None if is_secret_text(value) else value
    if not isinstance(value, dict | list):
        return value
    if depth == DEEPEST:
        return f"(nested deeper than {DEEPEST} levels)"
    if isinstance(value, dict):
        kept = ((str(key), one) for key, one in value.items() if not (is_secret_name(str(key)) or is_secret_text(one)))
        return {key: one if isinstance(one, str) else without_secrets(one, depth + 1) for key, one in kept}
    return [
        one if isinstance(one, str) else without_secrets(one, depth + 1) for one in value if not is_secret_text(one)
    ]


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a field with this name is never stored."""
    return SECRET_NAME.search(_in_words(name)) is not None or SECRET_VALUE.search(name) is not None


def is_secret_text(value: object) -> bool:
    """Whether a value is a text that is never stored."""
    if not isinstance(value, str) or len(value) < _SHORTEST_SECRET:
        return False
    return _is_secret_short(value) if len(value) < _CACHED_TEXT else SECRET_VALUE.search(value) is not None


@lru_cache(maxsize=4096)
def _is_secret_short(text: str) -> bool:
    return SECRET_VALUE.search(text) is not None


def may_contain_secret(value: Any, depth: int = 0) -> bool:
    """Whether a configuration of unknown form may contain a secret, at any depth.

    Stricter than `without_secrets`: no list of allowed fields describes a configuration. A long text of mixed letters
    and digits, and a text that names a password, count as secrets. So does everything below `DEEPEST` levels.
    """
    if not isinstance(value, dict | list):
        return is_secret_text(value) or (isinstance(value, str) and _CONFIGURATION_TEXT.search(value) is not None)
    if depth == DEEPEST or (isinstance(value, dict) and any(map(_is_suspicious_name, map(str, value)))):
        return True
    return any(may_contain_secret(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))


def _is_suspicious_name(name: str) -> bool:
    words = _in_words(name)
    found = (_CONFIGURATION_NAME.search(words), _CONFIGURATION_TEXT.search(name), _CONFIGURATION_TEXT.search(words))
    return is_secret_name(name) or any(found)


def _in_words(name: str) -> str:
    """The name in lower case, its words separated by underscores."""
    return _WORD_BORDER.sub("_", name).lower()
