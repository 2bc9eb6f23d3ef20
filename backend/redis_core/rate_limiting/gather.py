"""Decisions of one turn of the event loop as one script: its clock, its start and its forms are paid for once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from redis_core.errors import NoScript, ProtocolError, StoreError
from redis_core.rate_limiting.exact import NO_LEASE, Ask, take_script, words_for
from redis_core.transport.base import Command, Reply

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["Gather"]

_MOST_KEYS: Final = 48
"""Of one script: half a millisecond of the server's time, in which it serves nobody else. What is more leaves a turn later, so that
the server counts the one part while this process reads its answers about the other."""


class _Waiting(NamedTuple):
    """A request that waits for its figures."""

    keys: Sequence[str]
    asks: Ask
    policies: int
    figures: asyncio.Future[Sequence[Reply]]


class Gather:
    """Asks `rate_take.lua`: a lone request at once, those that come while others are under way together.

    Args:
        client: the store's.
        timeout: seconds a script may take.
        together: whether requests may share a script; not where their keys may be apart.
    """

    def __init__(self, client: Client, timeout: float, *, together: bool) -> None:
        self._transport = client.transport
        self._meter = client.meter
        self._timeout = timeout
        self._together = together
        self._script = take_script()
        self._waiting: list[_Waiting] = []
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, keys: Sequence[str], asks: Ask, policies: int) -> Awaitable[Sequence[Reply]]:
        """For each policy what remains and the wait.

        Args:
            keys: of the request.
            asks: for each key its form and costs.
            policies: how many figures in pairs are expected.
        """
        if not self._under_way or not self._together:
            return self._alone(keys, asks, policies)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Reply]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._leave)
        self._waiting.append(_Waiting(keys, asks, policies, future))
        return future

    async def _alone(self, keys: Sequence[str], asks: Ask, policies: int) -> Sequence[Reply]:
        self._under_way += 1
        try:
            return (await self._run(keys, words_for((asks,)), b"take", policies))[1:]
        finally:
            self._under_way -= 1

    async def peek(self, keys: Sequence[str], asks: Ask, policies: int) -> Sequence[Reply]:
        """As `ask`, counting nothing, and alone."""
        return (await self._run(keys, words_for((asks,)), b"peek", policies))[1:]

    def _leave(self) -> None:
        """Send what this turn of the loop has gathered."""
        keys = count = 0
        for one in self._waiting:
            keys += len(one.keys)
            if keys > _MOST_KEYS and count:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._serve(group), name="rate-limit-decisions")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._waiting:
            loop.call_soon(self._leave)

    async def _serve(self, group: list[_Waiting]) -> None:
        # Whoever was cancelled before anything was sent is not counted.
        group = [one for one in group if not one.figures.done()]
        if not group:
            return
        self._under_way += 1
        try:
            keys = [key for one in group for key in one.keys]
            reply = await self._run(
                keys, words_for([one.asks for one in group]), b"take", sum(one.policies for one in group)
            )
        except Exception as error:  # noqa: BLE001 - each of them raises it where it waits
            for one in group:
                if not one.figures.done():
                    one.figures.set_exception(error)
            return
        finally:
            self._under_way -= 1
        at = 1
        for one in group:
            if not one.figures.done():
                one.figures.set_result(reply[at : at + 2 * one.policies])
            at += 2 * one.policies

    async def _run(
        self, keys: Sequence[str], words: Sequence[bytes], mode: bytes, policies: int
    ) -> Sequence[Reply]:
        header = self._transport.script_header
        arguments = (mode, NO_LEASE, *words)
        reply = await self._one(self._script.evalsha(header, keys, arguments))
        if isinstance(reply, NoScript):
            reply = await self._one(self._script.eval(header, keys, arguments))
        if isinstance(reply, StoreError):
            raise reply
        if not isinstance(reply, list) or len(reply) != 1 + 2 * policies:
            raise ProtocolError(f"rate_take was answered with {reply!r:.80}")
        return reply

    async def _one(self, command: Command) -> Reply:
        # Not through the client: a decision is never sent again, so its retries would have nothing to do.
        batch = (command,)
        weight = self._meter.tick()
        started = time.perf_counter() if weight else 0.0
        replies: list[Reply] = []
        try:
            replies = await self._transport.execute(batch, timeout=self._timeout)
        finally:
            if weight:
                self._meter.end(batch, replies, time.perf_counter() - started, weight)
        return replies[0]

    async def aclose(self) -> None:
        """Wait for what is under way. Idempotent."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
