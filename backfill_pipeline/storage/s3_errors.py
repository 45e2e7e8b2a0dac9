"""Errors of a bucket: from botocore's exceptions to the errors of this project.

Put here: what each refusal and each failed transfer means, and what to do. Keep out: requests (`s3.py`), and why a
connection failed (`core/transport_faults.py`).
"""

from collections.abc import Collection
from typing import Literal

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from backfill_pipeline.core.transport_faults import SETTINGS_FAULTS, FaultKind, TransportFault, classify, redirect_fault
from backfill_pipeline.errors import BackfillError, StoreBusyError, StoreRefusedError

Right = Literal["list", "read", "write", "delete"]

DENIED = frozenset({"AccessDenied", "AllAccessDisabled"})
BROKEN = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "XAmzContentChecksumMismatch"})
"""Codes of a body that was damaged on the way."""

_ACTIONS: dict[Right, str] = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "429"}
_BUSY = {"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
_REDIRECTS = {"PermanentRedirect", "TemporaryRedirect", "Redirect", "301", "302", "303", "307", "308"}
_UNREACHED = {FaultKind.DNS, FaultKind.REFUSED, FaultKind.UNREACHABLE}
_PASSING = {FaultKind.RESET, FaultKind.TIMEOUT, FaultKind.CUT}

_NAME = ("no bucket can have this name", "check BACKFILL_STORE")
_EXPIRED = ("the credentials have expired", "renew them")
_CLOCK = ("this machine's clock is wrong", "set the clock, then try again")
_FULL = ("the store is full", "free some room")
_REGION = ("the region does not fit", "check AWS_REGION (`auto` for R2)")
_REFUSED = {
    "NoSuchBucket": ("there is no such bucket", "check BACKFILL_STORE and AWS_ENDPOINT_URL_S3"),
    "InvalidBucketName": _NAME,
    "Unauthorized": (
        "the store does not accept the credentials",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "InvalidAccessKeyId": ("the store does not know this access key", "check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": ("the secret does not fit the access key", "check AWS_SECRET_ACCESS_KEY"),
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": ("the session token is wrong", "check AWS_SESSION_TOKEN"),
    "AuthorizationHeaderMalformed": _REGION,
    "InvalidRegionName": _REGION,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
}
_SHOWN = 160
"""Characters of the store's own message that are shown."""


def code_of(error: ClientError) -> str:
    """The error's name; its HTTP status when it has none."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: ClientError) -> int:
    """The HTTP status; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_known(code: str) -> bool:
    """Whether the code names a cause that has nothing to do with a request's headers."""
    return code.isdecimal() or code in _THROTTLED | _BUSY | BROKEN | DENIED | _REDIRECTS | _REFUSED.keys()


def store_error(
    error: Exception,
    what: str,
    *,
    endpoint: str,
    right: Right,
    secrets: Collection[str] = (),
    has_answered: bool = False,
) -> BackfillError:
    """Translate an exception of botocore.

    Args:
        error: the exception.
        what: what failed, such as `cannot store s3://bucket/key`.
        endpoint: the address that the request was sent to.
        right: the right that the request needs.
        secrets: texts that must not be shown.
        has_answered: whether the store has answered this process before. If so, an endpoint that cannot be reached is
            an outage and not a wrong setting.

    Returns:
        `StoreBusyError` where trying again may help, `StoreRefusedError` where it cannot.
    """
    if isinstance(error, ClientError):
        return _refusal(error, what, endpoint, right, secrets)
    if isinstance(error, CredentialRetrievalError | SSOError | TokenRetrievalError):
        found = f"the credentials are not available, or have expired ({type(error).__name__})"
        return StoreRefusedError(f"{what}: {found}", hint="renew them")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return StoreRefusedError(f"{what}: no credentials", hint=hint)
    if isinstance(error, ParamValidationError):
        return StoreRefusedError(f"{what}: {_NAME[0]}", hint=_NAME[1])
    if isinstance(error, BotoCoreError):
        return _transfer(_fault(error), what, endpoint, has_answered=has_answered)
    return StoreRefusedError(
        f"{what}: {endpoint} answers, but not as S3 does", hint="check AWS_ENDPOINT_URL_S3"
    )  # ResponseParserError


UNDERSTOOD = (ClientError, BotoCoreError, ResponseParserError)
"""What `store_error` translates."""


def _refusal(  # noqa: PLR0911 - a table of codes, in order
    error: ClientError, what: str, endpoint: str, right: Right, secrets: Collection[str]
) -> BackfillError:
    code, own = code_of(error), _own_words(error, secrets)
    if code in _THROTTLED:
        return StoreBusyError(f"{what}: the store asks to slow down ({code})", hint="start again later")
    if code in _BUSY:
        return StoreBusyError(f"{what}: the store is busy ({code})", hint="start again later")
    if code in BROKEN:
        return StoreBusyError(f"{what}: the object was damaged on the way ({code})", hint="start again")
    if code in DENIED:
        more = "" if own.rstrip(".").lower() in ("", "access denied", "accessdenied") else f" ({own})"
        return StoreRefusedError(
            f"{what}: the access key has no right to {right}{more}",
            hint=f"give the key the right to {right} in this bucket ({_ACTIONS[right]})",
        )
    if code in _REDIRECTS:
        return _redirect(error, what, endpoint)
    if code == "407":
        return _transfer(TransportFault(FaultKind.PROXY_REFUSED, "HTTP 407"), what, endpoint)
    if code in _REFUSED:
        found, hint = _REFUSED[code]
        return StoreRefusedError(f"{what}: {found}", hint=hint)
    if code.isdecimal():
        found = f"{endpoint} answers HTTP {code}, but not as S3 does"
        return StoreRefusedError(f"{what}: {found}", hint="check AWS_ENDPOINT_URL_S3")
    return StoreRefusedError(f"{what}: refused ({code}{f': {own}' if own else ''})")


def _redirect(error: ClientError, what: str, endpoint: str) -> BackfillError:
    """A redirect, by the `Location` header, or by the endpoint or the region that S3 names instead."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named = error.response.get("Error", {}).get("Endpoint")
    location = headers.get("location") or (f"//{named}" if named else None)
    region = headers.get("x-amz-bucket-region")
    fault = redirect_fault(location)
    where = f"; the bucket is in region {region}" if region else ""
    return StoreRefusedError(
        f"{what}: {endpoint}: {fault.found}{where}",
        hint="set AWS_ENDPOINT_URL_S3 to the bucket's own address, and AWS_REGION to its region",
    )


def _fault(error: BotoCoreError) -> TransportFault:
    """Why a transfer failed; a connection that a reachable proxy cut is a cut connection."""
    inner = getattr(error.kwargs.get("error"), "original_error", None)
    cut = classify(inner) if isinstance(inner, Exception) else None
    return cut if cut is not None and cut.kind in _PASSING else classify(error)


def _transfer(fault: TransportFault, what: str, endpoint: str, *, has_answered: bool = False) -> BackfillError:
    hint = fault.hint(url="AWS_ENDPOINT_URL_S3", ca="AWS_CA_BUNDLE", http=endpoint.startswith("http://"))
    if fault.kind in _UNREACHED and has_answered:
        return StoreBusyError(f"{what}: no connection to {endpoint}: {fault.found}", hint="start again later")
    if fault.kind in SETTINGS_FAULTS | _UNREACHED:
        return StoreRefusedError(f"{what}: no connection to {endpoint}: {fault.found}", hint=hint)
    return StoreBusyError(f"{what}: the transfer failed: {fault.found}", hint=hint or "start again later")


def _own_words(error: ClientError, secrets: Collection[str]) -> str:
    """The store's own message: printable, on one line, shortened, without secrets."""
    text = str(error.response.get("Error", {}).get("Message") or "")
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    for secret in secrets:
        text = text.replace(secret, "***")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
