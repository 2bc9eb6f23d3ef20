"""msgspec Structs as request bodies: read, checked, and told in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request

from redis_core.api.documents import schema_of
from redis_core.api.problems import ProblemError

__all__ = ["body", "body_document"]

S = TypeVar("S", bound=msgspec.Struct)

_MOST_BYTES: Final = 256 * 1024


def body(type_: type[S]) -> Callable[[Request], Awaitable[S]]:
    """A dependency that reads a body of this type.

    Only `application/json` is taken: a form of another site cannot send that without asking first.

    Args:
        type_: the Struct.
    """
    decoder = msgspec.json.Decoder(type_)

    async def dependency(request: Request) -> S:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise ProblemError(415, "not-json", "Send the body as application/json.")
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > _MOST_BYTES:
                raise ProblemError(413, "too-large", f"The body may have {_MOST_BYTES} bytes at most.")
        try:
            return decoder.decode(bytes(received))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProblemError(422, "invalid-request", f"body: {error}") from error

    return dependency


def body_document(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """The `openapi_extra` of a route with such a body."""
    content = {"application/json": {"schema": schema_of(type_)}}
    return {"requestBody": {"required": True, "content": content}}
