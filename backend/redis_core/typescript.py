"""TypeScript from the types of topics and tasks: what `raptorflow types` writes.

The types come as JSON Schema from msgspec, so that they are what is on the wire, and are written as interfaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from redis_core.queueing.task import Task
    from redis_core.realtime.registry import Shape

__all__ = ["PACKAGE", "typescript"]

PACKAGE: Final = "@raptorflow/redis"
"""The npm package whose registration the types are added to."""
_KINDS: Final = ("events", "state", "append", "presence")
_HEAD: Final = """\
// Made by `raptorflow types` from the Python types. Change those, and make it again.

import type {{}} from "{package}";
"""
_TAIL: Final = """
declare module "{package}" {{
  interface Register {{
    topics: Topics;
    jobs: Jobs;
  }}
}}
"""
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_SIMPLE: Final = {
    "null": "null",
    "boolean": "boolean",
    "integer": "number",
    "number": "number",
    "string": "string",
}

_Schema: TypeAlias = Mapping[str, Any]


def typescript(
    shapes: Iterable[Shape], tasks: Iterable[Task[..., Any]] = (), *, package: str = PACKAGE
) -> str:
    """A module of interfaces, one for each type, and how topics and tasks use them.

    Args:
        shapes: what topics carry; `redis_core.realtime.registry.topics` is that of the process.
        tasks: whose arguments and results are told.
        package: where `Register` is.

    Raises:
        TypeError: a type has no JSON form.
    """
    listed = list(shapes)
    jobs = sorted(tasks, key=lambda task: task.name)
    results = [task.parameters.result for task in jobs]
    used = [shape.type for shape in listed] + results
    schemas, components = msgspec.json.schema_components(used, ref_template="{name}")
    lines = [_HEAD.format(package=package)]
    lines += [_declaration(name, components[name]) for name in sorted(components)]
    lines.append(_topics(listed, schemas))
    lines.append(_jobs(jobs, schemas[len(listed) :]))
    return "\n".join(lines) + _TAIL.format(package=package)


def _topics(shapes: list[Shape], schemas: Iterable[_Schema]) -> str:
    of_kind: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for shape, schema in zip(shapes, schemas, strict=False):
        of_kind[shape.kind].append(f"    {_topic_key(shape.pattern)}: {_type(schema, '    ')};")
    lines = ["export interface Topics {"]
    for kind, members in of_kind.items():
        if members:
            lines += [f"  {kind}: {{", *members, "  };"]
        else:
            lines.append(f"  {kind}: Record<never, never>;")
    return "\n".join([*lines, "}\n"])


def _topic_key(pattern: str) -> str:
    if not pattern.endswith("*"):
        return json.dumps(pattern)
    beginning = pattern[:-1].replace("`", "\\`")
    return f"[topic: `{beginning}${{string}}`]" if beginning else "[topic: string]"


def _jobs(tasks: list[Task[..., Any]], results: Iterable[_Schema]) -> str:
    lines = [
        f"  {json.dumps(task.name)}: {{ result: {_type(schema, '  ')} }};"
        for task, schema in zip(tasks, results, strict=True)
    ]
    return (
        "\n".join(["export interface Jobs {", *lines, "}"])
        if lines
        else "export type Jobs = Record<never, never>;"
    )


def _declaration(name: str, schema: _Schema) -> str:
    comment = _comment(schema, "")
    if schema.get("type") == "object" and "properties" in schema:
        return f"{comment}export interface {_name(name)} {_object(schema, '')}\n"
    return f"{comment}export type {_name(name)} = {_type(schema, '')};\n"


def _comment(schema: _Schema, indent: str) -> str:
    text = str(schema.get("description", "")).strip().split("\n\n")[0].replace("*/", "* /")
    return f"{indent}/** {' '.join(text.split())} */\n" if text else ""


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_$]", "_", name)


def _type(schema: _Schema, indent: str) -> str:
    """A schema as a type."""
    if "$ref" in schema:
        return _name(schema["$ref"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            # In the order of the schema, each once: an int and a float are one type here.
            return " | ".join(dict.fromkeys(_type(one, indent) for one in schema[union]))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(dict.fromkeys(_type({**schema, "type": one}, indent) for one in kind))
    if kind == "array":
        return _array(schema, indent)
    if kind == "object":
        return _object(schema, indent)
    # No type is any JSON, which is to be looked at before it is used.
    return _SIMPLE.get(str(kind), "unknown")


def _array(schema: _Schema, indent: str) -> str:
    first = [_type(one, indent) for one in schema.get("prefixItems", ())]
    rest = schema.get("items", {})
    if not first:
        return f"readonly {_several(_type(rest, indent))}[]" if rest is not False else "readonly []"
    # Items that a class of fields in a row has defaults for may be missing at its end.
    least = schema.get("minItems", 0)
    members = [f"{_several(one)}?" if place >= least else one for place, one in enumerate(first)]
    if rest is not False:
        members.append(f"...{_several(_type(rest, indent))}[]")
    return f"readonly [{', '.join(members)}]"


def _several(member: str) -> str:
    return f"({member})" if " " in member else member


def _object(schema: _Schema, indent: str) -> str:
    if "properties" not in schema:
        values = schema.get("additionalProperties", True)
        return (
            f"Readonly<Record<string, {_type(values, indent) if isinstance(values, Mapping) else 'unknown'}>>"
        )
    lines = list(_members(schema, indent + "  "))
    return "\n".join(["{", *lines, f"{indent}}}"]) if lines else "Record<never, never>"


def _members(schema: _Schema, indent: str) -> Iterator[str]:
    required = set(schema.get("required", ()))
    for name, member in schema["properties"].items():
        key = name if _IDENTIFIER.fullmatch(name) else json.dumps(name)
        mark = "" if name in required else "?"
        yield f"{_comment(member, indent)}{indent}readonly {key}{mark}: {_type(member, indent)};"
