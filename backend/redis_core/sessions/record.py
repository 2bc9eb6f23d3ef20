"""What a session is besides its data: whose, since when, until when, on which device."""

from __future__ import annotations

import ipaddress
from typing import Final

import msgspec

from redis_core.errors import CodecError
from redis_core.sessions.value import decode_as

__all__ = ["Device", "Epochs", "SessionCore", "SessionInfo", "SessionRecord", "ip_prefix"]

MAX_USER_AGENT_CHARS: Final = 256

# The session's own fields of the hash. Times are whole milliseconds since the Unix epoch. What changes together lies together:
# a hash of few fields is quicker to read and smaller to keep.
CORE: Final = b"_s"
"""`SessionCore` as JSON. A hash without it is no session."""
ABSOLUTE_END: Final = b"_a"
TOUCHED: Final = b"_t"
DEVICE: Final = b"_d"
POINTER: Final = b"_p"
_OURS: Final = ord("_")


class Device(msgspec.Struct, frozen=True, array_like=True):
    """Where a login came from, as the device page shows it. Kept as given, so give no more than that page needs."""

    user_agent: str = ""
    ip: str = ""
    """The network of the client's address, see `ip_prefix`."""
    label: str = ""
    """What the user or application calls it."""

    @classmethod
    def of(cls, user_agent: str, ip: str | None, label: str = "") -> Device:
        """A device from what a request carries: the user agent cut to 256 characters, the address to its network."""
        return cls(user_agent[:MAX_USER_AGENT_CHARS], ip_prefix(ip) if ip else "", label)


class SessionInfo(msgspec.Struct, frozen=True):
    """One of a user's sessions, for a device page. Holds nothing that could be used to log in. Times in Unix seconds."""

    handle: str
    created: float
    last_seen: float
    """Exact to 1/24 of the idle time."""
    authenticated: float
    ends: float
    """When it ends if it is not used again."""
    device: Device
    current: bool
    """Whether it is the one that asked."""


class Epochs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The revocation epochs of a user and a workspace: at a login, or now."""

    user: int = 0
    workspace: int = 0

    def outlived_by(self, now: Epochs) -> bool:
        """Whether the sessions of these epochs were revoked since."""
        return now.user > self.user or now.workspace > self.workspace


class SessionCore(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What every session has and only a new token changes."""

    created: int
    authenticated: int
    """When the user last proved to be the user; 0 if never."""
    issued: int
    """When the present token was made."""
    user_id: str | None
    epochs: Epochs
    """Those of the login: when one of them has passed, the session is dead."""
    workspace: str = ""
    """Whose it is: under another's key it is no session."""

    def belongs_to(self, workspace: str) -> bool:
        """Whether it may be read as a session of this workspace."""
        return self.workspace == workspace


class SessionRecord:
    """The session's own fields.

    Args:
        fields: the whole hash.

    Raises:
        CodecError: a field that every session has is missing or not of its form.
    """

    __slots__ = ("absolute_end", "core", "fields", "touched")

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self.fields = fields
        try:
            self.core = _CORE.decode(fields[CORE])
            self.touched = int(fields[TOUCHED])
            self.absolute_end = int(fields[ABSOLUTE_END])
        except (KeyError, ValueError) as error:
            raise CodecError(
                f"a stored session's own fields are not what a release of ours writes: {error}"
            ) from error

    @property
    def device(self) -> Device:
        """The device of the login."""
        raw = self.fields.get(DEVICE)
        return Device() if raw is None else decode_as(raw, Device)

    def data(self) -> dict[str, bytes]:
        """The application's fields, still encoded.

        Raises:
            CodecError: a name is not UTF-8.
        """
        try:
            return {name.decode(): value for name, value in self.fields.items() if name[0] != _OURS}
        except (UnicodeDecodeError, IndexError) as error:
            raise CodecError("a stored session has a field whose name is empty or not UTF-8") from error


_CORE: Final = msgspec.json.Decoder(SessionCore)


def ip_prefix(address: str) -> str:
    """The network of an address: /24 for IPv4, /48 for IPv6; empty for what is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(parsed), 48), strict=False))
        parsed = parsed.ipv4_mapped
    return str(ipaddress.IPv4Network((int(parsed), 24), strict=False))
