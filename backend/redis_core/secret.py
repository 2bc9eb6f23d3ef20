"""A value that must not be seen: passwords, tokens, peppers."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Secret", "is_same"]

is_same: Final = hmac.compare_digest
"""Whether two secrets, digests or MACs are the same, in a time that does not tell where they differ. The one comparison of such things;
a test holds that there is no other."""


class Secret:
    """Text that shows as `***` in `str`, `repr`, format strings, JSON and tracebacks.

    Only `reveal()` returns it, so that every place where it leaves the process can be found by name.
    Comparison takes the same time wherever the first difference is.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return is_same(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __deepcopy__(self, _memo: object) -> Secret:
        """Itself: it does not change, and a copy would be one place more."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised: reveal() it where it must leave the process")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let settings take it from a plain string."""
        from pydantic_core import core_schema  # noqa: PLC0415 - pydantic is loaded only where settings are read

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(str(value)),
            serialization=core_schema.to_string_ser_schema(),
        )
