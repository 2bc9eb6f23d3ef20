"""Batches that a caller composes: a pipeline sends commands together, a transaction does them together or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Generic, Self, TypeVar

from redis_core.commands import Commands, not_permitted, wrong_shape
from redis_core.errors import NoScript, PermissionDenied, StoreError
from redis_core.script import Script
from redis_core.transport.base import Argument, Command, Reply, Transport

__all__ = ["Pending", "Pipeline", "Transaction"]

T = TypeVar("T")


class Pending(Generic[T]):
    """The result a queued command will have: await it after its batch was executed."""

    __slots__ = ("_command", "_decode", "_reply")
    _WAITING: object = object()

    def __init__(self, command: Command, decode: Callable[[Any], T]) -> None:
        self._command = command
        self._decode = decode
        self._reply: Any = self._WAITING

    def resolve(self, reply: Reply) -> None:
        """The batch was executed, this is the command's reply."""
        self._reply = reply

    def result(self) -> T:
        """The decoded reply.

        Raises:
            CommandError: the store refused this command.
            RuntimeError: the batch has not been executed.
        """
        if self._reply is self._WAITING:
            raise RuntimeError("this batch has not been executed: leave its `async with`, or await execute()")
        if isinstance(self._reply, StoreError):
            raise self._reply
        try:
            return self._decode(self._reply)
        except (TypeError, ValueError, LookupError) as error:
            raise wrong_shape(self._command, self._reply, error) from error

    def __await__(self) -> Generator[None, None, T]:
        return self._value().__await__()

    async def _value(self) -> T:
        return self.result()


class Pipeline(Commands):
    """Commands that leave together, in order; not atomic, each with a result of its own.

    ::

        async with redis.pipeline() as batch:
            name = batch.get("name")
            visits = batch.incr("visits")
        print(await name, await visits)

    A command's error shows where its result is taken and harms no other. Budget: 1 trip, the commands that are queued; a
    script that the store does not know yet is sent once more, in full, after the others.

    Args:
        transport: the store.
        execute: sends a batch; the client's, with its retries and deadline.
    """

    def __init__(
        self, transport: Transport, execute: Callable[[Sequence[Command]], Awaitable[list[Reply]]]
    ) -> None:
        self._transport = transport
        self._execute = execute
        self._commands: list[Command] = []
        self._pending: list[Pending[Any]] = []
        self._in_full: dict[int, Command] = {}

    def _send(self, command: Command, decode: Callable[[Any], T], /) -> Pending[T]:
        pending = Pending(command, decode)
        self._commands.append(command)
        self._pending.append(pending)
        return pending

    def run(self, script: Script, keys: Sequence[str] = (), args: Sequence[Argument] = ()) -> Pending[Reply]:
        """Queue a script."""
        header = self._transport.script_header
        self._in_full[len(self._commands)] = script.eval(header, keys, args)
        return self._send(script.evalsha(header, keys, args), _as_it_is)

    async def send(self) -> list[Any]:
        """Send what is queued; a result for each, decoded, or the `StoreError` that the store answered. Empty costs nothing."""
        commands, pending, in_full = self._commands, self._pending, self._in_full
        self._commands, self._pending, self._in_full = [], [], {}
        target = self._transport.target
        replies = [
            not_permitted(command, reply, target) if isinstance(reply, PermissionDenied) else reply
            for command, reply in zip(commands, await self._deliver(commands, in_full), strict=True)
        ]
        for item, reply in zip(pending, replies, strict=True):
            item.resolve(reply)
        return [
            reply if isinstance(reply, StoreError) else item.result()
            for item, reply in zip(pending, replies, strict=True)
        ]

    async def _deliver(self, commands: list[Command], in_full: dict[int, Command]) -> list[Reply]:
        if not commands:
            return []
        replies = await self._execute(commands)
        unknown = [place for place in in_full if isinstance(replies[place], NoScript)]
        if unknown:
            again = await self._execute([in_full[place] for place in unknown])
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        return replies

    def __len__(self) -> int:
        return len(self._commands)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *exc: object) -> None:
        if error_type is None:
            await self.send()


class Transaction(Pipeline):
    """Commands that are done together or not at all, with no other client's command in between (MULTI/EXEC).

    A command that fails while the others are done shows its error where its result is taken, as Redis has it; one that the
    store refuses beforehand discards them all (`TransactionAborted`). Never repeated. Budget: 1 trip, the commands, and on
    Redis MULTI and EXEC.
    """

    async def _deliver(self, commands: list[Command], in_full: dict[int, Command]) -> list[Reply]:
        # In full from the start: a script found missing halfway cannot be sent again.
        whole = [in_full.get(place, command) for place, command in enumerate(commands)]
        return await self._execute(whole) if whole else []


def _as_it_is(reply: Any) -> Any:
    return reply
