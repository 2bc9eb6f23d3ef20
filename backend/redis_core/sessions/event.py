"""What happens to sessions, told to the log and to the application's hook; never with a token in it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

__all__ = ["EventHook", "EventKind", "SessionEvent", "tell"]

EventKind: TypeAlias = Literal[
    "created",
    "rotated",
    "renewed",
    "revoked",
    "expired",
    "absent",
    "foreign_id",
    "tenant_mismatch",
    "tampered",
    "lost_write",
]
"""What happened:

`created` a login or a new anonymous session; `rotated` it goes on under a new token; `renewed` so in passing; `revoked` it was
ended, see the reason; `expired` it was presented after its end; `absent` a token of ours whose session is no more; `foreign_id`
a token that we did not make; `tenant_mismatch` a token of another workspace; `tampered` the stored user or
workspace is not the token's; `lost_write` a change came after the session's end and was dropped.
"""

_LEVELS: Final[dict[str, int]] = {
    "absent": logging.DEBUG,
    "foreign_id": logging.WARNING,
    "tenant_mismatch": logging.WARNING,
    "tampered": logging.ERROR,
    "lost_write": logging.WARNING,
}
_log: Final = logging.getLogger("redis_core.session")


class SessionEvent(msgspec.Struct, frozen=True):
    """One event. `at` is Unix seconds."""

    kind: EventKind
    at: float
    workspace: str | None = None
    user_id: str | None = None
    handle: str | None = None
    """The session's 8 characters, or those of one revoked with others; None where no session is known."""
    reason: str = ""
    """Why it was revoked: `logout`, `others`, `user`, `workspace`, `evicted`, `relogin` or what the caller gave."""


EventHook: TypeAlias = Callable[[SessionEvent], None]
"""Called in the event loop, after what it tells of; it must return at once."""


def tell(hook: EventHook | None, event: SessionEvent) -> None:
    """Log an event and call the hook; a hook that fails is logged with its traceback and undoes nothing."""
    _log.log(
        _LEVELS.get(event.kind, logging.INFO),
        "session %s %s workspace=%s reason=%s",
        event.handle or "-",
        event.kind,
        event.workspace or "-",
        event.reason or "-",
    )
    if hook is not None:
        try:
            hook(event)
        except Exception:  # noqa: BLE001 - logged whole; the effect it tells of has happened
            _log.exception("the session hook failed on %s of %s", event.kind, event.handle)
