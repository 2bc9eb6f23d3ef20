"""What the browser holds: `v1.<workspace>.<key id>.<tag>.<secret>.<check>`.

The secret is 256 bits from the system's CSPRNG. One HMAC-SHA-256 over everything before the check, under the pepper of that
key id, gives 24 bytes that name the session's key in Redis and 6 more that are the check:

- Redis holds the first part only: a dump of it yields no token, and who can write to it can mint none.
- A token that we did not make fails the check and costs no command; no id from outside is ever adopted.
- Every part is under the MAC, so a token with another workspace or tag in it is a token that we did not make.

The tag is 6 bytes of an HMAC of the user's id. It lets a read ask for the user's revocation epoch together with the session,
and shows when the user in a stored session was changed by someone without the pepper.
"""

from __future__ import annotations

import re
import secrets
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final, NamedTuple

from redis_core.secret import is_same

if TYPE_CHECKING:
    from redis_core.sessions.pepper import PepperRing

__all__ = ["HANDLE_CHARS", "MAX_TOKEN_CHARS", "SECRET_BYTES", "Token", "mint_token", "read_token"]

SECRET_BYTES: Final = 32
"""256 bits; ASVS 5.0 (7.2.3) asks for at least 128."""
HANDLE_CHARS: Final = 8
"""How much of the MAC is shown in logs and on the device page: enough to tell sessions apart, of no use as a token."""
MAX_TOKEN_CHARS: Final = 256
"""No token is longer; anything longer is not looked at."""

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_MAC_BYTES: Final = 24
_MAC_CHARS: Final = 32
_CHECK_BYTES: Final = 6
_TOKEN: Final = re.compile(
    r"(v1\.(_|[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?)\.([a-z0-9]{1,16})\.(-|[A-Za-z0-9_-]{8})\.[A-Za-z0-9_-]{43})"
    r"\.([A-Za-z0-9_-]{8})",
    re.ASCII,
)


class Token(NamedTuple):
    """A token that we made, without its secret: nothing in here can be used to log in."""

    workspace: str
    key_id: str
    tag: str
    mac: str
    """24 bytes as base64url: the session's name in Redis."""

    @property
    def handle(self) -> str:
        """What logs and pages call the session: the first 8 characters of the MAC."""
        return self.mac[:HANDLE_CHARS]


def mint_token(peppers: PepperRing, workspace: str, user_id: str | None) -> tuple[str, Token]:
    """A new token: its text, for the cookie alone, and its parts.

    Args:
        peppers: the current key signs.
        workspace: a checked workspace id.
        user_id: whom the session belongs to; None for nobody yet.
    """
    key_id = peppers.current
    tag = peppers.tag(key_id, user_id)
    body = f"v1.{workspace}.{key_id}.{tag}.{_base64(secrets.token_bytes(SECRET_BYTES))}"
    digest = peppers.digest(key_id, body)
    assert digest is not None  # noqa: S101 - the ring has its own current key
    mac, check = _parts(digest)
    return f"{body}.{check}", Token(workspace, key_id, tag, mac)


def read_token(peppers: PepperRing, text: str) -> Token | None:
    """The parts of a token that we made; None for anything else, whatever it is. Never raises. Costs one HMAC."""
    if len(text) > MAX_TOKEN_CHARS:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    body, workspace, key_id, tag, check = match.groups()
    digest = peppers.digest(key_id, body)
    if digest is None:
        return None
    mac, right = _parts(digest)
    return Token(workspace, key_id, tag, mac) if is_same(right, check) else None


def _parts(digest: bytes) -> tuple[str, str]:
    """The MAC and the check, encoded in one go: both are whole groups of three bytes."""
    text = _base64(digest[: _MAC_BYTES + _CHECK_BYTES])
    return text[:_MAC_CHARS], text[_MAC_CHARS:]


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode()
