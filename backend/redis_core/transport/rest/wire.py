"""Upstash's REST protocol as pure functions: commands to request bodies, response bodies to replies.

Source: https://upstash.com/docs/redis/features/restapi. Replies are asked for in base64, so they are exact bytes. Requests
are JSON, which holds text only; see `pieces` for how other bytes are sent.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    InvalidKey,
    LimitExceeded,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreUnavailable,
    TransactionAborted,
    error_from_reply,
)
from redis_core.transport.base import Argument, Command, Reply
from redis_core.transport.resp import format_double

__all__ = [
    "MAX_COMMANDS",
    "MAX_REQUEST_BYTES",
    "PIPELINE",
    "SINGLE",
    "TRANSACTION",
    "encode",
    "join",
    "replies_of",
    "text_of",
]

SINGLE: Final = "/"
PIPELINE: Final = "/pipeline"
TRANSACTION: Final = "/multi-exec"

MAX_REQUEST_BYTES: Final = 10_000_000
"""Largest body sent: Upstash's documented limit is 10 MB (`ERR max request size exceeded`)."""
MAX_COMMANDS: Final = 1_000
"""Most commands in one pipeline, as in Upstash's own SDK: a larger one keeps every caller waiting for its last command."""

_SHOWN: Final = 200
"""Characters of a server's text that a message repeats."""


# --- requests ---


def encode(command: Command) -> bytes:
    """A command as a JSON array of strings. Numbers go as text too: a server's JSON parser may make doubles of them.

    Raises:
        UnicodeDecodeError: an argument is bytes that are not UTF-8.
        InvalidKey: an argument is neither text, bytes nor number, or is text that UTF-8 cannot hold.
    """
    for word in command:
        if type(word) is not str:
            return _encode_json([text_of(part) for part in command])
    return _encode_json(command)


def join(commands: bytes) -> bytes:
    """The body of a pipeline or transaction."""
    return b"[" + commands + b"]"


def text_of(word: Argument) -> str:
    """An argument as the text that JSON holds.

    Raises:
        UnicodeDecodeError: it is bytes that are not UTF-8.
        InvalidKey: it is neither text, bytes nor number.
    """
    if isinstance(word, str):
        return str.__str__(word)
    if isinstance(word, bytes):
        return word.decode()
    if isinstance(word, int | float) and not isinstance(word, bool):
        return repr(word)
    raise InvalidKey(f"an argument cannot be sent: a {type(word).__name__} is not str, int, float or bytes")


_JSON: Final = msgspec.json.Encoder()


def _encode_json(words: Sequence[Argument]) -> bytes:
    try:
        return _JSON.encode(words)
    except UnicodeEncodeError as error:
        raise InvalidKey(f"an argument cannot be sent: {error}") from None


# --- responses ---


class _Answer(msgspec.Struct, gc=False):
    """What the server says of one command: a result or an error."""

    result: Any = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


_one: Final[Callable[[bytes], _Answer]] = msgspec.json.Decoder(_Answer).decode
_many: Final[Callable[[bytes], list[_Answer]]] = msgspec.json.Decoder(list[_Answer]).decode
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_OK: Final = 200
_BAD_REQUEST: Final = 400
_REJECTED: Final = frozenset({401, 403})
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


def replies_of(path: str, count: int, status: int, body: bytes, target: str) -> list[Reply]:
    """The replies to one request, a command's own error as a value at its place.

    Args:
        path: where it was sent.
        count: commands in it.
        status: of the response.
        body: of the response.
        target: the store, for messages.

    Raises:
        TransactionAborted: the transaction was discarded as a whole.
        CredentialsRejected: 401 or 403.
        LimitExceeded: 413.
        StoreOverloaded: 429.
        StoreUnavailable: 5xx; outcome unknown.
        ProtocolError: anything that is not Upstash's REST; outcome unknown.
    """
    if status == _OK:
        try:
            if path == PIPELINE or (path == TRANSACTION and not body.lstrip().startswith(b"{")):
                return _expect(count, [_reply_of(answer) for answer in _many(body)])
            reply = _reply_of(_one(body))
        except _UNREADABLE as error:
            raise ProtocolError(
                f"{target} answered with what is not a reply: {error}", outcome=Outcome.UNKNOWN
            ) from None
        if path != TRANSACTION:
            return [reply]
        text = str(reply) if isinstance(reply, StoreError) else None
    else:
        text = _error_text(body)
        if status != _BAD_REQUEST or text is None:
            raise _refused(status, text, target)
    if text is None:
        raise ProtocolError(f"{target} answered a transaction with a single reply", outcome=Outcome.UNKNOWN)
    if path == TRANSACTION:
        raise _aborted(text)
    return [error_from_reply(text) for _ in range(count)]


def _expect(count: int, replies: list[Reply]) -> list[Reply]:
    if len(replies) != count:
        raise ValueError(f"{len(replies)} replies to {count} commands")
    return replies


def _reply_of(answer: _Answer) -> Reply:
    result = answer.result
    # The usual reply first: this runs once a command.
    if type(result) is str:
        return b"OK" if result == "OK" else a2b_base64(result, strict_mode=True)
    if result is not msgspec.UNSET:
        return _reply(result)
    if not isinstance(answer.error, str):
        raise ValueError("neither a result nor an error")  # noqa: TRY004 - of what was received
    return error_from_reply(answer.error)


def _reply(value: Any) -> Reply:
    kind = type(value)
    if kind is str:
        # The one string that is never encoded; no base64 has two letters.
        return b"OK" if value == "OK" else a2b_base64(value, strict_mode=True)
    if value is None or kind is int:
        return value  # type: ignore[no-any-return]
    if kind is list:
        return [_reply(item) for item in value]
    if kind is float:
        return format_double(value)
    if kind is bool:
        return int(value)
    raise ValueError(f"a result that is a {kind.__name__}")


def _error_text(body: bytes) -> str | None:
    """The text of `{"error": ...}`, or None if the body is something else: a proxy's page."""
    try:
        error = _one(body).error
    except _UNREADABLE:
        return None
    return error if isinstance(error, str) else None


def _refused(status: int, text: str | None, target: str) -> StoreError:
    said = f": {text[:_SHOWN]}" if text else ""
    if status in _REJECTED:
        return CredentialsRejected(f"{target} rejected the token (HTTP {status}){said}")
    if status == _TOO_LARGE:
        return LimitExceeded(f"{target} takes no request of this size (HTTP 413){said}")
    if status == _TOO_MANY:
        return StoreOverloaded(f"{target} takes no more requests for now (HTTP 429){said}")
    if status >= _SERVER_ERROR:
        return StoreUnavailable(f"{target} answered HTTP {status}{said}", outcome=Outcome.UNKNOWN)
    return ProtocolError(
        f"{target} answered HTTP {status}, as no Upstash REST address does{said}", outcome=Outcome.UNKNOWN
    )


def _aborted(text: str) -> StoreError:
    error = error_from_reply(text)
    return TransactionAborted(text) if isinstance(error, CommandError) else error
