"""Locks as the store has them: the commands, and what their replies mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis_core.errors import CommandError
from redis_core.keys import LOCK_BELL, WorkspaceKeys
from redis_core.locking.token import Token
from redis_core.resilience.epoch import EPOCH_KEY, epoch_micros
from redis_core.script import load_script
from redis_core.transport.base import Argument

if TYPE_CHECKING:
    from redis_core.client import Client

__all__ = ["LockStore"]


class LockStore:
    """All locks of a client's store.

    Args:
        client: a client that never answers from memory.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._take: Final = load_script("lock_take")
        self._keep: Final = load_script("lock_keep")
        self._epoch = 0
        # Upstash can compare and delete in one command; whether a stand-in for it can shows when it is asked.
        self._compares = client.store_mode == "upstash"

    async def take(
        self, keys: WorkspaceKeys, name: str, holder: str, ttl: float, waits: float = 0
    ) -> Token | float:
        """Take a lock, or stand in line for it.

        Args:
            keys: the workspace's.
            name: which lock.
            holder: who asks. Asking again under the same name is harmless.
            ttl: seconds it is held unless renewed.
            waits: seconds for which the place in the line is kept without asking again; 0 not to stand in line.

        Returns:
            The token, or the seconds after which the lock ends unless it is renewed.

        Budget: 1 trip, 2 commands, on Upstash 7; one trip more after the store's epoch was raised.
        """
        names = [keys.key(family, *part) for family, part in _families(name)]
        while True:
            epoch = self._epoch
            args: list[Argument] = [holder, round(ttl * 1000), round(waits * 1000), epoch, LOCK_BELL]
            async with self._client.confined(keys, EPOCH_KEY).pipeline() as batch:
                known = batch.get(EPOCH_KEY)
                taken = batch.run(self._take, names, args)
            self._epoch = max(epoch, epoch_micros(await known))
            if self._epoch > epoch:
                continue  # the store lost data since: a token must be of the new epoch
            reply: Any = taken.result()
            return Token.from_text(reply[1].decode()) if reply[0] else int(reply[1]) / 1000

    async def renew(self, keys: WorkspaceKeys, name: str, holder: str, ttl: float) -> bool:
        """Let a lock live on; whether it still was the holder's. Budget: 1 command, on Upstash 3."""
        args: list[Argument] = ["renew", holder, round(ttl * 1000), LOCK_BELL]
        return bool(await self._client.confined(keys).run(self._keep, self._line(keys, name), args))

    async def leave(self, keys: WorkspaceKeys, name: str, holder: str, token: Token | None) -> None:
        """Give a lock back and wake who is next, or stand in line no more.

        Args:
            keys: the workspace's.
            name: which lock.
            holder: who had it, or waited.
            token: what was held, if the holder knows.

        Budget: 1 command, on Upstash as well if nobody waits; 2 trips there otherwise.
        """
        if token is not None and self._compares:
            try:
                held = f"{holder} {token}"
                if await self._client.confined(keys).execute("DELEX", keys.key("lock", name), "IFEQ", held):
                    return
            except CommandError:
                self._compares = False
        await self._client.confined(keys).run(
            self._keep, self._line(keys, name), ["leave", holder, 0, LOCK_BELL]
        )

    def _line(self, keys: WorkspaceKeys, name: str) -> list[str]:
        return [keys.key("lock", name), keys.key("lock-line", name), keys.key("lock-waiters", name)]


def _families(name: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("lock", (name,)), ("lock-count", ()), ("lock-line", (name,)), ("lock-waiters", (name,))
