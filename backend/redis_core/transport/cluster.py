"""Redis Cluster: one multiplexed connection a master, and every command to the master that has its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from redis_core.errors import (
    CommandError,
    ConfigError,
    CredentialsRejected,
    DeadlineExceeded,
    Outcome,
    StoreError,
    StoreUnavailable,
)
from redis_core.transport.base import Command, Reply, Subscription, TransportStats
from redis_core.transport.cluster_scatter import gather_replies, is_for_all, next_cursor, split_cursor
from redis_core.transport.cluster_slots import SLOTS, Place, Redirect, key_slot, read_slots, redirect
from redis_core.transport.command_keys import UnknownCommand, first_key
from redis_core.transport.connection import Connection, LinkOptions
from redis_core.transport.refused import command_name, is_blocking, refusal
from redis_core.transport.tcp import TcpTransport, transaction_results
from redis_core.transport.tcp_subscription import OnPush, SubscriptionLink

if TYPE_CHECKING:
    from redis_core.address import StoreAddress
    from redis_core.config import Settings
    from redis_core.secret import Secret

__all__ = ["ClusterTransport"]

_MOST_REDIRECTS: Final = 5
"""How often one command follows MOVED or ASK, as other clients do."""


class ClusterTransport:
    """A transport to a Redis Cluster.

    A batch is split by node, the order of each key's commands kept, and merged again. A transaction must touch one slot.
    Commands without a key go to one master, those about the whole key space to all.

    Args:
        address: the seeds: nodes to ask for the map of slots.
        options: bounds and timeouts, of each node's connection.
        max_blocking: most commands that wait in one node at once.
    """

    script_header = ""

    def __init__(self, address: StoreAddress, options: LinkOptions, *, max_blocking: int = 50) -> None:
        self.mode = "cluster"
        self.target = str(address)
        self.stats = TransportStats()
        self._address = address
        self._options = options
        self._max_blocking = max_blocking
        self._nodes: dict[Place, TcpTransport] = {}
        self._slots: list[Place | None] = [None] * SLOTS
        self._masters: list[Place] = []
        self._absent: set[Place] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._closed = False
        self._subscriptions = SubscriptionLink(self._open_any, options, self.stats)

    @classmethod
    def from_settings(cls, address: StoreAddress, settings: Settings) -> ClusterTransport:
        """The transport that the settings describe.

        Raises:
            ConfigError: the address names a database; a cluster has only number 0.
        """
        if address.database:
            raise ConfigError(
                "REDIS_URL", str(address), "leave the database out: a cluster has only number 0"
            )
        return cls(
            address, LinkOptions.from_settings(address, settings), max_blocking=settings.redis_max_connections
        )

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands to the nodes that have their keys and return one reply for each; see `Transport`."""
        if not batch:
            return []
        deadline = await self._ready(timeout)
        if len(batch) == 1:
            return [await self._alone(batch[0], deadline, timeout)]
        replies: list[Reply] = [None] * len(batch)
        together: list[int] = []
        for place, command in enumerate(batch):
            if is_for_all(command) or command_name(command) == "SCAN":
                # What stands before it must be done before it, on every node.
                await self._together(batch, together, replies, deadline)
                together = []
                replies[place] = await self._alone(command, deadline, timeout)
            else:
                together.append(place)
        await self._together(batch, together, replies, deadline)
        return replies

    async def transaction(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        """Send commands between MULTI and EXEC to the node that has their slot; see `Transport`.

        Raises:
            CommandError: they touch several slots (CROSSSLOT); nothing was sent.
        """
        for command in batch:
            error = refusal(command)
            if error is not None:
                raise error
        if not batch:
            return []
        deadline = await self._ready(timeout)
        slots = {slot for command in batch if (slot := await self._slot(command, deadline)) is not None}
        if len(slots) > 1:
            raise CommandError(
                "CROSSSLOT the keys of a transaction must share a slot: give them the same {hash tag}"
            )
        place = self._at(slots.pop() if slots else None)
        for _ in range(_MOST_REDIRECTS + 1):
            replies = await self._send(place, [("MULTI",), *batch, ("EXEC",)], deadline)
            moved = next((found for reply in replies[1:] if (found := redirect(reply, place))), None)
            if moved is None:
                return transaction_results(replies)
            if moved.ask:
                break
            self._learn(moved)
            place = moved.place
        raise StoreUnavailable(f"{self.target}: the transaction's slot is being moved; nothing was done")

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns, on one node: the cluster passes messages on to all; see `Transport`."""
        return await self._subscriptions.subscribe(channels, patterns)

    async def rotate(self, secret: Secret) -> None:
        """Use another password from now on, on every node; see `RotatingTransport`."""
        before, self._address = self._address, replace(self._address, password=secret)
        try:
            for node in tuple(self._nodes.values()):
                await node.rotate(secret)
        except CredentialsRejected:
            self._address = before
            raise
        self._subscriptions.renew()

    async def aclose(self) -> None:
        """Close every node's connections and fail what is in flight."""
        self._closed = True
        await self._subscriptions.aclose()
        for node in tuple(self._nodes.values()):
            await node.aclose()
        if self._refreshing is not None:
            # Not cancelled: it ends by itself now, with an error that those who wait for it understand.
            await asyncio.gather(self._refreshing, return_exceptions=True)

    # --- where a command goes ---

    async def _alone(self, command: Command, deadline: float, timeout: float | None) -> Reply:
        """The reply to one command, which may be for all masters."""
        if command_name(command) == "SCAN":
            return await self._scan(command, deadline)
        if is_for_all(command):
            whole = [self._send(place, [command], deadline) for place in self._masters]
            return gather_replies(command, [reply for (reply,) in await _all(whole)])
        place = self._at(await self._slot(command, deadline))
        try:
            # With the caller's own timeout: a command that waits in the server has a time of its own.
            (reply,) = await self._node(place).execute([command], timeout=timeout)
        except StoreUnavailable:
            self._lost()
            raise
        moved = redirect(reply, place)
        return reply if moved is None else await self._follow(command, moved, deadline)

    async def _together(
        self, batch: Sequence[Command], places: list[int], replies: list[Reply], deadline: float
    ) -> None:
        """Fill in the replies at these places: one trip to each node, all at once."""
        by_node: dict[Place, list[int]] = {}
        for place in places:
            node = self._at(await self._slot(batch[place], deadline))
            by_node.setdefault(node, []).append(place)
        parts = await _all(
            [self._send(node, [batch[n] for n in at], deadline, look=True) for node, at in by_node.items()]
        )
        for (node, at), part in zip(by_node.items(), parts, strict=True):
            for place, reply in zip(at, part, strict=True):
                moved = redirect(reply, node)
                # One after the other: commands of one key stay in order.
                replies[place] = reply if moved is None else await self._follow(batch[place], moved, deadline)

    async def _follow(self, command: Command, moved: Redirect, deadline: float) -> Reply:
        """The reply of the node that a command was sent on to."""
        reply: Reply = None
        for _ in range(_MOST_REDIRECTS):
            if moved.ask:
                reply = (await self._send(moved.place, [("ASKING",), command], deadline))[-1]
            else:
                self._learn(moved)
                # A command that waits in the server has a time of its own.
                left = None if is_blocking(command) else self._left(deadline)
                (reply,) = await self._node(moved.place).execute([command], timeout=left)
            further = redirect(reply, moved.place)
            if further is None:
                return reply
            moved = further
        return StoreUnavailable(
            f"{self.target}: sent on {_MOST_REDIRECTS} times, last to {moved.place[0]}:{moved.place[1]}"
        )

    async def _scan(self, command: Command, deadline: float) -> Reply:
        """One step of SCAN over all masters, one after the other."""
        masters = self._masters
        try:
            master, cursor = split_cursor(command[1] if len(command) > 1 else "")
        except CommandError as error:
            return error
        if master >= len(masters):
            return [b"0", []]
        (reply,) = await self._send(masters[master], [("SCAN", cursor, *command[2:])], deadline)
        match reply:
            case [bytes(after), list(keys)]:
                return [next_cursor(master, int(after), len(masters)), keys]
            case _:
                return reply

    async def _slot(self, command: Command, deadline: float) -> int | None:
        """The slot of a command's first key, None if it has none."""
        try:
            key = first_key(command)
        except UnknownCommand:
            if refusal(command) is not None:
                return None
            (keys,) = await self._send(self._at(None), [("COMMAND", "GETKEYS", *command)], deadline)
            found = keys[0] if isinstance(keys, list) and keys else None
            key = found if isinstance(found, bytes) else None
        return None if key is None else key_slot(key)

    def _at(self, slot: int | None) -> Place:
        """Who serves a slot; the first master for no slot, and for one that nobody is known to serve: it will say so."""
        place = self._slots[slot] if slot is not None else None
        return place or self._masters[0]

    # --- nodes ---

    def _node(self, place: Place) -> TcpTransport:
        node = self._nodes.get(place)
        if node is None:
            if self._closed:
                raise StoreUnavailable(f"{self.target}: the client is closed")
            scheme = "rediss" if self._address.tls else "redis"
            address = replace(self._address, scheme=scheme, hosts=(place,))
            node = self._nodes[place] = TcpTransport(
                address, self._options, max_blocking=self._max_blocking, stats=self.stats
            )
        return node

    async def _send(
        self, place: Place, batch: Sequence[Command], deadline: float, *, look: bool = False
    ) -> list[Reply]:
        """Send a batch to a node; `look`: it is a caller's, and may have what must be refused."""
        node = self._node(place)
        left = self._left(deadline)
        try:
            return await (node.execute(batch, timeout=left) if look else node.send(batch, left))
        except StoreUnavailable:
            self._lost()
            raise

    @staticmethod
    def _left(deadline: float) -> float:
        return max(deadline - asyncio.get_running_loop().time(), 0.001)

    async def _open_any(self, on_push: OnPush) -> Connection:
        """A connection for subscriptions, to any node that takes one."""
        error = StoreUnavailable(f"{self.target}: the client is closed")
        for place in dict.fromkeys((*self._masters, *self._address.hosts)):
            try:
                return await self._node(place).open_link(on_push)
            except StoreUnavailable as failed:
                error = failed
        raise error

    # --- the map ---

    async def _ready(self, timeout: float | None) -> float:
        """When the call must have ended; the map is known then."""
        loop = asyncio.get_running_loop()
        seconds = self._options.command_timeout if timeout is None else timeout
        deadline = loop.time() + seconds
        if self._closed:
            raise StoreUnavailable(f"{self.target}: the client is closed")
        if not self._masters:
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(self._refresh_soon())
            except TimeoutError:
                raise DeadlineExceeded(f"{self.target}: no map of slots within {seconds:g} s") from None
            except StoreError as error:
                raise type(error)(str(error)) from None
        return deadline

    def _learn(self, moved: Redirect) -> None:
        """Take what a node said of one slot, and ask for the whole map."""
        if not self._closed:
            self._slots[moved.slot] = moved.place
            self._refresh_soon(moved.place)

    def _lost(self) -> None:
        """A node was lost: perhaps another has its slots now."""
        if not self._closed:
            self._refresh_soon()

    def _refresh_soon(self, first: Place | None = None) -> asyncio.Task[None]:
        """Ask for the map, once whoever wants it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(
                self._refresh(first), name="redis-cluster-map"
            )
            self._refreshing.add_done_callback(_seen)
        return self._refreshing

    async def _refresh(self, first: Place | None) -> None:
        error: StoreError = StoreUnavailable(f"{self.target}: no node knows the slots")
        asked = ([first] if first else []) + [*self._masters, *self._address.hosts]
        for place in dict.fromkeys(asked):
            try:
                (reply,) = await self._node(place).send([("CLUSTER", "SLOTS")])
            except StoreError as failed:
                error = failed
                continue
            if isinstance(reply, StoreError):
                error = reply
            elif ranges := read_slots(reply, place):
                slots: list[Place | None] = [None] * SLOTS
                for part in ranges:
                    slots[part.first : part.last + 1] = [part.master] * (part.last - part.first + 1)
                self._slots = slots
                self._masters = list(dict.fromkeys(part.master for part in ranges))
                await self._retire()
                return
        raise error

    async def _retire(self) -> None:
        """Close nodes that two maps in a row did not have: what they were asked when one came is answered by then."""
        absent = self._nodes.keys() - set(self._masters)
        gone, self._absent = absent & self._absent, absent
        for place in gone:
            await self._nodes.pop(place).aclose()


async def _all(parts: Sequence[Coroutine[Any, Any, list[Reply]]]) -> list[list[Reply]]:
    """The replies of all parts; where one was lost, its error, `unknown` if others may have been done."""
    done = await asyncio.gather(*parts, return_exceptions=True)
    failed = [part for part in done if isinstance(part, BaseException)]
    if failed:
        error = next((part for part in failed if not isinstance(part, StoreError)), failed[0])
        certain = len(failed) == len(done) and all(
            isinstance(part, StoreError) and part.outcome is Outcome.NOT_SENT for part in failed
        )
        if isinstance(error, StoreError) and not certain:
            raise type(error)(str(error), outcome=Outcome.UNKNOWN)
        raise error
    return [part for part in done if not isinstance(part, BaseException)]


def _seen(task: asyncio.Task[None]) -> None:
    """A map that could not be had shows in the calls that need it."""
    if not task.cancelled():
        task.exception()
