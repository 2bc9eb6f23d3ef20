"""What a job is on its way: its payload, and how it ended."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any, Final

import msgspec

from redis_core.errors import CodecError, InvalidJob, JobCancelled, JobFailed, JobUnknown
from redis_core.log import get_logger

__all__ = [
    "MAX_PAYLOAD",
    "MAX_RESULT",
    "Envelope",
    "Failure",
    "Header",
    "derived_id",
    "level_of",
    "new_ids",
    "pack",
    "pack_result",
    "packed_for",
    "packed_value",
    "result_of",
    "unpack",
]

MAX_PAYLOAD: Final = 256 * 1024
"""Bytes of a job's arguments; what is larger belongs into the application's own store, and its address into the job."""
MAX_RESULT: Final = 256 * 1024
"""Bytes of a job's result."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_PACK: Final = _ENCODER.encode
_HIGHEST: Final = 2


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """The body of a payload."""

    arguments: msgspec.Raw
    at: int
    """When it was enqueued, in milliseconds."""
    meta: dict[str, str | int] | None = None
    """`deadline` in milliseconds, `keep` at least so many milliseconds of result, `traceparent`."""


_DECODER: Final = msgspec.msgpack.Decoder(Envelope)


class Header(msgspec.Struct, frozen=True):
    """What stands before the body, for the scripts."""

    level: int
    task: str
    unique: bytes


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error of a job, as its history and its result tell it."""

    type: str
    message: str
    at: float = 0.0
    """Unix time, in seconds."""
    traceback: str = ""


_FAILURE: Final = msgspec.json.Decoder(Failure)


def level_of(priority: int) -> int:
    """The level of a priority from -2 to 2: 0 is served first.

    Raises:
        InvalidJob: it is another number.
    """
    if not -_HIGHEST <= priority <= _HIGHEST:
        raise InvalidJob(f"priority {priority} must be -2 to 2; 2 is served first")
    return _HIGHEST - priority


def new_ids(count: int) -> list[str]:
    """Ids of 80 random bits in 16 characters."""
    random = os.urandom(10 * count)
    text = base64.b32encode(random).decode("ascii").lower()
    return [text[at : at + 16] for at in range(0, 16 * count, 16)]


def derived_id(*parts: str) -> str:
    """An id that is the same for the same parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return base64.b32encode(digest[:15]).decode("ascii").lower()


def pack(
    level: int, task: str, unique: str, arguments: bytes, at: int, meta: dict[str, str | int] | None
) -> bytes:
    """A job's payload.

    Raises:
        InvalidJob: it is too large.
    """
    if len(arguments) > MAX_PAYLOAD:
        raise InvalidJob(
            f"the arguments of {task} have {len(arguments)} bytes, more than {MAX_PAYLOAD}: store them elsewhere and enqueue their address"
        )
    return b"%d%b\t%b\n" % (level, task.encode(), unique.encode()) + _ENCODER.encode(
        Envelope(msgspec.Raw(arguments), at, meta)
    )


def unpack(payload: bytes) -> tuple[Header, Envelope]:
    """A payload's parts.

    Raises:
        CodecError: it is no payload.
    """
    head, newline, body = payload.partition(b"\n")
    task, tab, unique = head[1:].partition(b"\t")
    if not newline or not tab:
        raise CodecError(f"{len(payload)} stored bytes are not a job")
    try:
        return Header(head[0] - 48, task.decode(), unique), _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CodecError(f"{len(payload)} stored bytes are not a job: {error}") from error


def pack_result(workspace: str, result: object) -> bytes:
    """What a job returned, as it is kept: `d`, whose it is, and the value.

    Raises:
        TypeError: it cannot be stored; so say `ValueError`, `OverflowError` and `RecursionError`.
    """
    name = workspace.encode()
    return b"d%c%b%b" % (len(name), name, _PACK(result))


def packed_value(stored: bytes) -> bytes:
    """The value within what `pack_result` has made."""
    return stored[2 + stored[1] :]


def packed_for(workspace: str, stored: bytes) -> bytes:
    """What is kept of a job, for another workspace: what is no result stays as it is."""
    if stored[:1] != b"d":
        return stored
    name = workspace.encode()
    return b"d%c%b%b" % (len(name), name, packed_value(stored))


def result_of(stored: bytes, type_: Any, job: str, workspace: str) -> Any:
    """What a job returned.

    Args:
        stored: as the store keeps it: a letter for how it ended, and the value, error or reason.
        type_: what is expected.
        job: its id, for messages.
        workspace: whose it is.

    Raises:
        JobFailed: it failed for good.
        JobCancelled: it was cancelled.
        JobUnknown: what lies there is another workspace's.
        CodecError: the value is of another type.
    """
    kind, body = stored[:1], stored[1:]
    if kind == b"c":
        raise JobCancelled(f"job {job}: {body.decode('utf-8', 'replace')}")
    try:
        if kind == b"f":
            failure = _FAILURE.decode(body)
            raise JobFailed(f"job {job}: {failure.type}: {failure.message}", error_type=failure.type)
        name = workspace.encode()
        if body[:1] != b"%c" % len(name) or not body.startswith(name, 1):
            get_logger("redis_core.isolation").error(
                "a job's result is another workspace's", workspace=workspace, job=job
            )
            raise JobUnknown(f"job {job} is not known, or kept no result")
        return msgspec.msgpack.decode(packed_value(stored), type=type_)
    except msgspec.MsgspecError as error:
        raise CodecError(f"the result of job {job} is not a {type_}: {error}") from error
