"""The errors that this project raises on purpose, as one tree.

::

    BackfillError
    +-- SettingError                 a setting is missing or wrong                               exit code 2
    +-- UsageError                   a command or a request has a wrong argument                 exit code 2
    |   +-- AlreadyRunningError      a backfill is running, and only one may run                 exit code 2
    |   +-- NotFoundError            no backfill has this id, or no backfill fits                exit code 2
    |   `-- DaemonDownError          Dagster's daemon does not run                               exit code 2
    +-- WaitTooLongError             a request would have to wait longer than the caller accepts
    +-- StoppedError                 stopped before the work was done                            exit code 130
    +-- PermanentError               a retry cannot help
    |   +-- KeyRefusedError          the API refused the API key: everything stops               exit code 2
    |   +-- SiteRefusedError         the API refused this site, or does not know it              exit code 2
    |   +-- RequestRefusedError      the API refused the request itself (400, 404, 405 ...)
    |   +-- ContractError            the API's answer contradicts its contract
    |   +-- StoreRefusedError        no such bucket, no permission, wrong endpoint, disk full    exit code 2
    |   +-- DamagedObjectError       an object does not contain what was written
    |   +-- DatabaseLockedError      another process keeps a SQLite file locked                  exit code 2
    |   +-- BudgetUnavailableError   the server of the request budget does not answer            exit code 2
    |   +-- UnreachableError         the API was never reached: a setting is wrong               exit code 2
    |   `-- ApiDownError             the API has not answered for ACE_OUTAGE_MINUTES
    `-- TransientError               a retry may help
        +-- PageFailedError          a page did not arrive whole: cut, slow, 5xx, HTML, not JSON
        +-- ThrottledError           429, or a Retry-After: all processes with this API key wait
        `-- StoreBusyError           the store was slow or busy, or the connection was cut

Put here: error types that several packages use. Keep out: when a request is retried (`core/backoff.py`), and
errors that one function raises and catches itself.

Code tells errors apart by their type, or by `kind` where only facts are kept. It never reads a message. A message names
what failed and what was found. Site, day and hint are fields, and `str` puts all of them into one text. No field
contains a key, a token or more than a line of an answer's body.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import ClassVar, Self, TypedDict, Unpack

_SHOWN = 60


def quoted(text: str) -> str:
    """Quote a text of the user for a message; a long text is cut."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def sentences(*texts: str) -> str:
    """Join texts, each as its own sentence."""
    first, *more = [text for text in texts if text]
    for text in more:
        end = "" if first.endswith((".", "!", "?")) else "."
        first = f"{first}{end} {text[:1].upper()}{text[1:]}"
    return first


def what_failed(error: BaseException) -> str:
    """Join an error's message and its notes, such as the number of attempts: no site, no day, no hint."""
    message = error.message if isinstance(error, BackfillError) else str(error)
    return sentences(message or repr(error), *getattr(error, "__notes__", ()))


class Facts(TypedDict, total=False):
    """The facts that every error may carry; see `BackfillError`."""

    hint: str
    site: str | None
    day: date | None


class BackfillError(Exception):
    """The root of the tree. The command turns any of these errors into one line.

    Attributes:
        kind: the name of the type for machines. It stays the same when the type is renamed.
        exit_code: the exit code of a command that ends with this error.
        message: what failed and what was found.
        hint: what to do, as one sentence; empty when there is nothing to do.
        site: the site that failed; None when the error concerns no single site.
        day: the UTC day that failed; None when the error concerns no single day.
        is_of_one_site: whether such an error concerns the site of the request; others concern every site.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    is_of_one_site: ClassVar[bool] = True

    def __init__(self, message: str = "", **facts: Unpack[Facts]) -> None:
        super().__init__(message)
        self.message = message
        self.hint = facts.get("hint", "")
        self.site = facts.get("site")
        self.day = facts.get("day")

    def of(self, site: str, day: date | None = None) -> Self:
        """Add the site and the day of the work that failed, unless the error has them; return the error."""
        if self.is_of_one_site:
            self.site = site if self.site is None else self.site
            self.day = day if self.day is None else self.day
        return self

    def __str__(self) -> str:
        """The site, the day and the message, then the hint as its own sentence."""
        where = ", ".join(
            [
                *([f"site {quoted(self.site)}"] if self.site is not None else []),
                *([f"{self.day}"] if self.day is not None else []),
            ]
        )
        text = f"{where}: {self.message}" if where else self.message
        return sentences(text, self.hint) if self.hint else text


@contextmanager
def concerning(site: str, day: date | None = None) -> Iterator[None]:
    """Add site and day to an error of the block; see `BackfillError.of`."""
    try:
        yield
    except BackfillError as error:
        error.of(site, day)
        raise


class SettingError(BackfillError):
    """A setting is missing or wrong; the message names the variable."""

    kind = "setting"
    is_of_one_site = False
    exit_code = 2


class UsageError(BackfillError):
    """A command or a request has a wrong argument, such as a range that ends before it begins.

    Attributes:
        about: the argument that is wrong: `first`, `last` or `site`; else empty. The command and the HTTP API have
            different names for each of them.
    """

    kind = "usage"
    exit_code = 2

    def __init__(self, message: str, *, about: str = "", **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.about = about


class AlreadyRunningError(UsageError):
    """A backfill is running, and only one may run: wait, cancel it, or force a restart."""

    kind = "already_running"


class NotFoundError(UsageError):
    """No backfill has this id, or no backfill fits the request."""

    kind = "not_found"


class DaemonDownError(UsageError):
    """Dagster's daemon does not run, so that a backfill would not advance."""

    kind = "daemon_down"


class WaitTooLongError(BackfillError):
    """A request would have to wait longer than the caller accepts.

    Attributes:
        seconds: how long the request would wait.
    """

    kind = "wait_too_long"
    is_of_one_site = False

    def __init__(self, message: str, *, seconds: float, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.seconds = seconds


class StoppedError(BackfillError):
    """The caller stopped the work before it was done. Nothing failed, and finished work stays finished."""

    kind = "stopped"
    is_of_one_site = False
    exit_code = 130


class PermanentError(BackfillError):
    """A retry cannot help."""

    kind = "permanent"


class KeyRefusedError(PermanentError):
    """The API refused the API key (401, or another answer with the same meaning); no further request may use it."""

    kind = "key_refused"
    is_of_one_site = False
    exit_code = 2


class SiteRefusedError(PermanentError):
    """The API refused this site to this API key (403), or does not know the site. Other sites continue."""

    kind = "site_refused"
    exit_code = 2


class RequestRefusedError(PermanentError):
    """The API refused the request itself.

    Attributes:
        status: the HTTP status, 400..499.
        fields: names of the parameters that the answer calls wrong, such as `page_size`; often empty.
    """

    kind = "request_refused"

    def __init__(self, message: str, *, status: int, fields: tuple[str, ...] = (), **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.status = status
        self.fields = fields


class ContractError(PermanentError):
    """Well-formed answers of the API contradict its contract or each other."""

    kind = "contract"


class StoreRefusedError(PermanentError):
    """The store refused: no such bucket, no permission, wrong endpoint, clock skew, disk full."""

    kind = "store_refused"
    exit_code = 2


class DamagedObjectError(PermanentError):
    """An object does not contain what was written, or is not the object of a day."""

    kind = "damaged_object"


class BudgetUnavailableError(PermanentError):
    """The server that keeps the request budget does not answer; without the budget no request may be sent."""

    kind = "budget_unavailable"
    is_of_one_site = False
    exit_code = 2


class DatabaseLockedError(PermanentError):
    """Another process keeps a SQLite file of Dagster's storage locked."""

    kind = "database_locked"
    is_of_one_site = False
    exit_code = 2


class UnreachableError(PermanentError):
    """The API was never reached from here: its address, a certificate or a proxy is wrong."""

    kind = "unreachable"
    is_of_one_site = False
    exit_code = 2


class ApiDownError(PermanentError):
    """The API has not answered for as long as a run waits (ACE_OUTAGE_MINUTES)."""

    kind = "api_down"
    is_of_one_site = False


class TransientError(BackfillError):
    """A retry may help.

    Attributes:
        retry_after: seconds that the server asked the client to wait; None when it named no time.
        is_outage: whether the server seems to be down: no byte of an answer arrived, or a proxy reported it as down.
    """

    kind = "transient"

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: Unpack[Facts]) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after
        self.is_outage = False


class PageFailedError(TransientError):
    """A page did not arrive whole.

    Attributes:
        size_related: whether a smaller page might have arrived (cut, timeout, 5xx).
    """

    kind = "page_failed"

    def __init__(
        self, message: str, *, size_related: bool = True, retry_after: float | None = None, **facts: Unpack[Facts]
    ) -> None:
        super().__init__(message, retry_after=retry_after, **facts)
        self.size_related = size_related


class ThrottledError(TransientError):
    """The API asked the client to slow down (429, or an answer with Retry-After)."""

    kind = "throttled"


class StoreBusyError(TransientError):
    """The store was slow or busy, or the connection was cut during a transfer."""

    kind = "store_busy"
