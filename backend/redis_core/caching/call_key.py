"""The key of a function's call: other arguments are always another key, however they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from inspect import Parameter, Signature
from typing import Any, Final

from redis_core.errors import InvalidKey

__all__ = ["key_of_call"]

_NO_ARGUMENTS: Final = "%"
_ONE_EMPTY: Final = "%0"
_OURS: Final = re.compile("[%|=]")
"""What means something in such a key, and is written otherwise where it is an argument's own."""


def key_of_call(signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The key of a call: its arguments joined by `|`, those that could not be told by their place as `%name=value`.

    Args:
        signature: the function's; its first parameter is the workspace.
        args: what is given by place, after the workspace.
        kwargs: what is given by name.

    Raises:
        InvalidKey: an argument is neither text nor a number.
        TypeError: the function cannot be called so.
    """
    parts = list(_by_name(signature, args, kwargs) if kwargs else map(_written, args))
    return "|".join(parts) or (_ONE_EMPTY if parts else _NO_ARGUMENTS)


def _by_name(signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[str]:
    given = signature.bind(None, *args, **kwargs).arguments
    by_place = True
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.name not in given:
            by_place = False
            continue
        value = given[parameter.name]
        if parameter.kind is Parameter.VAR_POSITIONAL:
            yield from map(_written, value)
        elif parameter.kind is Parameter.VAR_KEYWORD:
            for name in sorted(value):
                yield f"%{_quoted(name)}={_written(value[name])}"
        elif by_place and parameter.kind is not Parameter.KEYWORD_ONLY:
            yield _written(value)
        else:
            yield f"%{parameter.name}={_written(value)}"


def _written(value: object) -> str:
    if type(value) not in {str, int}:
        raise InvalidKey(f"a {type(value).__name__} makes no cache key")
    text = str(value)
    return text.replace("%", "%25").replace("|", "%7C")


def _quoted(name: str) -> str:
    return _OURS.sub(lambda found: f"%{ord(found[0]):02X}", name)
