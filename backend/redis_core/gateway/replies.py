"""Replies as the bodies of HTTP answers: JSON, JSON with base64 strings, RESP2."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    LimitExceeded,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.transport.base import Reply

__all__ = [
    "Encode",
    "error_json",
    "many_json",
    "many_resp2",
    "one_base64",
    "one_json",
    "one_resp2",
    "status_of",
]

Encode: TypeAlias = Callable[[Reply], bytes]
"""One reply, errors included, to a body."""

_OK: Final = b'{"result":"OK"}'
_NULL: Final = b'{"result":null}'


def _error_in_list(value: Any) -> Any:
    """An error inside a list, as a script can return one: its text, like any other string."""
    if isinstance(value, StoreError):
        return str(value)
    raise TypeError(f"a reply holds a {type(value).__name__}")


def _encoded_error_in_list(value: Any) -> Any:
    """The same where strings are base64, as msgspec writes bytes."""
    return str(_error_in_list(value)).encode()


_encode: Final = msgspec.json.Encoder(enc_hook=_error_in_list).encode
_encode_base64: Final = msgspec.json.Encoder(enc_hook=_encoded_error_in_list).encode


def one_json(reply: Reply) -> bytes:
    """`{"result": ...}` or `{"error": ...}`; what is not UTF-8 becomes U+FFFD."""
    if isinstance(reply, bytes):
        if reply == b"OK":
            return _OK
        return b'{"result":%b}' % _encode(reply.decode("utf-8", "replace"))
    if isinstance(reply, int):
        return b'{"result":%d}' % reply
    if reply is None:
        return _NULL
    if isinstance(reply, StoreError):
        return error_json(str(reply))
    return b'{"result":%b}' % _encode(_text(reply))


def _text(reply: Reply) -> object:
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "replace")
    if isinstance(reply, list):
        return [_text(item) for item in reply]
    return reply


def one_base64(reply: Reply) -> bytes:
    """As `one_json`, each string of the result in base64 except the reply `OK`; errors are plain text."""
    if isinstance(reply, bytes):
        if reply == b"OK":
            return _OK
        return b'{"result":"%b"}' % b2a_base64(reply, newline=False)
    if isinstance(reply, list):
        return b'{"result":%b}' % _encode_base64(reply)
    return one_json(reply)


def many_json(replies: Sequence[Reply], encode: Encode) -> bytes:
    """A JSON array of what `encode` makes of each."""
    return b"[%b]" % b",".join(map(encode, replies))


def error_json(text: str) -> bytes:
    """`{"error": text}`."""
    return b'{"error":%b}' % _encode(text)


def one_resp2(reply: Reply) -> bytes:
    """A reply in RESP2, as a server would send it; `OK` is the one status that is told from a string."""
    if isinstance(reply, bytes):
        return b"+OK\r\n" if reply == b"OK" else b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, StoreError):
        return b"-%b\r\n" % str(reply).replace("\r", " ").replace("\n", " ").encode()
    return b"*%d\r\n%b" % (len(reply), b"".join(map(one_resp2, reply)))


def many_resp2(replies: Sequence[Reply]) -> bytes:
    """Replies one after the other, as the answers to a pipeline over TCP."""
    return b"".join(map(one_resp2, replies))


# The first that fits; a command's own error is 400, as with Upstash.
_STATUS: Final[tuple[tuple[type[StoreError], int], ...]] = (
    (CommandError, 400),
    (StoreReadOnly, 400),
    (DeadlineExceeded, 504),
    (ProtocolError, 502),
    (StoreUnavailable, 503),
    (StoreOverloaded, 429),
    # Not 401: it is the gateway whom the store does not know, not the client.
    (CredentialsRejected, 502),
)


def status_of(error: StoreError) -> int:
    """The HTTP status that tells a client whose fault an error is, and whether asking again may help."""
    if isinstance(error, LimitExceeded):
        # A reply that was too large belongs to a command that was done.
        return 413 if error.outcome is Outcome.NOT_SENT else 502
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
