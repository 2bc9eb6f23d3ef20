"""Redis commands that cannot leave one workspace: the guard through which all that a workspace's handle says goes.

A command is looked at before it is sent, on the word of the table in `key_positions.py`. Every key of it must be the
workspace's; a channel counts as a key. What has no key that could be looked at (SCAN, KEYS, FLUSHDB) and what
no table knows is refused. What a script does with names that are not among its keys no client can see: only scripts run whose author
says that they touch none (`Script(..., confined=True)`). Ours do, and a test reads what they send.

Services name what they share with all workspaces, such as the stream that tells processes of changes in the cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis_core.commands import Commands
from redis_core.errors import IsolationError
from redis_core.key_positions import KEYLESS, ONE_KEY, ONLY_KEYS, key_positions, upper
from redis_core.keys import WorkspaceKeys
from redis_core.measuring.tally import Tallies, Tally
from redis_core.pipeline import Pipeline, Transaction
from redis_core.script import Script, is_confined
from redis_core.transport.base import Argument, Command, Reply, Transport

__all__ = ["Confined", "Sender"]

T = TypeVar("T")

_NO_TALLY: Final = Tally(live=False)
_CHANNEL: Final = frozenset({"PUBLISH", "SPUBLISH"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"})


@dataclass(frozen=True, slots=True)
class Sender:
    """What a client lends: it sends, retries and measures, and looks at no key."""

    transport: Transport
    one: Callable[[Command, Callable[[Any], Any]], Awaitable[Any]]
    """Sends a command and decodes its reply."""
    batch: Callable[[Sequence[Command]], Awaitable[list[Reply]]]
    """Sends commands together."""
    transaction: Callable[[Sequence[Command]], Awaitable[list[Reply]]]
    """Sends commands that are done together or not at all."""
    run: Callable[[Script, Sequence[str], Sequence[Argument]], Awaitable[Reply]]
    """Runs a Lua script."""
    tallies: Tallies
    """Counts what was answered, while somebody asks for it."""


class Confined(Commands):
    """Redis commands of one workspace; for applications `ws.redis`. Cost: about 150 ns a command, no command of the store.

    ::

        await ws.redis.set(ws.keys.key("app", "plan"), "pro")  # done
        await ws.redis.get("ws:{globex}:app:plan")             # IsolationError, nothing is sent

    Args:
        sender: the client.
        keys: the workspace's key names.
        shared: how other keys begin that may be used too, none of them a workspace's.
    """

    __slots__ = ("_beginnings", "_one", "_prefix", "_sender", "_tallies", "_tally", "keys")

    def __init__(self, sender: Sender, keys: WorkspaceKeys, *shared: str) -> None:
        self.keys = keys
        self._sender = sender
        self._one = sender.one
        self._tallies = sender.tallies
        self._tally = _NO_TALLY
        self._prefix = keys.prefix
        self._beginnings = (keys.prefix, *shared)

    def pipeline(self) -> Pipeline:
        """Commands that are sent together; if one is refused, none is sent. Budget: 1 trip."""
        return Pipeline(self._sender.transport, self._send_batch)

    def transaction(self) -> Transaction:
        """Commands that are done together or not at all (MULTI/EXEC). Budget: 1 trip."""
        return Transaction(self._sender.transport, self._send_transaction)

    def run(
        self, script: Script, keys: Sequence[str] = (), args: Sequence[Argument] = ()
    ) -> Awaitable[Reply]:
        """Run a Lua script atomically; it must name its keys, and its author must say that it touches no others: `Script(..., confined=True)`."""
        if not keys or not script.confined:
            raise self._refusal(script.name)
        for key in keys:
            if not key.startswith(self._beginnings) and not self.keys.owns_in_queue(key):
                raise self._refusal(script.name)
        if self._tallies.counting:
            return self._counted_run(script, keys, args)
        return self._sender.run(script, keys, args)

    def check(self, command: Command) -> None:
        """Nothing, if the command stays in the workspace.

        Raises:
            IsolationError: it does not, or nobody can tell.
        """
        # Two short ways without the table: what nearly all commands are.
        if len(command) > 1:
            beginnings = self._beginnings
            if command[0] in ONE_KEY:
                key = command[1]
                if type(key) is str and key.startswith(beginnings):
                    return
            elif command[0] in ONLY_KEYS:
                for key in command[1:]:
                    if type(key) is not str or not key.startswith(beginnings):
                        break
                else:
                    return
        self._look(command)

    def _look(self, command: Command) -> None:
        name = upper(command[0]) if command else ""
        if name in _SCRIPTS and not is_confined(command):
            raise self._refusal(name)
        places = (1,) if name in _CHANNEL else key_positions(name, command)
        if places is None or len(command) <= max(places, default=0) or not (places or name in KEYLESS):
            raise self._refusal(name)
        for place in places:
            key = command[place]
            text = (
                key if isinstance(key, str)
                else key.decode("utf-8", "replace") if isinstance(key, bytes)
                else str(key)
            )  # fmt: skip
            if not text.startswith(self._beginnings) and not self.keys.owns_in_queue(text):
                raise self._refusal(name)

    def _refusal(self, name: str) -> IsolationError:
        from redis_core.log import get_logger  # noqa: PLC0415 - structlog, which `import redis_core` need not load

        # Neither here nor there the key: it may be somebody's.
        get_logger("redis_core.isolation").error(
            "a command would have left its workspace", workspace=self.keys.workspace, command=name[:40]
        )
        return IsolationError(
            f"{name[:40]!a} through the handle of workspace {self.keys.workspace} must name keys of that workspace only; "
            "make them with `ws.keys.key(...)`"
        )

    def _send(self, command: Command, decode: Callable[[Any], T], /) -> Awaitable[T]:
        # As the short way of `check`, without its frame, which is a third of what it costs.
        if (
            len(command) < 2  # noqa: PLR2004 - a name and a key
            or command[0] not in ONE_KEY
            or type(key := command[1]) is not str
            or not key.startswith(self._prefix)
        ):
            self.check(command)
        if self._tallies.counting:
            return self._one(command, self._live_tally().counting(command, decode))
        return self._one(command, decode)

    def _send_batch(self, batch: Sequence[Command]) -> Awaitable[list[Reply]]:
        for command in batch:
            self.check(command)
        if self._tallies.counting:
            return self._counted(self._sender.batch, batch)
        return self._sender.batch(batch)

    def _send_transaction(self, batch: Sequence[Command]) -> Awaitable[list[Reply]]:
        for command in batch:
            self.check(command)
        if self._tallies.counting:
            return self._counted(self._sender.transaction, batch)
        return self._sender.transaction(batch)

    # --- counting ---

    def _live_tally(self) -> Tally:
        tally = self._tally
        if not tally.live:
            tally = self._tally = self._tallies.of(self.keys.workspace)
        return tally

    async def _counted(
        self, send: Callable[[Sequence[Command]], Awaitable[list[Reply]]], batch: Sequence[Command]
    ) -> list[Reply]:
        replies = await send(batch)
        self._live_tally().answered(batch, replies)
        return replies

    async def _counted_run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        reply = await self._sender.run(script, keys, args)
        self._live_tally().answered([(script.name, *keys, *args)], [reply])
        return reply
