"""From one caller's batch to the requests that carry it.

Bytes that JSON cannot hold go as the raw body of the path form `POST /set/key?EX=60` where the one argument that is not text
can be the last: documented, exact, and one command on the bill, but in a request of its own. Elsewhere, and in scripts,
`binary` makes text of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from redis_core.errors import LimitExceeded
from redis_core.transport.base import Command
from redis_core.transport.refused import command_name
from redis_core.transport.rest.binary import BinaryScripts, binary_places, carried
from redis_core.transport.rest.wire import MAX_COMMANDS, MAX_REQUEST_BYTES, PIPELINE, encode, join, text_of

__all__ = ["Piece", "cut", "whole"]

_MAX_PATH: Final = 8_000
"""Longest path in bytes; servers and proxies commonly take 8 KiB of request line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive commands of one caller that fit in one request."""

    path: str
    """`PIPELINE` if other callers' commands may go in the same request; otherwise it is alone in its own."""
    body: bytes
    """For a pipeline the commands, joined by commas, without the outer brackets."""
    count: int
    """Commands."""


def cut(batch: Sequence[Command], scripts: BinaryScripts) -> list[Piece]:
    """One caller's batch as the requests that carry it, to be sent one after the other.

    Raises:
        LimitExceeded: one command is larger than a request may be.
        CodecError: it has bytes that are not UTF-8 where REST cannot carry them; see `binary`.
        InvalidKey: an argument is neither text, bytes nor number, or is text that UTF-8 cannot hold.
    """
    pieces: list[Piece] = []
    bodies: list[bytes] = []
    size = 2

    def close() -> None:
        if bodies:
            pieces.append(Piece(PIPELINE, b",".join(bodies), len(bodies)))
            bodies.clear()

    for command in batch:
        try:
            body = encode(command)
        except UnicodeDecodeError:
            alone = _path_form(command)
            if alone is not None:
                close()
                size = 2
                pieces.append(alone)
                continue
            body = encode(carried(command, scripts))
        if len(body) + 2 > MAX_REQUEST_BYTES:
            raise _too_large(command, len(body))
        if size + len(body) + 1 > MAX_REQUEST_BYTES or len(bodies) == MAX_COMMANDS:
            close()
            size = 2
        bodies.append(body)
        size += len(body) + 1
    close()
    return pieces


def whole(batch: Sequence[Command], scripts: BinaryScripts) -> bytes:
    """The body of a request that carries the whole batch: a transaction.

    Raises:
        LimitExceeded: it is larger than a request may be.
        CodecError: as `cut`.
        InvalidKey: as `cut`.
    """
    bodies: list[bytes] = []
    for command in batch:
        try:
            bodies.append(encode(command))
        except UnicodeDecodeError:
            bodies.append(encode(carried(command, scripts)))
    body = join(b",".join(bodies))
    if len(body) > MAX_REQUEST_BYTES:
        raise LimitExceeded(
            f"a transaction of {len(body)} bytes as JSON, a request may have {MAX_REQUEST_BYTES}"
        )
    return body


def _path_form(command: Command) -> Piece | None:
    """`POST /name/arg/arg?option=value` with the one argument that is not text as its body; None where that does not fit."""
    binary = binary_places(command)
    if command_name(command).startswith("EVAL"):
        return None  # costs no more as text, and stays with the others
    place = binary[0]
    value = command[place]
    path = [text_of(word) for word in command[:place]]
    # The body becomes the last argument, and the query's name and value follow it. The order of several pairs, and a name
    # without a value, are not documented; path segments that are empty or dots do not survive every proxy.
    if len(binary) > 1 or len(command) - place not in {1, 3} or {"", ".", ".."} & {*path} or not path:
        return None
    url = "/" + "/".join(quote(word, safe="") for word in path)
    options = [quote(text_of(word), safe="") for word in command[place + 1 :]]
    if options:
        url += "?" + "=".join(options)
    if len(url) > _MAX_PATH or not isinstance(value, bytes):
        return None
    if len(value) > MAX_REQUEST_BYTES:
        raise _too_large(command, len(value))
    return Piece(url, value, 1)


def _too_large(command: Command, size: int) -> LimitExceeded:
    return LimitExceeded(f"{command_name(command)} of {size} bytes, a request may have {MAX_REQUEST_BYTES}")
