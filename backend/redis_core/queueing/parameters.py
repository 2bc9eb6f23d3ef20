"""A task's parameters: which of them a job carries, checked against their annotations when it is enqueued."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec

from redis_core.errors import InvalidJob
from redis_core.queueing.depends import Depends

__all__ = ["Parameters"]

_NOTHING: Final = b"\x80"
"""An empty map: the arguments of a task that takes none."""
_ENCODE: Final = msgspec.msgpack.Encoder().encode


class Parameters:
    """What a function takes, worked out at first use: its annotations may name what is defined after it.

    Args:
        function: the task's.
        contexts: the classes of which one is injected, whatever the parameter is called.
    """

    __slots__ = (
        "_decode",
        "_names",
        "_positional",
        "_required",
        "context",
        "context_type",
        "depends",
        "result",
    )

    def __init__(self, function: Callable[..., Any], *contexts: type) -> None:
        self.context: str | None = None
        """The parameter that takes the job's context."""
        self.context_type: type | None = None
        """The context that it takes."""
        self.depends: dict[str, Depends] = {}
        """Parameters that are injected."""
        name = getattr(function, "__qualname__", repr(function))
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"{name}: an annotation of a task must be importable where it runs: {error}"
            ) from error
        self.result: Any = hints.pop("return", Any)
        """What the function says it returns."""
        fields: list[Any] = []
        self._positional: list[str] = []
        required: set[str] = set()
        for parameter in inspect.signature(function).parameters.values():
            hint = hints.get(parameter.name, Any)
            marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
            depends = next((mark for mark in marks if isinstance(mark, Depends)), None)
            if depends is not None:
                self.depends[parameter.name] = depends
            elif hint in contexts:
                self.context, self.context_type = parameter.name, hint
            elif parameter.kind in {
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
                parameter.POSITIONAL_ONLY,
            }:
                raise TypeError(f"{name}: a job carries arguments by name, so a task cannot take {parameter}")
            else:
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                    self._positional.append(parameter.name)
                if parameter.default is parameter.empty:
                    required.add(parameter.name)
                # The function's own default counts, not a copy of it here.
                fields.append(
                    (parameter.name, hint, msgspec.UNSET)
                    if parameter.name not in required
                    else (parameter.name, hint)
                )
        self._names = frozenset(field[0] for field in fields)
        self._required = frozenset(required)
        struct = msgspec.defstruct(
            f"Arguments of {name}",
            [_optional(*field) for field in fields],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decode = msgspec.msgpack.Decoder(struct).decode

    def encode(self, name: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """The arguments as a job carries them.

        Raises:
            InvalidJob: they are not what the task takes.
        """
        if not args and not kwargs and not self._required:
            return _NOTHING
        if args:
            if len(args) > len(self._positional):
                raise InvalidJob(f"{name} takes {len(self._positional)} arguments by place, not {len(args)}")
            given = dict(zip(self._positional, args, strict=False))
            twice = given.keys() & kwargs.keys()
            if twice:
                raise InvalidJob(f"{name} was given {', '.join(sorted(twice))} twice")
            kwargs = {**given, **kwargs}
        missing, unknown = self._required - kwargs.keys(), kwargs.keys() - self._names
        if missing or unknown:
            raise InvalidJob(
                f"{name}: "
                + "; ".join(
                    f"{what} {', '.join(sorted(names))}"
                    for what, names in (("missing", missing), ("unknown", unknown))
                    if names
                )
            )
        try:
            encoded = _ENCODE(kwargs)
            self._decode(encoded)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidJob(f"{name}: an argument is not what the task takes: {error}") from error
        return encoded

    def decode(self, data: bytes | msgspec.Raw) -> dict[str, object]:
        """The arguments of a job.

        Raises:
            InvalidJob: they are not what this version of the task takes.
        """
        if data == _NOTHING and not self._required:
            return {}
        try:
            decoded = self._decode(data)
        except msgspec.MsgspecError as error:
            raise InvalidJob(f"the job's arguments are not what the task takes now: {error}") from error
        return {name: value for name in self._names if (value := getattr(decoded, name)) is not msgspec.UNSET}


def _optional(name: str, hint: Any, default: object = ...) -> Any:
    return (
        (name, hint)
        if default is ...
        else (name, hint | msgspec.UnsetType if hint is not Any else Any, default)
    )
