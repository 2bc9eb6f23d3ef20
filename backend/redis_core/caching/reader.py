"""Reads of one workspace's cache, gathered: what callers ask in one turn of the event loop is one MGET, so one command."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redis_core.confined import Confined

__all__ = ["READ_TIMEOUT", "Reader"]

READ_TIMEOUT: Final = 0.25
"""Seconds a read of the store may take before the cache does without it."""
_MOST_KEYS: Final = 1_000
"""Keys of one MGET, about: a longer one would hold up the store's other clients."""

Values = dict[str, bytes | None]


class Reader:
    """Reads keys of one slot.

    Args:
        client: the store, for this workspace, with `READ_TIMEOUT` as its deadline.
    """

    def __init__(self, client: Confined) -> None:
        self._client = client
        self._names: dict[str, None] = {}
        self._waiters: list[asyncio.Future[Values]] = []
        self._batches: set[asyncio.Task[None]] = set()

    def read(self, names: Sequence[str]) -> asyncio.Future[Values]:
        """The values of these keys, and perhaps of others. Budget: 1 command for all that is asked in one turn.

        It may be cancelled: the others' reads go on. Ends as `StoreError` if the store does not answer in time.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Values] = loop.create_future()
        if not self._waiters:
            loop.call_soon(self._send)
        self._waiters.append(waiter)
        for name in names:
            self._names[name] = None
        if len(self._names) >= _MOST_KEYS:
            self._send()
        return waiter

    def _send(self) -> None:
        if not self._waiters:
            return
        names, waiters = list(self._names), self._waiters
        self._names, self._waiters = {}, []
        batch = asyncio.get_running_loop().create_task(self._ask(names, waiters), name="cache read")
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)

    async def _ask(self, names: Sequence[str], waiters: Sequence[asyncio.Future[Values]]) -> None:
        try:
            values = dict(zip(names, await self._client.mget(*names), strict=True))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked, whatever it is: nobody else would hear of it
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.cancel()
            raise
        else:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(values)
