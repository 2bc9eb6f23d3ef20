"""From an HTTP request to commands: JSON bodies, paths, query arguments.

Numbers in JSON stay what they were written as: `1e-7` does not become `1e-07`, nor 9007199254740993 a double. `true` and
`false` become the words `true` and `false`, as JavaScript prints them. `null`, arrays and objects are no arguments.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from redis_core.gateway.asgi import Receive
from redis_core.transport.base import Argument

__all__ = [
    "ClientGone",
    "Refused",
    "command_from_json",
    "command_from_path",
    "commands_from_json",
    "drain",
    "names_from_path",
    "read_body",
    "token_from_query",
]

_TOKEN_FIELD: Final = b"_token"
_decode_one: Final = msgspec.json.Decoder(list[Any], float_hook=str).decode
_decode_many: Final = msgspec.json.Decoder(list[list[Any]], float_hook=str).decode
_AS_THEY_ARE: Final = frozenset({str, int})


class Refused(Exception):
    """A request that is answered without asking the store.

    Args:
        status: the HTTP status.
        text: the `error` of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ClientGone(Exception):
    """The client hung up before its request was whole: there is nobody to answer."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body.

    Raises:
        Refused: 413, it is larger than `limit` bytes.
        ClientGone: the client hung up.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise too_large(limit, len(body))
        return body
    parts = [body]
    size = len(body)
    while True:
        if size > limit:
            raise too_large(limit, size)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            break
    if size > limit:
        raise too_large(limit, size)
    return b"".join(parts)


def too_large(limit: int, actual: int) -> Refused:
    """The answer to a body of `actual` bytes, or of at least as many."""
    return Refused(413, f"ERR max request size exceeded. Limit: {limit} bytes, Actual: {actual} bytes")


async def drain(receive: Receive, timeout: float, limit: int) -> None:
    """Read and drop the rest of a body, for at most `timeout` seconds and `limit` bytes.

    A server that closes while its client still writes resets the connection, and the client never sees the answer.
    """
    dropped = 0
    try:
        async with asyncio.timeout(timeout):
            while dropped <= limit:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                dropped += len(message.get("body", b""))
    except TimeoutError:
        return


def command_from_json(body: bytes) -> list[Argument]:
    """The command of a JSON array.

    Raises:
        Refused: 400, it is something else.
    """
    try:
        words = _decode_one(body)
    except (ValueError, RecursionError) as error:
        raise Refused(
            400, f"ERR the body is not a JSON array of a command and its arguments: {error}"
        ) from None
    return _arguments(words)


def commands_from_json(body: bytes, limit: int) -> list[list[Argument]]:
    """The commands of a JSON array of arrays.

    Raises:
        Refused: 400, it is something else or empty; 413, it has more than `limit` commands.
    """
    try:
        commands = _decode_many(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"ERR the body is not a JSON array of commands, each an array: {error}") from None
    if not commands:
        raise Refused(400, "ERR empty pipeline request")
    if len(commands) > limit:
        raise Refused(
            413, f"ERR max pipeline length exceeded. Limit: {limit} commands, Actual: {len(commands)}"
        )
    return [_arguments(words) for words in commands]


def _arguments(words: list[Any]) -> list[Argument]:
    if not words:
        raise Refused(400, "ERR empty command")
    if not _AS_THEY_ARE.issuperset(map(type, words)):
        words = [word if type(word) in _AS_THEY_ARE else _argument(word) for word in words]
    if type(words[0]) is not str:
        words[0] = str(words[0])
    return words


def _argument(word: Any) -> Argument:
    if word is True:
        return "true"
    if word is False:
        return "false"
    what = "null" if word is None else "an array" if type(word) is list else "an object"
    raise Refused(400, f"ERR an argument is {what}: send strings, numbers and booleans")


def command_from_path(path: bytes, query: bytes, body: bytes) -> list[Argument]:
    """The command of the path form: segments, then the body unless it is empty, then the query's names and values.

    Args:
        path: still percent-encoded, without the leading slash.
        query: still encoded; `_token` is left out.
        body: one argument, as it is.
    """
    segments = path.split(b"/")
    name = unquote_to_bytes(segments[0]).decode("utf-8", "replace")
    if not name:
        raise Refused(400, "ERR empty command")
    words: list[Argument] = [name]
    words += [unquote_to_bytes(segment) if b"%" in segment else segment for segment in segments[1:]]
    if body:
        words.append(body)
    if query:
        for field, value in _query(query):
            if field != _TOKEN_FIELD:
                # An empty value is a flag: `?NX` and `?NX=` are the same.
                words += [field, value] if value else [field]
    return words


def names_from_path(path: bytes) -> list[str]:
    """The channels or patterns of `/subscribe/a/b`: percent-decoded segments.

    Raises:
        Refused: 400, there is none, or one that an event stream cannot carry.
    """
    names: list[str] = []
    for segment in path.split(b"/"):
        try:
            name = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise Refused(400, "ERR a channel's name is not UTF-8") from None
        if not name or "\n" in name or "\r" in name:
            raise Refused(400, "ERR a channel's name is empty or holds a line break")
        names.append(name)
    return names


def token_from_query(query: bytes) -> bytes | None:
    """The value of `_token`."""
    if _TOKEN_FIELD not in query:
        return None
    return next((value for field, value in _query(query) if field == _TOKEN_FIELD), None)


def _query(query: bytes) -> list[tuple[bytes, bytes]]:
    """Fields and values in order, decoded as HTML forms encode them."""
    pairs = (part.partition(b"=") for part in query.split(b"&") if part)
    return [(_form(field), _form(value)) for field, _, value in pairs]


def _form(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
