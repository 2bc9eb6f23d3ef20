"""Every key name of the project is made here, and nowhere else.

Tenant data lives under `ws:{<workspace>}:<family>:...` with literal braces: they are Redis Cluster's hash tag, so all keys
of a tenant share a slot and a script may touch several of them. What is not a tenant's is `rate:<subject>:<endpoint>` and
`sys:...`. `key_families.py` declares each family.

Ids from outside are validated, never escaped: what could be mistaken for a delimiter, a hash tag or a glob is an
`InvalidKey` before anything is sent.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from redis_core.errors import InvalidKey
from redis_core.key_families import FAMILIES, TENANT_WORD, Family

__all__ = [
    "AUDIT_LOG",
    "BUS_CHANNELS",
    "BUS_PATTERN",
    "CACHE_BUS",
    "FAMILIES",
    "LOCK_BELL",
    "MAX_PART_BYTES",
    "PRE_LOGIN_WORKSPACE",
    "TENANT_WORD",
    "USER_EPOCHS",
    "Family",
    "WorkspaceKeys",
    "bus_channel_of",
    "cache_address",
    "canary_key",
    "check_part",
    "check_workspace_id",
    "family_of",
    "import_key",
    "is_rate_key",
    "is_user_epoch",
    "metrics_key",
    "presence_key",
    "queue_key",
    "rate_key",
    "session_epoch_key",
    "workspace_of",
]

MAX_PART_BYTES: Final = 512
"""The longest single part of a key, in bytes of UTF-8. Upstash takes keys of 32 KB; nobody means one that long."""

PRE_LOGIN_WORKSPACE: Final = "_"
"""The reserved workspace of sessions that have not chosen one yet; no tenant's id can be this."""

# fullmatch, and ASCII only: match with `$` accepts "a\n", \d and isalnum() accept other scripts' digits and letters.
_WORKSPACE_ID: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?", re.ASCII)
# Visible ASCII without  * : ? [ \ ] { }
_PLAIN_PART: Final = re.compile(r"[!-)+-9;->@-Z^-z|~]{1,512}", re.ASCII)
_FORBIDDEN: Final = frozenset(" *:?[\\]{}")


_PREFIX: Final = TENANT_WORD + "{"

_OF_THE_SYSTEM: Final = {
    family.name.removeprefix("sys-"): family for family in FAMILIES if family.name.startswith("sys-")
}
"""Families of `sys:<name>:...` that are declared apart from the others, by that name."""

_QUEUE_OF_WORKSPACE: Final = frozenset(
    family.name for family in FAMILIES if "{<queue>}:<workspace>" in family.pattern
)

_CACHE_ADDRESS: Final = "cache:"

AUDIT_LOG: Final = "sys:audit"
"""The stream of what operators changed."""

BUS_CHANNELS: Final = 16
"""Channels that topics' messages travel on."""

BUS_PATTERN: Final = "sys:bus:*"
"""All of them, for the one subscription of a process. A server's ACL asks for this very pattern, not one that covers it."""

CACHE_BUS: Final = "sys:cache-bus"
"""The stream, or channel, by which processes tell one another what they changed in the cache."""


USER_EPOCHS: Final = "sys:session-epoch:"
"""How the keys of users' session epochs begin, which hold over all workspaces."""

LOCK_BELL: Final = "sys:lock-bell:"
"""The prefix of the channels by which those who wait for a lock are woken, one channel a process."""


def check_workspace_id(workspace: str) -> str:
    """The id itself, if it may name a workspace.

    Raises:
        InvalidKey: it is not 1 to 64 of `A-Z a-z 0-9 _ -` with a letter or digit at both ends.
    """
    if _WORKSPACE_ID.fullmatch(workspace) is None:
        raise InvalidKey(
            f"workspace id {_shown(workspace)} must be 1 to 64 of A-Z a-z 0-9 _ - "
            "and begin and end with a letter or digit"
        )
    return workspace


def check_part(part: str) -> str:
    """The part itself, if it may stand between two colons of a key.

    Raises:
        InvalidKey: it is empty, longer than 512 bytes, or has a colon, brace, bracket, asterisk, question mark, backslash,
            white space or a character that does not print.
    """
    if _PLAIN_PART.fullmatch(part) is not None:
        return part
    if not part:
        raise InvalidKey("a key part is empty")
    if len(part.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES:
        raise InvalidKey(f"key part {_shown(part)} is longer than {MAX_PART_BYTES} bytes")
    if not part.isprintable() or not _FORBIDDEN.isdisjoint(part) or any(c.isspace() for c in part):
        raise InvalidKey(
            f"key part {_shown(part)} has a character that a key may not have: "
            ": { } * ? [ ] \\, white space or one that does not print"
        )
    return part


def _is_part(text: str) -> bool:
    try:
        check_part(text)
    except InvalidKey:
        return False
    return True


def _shown(text: str) -> str:
    """Untrusted text as a message may carry it: escaped, and not a page long."""
    short = text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line's length
    return ascii(short)


class WorkspaceKeys:
    """The names of one workspace's keys; reached through the workspace's handle.

    Args:
        workspace: the workspace's id.

    Raises:
        InvalidKey: the id may not name a workspace.
    """

    __slots__ = ("prefix", "workspace")

    def __init__(self, workspace: str) -> None:
        if workspace != PRE_LOGIN_WORKSPACE:
            check_workspace_id(workspace)
        self.workspace = workspace
        self.prefix = _PREFIX + workspace + "}:"

    def key(self, family: str, *parts: str) -> str:
        """The key `ws:{id}:<family>:<part>:...`.

        Args:
            family: a family's name, written in code.
            parts: what comes from outside; each is checked.

        Raises:
            InvalidKey: a part may not stand in a key.
        """
        return ":".join((self.prefix + family, *map(check_part, parts)))

    def owns(self, key: str | bytes) -> bool:
        """Whether this key begins with `ws:{id}:`."""
        return key.startswith(self.prefix.encode() if isinstance(key, bytes) else self.prefix)  # type: ignore[arg-type]

    def owns_in_queue(self, key: str | bytes) -> bool:
        """Whether this is a key of the job queue that belongs to this workspace alone: `job:{<queue>}:<workspace>:<id>`."""
        text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
        name, _, rest = text.partition(":{")
        queue, brace, place = rest.partition("}:")
        return (
            bool(queue and brace)
            and name in _QUEUE_OF_WORKSPACE
            and _FORBIDDEN.isdisjoint(queue)
            and place.partition(":")[0] == self.workspace
        )

    def __repr__(self) -> str:
        return f"WorkspaceKeys({self.workspace!r})"


def rate_key(subject: str, endpoint: str) -> str:
    """The key of one subject's rate limits at one endpoint template: `rate:<subject>:<endpoint>`.

    A path template's braces are written as angle brackets (`/agents/{id}` is `/agents/<id>`), because
    braces would be a hash tag.

    Raises:
        InvalidKey: a part may not stand in a key.
    """
    template = endpoint.replace("{", "<").replace("}", ">")
    return f"rate:{check_part(subject)}:{check_part(template)}"


def canary_key(name: str) -> str:
    """The key or channel of one health check: `sys:canary:<name>`.

    Raises:
        InvalidKey: the name may not stand in a key.
    """
    return f"sys:canary:{check_part(name)}"


def metrics_key(scale: str, begin: int) -> str:
    """The key of what was measured from a time on: `sys:metrics:<minutes|hours>:<Unix seconds>`.

    Args:
        scale: `minutes` or `hours`.
        begin: when the hour or day begins.
    """
    return f"sys:metrics:{check_part(scale)}:{begin:d}"


def presence_key(process: str) -> str:
    """The lease of a process that shows members of presence: `sys:presence:<process>`."""
    return f"sys:presence:{check_part(process)}"


def is_rate_key(key: str | bytes) -> bool:
    """Whether this is the whole key of a subject's rate limits at an endpoint, `rate:<subject>:<endpoint>`."""
    text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    family, _, rest = text.partition(":")
    subject, _, endpoint = rest.partition(":")
    return family == "rate" and _is_part(subject) and _is_part(endpoint)


def session_epoch_key(key_id: str, tag: str) -> str:
    """The key of one user's session epoch, over all workspaces: `sys:session-epoch:<pepper's id>:<user's tag>`.

    Raises:
        InvalidKey: a part may not stand in a key.
    """
    return f"{USER_EPOCHS}{check_part(key_id)}:{check_part(tag)}"


def is_user_epoch(key: str) -> bool:
    """Whether this is the key of a user's session epoch."""
    return key.startswith("sys:session-epoch:")


def import_key(what: str) -> str:
    """The key of how far an import has come: `sys:import:<what>`.

    Args:
        what: a digest of the file and where it goes.

    Raises:
        InvalidKey: it may not stand in a key.
    """
    return f"sys:import:{check_part(what)}"


def bus_channel_of(workspace: str) -> str:
    """The channel that a workspace's messages travel on."""
    return f"sys:bus:{zlib.crc32(workspace.encode()) % BUS_CHANNELS}"


def queue_key(family: str, queue: str, *parts: str) -> str:
    """A key or channel of one queue's shard: `<family>:{<queue>}:<part>:...`; the braces keep all of a shard in one slot.

    Raises:
        InvalidKey: a part may not stand in a key.
    """
    return ":".join((f"{family}:{{{check_part(queue)}}}", *map(check_part, parts)))


def cache_address(key: str | bytes) -> tuple[str, str, str] | None:
    """What the manual's `cache:<workspace>:*`, `cache:<workspace>:<region>:*` or `cache:<workspace>:<region>:<key>` names.

    Returns:
        Workspace, region and key, empty for all of them; None if it is not such an address.

    Raises:
        InvalidKey: it is one, and a part of it may not stand in a key.
    """
    text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    if not text.startswith(_CACHE_ADDRESS):
        return None
    workspace, _, rest = text[len(_CACHE_ADDRESS) :].partition(":")
    region, _, name = rest.partition(":")
    check_workspace_id(workspace)
    if rest == "*":
        return workspace, "", ""
    return workspace, check_part(region), "" if name == "*" else check_part(name)


def workspace_of(key: str) -> str | None:
    """The workspace a key belongs to, or None if it is nobody's."""
    if not key.startswith(_PREFIX):
        return None
    workspace, brace, _ = key[len(_PREFIX) :].partition("}:")
    if not brace or (workspace != PRE_LOGIN_WORKSPACE and _WORKSPACE_ID.fullmatch(workspace) is None):
        return None
    return workspace


def family_of(key: str) -> Family | None:
    """The declared family of a key, or None if no family has keys of this shape."""
    rest = key
    tenant = workspace_of(key) is not None
    if tenant:
        rest = key.partition("}:")[2]
    name, _, rest = rest.partition(":")
    if name == "sys" and (own := _OF_THE_SYSTEM.get(rest.split(":", 1)[0])) is not None:
        return own
    return next((f for f in FAMILIES if f.name == name and f.tenant == tenant), None)
