"""Scripts written for Upstash, on a store that is not Upstash.

Upstash locks its whole database for a script unless the flag `allow-key-locking` is set; Redis and Valkey refuse scripts with
a flag that they do not know. So the flag is taken out on the way. That changes the script's SHA1, and clients compute theirs
from what they wrote: a map leads from it to the SHA1 that the store knows, and SCRIPT LOAD answers the one that clients expect.

The map is this process' own and bounded. A SHA1 that it has not is sent on as it is, the store answers NOSCRIPT, and the client
sends the script in full, as it must be ready to do anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha1
from typing import Final

from redis_core.key_positions import upper
from redis_core.transport.base import Argument, Reply

__all__ = ["Scripts", "plain_function", "plain_script"]

_FLAG: Final = "allow-key-locking"
_REMEMBERED: Final = 10_000
_FLAG_LITERAL: Final = re.compile(rf"""(['"]){_FLAG}\1""")
_FLAG_ITEM: Final = re.compile(rf"""(?:(['"]){_FLAG}\1\s*[,;]?|[,;]\s*(['"]){_FLAG}\2(?=\s*\}}))""")
_FLAGS_TABLE: Final = re.compile(r"\bflags\b['\"\]\s]*=\s*\{[^}]*\}")
_LOAD_WORDS: Final = 3


def plain_script(script: str) -> str:
    """The script without `allow-key-locking` in its first line, `#!lua flags=...`.

    A first line without any flag left is emptied: `#!lua` alone is not the same as no line, it makes Redis 7 refuse the script to
    EVAL_RO and under memory pressure. Lines keep their numbers.
    """
    line, newline, rest = script.partition("\n")
    if not line.startswith("#!") or _FLAG not in line:
        return script
    words = line.split()
    kept: list[str] = []
    for word in words:
        if word.startswith("flags="):
            flags = [flag for flag in word[6:].split(",") if flag and flag != _FLAG]
            if flags:
                kept.append("flags=" + ",".join(flags))
        else:
            kept.append(word)
    if kept == words[:1]:
        kept = []
    return " ".join(kept) + newline + rest


def plain_function(library: str) -> str:
    """The library without `allow-key-locking` among the `flags = {...}` of its functions."""
    if not _FLAG_LITERAL.search(library):
        return library
    return _FLAGS_TABLE.sub(lambda table: _FLAG_ITEM.sub("", table[0]), library)


class Scripts:
    """What became of scripts that passed through.

    Args:
        rewrite: False for a store that knows the flag: everything passes as it is.
    """

    def __init__(self, *, rewrite: bool) -> None:
        self._rewrite = rewrite
        self._known: dict[str, str] = {}

    def prepare(self, name: str, words: list[Argument]) -> Callable[[Reply], Reply] | None:
        """Make a script's command one that the store takes, in place; what is to be done with its reply, if anything.

        Args:
            name: the command, in capitals.
            words: all of it, the name included.
        """
        if not self._rewrite or len(words) < 2:  # noqa: PLR2004 - nothing to rewrite in a name alone
            return None
        if name in {"EVAL", "EVAL_RO"}:
            self._script(words, 1)
        elif name in {"EVALSHA", "EVALSHA_RO"}:
            self._sha(words, 1)
        elif name == "SCRIPT":
            return self._script_command(words)
        elif name == "FUNCTION" and upper(words[1]) == "LOAD" and len(words) >= _LOAD_WORDS:
            words[-1] = _on_text(words[-1], plain_function)
        return None

    def _script_command(self, words: list[Argument]) -> Callable[[Reply], Reply] | None:
        subcommand = upper(words[1])
        if subcommand == "EXISTS":
            for place in range(2, len(words)):
                self._sha(words, place)
        elif subcommand == "LOAD" and len(words) == _LOAD_WORDS:
            original = self._script(words, 2)
            if original is not None:
                return lambda reply: original if isinstance(reply, bytes) else reply
        return None

    def _script(self, words: list[Argument], place: int) -> bytes | None:
        """Rewrite a script; the SHA1 that its client knows it by, if it was changed."""
        script = words[place]
        plain = _on_text(script, plain_script)
        if plain == script:
            return None
        original = _sha1(script)
        if original not in self._known and len(self._known) >= _REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[original] = _sha1(plain)
        words[place] = plain
        return original.encode()

    def _sha(self, words: list[Argument], place: int) -> None:
        known = self._known.get(upper(words[place]).lower())
        if known is not None:
            words[place] = known


def _on_text(script: Argument, change: Callable[[str], str]) -> Argument:
    """The change, of text or of bytes that are text."""
    if isinstance(script, str):
        return change(script)
    if isinstance(script, bytes):
        try:
            return change(script.decode()).encode()
        except UnicodeDecodeError:
            return script
    return script


def _sha1(script: Argument) -> str:
    text = script if isinstance(script, bytes) else str(script).encode()
    return sha1(text, usedforsecurity=False).hexdigest()
