"""msgspec Structs as responses, and in the OpenAPI document: one description of each type, no second model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastapi import Response

__all__ = ["HEALTH_JSON", "PROBLEM_JSON", "described", "json_response", "schema_of"]

PROBLEM_JSON: Final = "application/problem+json"
"""RFC 9457's media type."""
HEALTH_JSON: Final = "application/health+json"
"""The media type of draft-inadarei-api-health-check-06."""

_ENCODER: Final = msgspec.json.Encoder()


def json_response(
    document: msgspec.Struct,
    *,
    status: int = 200,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A Struct as a response that nobody caches, and no browser takes for something else."""
    return Response(
        _ENCODER.encode(document),
        status_code=status,
        media_type=media_type,
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
    )


def described(
    what: str,
    type_: type[msgspec.Struct],
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A response's entry in OpenAPI.

    Args:
        what: when it is given.
        type_: what its body is.
        media_type: of the body.
        headers: the response's own headers and what each says.
    """
    entry: dict[str, Any] = {"description": what, "content": {media_type: {"schema": schema_of(type_)}}}
    if headers:
        entry["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
        }
    return entry


def schema_of(type_: type[msgspec.Struct]) -> dict[str, Any]:
    """The type's JSON Schema in one piece: a router of a foreign app has no place for shared definitions."""
    (schema,), definitions = msgspec.json.schema_components([type_], ref_template="{name}")
    whole: dict[str, Any] = _in_place(schema, definitions)
    return whole


def _in_place(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_in_place(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _in_place(definitions[node["$ref"]], definitions)
    return {name: _in_place(value, definitions) for name, value in node.items()}
