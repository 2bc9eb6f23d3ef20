"""Which process shows which members, and whether it lives."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias
from weakref import WeakValueDictionary

from redis_core.errors import StoreError
from redis_core.keys import presence_key
from redis_core.log import get_logger
from redis_core.realtime.history import Position

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["PresenceLease"]

_SHOWN_AGAIN: Final = 43_200.0
"""Seconds: members that nobody joins or leaves beside are forgotten after a day, so that none stays where nobody looks."""
_Member: TypeAlias = tuple[str, str]
"""The topic's key, and the member's name."""
_Tell: TypeAlias = Callable[[], Awaitable[Position]]
_LOG: Final = get_logger("redis_core.realtime")


class PresenceLease:
    """Says that this process lives, for all members it shows. Reached as `client.service(PresenceLease)`.

    Args:
        client: the store.
    """

    seconds: ClassVar[int] = 25
    """How long the lease is: with the listeners' look every 5 s, who dies is gone within 30 s."""
    refresh: ClassVar[float] = 10.0
    """Seconds between refreshes."""

    def __init__(self, client: Client) -> None:
        self.process = secrets.token_hex(8)
        self._key = presence_key(self.process)
        self.members: dict[_Member, _Tell] = {}
        """What shows each member again."""
        self.leaving: dict[_Member, _Tell] = {}
        """What takes out each member whose leave failed: the lease goes on for the others, so it would stay for ever."""
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._held_until = self._shown = -math.inf
        # A leave and the join that follows it could overtake each other on their way.
        self._turns: WeakValueDictionary[_Member, asyncio.Lock] = WeakValueDictionary()

    async def show(self, member: _Member, join: _Tell, leave: _Tell) -> Position:
        """Show a member until it is hidden, whatever the store forgets. Budget: a join, and 1 command where no lease is held.

        Raises:
            StoreError: the member is as it was before; what may have arrived is taken back.
        """
        async with self._turn(member):
            before = self.members.get(member)
            self.members[member] = join
            self.leaving.pop(member, None)
            try:
                await self._hold()
                return await join()
            except BaseException:
                if before is not None:
                    self.members[member] = before
                else:
                    del self.members[member]
                    self.leaving[member] = leave
                raise

    async def hide(self, member: _Member, leave: _Tell) -> Position:
        """Take a member out. Budget: a leave.

        Raises:
            StoreError: it is tried again with each refresh until it is done.
        """
        async with self._turn(member):
            self.members.pop(member, None)
            # Beforehand: the reply may be lost, and who waits for it cancelled.
            self.leaving[member] = leave
            position = await leave()
            del self.leaving[member]
            return position

    def _turn(self, member: _Member) -> asyncio.Lock:
        return self._turns.setdefault(member, asyncio.Lock())

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        if (now := loop.time()) >= self._held_until:
            await self._client.set(self._key, "1", ex=self.seconds)
            self._held(now)
        if self._task is None:
            self._shown = now
            self._task = loop.create_task(self._refresh())

    def _held(self, asked: float) -> None:
        # As long as it surely is: nobody refreshes it while there are no members.
        self._held_until = asked + self.seconds - self.refresh

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self.refresh)
            try:
                if self.members:
                    await self._say_again()
                for member in list(self.leaving):
                    async with self._turn(member):
                        # Unless it joined meanwhile.
                        if leave := self.leaving.get(member):
                            await leave()
                            del self.leaving[member]
            except StoreError as error:
                _LOG.warning("the presence lease was not refreshed", reason=str(error))

    async def _say_again(self) -> None:
        """Refresh the lease, and show the members where that is needed."""
        now = asyncio.get_running_loop().time()
        held = await self._client.execute("SET", self._key, "1", "EX", self.seconds, "GET")
        self._held(now)
        if held is not None and now - self._shown <= _SHOWN_AGAIN:
            return
        # The store forgot us, we slept too long, or the members are about to expire; until all are shown it is tried again.
        self._shown = -math.inf
        for member in list(self.members):
            async with self._turn(member):
                if join := self.members.get(member):
                    await join()
        self._shown = now

    async def aclose(self) -> None:
        """End its task; the lease ends by itself. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
