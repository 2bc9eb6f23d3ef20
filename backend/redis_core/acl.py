"""Who may do what in the store: the ACL users of a deployment, and how to make them.

Four roles share a database: `app` serves requests, `worker` runs jobs as well, `auditor` lists keys and sees no value, `admin` does
everything. A user for a single workspace is a tier of its own, for tenants that are to be held apart by the store too. The
command lists are what the code sends: the contract suite runs under these users, so a new command without a permission fails there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from redis_core.errors import CommandError, ConfigError, PermissionDenied, ProtocolError
from redis_core.keys import BUS_PATTERN, CACHE_BUS, FAMILIES, LOCK_BELL, Family, WorkspaceKeys
from redis_core.resilience.epoch import EPOCH_KEY
from redis_core.secret import Secret

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.transport.base import Command

__all__ = [
    "ROLES",
    "AclUser",
    "Applied",
    "AppliedUser",
    "Role",
    "apply_users",
    "read_passwords",
    "role_user",
    "setuser",
    "workspace_user",
]

Role = Literal["app", "worker", "auditor", "admin"]
ROLES: Final[tuple[Role, ...]] = ("app", "worker", "auditor", "admin")

# Lists that a test holds against the source: nothing that the code sends is missing, nothing that it never sends is in them.
_CONNECTION: Final = "asking client|id client|setname client|unblock cluster|slots command|getkeys exec multi ping role".split()
_STRINGS: Final = (
    "append bitfield get getdel getex getrange incr incrby incrbyfloat mget mset set setrange strlen"
)
_HASHES: Final = "hdel hexists hget hgetall hincrby hincrbyfloat hkeys hlen hmget hset hsetnx"
_LISTS: Final = "llen lpop lpush lrange lrem ltrim rpop rpush"
_SETS: Final = "sadd scard sismember smembers srem"
_SORTED: Final = (
    "zadd zcard zcount zincrby zpopmin zrange zrangebyscore zrem zremrangebyrank zremrangebyscore zscore"
)
_STREAMS: Final = "xadd xdel xlen xrange xread xrevrange xtrim"
_KEYS: Final = "del exists expire expireat persist pexpire pexpireat pttl rename ttl type unlink"
# What one workspace's keys are worked on with. A script's inner commands are checked like any other.
_TENANT: Final = f"{_STRINGS} {_HASHES} {_LISTS} {_SETS} {_SORTED} {_STREAMS} {_KEYS} echo eval evalsha publish time".split()
# What the fleet shares: its channels, its health, the questions that its administration asks of queues.
_FLEET: Final = "hscan info psubscribe punsubscribe subscribe unsubscribe zmscore zrevrange".split()
# To wait for work, and to take it.
_WORK: Final = "blpop lmpop".split()
# Real servers of our oldest version do not know these, and their ACL refuses a name that they do not know.
_UPSTASH_ONLY: Final = ("delex",)
# Nothing that returns a value: names, types, times and sizes.
_AUDIT: Final = (
    "client|id client|setname dbsize exists hlen info llen memory|usage object|encoding object|freq object|idletime ping pttl "
    "scan scard strlen time ttl type xlen zcard"
).split()

# Beside those that are named like a tenant's keys. PSUBSCRIBE is allowed for exactly these patterns, not for narrower ones.
_CHANNELS: Final = ("job-events:*", "queue-*", "sys:*", BUS_PATTERN)
_FAMILY_START: Final = re.compile(r"[^<\[]+")
_USER_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)
_PASSWORD_BYTES: Final = 32
_SHORTEST_PASSWORD: Final = 20


@dataclass(frozen=True, slots=True)
class AclUser:
    """One user of the store, without its password."""

    name: str
    commands: tuple[str, ...]
    """Names in lower case, `command|subcommand` for a part; `@all` for everything."""
    keys: tuple[str, ...]
    """Patterns with the permission in front: `~` both, `%R~` reading, `%W~` writing."""
    channels: tuple[str, ...] = ()

    def rules(self, *, upstash: bool = False) -> tuple[str, ...]:
        """What ACL SETUSER is to be told. It replaces all the user had, except for passwords.

        Args:
            upstash: leave out what Upstash's ACL has no words for: parts of commands, and keys that may only be read or written.
                A user whose keys need such words gets none of them there, so that it is never given more.
        """
        commands = [name for name in self.commands if not ("|" in name if upstash else name in _UPSTASH_ONLY)]
        keys = [pattern for pattern in self.keys if not (upstash and pattern.startswith("%"))]
        channels = [f"&{pattern}" for pattern in self.channels]
        return (
            "on", "resetkeys", "resetchannels", "-@all", *(f"+{name}" for name in commands), *keys, *channels,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AppliedUser:
    """What became of one user."""

    name: str
    created: bool
    password: Secret | None
    """The password that was made; None if one was given, or the user kept those it had. It is stored nowhere."""
    rest_token: Secret | None = None
    """On Upstash, what to set as UPSTASH_REDIS_TOKEN to be this user."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply_users` did."""

    users: tuple[AppliedUser, ...]
    kept: bool
    """Whether the server has them after it starts anew. If not, it has no `aclfile`: put the lines of `acl print` into one."""


def _starts(families: Iterable[Family]) -> tuple[str, ...]:
    """Where the keys of these families begin, as patterns. Braces are ordinary characters of a pattern."""
    found = (_FAMILY_START.match(family.pattern) for family in families)
    starts = {start.group() for start in found if start}
    shorter = {
        start for start in starts if not any(other != start and start.startswith(other) for other in starts)
    }
    return tuple(f"{start}*" for start in sorted(shorter))


def role_user(role: Role) -> AclUser:
    """The user of a role, named as it.

    Args:
        role: `app`, `worker`, `auditor` or `admin`.
    """
    if role == "admin":
        return AclUser("admin", ("@all",), ("~*",), ("*",))
    if role == "auditor":
        return AclUser("auditor", tuple(_AUDIT), ("~*",))
    commands = [*_CONNECTION, *_TENANT, *_FLEET, *_UPSTASH_ONLY, *(_WORK if role == "worker" else ())]
    keys = tuple(f"~{start}" for start in _starts(FAMILIES))
    channels = (*_CHANNELS, *_starts(family for family in FAMILIES if family.tenant))
    return AclUser(role, _sorted(commands), keys, channels)


def workspace_user(workspace: str) -> AclUser:
    """The user of one workspace: its sessions, cache, locks, limits and the application's own keys, and no other's.

    What workspaces share is not this user's, so `app` does it: it enqueues no job, publishes to no topic (one bus carries all)
    and revokes no user everywhere. It may tell the fleet what it changed in the cache, and hears nothing from it. Channels it
    hears by their exact name only, never by a pattern: those by which waiters for locks are woken have random names.

    Raises:
        InvalidKey: the id may not name a workspace.
    """
    keys = WorkspaceKeys(workspace)
    patterns = (f"~{keys.prefix}*", f"%W~{CACHE_BUS}", f"%R~{EPOCH_KEY}", "%R~sys:session-epoch:*")
    commands = [*_CONNECTION, *_TENANT, "subscribe", "unsubscribe"]
    return AclUser(f"ws-{workspace}", _sorted(commands), patterns, (f"{keys.prefix}*", f"{LOCK_BELL}*"))


def setuser(user: AclUser, password: Secret | None = None, *, upstash: bool = False) -> Command:
    """The command that makes or changes a user.

    Args:
        user: who.
        password: one to add; None leaves those it has.
        upstash: as of `AclUser.rules`.

    Raises:
        ConfigError: the name may not be a user's, or the password is too short for what a server keeps it as.
    """
    if _USER_NAME.fullmatch(user.name) is None:
        raise ConfigError("acl user", user.name, "use 1 to 80 of A-Z a-z 0-9 _ -")
    added: tuple[str, ...] = ()
    if password is not None:
        text = password.reveal()
        if len(text) < _SHORTEST_PASSWORD:
            # One round of SHA-256, without salt, is all that stands between the hash and the password.
            raise ConfigError(
                f"password of {user.name}", "***", f"make it {_SHORTEST_PASSWORD} characters or longer"
            )
        # A real server takes the hash, so that the password itself is never on the wire nor in MONITOR.
        added = (f">{text}",) if upstash else (f"#{hashlib.sha256(text.encode()).hexdigest()}",)
    return ("ACL", "SETUSER", user.name, *user.rules(upstash=upstash), *added)


def read_passwords(text: str) -> dict[str, Secret]:
    """Passwords that were chosen: lines of `user=password`, as a file of an environment has them; `#` begins a comment.

    Raises:
        ConfigError: a line has no `=`.
    """
    found: dict[str, Secret] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, password = line.strip().partition("=")
        if not equals:
            raise ConfigError(f"line {number} of the passwords", "***", "write user=password")
        found[name.strip()] = Secret(password)
    return found


async def apply_users(
    client: Client,
    users: Sequence[AclUser],
    *,
    passwords: Mapping[str, Secret] | None = None,
    new_passwords: bool = False,
) -> Applied:
    """Make these users, or bring them up to date; those that are there keep their passwords and connections.

    The caller must be a user that may use ACL. `default` is not touched: turn it off when every process is another user.
    Budget: 2 commands a user and 1 more; on Upstash 3 for one that gets a password.

    Args:
        client: the store. Of a cluster, all masters; replicas are told nothing, as ACLs are not replicated.
        users: who.
        passwords: passwords by user, to add instead of one that is made.
        new_passwords: give each of them one more password; the old ones stay valid until they are removed (`ACL SETUSER <name> <old`).

    Raises:
        ConfigError: the store has no ACL, or a password is too short.
        PermissionDenied: we may not change users.
    """
    if client.mode == "memory":
        raise ConfigError("MOCK_REDIS", "true", "users are made in a real store; name one")
    upstash = client.mode == "upstash"
    given = passwords or {}
    # Before the first user is changed: a wrong name or password changes none.
    for user in users:
        setuser(user, given.get(user.name), upstash=upstash)
    done: list[AppliedUser] = []
    for user in users:
        known = await client.execute("ACL", "GETUSER", user.name)
        made = None
        if user.name not in given and (new_passwords or known is None):
            made = Secret(secrets.token_urlsafe(_PASSWORD_BYTES))
        password = given.get(user.name, made)
        await client.execute(*setuser(user, password, upstash=upstash))
        token = await _rest_token(client, user.name, password) if upstash and password is not None else None
        done.append(AppliedUser(user.name, known is None, made, token))
    # Upstash keeps them at once.
    return Applied(tuple(done), upstash or await _save(client))


async def _save(client: Client) -> bool:
    try:
        await client.execute("ACL", "SAVE")
    except PermissionDenied:
        raise
    except CommandError:
        return False
    return True


async def _rest_token(client: Client, name: str, password: Secret) -> Secret:
    reply = await client.execute("ACL", "RESTTOKEN", name, password.reveal())
    if not isinstance(reply, bytes | str):
        raise ProtocolError(f"ACL RESTTOKEN answered with {type(reply).__name__}")
    return Secret(reply.decode() if isinstance(reply, bytes) else reply)


def _sorted(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
