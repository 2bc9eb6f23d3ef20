"""Bytes that are not UTF-8, for a protocol whose requests are JSON text.

Each such argument goes as text of one character a byte (Latin-1), and Lua on the server makes bytes of it again: for a plain
command in a script that issues it, for a script in a line before its own first. Both work in pipelines and transactions and
with any number of such arguments. A plain command costs one more on Upstash's bill that way and locks the database for its
duration, as its script cannot name its keys; a script costs what it always does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from redis_core.errors import CodecError, NoScript
from redis_core.transport.base import Argument, Command
from redis_core.transport.refused import command_name

__all__ = ["BinaryScripts", "binary_places", "carried"]

# The first argument names the places of the others that are bytes. U+0080 to U+00FF are two bytes of UTF-8 each.
_DECODE: Final = (
    "local ARGV=(function(given) local bytes,words={},{} "
    "for byte=128,191 do bytes[string.char(194,byte)]=string.char(byte) "
    "bytes[string.char(195,byte)]=string.char(byte+64) end "
    "for place=2,#given do words[place-1]=given[place] end "
    r"for mark in given[1]:gmatch('%d+') do local place=tonumber(mark) "
    r"words[place]=words[place]:gsub('[\194\195][\128-\191]',bytes) end "
    "return words end)(ARGV) "
)
_ISSUE: Final = _DECODE + "return redis.pcall(unpack(ARGV))"
_MAX_WORDS: Final = 7_000
"""Most words that Lua 5.1 unpacks, with some to spare (LUAI_MAXCSTACK is 8,000)."""

_BY_TEXT: Final = frozenset({"EVAL", "EVAL_RO"})
_BY_SHA: Final = frozenset({"EVALSHA", "EVALSHA_RO"})
_MAX_SCRIPTS: Final = 1_000


def binary_places(command: Command) -> list[int]:
    """The places of a command's arguments that are not UTF-8."""
    return [place for place, word in enumerate(command) if isinstance(word, bytes) and not _is_utf8(word)]


def carried(command: Command, scripts: BinaryScripts) -> Command:
    """A command that does the same with text only.

    Args:
        command: has arguments that are not UTF-8.
        scripts: what is known of scripts.

    Raises:
        CodecError: there is none: a function, a script's key, or too many words.
    """
    name = command_name(command)
    if name in _BY_TEXT or name in _BY_SHA:
        return scripts.carried(name, command)
    if name.startswith("FCALL") or len(command) > _MAX_WORDS:
        raise CodecError(
            f"{name} cannot go over REST with these arguments that are not UTF-8: encode them as text"
        )
    return ("EVAL", _ISSUE, 0, *_marked(command))


class BinaryScripts:
    """Scripts that take bytes, by the SHA1 of their text without the line that makes bytes of text."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def unknown(self, command: Command) -> NoScript | None:
        """The answer to a script by SHA1 whose text was never seen, so that it comes again in full; None for all others."""
        if (
            command_name(command) in _BY_SHA
            and binary_places(command)
            and _text(command[1]) not in self._known
        ):
            return NoScript("NOSCRIPT the store does not know this script in the form that takes bytes")
        return None

    def carried(self, name: str, command: Command) -> Command:
        """The script as it takes these arguments as text."""
        try:
            start = 3 + int(command[2])
            words = command[start:]
            keys = command[3:start]
            script = _text(command[1])
        except (IndexError, ValueError, TypeError):
            raise CodecError(f"{name} cannot go over REST: its number of keys is not one") from None
        if binary_places(keys):
            raise CodecError(f"{name} cannot go over REST with a key that is not UTF-8")
        form = self._known.get(script, script) if name in _BY_SHA else self._with_bytes(script)
        return (name, form, command[2], *keys, *_marked(words))

    def _with_bytes(self, text: str) -> str:
        """The script's text with the decoding in front, behind a `#!` line if it has one."""
        first, newline, rest = text.partition("\n")
        form = f"{first}{newline}{_DECODE}{rest}" if first.startswith("#!") else _DECODE + text
        if len(self._known) >= _MAX_SCRIPTS:
            self._known.clear()
        self._known[_sha1(text)] = _sha1(form)
        return form


def _marked(words: Sequence[Argument]) -> list[Argument]:
    """The places that are bytes, and the words as text."""
    places = set(binary_places(tuple(words)))
    marks = ",".join(str(place + 1) for place in sorted(places))
    return [
        marks,
        *(
            word.decode("latin-1") if isinstance(word, bytes) and place in places else word
            for place, word in enumerate(words)
        ),
    ]


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _text(word: Argument) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _is_utf8(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True
