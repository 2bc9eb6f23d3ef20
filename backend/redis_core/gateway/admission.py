"""From a command as a client wrote it to the one the store gets, or to the answer that it gets without the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis_core.errors import CommandError, PermissionDenied
from redis_core.gateway.limits import GatewayLimits
from redis_core.gateway.policy import key_too_long, no_permission, reads_only, refusal
from redis_core.gateway.scripts import Scripts
from redis_core.gateway.tokens import GatewayToken
from redis_core.key_positions import key_positions, upper
from redis_core.transport.base import Argument, Command, Reply

__all__ = ["Admission", "Admitted"]

# SCAN ... WITHTYPE is Upstash's own. Cost: SCAN, and one TYPE a key found.
_SCAN_WITH_TYPE: Final = """
local step = redis.call('SCAN', unpack(ARGV))
local found = {}
for _, key in ipairs(step[2]) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('TYPE', key)['ok']
end
return {step[1], found}
"""
_SCRIPTS: Final = frozenset("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO FUNCTION SCRIPT".split())
_OPTIONS_OF_SCAN: Final = 2


@dataclass(slots=True)
class Admitted:
    """What is to be done about a command.

    Either `command` goes to the store and its reply through `finish`, or `command` is None and `answer` is the reply.
    """

    command: Command | None = None
    answer: Reply = None
    finish: Callable[[Reply], Reply] | None = None


class Admission:
    """The rules, applied.

    Args:
        limits: the longest key.
        scripts: rewrites scripts.
    """

    def __init__(self, limits: GatewayLimits, scripts: Scripts) -> None:
        self._limits = limits
        self._scripts = scripts

    def admit(self, token: GatewayToken, name: str, words: list[Argument]) -> Admitted:
        """Judge a command and make it ready.

        Args:
            token: who asks.
            name: the command, in capitals.
            words: all of it, the name included; changed in place.
        """
        if name == "CLIENT" and len(words) > 1 and upper(words[1]) == "SETINFO":
            # Clients introduce themselves; the connection is not theirs, so there is nothing to note it on.
            return Admitted(answer=b"OK")
        error = refusal(name, words)
        if error is None and token.read_only and not reads_only(name, words):
            error = no_permission(name)
        if error is None:
            error = key_too_long(name, words, self._limits.max_key_bytes)
        if error is not None:
            return Admitted(answer=error)
        if name == "SELECT":
            return Admitted(answer=b"OK")
        words[0] = name
        finish = self._scripts.prepare(name, words)
        if token.prefix:
            outcome = _prefixed(token, name, words)
            if isinstance(outcome, CommandError):
                return Admitted(answer=outcome)
            finish = outcome or finish
        if name == "SCAN" and any(upper(word) == "WITHTYPE" for word in words[2:]):
            words[:] = [
                "EVAL",
                _SCAN_WITH_TYPE,
                0,
                *(word for word in words[1:] if upper(word) != "WITHTYPE"),
            ]
        return Admitted(tuple(words), None, finish)


def _prefixed(
    token: GatewayToken, name: str, words: list[Argument]
) -> CommandError | Callable[[Reply], Reply] | None:
    """Put the token's prefix before keys, channels and patterns; how to take it off the reply again, if it names keys."""
    if name in {"KEYS", "SCAN"}:
        return _prefix_pattern(token.prefix, name, words)
    if name == "PUBLISH" and len(words) > 1:
        words[1] = _join(token.prefix, words[1])
        return None
    if name in _SCRIPTS and not token.trusted_scripts:
        return PermissionDenied(
            f"NOPERM {name} is not allowed to this token: a script can reach keys outside the token's prefix"
        )
    places = () if name == "SCRIPT" else key_positions(name, words)
    if places is None:
        return PermissionDenied(
            f"NOPERM {name} is not allowed to this token, which has a prefix: which of its words are keys is not known"
        )
    for place in places:
        words[place] = _join(token.prefix, words[place])
    size = len(token.prefix.encode())
    if name in {"LMPOP", "ZMPOP"}:
        return lambda reply: [_cut(reply[0], size), *reply[1:]] if isinstance(reply, list) else reply
    if name in {"XREAD", "XREADGROUP"}:
        return lambda reply: _cut_streams(reply, size)
    return None


def _prefix_pattern(prefix: str, name: str, words: list[Argument]) -> Callable[[Reply], Reply]:
    pattern = "".join("\\" + letter if letter in "*?[]\\" else letter for letter in prefix)
    size = len(prefix.encode())
    if name == "KEYS":
        words[1:2] = [_join(pattern, word) for word in words[1:2]]
        return lambda reply: [_cut(key, size) for key in reply] if isinstance(reply, list) else reply
    matches = [
        place + 1 for place in range(_OPTIONS_OF_SCAN, len(words) - 1) if upper(words[place]) == "MATCH"
    ]
    for place in matches:
        words[place] = _join(pattern, words[place])
    if not matches:
        words += ["MATCH", pattern + "*"]
    # With WITHTYPE a type follows each key.
    step = 2 if any(upper(word) == "WITHTYPE" for word in words) else 1
    return lambda reply: _cut_scan(reply, size, step)


def _join(prefix: str, word: Argument) -> Argument:
    return prefix.encode() + word if isinstance(word, bytes) else f"{prefix}{word}"


def _cut(name: Reply, size: int) -> Reply:
    return name[size:] if isinstance(name, bytes) else name


def _cut_scan(reply: Reply, size: int, step: int) -> Reply:
    if not isinstance(reply, list) or not isinstance(reply[1], list):
        return reply
    found = list(reply[1])
    found[::step] = [_cut(key, size) for key in found[::step]]
    return [reply[0], found]


def _cut_streams(reply: Reply, size: int) -> Reply:
    if not isinstance(reply, list):
        return reply
    return [[_cut(stream[0], size), *stream[1:]] if isinstance(stream, list) else stream for stream in reply]
