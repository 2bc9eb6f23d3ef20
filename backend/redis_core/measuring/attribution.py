"""Whose a command is: the service and the workspace that its key tells, and what Upstash bills for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from redis_core.keys import FAMILIES, workspace_of
from redis_core.script import script_name
from redis_core.transport.base import Command, Reply

__all__ = ["Attribution", "attribute", "billed", "size_of"]

_SCRIPT_CALLS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})
_FIRST_KEY_OF_SCRIPT: Final = 3
_STREAM_READS: Final = frozenset({"XREAD", "XREADGROUP"})
_SERVICES: Final[Mapping[str, str]] = {
    # A family's owner is who writes it; nobody's keys are the application's.
    family.name: "application" if family.owner == "the application" else family.owner
    for family in FAMILIES
}
_PATTERNED: Final = frozenset(family.name for family in FAMILIES if "{<queue>}:<workspace>" in family.pattern)
_INNER: Final[Mapping[str, int]] = {
    # Commands that each script sends in its usual case, as its header tells under `Cost`.
    "cache_fill": 3,
    "cache_lease": 2,
    "queue_cancel": 12,
    "queue_delete": 4,
    "queue_enqueue": 5,
    "queue_fire": 2,
    "queue_limit": 5,
    "queue_look": 6,
    "queue_note": 3,
    "queue_redrive": 10,
    "queue_signal": 6,
    "queue_turn": 16,
    "rate_adjust": 3,
    "rate_take": 3,
    "session_compare_and_set": 2,
    "session_epoch": 2,
    "session_incr": 2,
    "session_issue": 6,
    "session_merge": 3,
    "session_read": 1,
    "session_restore": 6,
    "session_write": 4,
    "usage_add": 9,
}
_INNER_UNKNOWN: Final = 3


class Attribution(NamedTuple):
    """Whose a command is."""

    service: str
    """`application` for keys of no declared family, `store` for commands without a key."""
    workspace: str
    """Empty if it is nobody's."""


def attribute(command: Command) -> Attribution:
    """Whose a command is, by its first key."""
    place = _FIRST_KEY_OF_SCRIPT if command[0] in _SCRIPT_CALLS else 1
    if command[0] in _STREAM_READS and "STREAMS" in command:
        place = command.index("STREAMS") + 1
    key = command[place] if len(command) > place else None
    if isinstance(key, bytes):
        key = key.decode("utf-8", "replace")
    if not isinstance(key, str):
        return Attribution("store", "")
    workspace = workspace_of(key)
    family, _, rest = (key.partition("}:")[2] if workspace is not None else key).partition(":")
    if workspace is None and family == "sys" and (own := f"sys-{rest.partition(':')[0]}") in _SERVICES:
        family = own
    service = _SERVICES.get(family, "application" if rest else "store")
    if workspace is None and family in _PATTERNED:
        workspace = rest.partition("}:")[2].partition(":")[0]
    return Attribution(service, workspace or "")


def billed(command: Command) -> int:
    """How many commands Upstash bills: one, and for a script one for each that it sends (the usual number)."""
    if command[0] not in _SCRIPT_CALLS:
        return 1
    name = script_name(str(command[1])) if command[0] in {"EVALSHA", "EVALSHA_RO"} else None
    return 1 + _INNER.get(name or "", _INNER_UNKNOWN)


def size_of(command: Command, reply: Reply) -> int:
    """Bytes of a command and its reply, about: texts and one level of lists, no protocol around them."""
    size = 0
    for word in command:
        # By type, in a loop: a third of what `isinstance` in a generator costs.
        kind = type(word)
        size += len(word) if kind is str or kind is bytes else 8  # type: ignore[arg-type]  # mypy does not narrow by it
    if type(reply) is bytes:
        return size + len(reply)
    if type(reply) is list:
        for item in reply:
            size += len(item) if type(item) is bytes else 8
    return size
