"""Every error this library raises, in one tree.

::

    RedisCoreError
    ├── ConfigError                a setting is wrong: says which, its value, what to do
    ├── InvalidKey                 an id or key part that may not become a key; nothing was sent
    ├── IsolationError             a command would have left its workspace; nothing was sent: a fault of the program
    ├── CodecError                 bytes that do not decode to the type asked for
    ├── LoadError                  a cached value could not be loaded, and there is none to serve instead
    │   ├── LoadTimeout            the loader took longer than its region allows
    │   └── LoadCancelled          the loader was cancelled from within
    ├── SessionError               a session does not allow what was asked; the stored one is unchanged
    │   ├── SessionGone            it was logged out, revoked or has expired meanwhile
    │   ├── SessionTooLarge        its data would pass the limit of bytes or fields
    │   ├── TooManySessions        the user has as many as allowed, and the policy is to refuse
    │   └── StaleAuthentication    the last authentication is too long ago for this
    ├── RateLimitError             a rate limit does not allow what was asked
    │   ├── RateLimited            refused for now; carries the decision, with when to come again
    │   └── CostExceedsLimit       it costs more than the limit, so it can never pass; nothing was counted
    ├── UsageError                 a workspace has used what it may
    │   └── BudgetExceeded         its budget of the day or month is spent; carries when the next begins
    ├── QueueError                 a job cannot be what was asked
    │   ├── InvalidJob             an argument, option or size is wrong; nothing was sent
    │   ├── QueueFull              the workspace has as many unfinished jobs as it may
    │   ├── JobUnknown             there is no such job, or its result has expired
    │   ├── JobFailed              it failed for good; carries the error
    │   ├── JobCancelled           it was cancelled, or what it depends on did not succeed
    │   ├── ResultTimeout          it was not over in the time that was given
    │   └── LeaseLost              raised in a running job: another worker has it now
    ├── LockError                  a lock cannot be what was asked
    │   ├── LockUnavailable        the store is away, so nobody can be granted it
    │   ├── LockTimeout            others held it for as long as the caller wanted to wait
    │   └── LockLost               it is no longer ours: its time ran out, or it was taken away
    ├── JournalError               what must outlast an outage cannot be kept; it was not accepted
    │   ├── JournalFull            the journal has as many bytes, or waits as long, as it may
    │   └── JournalBroken          its disk is full, damaged or not ours
    ├── TransferError              an export, import, erasure, backup or restore could not go on
    │   ├── FileDamaged            it is no such file, or cut short, or a checksum is wrong; nothing was written to the store
    │   ├── FileTooNew             a newer version of this library wrote it
    │   ├── TargetNotEmpty         where it is to go there are keys already, and replacing them was not asked for
    │   └── TransferUnverified     what was found afterwards is not what should be there
    ├── VersionConflict            a shared state has another version than the one that was to be changed
    └── StoreError                 the store did not do what was asked
        ├── StoreUnavailable       it could not be reached, or went away        (unreachable)
        │   ├── DeadlineExceeded   it did not answer in time
        │   └── ProtocolError      what answered does not speak the protocol
        ├── StoreOverloaded        it, or our queue to it, is full              (overloaded)
        │   └── QuotaExceeded      the workspace takes more than it may         (overloaded)
        ├── StoreReadOnly          it reads but does not write: replica, no memory, disk   (read-only)
        ├── CredentialsRejected    it does not know us: an alarm, never an outage          (credentials)
        ├── LimitExceeded          a request or reply is larger than what is allowed       (caller)
        └── CommandError           it answered this command with an error                  (caller)
            ├── WrongType          the key holds another type
            ├── NoScript           the store does not know this script (yet)
            ├── PermissionDenied   the ACL user may not do this
            └── TransactionAborted a transaction was discarded as a whole

Each `StoreError` tells what a caller needs in order to act: `outcome` (was it done?), `retryable` (is
sending it again of use?) and `kind` (whose fault is it?). Names never shadow built-ins.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

__all__ = [
    "BudgetExceeded",
    "CodecError",
    "CommandError",
    "ConfigError",
    "CostExceedsLimit",
    "CredentialsRejected",
    "DeadlineExceeded",
    "FileDamaged",
    "FileTooNew",
    "InvalidJob",
    "InvalidKey",
    "IsolationError",
    "JobCancelled",
    "JobFailed",
    "JobUnknown",
    "JournalBroken",
    "JournalError",
    "JournalFull",
    "Kind",
    "LeaseLost",
    "LimitExceeded",
    "LoadCancelled",
    "LoadError",
    "LoadTimeout",
    "LockError",
    "LockLost",
    "LockTimeout",
    "LockUnavailable",
    "NoScript",
    "Outcome",
    "PermissionDenied",
    "ProtocolError",
    "QueueError",
    "QueueFull",
    "QuotaExceeded",
    "RateLimitError",
    "RateLimited",
    "RedisCoreError",
    "ResultTimeout",
    "SessionError",
    "SessionGone",
    "SessionTooLarge",
    "StaleAuthentication",
    "StoreError",
    "StoreOverloaded",
    "StoreReadOnly",
    "StoreUnavailable",
    "TargetNotEmpty",
    "TooManySessions",
    "TransactionAborted",
    "TransferError",
    "TransferUnverified",
    "UsageError",
    "VersionConflict",
    "WrongType",
    "error_from_reply",
]


class Outcome(StrEnum):
    """What is known of a failed command's effect."""

    NOT_SENT = "not_sent"
    """Nothing left this process, or the store refused it: certainly without effect."""
    UNKNOWN = "unknown"
    """It was sent and no answer came: it may have been done, or be done yet."""
    APPLIED = "applied"
    """The store did it; only the answer could not be used."""


class Kind(StrEnum):
    """Whose fault a `StoreError` is: what circuit breakers and alarms decide by."""

    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    READ_ONLY = "read-only"
    CREDENTIALS = "credentials"
    CALLER = "caller"


class RedisCoreError(Exception):
    """Base of all errors of this library."""


class ConfigError(RedisCoreError):
    """A setting is wrong.

    Args:
        variable: the setting's name, as in the environment.
        value: what it was set to, already redacted if it is a secret; None when it is missing.
        remedy: what to do about it.
    """

    def __init__(self, variable: str, value: str | None, remedy: str) -> None:
        self.variable = variable
        self.value = value
        self.remedy = remedy
        shown = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{variable} {shown}: {remedy}")


class InvalidKey(RedisCoreError, ValueError):
    """An id or key part that may not become a key; raised before anything is sent."""


class IsolationError(RedisCoreError):
    """A command through a workspace's handle would touch what is not the workspace's; nothing of its batch was sent.

    A fault of the program, never of its user. It says nothing of the key, so that nobody learns from it whether there are
    other workspaces.
    """


class CodecError(RedisCoreError, ValueError):
    """Bytes that do not decode to the type asked for."""


class LoadError(RedisCoreError):
    """A cached value could not be loaded; a loader's own error is raised as it is."""


class LoadTimeout(LoadError):
    """The loader took longer than its region allows."""


class LoadCancelled(LoadError):
    """The loader was cancelled from within; callers are not."""


class SessionError(RedisCoreError):
    """A session does not allow what was asked; what is stored is unchanged."""


class SessionGone(SessionError):
    """The session was logged out, revoked or has expired since it was read: nothing was written."""


class SessionTooLarge(SessionError):
    """The session's data would pass the limit of bytes or of fields: nothing was written."""


class TooManySessions(SessionError):
    """The user has as many sessions as the policy allows, and it is to refuse."""


class StaleAuthentication(SessionError):
    """The session's last authentication is longer ago than what was asked allows; ask for it again.

    Args:
        message: what was asked, and how long ago the authentication is.
        max_age: seconds that would have been allowed.
    """

    def __init__(self, message: str, *, max_age: float) -> None:
        super().__init__(message)
        self.max_age = max_age


class RateLimitError(RedisCoreError):
    """A rate limit does not allow what was asked."""


class RateLimited(RateLimitError):
    """Refused for now; nothing was counted.

    Args:
        message: which limit, and when to come again.
        retry_after: seconds until it could pass.
        decision: the whole `Decision`, for headers.
    """

    def __init__(self, message: str, *, retry_after: float, decision: object = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.decision = decision


class CostExceedsLimit(RateLimitError, ValueError):
    """It costs more than the limit lets pass at all, so waiting is of no use; nothing was counted."""


class UsageError(RedisCoreError):
    """A workspace has used what it may."""


class BudgetExceeded(UsageError):
    """The workspace's budget is spent.

    Args:
        workspace: whose.
        period: `day` or `month`.
        spent: US dollars in this period.
        limit: US dollars a period.
        resets_in: seconds until the next period begins.
    """

    def __init__(self, workspace: str, period: str, spent: float, limit: float, resets_in: float) -> None:
        super().__init__(
            f"workspace {workspace!r} has spent ${spent:.2f} of its ${limit:.2f} a {period}; "
            f"the next {period} begins in {resets_in:.0f} s: raise its budget, or wait"
        )
        self.workspace = workspace
        self.period = period
        self.spent = spent
        self.limit = limit
        self.resets_in = resets_in


class QueueError(RedisCoreError):
    """A job cannot be what was asked."""


class InvalidJob(QueueError, ValueError):
    """An argument, an option or a size is wrong; nothing was sent."""


class QueueFull(QueueError):
    """The workspace has as many unfinished jobs as it may.

    Args:
        message: which queue, and the limit.
        accepted: how many of the jobs of this call were taken all the same.
    """

    def __init__(self, message: str, *, accepted: int = 0) -> None:
        super().__init__(message)
        self.accepted = accepted


class JobUnknown(QueueError):
    """There is no such job, or its result has expired."""


class JobFailed(QueueError):
    """The job failed for good.

    Args:
        message: which job, and its last error.
        error_type: the name of that error's class.
    """

    def __init__(self, message: str, *, error_type: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class JobCancelled(QueueError):
    """The job was cancelled, or what it depends on did not succeed."""


class ResultTimeout(QueueError, TimeoutError):
    """The job was not over in the time that was given; it goes on."""


class LeaseLost(QueueError):
    """Raised in a running job: its worker was taken for dead, and another one has the job now."""


class LockError(RedisCoreError):
    """A lock cannot be what was asked."""


class LockUnavailable(LockError):
    """The store is away. A lock is never granted from memory: another process may hold it."""


class LockTimeout(LockError, TimeoutError):
    """Others held the lock for as long as the caller wanted to wait."""


class LockLost(LockError):
    """The lease is over: its time ran out before it could be renewed, or the store no longer has it."""


class JournalError(RedisCoreError):
    """What must outlast an outage cannot be kept. It was not accepted; the caller still has it."""


class JournalFull(JournalError):
    """The journal has reached one of its limits.

    Args:
        message: which limit, what is kept, and what to do.
        limit: the setting's name.
    """

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class JournalBroken(JournalError):
    """The journal's disk is full, damaged, read-only or not ours."""


class VersionConflict(RedisCoreError):
    """A shared state has another version than the one that was to be changed.

    Args:
        version: the current one.
    """

    def __init__(self, version: int) -> None:
        super().__init__(f"the current version is {version}")
        self.version = version


class TransferError(RedisCoreError):
    """An export, import, erasure, backup or restore could not go on."""


class FileDamaged(TransferError):
    """It is not a file of this format, it is cut short, or a checksum is wrong. Nothing was written to the store."""


class FileTooNew(TransferError):
    """A newer version of this library wrote the file."""


class TargetNotEmpty(TransferError):
    """Where it is to go there are keys already, and replacing them was not asked for. Nothing was written."""


class TransferUnverified(TransferError):
    """What was found afterwards is not what should be there: somebody else writes there, or the store lost data."""


class StoreError(RedisCoreError):
    """The store did not do what was asked.

    Args:
        message: what happened, and to which store.
        outcome: whether it may have been done all the same.
    """

    kind: ClassVar[Kind] = Kind.CALLER

    def __init__(self, message: str, *, outcome: Outcome = Outcome.NOT_SENT) -> None:
        super().__init__(message)
        self.outcome = outcome

    @property
    def retryable(self) -> bool:
        """Whether the same command may succeed if sent again later; says nothing of its being safe."""
        return self.kind in {Kind.UNREACHABLE, Kind.OVERLOADED}


class StoreUnavailable(StoreError):
    """The store could not be reached, or the connection was lost."""

    kind = Kind.UNREACHABLE


class DeadlineExceeded(StoreUnavailable):
    """The store did not answer in time."""


class ProtocolError(StoreUnavailable):
    """What answered does not speak the store's protocol."""


class StoreOverloaded(StoreError):
    """The store, or this process' queue to it, takes no more for now."""

    kind = Kind.OVERLOADED


class QuotaExceeded(StoreOverloaded):
    """A workspace takes more than its quota; nothing was sent.

    Args:
        workspace: whose.
        quota: what of: `commands a second` or `updates a second`.
        limit: how much it may.
        retry_after: seconds until it is within its quota again.
    """

    def __init__(
        self,
        workspace: str,
        quota: str = "",
        limit: float = 0.0,
        *,
        retry_after: float = 1.0,
        outcome: Outcome = Outcome.NOT_SENT,
    ) -> None:
        told = f"workspace {workspace} has used its {limit:g} {quota} up: come again in {retry_after:.2f} s"
        super().__init__(told if quota else workspace, outcome=outcome)
        self.workspace = workspace
        self.quota = quota
        self.limit = limit
        self.retry_after = retry_after


class StoreReadOnly(StoreError):
    """The store answers reads but takes no writes."""

    kind = Kind.READ_ONLY


class CredentialsRejected(StoreError):
    """The store does not accept our token, user or password."""

    kind = Kind.CREDENTIALS


class LimitExceeded(StoreError):
    """A request or a reply is larger than what the store or this client allows."""


class CommandError(StoreError):
    """The store answered one command with an error.

    In a batch it is a value in the list of replies; a single call raises it.
    """

    def __init__(self, message: str, *, outcome: Outcome = Outcome.NOT_SENT) -> None:
        super().__init__(message, outcome=outcome)

    @property
    def code(self) -> str:
        """The first word of the store's message, `ERR` if it has none in capitals."""
        first = str(self).split(" ", 1)[0]
        return first if first.isupper() else "ERR"


class WrongType(CommandError):
    """The key holds a value of another type."""


class NoScript(CommandError):
    """The store does not know this script; it is sent once more in full."""


class PermissionDenied(CommandError):
    """The ACL user we are may not run this command or touch this key."""


class TransactionAborted(CommandError):
    """A transaction was discarded as a whole: none of its commands was done."""


# The first word of an error reply, and what it means. Anything else is a plain CommandError.
# Sources: Redis 7.0 and Valkey 9 `server.c` shared objects; Upstash's documentation of limits.
_BY_CODE: dict[str, type[StoreError]] = {
    "WRONGTYPE": WrongType,
    "NOSCRIPT": NoScript,
    "NOPERM": PermissionDenied,
    "EXECABORT": TransactionAborted,
    "NOAUTH": CredentialsRejected,
    "WRONGPASS": CredentialsRejected,
    "DENIED": CredentialsRejected,
    "LOADING": StoreUnavailable,
    "BUSY": StoreUnavailable,
    "CLUSTERDOWN": StoreUnavailable,
    "MASTERDOWN": StoreUnavailable,
    "TRYAGAIN": StoreUnavailable,
    "READONLY": StoreReadOnly,
    "MISCONF": StoreReadOnly,
    "OOM": StoreReadOnly,
    "NOREPLICAS": StoreReadOnly,
}
_BY_START: tuple[tuple[str, type[StoreError]], ...] = (
    ("ERR max number of clients", StoreOverloaded),
    ("ERR max concurrent connections", StoreOverloaded),
    ("ERR max requests limit", StoreOverloaded),
    ("ERR max daily request limit", StoreOverloaded),
    ("ERR DB capacity quota", StoreReadOnly),
    ("ERR max request size", LimitExceeded),
    ("ERR max single record size", LimitExceeded),
    ("ERR max key size", LimitExceeded),
    ("ERR invalid password", CredentialsRejected),
    ("ERR Client sent AUTH, but no password is set", CredentialsRejected),
    # What a script was refused: Valkey's words, and those of Redis 7.
    ("ERR ACL failure in script", PermissionDenied),
    ("ERR The user executing the script can't", PermissionDenied),
    ("ERR AUTH <password> called without any password", CredentialsRejected),
)


def error_from_reply(message: str) -> StoreError:
    """The typed error for the text of a store's error reply, `outcome` not_sent: it refused it.

    Args:
        message: the reply without its leading `-`.
    """
    for start, kind in _BY_START:
        if message.startswith(start):
            return kind(message)
    return _BY_CODE.get(message.split(" ", 1)[0], CommandError)(message)
