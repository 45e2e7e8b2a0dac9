"""Every error that this project raises on purpose, as one small tree.

::

    BackfillError
    +-- SettingError            a setting is missing or wrong                       exit code 2
    +-- UsageError              a command was asked for something it cannot do      exit code 2
    |   +-- AlreadyRunningError a backfill is running, and only one may
    |   +-- NothingThereError   no such backfill, or none that could be meant
    |   `-- DaemonDownError     nobody is there to do the work
    +-- WaitTooLongError        a request would have to wait longer than the caller accepts
    +-- StoppedError            asked to stop before the work was done                exit code 130
    +-- PermanentError          trying again cannot help
    |   +-- KeyRefusedError     the API refused the key: everything stops         exit code 2
    |   +-- SiteRefusedError    the API refused this site to this key, or does not know it     exit code 2
    |   +-- RequestRefusedError the API called the request itself wrong (400, 404, 405 ...)
    |   +-- ContractError       the API's answer is not what its contract says
    |   +-- StoreRefusedError   no such bucket, no permission, wrong endpoint, clock skew, disk full     exit code 2
    |   +-- DamagedObjectError  an object is not what was put there
    |   +-- DatabaseLockedError another process keeps a SQLite file of Dagster's storage locked     exit code 2
    |   +-- BudgetLostError     the request budget's server does not answer: nothing may be sent     exit code 2
    |   +-- UnreachableError    the API cannot be reached, and never was: a setting is wrong     exit code 2
    |   `-- ApiDownError        the API has not answered for as long as an outage may last
    `-- TransientError          trying again may help; may carry how long to wait first
        +-- PageFailedError     one page did not arrive whole: cut, slow, 5xx, HTML, not JSON
        +-- ThrottledError      429, or a Retry-After: every process that shares the key waits
        `-- StoreBusyError      the store was slow, busy or cut off

Put here: error types that cross a room's border. Keep out: retry policy (`core/backoff.py`), and errors that
one function raises and catches itself. A message says what failed, for which site and day, and what was found. The
error's `hint` says what to do. Neither holds a key, a token or more than a line of an answer's body.
"""

from datetime import date

_SHOWN = 60


def quoted(text: str) -> str:
    """What somebody wrote, quoted for a message, and no longer than a line bears."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def sentences(*texts: str) -> str:
    """Join texts, each as a sentence of its own."""
    first, *more = [text for text in texts if text]
    for text in more:
        end = "" if first.endswith((".", "!", "?")) else "."
        first = f"{first}{end} {text[:1].upper()}{text[1:]}"
    return first


def with_notes(error: BaseException) -> str:
    """An error's text with the notes that were added to it, such as how often a request was tried."""
    return sentences(str(error) or repr(error), *getattr(error, "__notes__", ()))


class BackfillError(Exception):
    """The root: one `except` at the command's edge turns any of these into one line.

    Attributes:
        message: what failed and what was found.
        hint: what to do, as one sentence; empty when there is nothing to do, or when the message still contains it.
        site: the site that it is about; None when it is about no single site.
        day: the UTC day that it is about; None when it is about no single day.
    """

    def __init__(self, message: str = "", *, hint: str = "", site: str | None = None, day: date | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.site = site
        self.day = day

    def __str__(self) -> str:
        """The message, then the hint as a sentence of its own."""
        return sentences(self.message, self.hint) if self.hint else self.message


class SettingError(BackfillError):
    """A setting is missing or wrong; the message names the variable and what it should hold."""


class UsageError(BackfillError):
    """A command was asked for something that it cannot do, such as a range that ends before it begins.

    Attributes:
        about: what is wrong, for whoever asked to name it in his own words: `first`, `last` or `site`; else empty.
    """

    def __init__(self, message: str, *, about: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.about = about


class AlreadyRunningError(UsageError):
    """A backfill is running, and only one may: wait, cancel it, or force a restart."""


class NothingThereError(UsageError):
    """There is no such backfill, or none that could be meant."""


class DaemonDownError(UsageError):
    """Dagster's daemon does not run, so that no backfill would make progress."""


class WaitTooLongError(BackfillError):
    """A request would have to wait longer than the caller accepts.

    Attributes:
        seconds: how long it would wait.
    """

    def __init__(self, message: str, *, seconds: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class StoppedError(BackfillError):
    """Asked to stop before the work was done; nothing went wrong, and what is done stays done."""


class PermanentError(BackfillError):
    """Trying again cannot help."""


class KeyRefusedError(PermanentError):
    """The API refused the key (401, or what it says instead of it): nothing further may be asked with it."""


class SiteRefusedError(PermanentError):
    """The API refused this site to this key (403) or does not know it; other sites may go on."""


class RequestRefusedError(PermanentError):
    """The API called the request itself wrong.

    Attributes:
        status: the HTTP status, 400..499.
        fields: names of the parameters that the answer complains of, such as `page_size`; often empty.
    """

    def __init__(self, message: str, *, status: int, fields: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.fields = fields


class ContractError(PermanentError):
    """The API's answers, each well formed, contradict its contract or each other."""


class StoreRefusedError(PermanentError):
    """The store refused: no such bucket, no permission, wrong endpoint, clock skew, disk full."""


class DamagedObjectError(PermanentError):
    """An object in the store is not what was put there, or not a day's object at all."""


class BudgetLostError(PermanentError):
    """The server that keeps the request budget does not answer: without it no request may leave."""


class DatabaseLockedError(PermanentError):
    """Another process keeps a SQLite file of Dagster's storage locked."""


class UnreachableError(PermanentError):
    """The API cannot be reached, and never was from here: its address, a certificate or a proxy is wrong."""


class ApiDownError(PermanentError):
    """The API has not answered for as long as an outage may last (ACE_OUTAGE_MINUTES)."""


class TransientError(BackfillError):
    """Trying again may help.

    Attributes:
        retry_after: seconds that the other side asked us to wait, or None when it did not say.
        is_outage: whether it looks as if the server was down: no byte of an answer, or a proxy's word that it is.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str = "",
        site: str | None = None,
        day: date | None = None,
    ) -> None:
        super().__init__(message, hint=hint, site=site, day=day)
        self.retry_after = retry_after
        self.is_outage = False


class PageFailedError(TransientError):
    """One page did not arrive whole.

    Attributes:
        size_related: whether a smaller page might have arrived (cut off, timed out, 5xx).
    """

    def __init__(
        self, message: str, *, size_related: bool = True, retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, retry_after=retry_after, hint=hint)
        self.size_related = size_related


class ThrottledError(TransientError):
    """The API asked us to slow down (429, or an answer with Retry-After)."""


class StoreBusyError(TransientError):
    """The store was slow, busy or cut off in mid-transfer."""
