"""A session's application data: a mapping or a msgspec Struct over the hash's fields, and what has changed in it.

Changes are found by comparing each field's encoded form with the bytes that were read, so a change inside a nested list is
found too, and a field that was only read is never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from redis_core.errors import CodecError
from redis_core.sessions.value import check_field_name, decode_as, decode_value, encode_value, same_value

__all__ = ["NO_CHANGES", "Changes", "DataForm", "MappingForm", "SessionData", "StructForm"]

T = TypeVar("T")
V = TypeVar("V")

_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None)})


class Changes(NamedTuple):
    """What to write so that the stored fields become the present ones."""

    written: dict[str, bytes]
    removed: list[str]

    def __bool__(self) -> bool:
        return bool(self.written or self.removed)


NO_CHANGES: Final = Changes({}, [])


class SessionData(MutableMapping[str, object]):
    """A session's fields as a mapping; each is decoded when it is first asked for.

    Names are strings that do not begin with `_`; values are what JSON carries: None, bool, int of 64 bits, float, str, and lists
    and dicts of these. Anything else that msgspec can write (bytes, datetime, UUID, a Struct) comes back as itself through
    `typed`, and as text, list or dict otherwise.

    Args:
        raw: the stored fields.
    """

    __slots__ = ("_assigned", "_raw", "_removed", "_values")

    def __init__(self, raw: Mapping[str, bytes] | None = None) -> None:
        self._raw: Mapping[str, bytes] = raw if raw is not None else {}
        self._values: dict[str, object] = {}
        self._assigned: set[str] = set()
        self._removed: set[str] = set()

    def __getitem__(self, name: str) -> object:
        if name in self._values:
            return self._values[name]
        if name in self._removed or name not in self._raw:
            raise KeyError(name)
        value = self._values[name] = decode_value(self._raw[name])
        return value

    def typed(self, name: str, type_: type[V]) -> V:
        """A field as this type; changes inside the value count, as with `data[name]`.

        Raises:
            KeyError: there is no such field.
            CodecError: it is not of this type.
        """
        value: object
        if name not in self._values and name not in self._removed and name in self._raw:
            value = decode_as(self._raw[name], type_)
        else:
            value = decode_as(encode_value(self[name]), type_)
        self._values[name] = value
        return value

    def __setitem__(self, name: str, value: object) -> None:
        self._values[check_field_name(name)] = value
        self._assigned.add(name)
        self._removed.discard(name)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._values.pop(name, None)
        self._assigned.discard(name)
        self._removed.add(name)

    def __contains__(self, name: object) -> bool:
        return name in self._values or (name in self._raw and name not in self._removed)

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._raw if name not in self._removed)
        yield from (name for name in self._values if name not in self._raw)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        # Names only: what users put into a session is nothing for a log.
        return f"SessionData({', '.join(self)})"

    def changes(self) -> Changes:
        """What differs from the stored fields."""
        written: dict[str, bytes] = {}
        for name, value in self._values.items():
            assigned = name in self._assigned
            if not assigned and type(value) in _IMMUTABLE:
                continue
            encoded = encode_value(value)
            raw = self._raw.get(name)
            if raw is None or (raw != encoded if assigned else not same_value(raw, encoded)):
                written[name] = encoded
        return Changes(written, [name for name in self._removed if name in self._raw])

    def settle(self, raw: Mapping[str, bytes], name: str | None = None) -> None:
        """These fields are stored now: forget the changes, all or one field's, whose value is then read anew."""
        self._raw = raw
        if name is None:
            self._assigned.clear()
            self._removed.clear()
        else:
            self._values.pop(name, None)
            self._assigned.discard(name)
            self._removed.discard(name)


class DataForm(Protocol[T]):
    """How one type of data lies in the fields."""

    def load(self, raw: Mapping[str, bytes]) -> T:
        """The data of these fields."""
        ...

    def encode(self, data: T | Mapping[str, object]) -> dict[str, bytes]:
        """All fields of new data."""
        ...

    def changes(self, data: T, raw: Mapping[str, bytes]) -> Changes:
        """What differs from the stored fields."""
        ...

    def settle(self, data: T, raw: Mapping[str, bytes], name: str | None = None) -> None:
        """These fields are stored now, all or one that was changed in the store."""
        ...


class MappingForm:
    """Data as a `SessionData` mapping."""

    def load(self, raw: Mapping[str, bytes]) -> SessionData:
        """The data of these fields; decodes none yet."""
        return SessionData(raw)

    def encode(self, data: Mapping[str, object]) -> dict[str, bytes]:
        """All fields of new data."""
        return {check_field_name(name): encode_value(value) for name, value in data.items()}

    def changes(self, data: SessionData, raw: Mapping[str, bytes]) -> Changes:  # noqa: ARG002 - the data knows them
        """What differs from the stored fields."""
        return data.changes()

    def settle(self, data: SessionData, raw: Mapping[str, bytes], name: str | None = None) -> None:
        """These fields are stored now, all or one that was changed in the store."""
        data.settle(raw, name)


class StructForm:
    """Data as a msgspec Struct: one hash field for each of its own.

    A stored field that the Struct does not have, a newer release's, is left as it is. One that is missing takes its default.

    Args:
        type_: the Struct.
    """

    __slots__ = ("_fields", "_type")

    def __init__(self, type_: type[msgspec.Struct]) -> None:
        self._type = type_
        self._fields = {field.name: field for field in msgspec.structs.fields(type_)}
        for field in self._fields.values():
            check_field_name(field.encode_name)

    def load(self, raw: Mapping[str, bytes]) -> msgspec.Struct:
        """The Struct of these fields.

        Raises:
            CodecError: a field is not of its type, or one without default is missing.
        """
        values: dict[str, object] = {}
        for name, field in self._fields.items():
            stored = raw.get(field.encode_name)
            if stored is not None:
                values[name] = decode_as(stored, field.type)
            elif field.required:
                raise CodecError(
                    f"session data has no field {field.encode_name!r}, which {self._type.__name__} needs"
                )
        return self._type(**values)

    def encode(self, data: msgspec.Struct | Mapping[str, object]) -> dict[str, bytes]:
        """All fields of new data, each checked against its type."""
        if isinstance(data, Mapping):
            try:
                data = msgspec.convert(dict(data), self._type)
            except msgspec.ValidationError as error:
                raise CodecError(f"session data is not a {self._type.__name__}: {error}") from error
        return {field.encode_name: encode_value(getattr(data, name)) for name, field in self._fields.items()}

    def changes(self, data: msgspec.Struct, raw: Mapping[str, bytes]) -> Changes:
        """What differs from the stored fields; a default that is not stored is no difference."""
        written: dict[str, bytes] = {}
        for name, encoded in self.encode(data).items():
            stored = raw.get(name)
            if stored is None:
                if encoded != self._default(name):
                    written[name] = encoded
            elif not same_value(stored, encoded):
                written[name] = encoded
        return Changes(written, [])

    def settle(self, data: msgspec.Struct, raw: Mapping[str, bytes], name: str | None = None) -> None:
        """These fields are stored now, all or one that was changed in the store."""
        for attribute, field in self._fields.items():
            stored = raw.get(field.encode_name) if field.encode_name == name else None
            if stored is not None:
                msgspec.structs.force_setattr(data, attribute, decode_as(stored, field.type))

    def _default(self, stored_name: str) -> bytes | None:
        field = next(f for f in self._fields.values() if f.encode_name == stored_name)
        if field.default is not msgspec.NODEFAULT:
            return encode_value(field.default)
        if field.default_factory is not msgspec.NODEFAULT:
            return encode_value(field.default_factory())
        return None
