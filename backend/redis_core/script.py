"""Lua scripts: one file each in `lua/`, sent by their SHA1, in full only where the store does not know them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from redis_core.transport.base import Argument, Command

__all__ = ["Script", "is_confined", "load_script", "script_name"]

_NAMES: dict[str, str] = {}
_CONFINED: set[str] = set()


class Script:
    """One Lua script.

    Args:
        name: what it is called, for messages.
        text: its source, without a store's header line.
        confined: its author's word that it touches no keys but those it is given. Only such a script runs through a workspace's
            handle, for no client can see what a script does.
    """

    __slots__ = ("_texts", "confined", "name", "text")

    def __init__(self, name: str, text: str, *, confined: bool = False) -> None:
        self.name = name
        self.text = text
        self.confined = confined
        self._texts: dict[str, tuple[str, str]] = {}

    def _for(self, header: str) -> tuple[str, str]:
        """Text and SHA1 as a store with this header line knows them."""
        known = self._texts.get(header)
        if known is None:
            text = header + self.text
            known = text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            self._texts[header] = known
            _NAMES[known[1]] = self.name
            if self.confined:
                _CONFINED.add(known[1])
        return known

    def evalsha(self, header: str, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The command that runs it by SHA1. Budget: 1 plus the script's own, on Upstash."""
        return ("EVALSHA", self._for(header)[1], len(keys), *keys, *args)

    def eval(self, header: str, keys: Sequence[str], args: Sequence[Argument]) -> Command:
        """The command that runs it from its text."""
        return ("EVAL", self._for(header)[0], len(keys), *keys, *args)

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


@lru_cache(maxsize=256)
def load_script(name: str) -> Script:
    """The script `lua/NAME.lua` of this package."""
    text = files("redis_core").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return Script(name, text, confined=True)


def is_confined(command: Command) -> bool:
    """Whether a command runs a script whose author says that it touches no keys but those it is given."""
    kind, script = str(command[0]).upper(), str(command[1]) if len(command) > 1 else ""
    if kind == "EVAL":
        script = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return kind in {"EVAL", "EVALSHA"} and script in _CONFINED


def script_name(sha: str) -> str | None:
    """The name of a script that this process has sent, by its SHA1; None if it was none of ours."""
    return _NAMES.get(sha)
