"""What is wrong with a key's name, by the families that `keys.py` declares."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from typing import Final

from redis_core.errors import InvalidKey
from redis_core.keys import (
    FAMILIES,
    PRE_LOGIN_WORKSPACE,
    TENANT_WORD,
    Family,
    check_part,
    check_workspace_id,
    family_of,
    workspace_of,
)

__all__ = ["Fault", "judge_name", "shown_key"]

_MOST_SHOWN: Final = 160
_TOKENS: Final = re.compile(r"<[^>]*>|\[|\]|\||[^<>\[\]|]+")
_SEVERAL: Final = frozenset({"<...>", "<topic>"})
"""Places of a pattern that hold any number of parts."""


class Fault(StrEnum):
    """What may be wrong with a key."""

    OWNERLESS = "ownerless"
    """It is of no workspace and of no family that is not a workspace's: nobody of this project wrote it."""
    FOREIGN_WORKSPACE = "foreign-workspace"
    """It stands where a workspace's keys do, and the id there can be no workspace's."""
    UNKNOWN_FAMILY = "unknown-family"
    """It is a workspace's, or the system's, of a family that is not declared."""
    MALFORMED = "malformed"
    """It is of a declared family and not of its shape."""
    WRONG_TYPE = "wrong-type"
    """Its Redis type is not the family's."""
    NO_EXPIRY = "no-expiry"
    """Its family's keys must expire, and it does not."""
    OVERSIZED = "oversized"
    """It takes more bytes than its family's keys may."""


def judge_name(key: bytes) -> tuple[Family | None, Fault | None]:
    """The declared family of a key, and what is wrong with its name; None where nothing is.

    A name that is wrong has no family unless it is one of a declared family's that is only malformed.
    """
    text = key.decode("utf-8", "surrogateescape")
    tenant = text.startswith(TENANT_WORD)
    if tenant and workspace_of(text) is None:
        return None, Fault.FOREIGN_WORKSPACE
    family = family_of(text)
    if family is None:
        return None, Fault.UNKNOWN_FAMILY if tenant or text.startswith("sys:") else Fault.OWNERLESS
    shape = _shape(family.pattern).fullmatch(text)
    if shape is None:
        # What begins with `sys:` is taken for the family `sys`, whose names are these and no others.
        return (None, Fault.UNKNOWN_FAMILY) if family.name == "sys" else (family, Fault.MALFORMED)
    return family, _judge_parts(shape)


def shown_key(key: bytes) -> str:
    """A key as a person or a log may see it: printable ASCII, the rest escaped, and not a page long."""
    shown = repr(key[:_MOST_SHOWN])[2:-1]
    return shown if len(key) <= _MOST_SHOWN else f"{shown}..."


def _judge_parts(shape: re.Match[str]) -> Fault | None:
    for name, found in shape.groupdict().items():
        if found is None:
            continue
        workspace = name.startswith("workspace")
        try:
            if not workspace:
                for part in found.split(":") if name.startswith("several") else (found,):
                    check_part(part)
            elif found != PRE_LOGIN_WORKSPACE:
                check_workspace_id(found)
        except InvalidKey:
            return Fault.FOREIGN_WORKSPACE if workspace else Fault.MALFORMED
    return None


@cache
def _shape(pattern: str) -> re.Pattern[str]:
    """A family's pattern as a regular expression whose named groups are the parts that vary."""
    words: list[str] = []
    for number, token in enumerate(_TOKENS.findall(pattern)):
        match token:
            case "[":
                words.append("(?:")
            case "]":
                words.append(")?")
            case "|":
                words.append("|")
            case "<workspace>":
                words.append(f"(?P<workspace{number}>[^:]*?)")
            case _ if token in _SEVERAL:
                words.append(f"(?P<several{number}>.+)")
            case _ if token.startswith("<") and "|" in token:
                words.append(f"(?:{'|'.join(map(re.escape, token[1:-1].split('|')))})")
            case _ if token.startswith("<"):
                words.append(f"(?P<part{number}>[^:]*?)")
            case _:
                words.append(re.escape(token))
    return re.compile("".join(words), re.DOTALL)


for _family in FAMILIES:
    _shape(_family.pattern)  # so that a pattern that cannot be read fails at import
