"""Topics of a workspace: events, shared state, growing text and presence, for other processes and for browsers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from redis_core.errors import StoreError, VersionConflict
from redis_core.keys import check_part
from redis_core.realtime.feed import Feeds, Kind, Position, Restart, Update
from redis_core.realtime.history import BEGINNING, Names, holdings, present, read
from redis_core.realtime.lease import PresenceLease
from redis_core.realtime.publisher import Publisher
from redis_core.realtime.writer import TextWriter

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.keys import WorkspaceKeys
    from redis_core.transport.base import Argument

__all__ = [
    "BEGINNING",
    "Gap",
    "Position",
    "Presence",
    "PresenceLease",
    "SharedState",
    "SharedText",
    "TextWriter",
    "Topic",
]

_KEPT: Final = 1_000
"""Updates that history keeps."""
_AGE: Final = 86_400_000
"""Milliseconds after a topic's last update that its history is kept."""
_WAITING: Final = 1_000
"""Updates that wait for a listener; one that is slower than that goes on from history."""
_TRIES: Final = 20
_JOIN_AGAIN: Final = 0.5
"""Seconds after which a listener whose topic began anew asks again, while the store is away."""


class Gap(msgspec.Struct, frozen=True):
    """In place of updates that history no longer has."""

    position: Position


class _Topic:
    """What the four kinds share."""

    _kind: Kind

    def __init__(self, client: Client, keys: WorkspaceKeys, topic: str) -> None:
        self._client = client.primary
        self._redis = self._client.confined(keys)
        self._names = Names(keys, topic, self._kind)
        self.name = topic

    async def listen(
        self, after: Position | None = None
    ) -> AsyncGenerator[tuple[Position, Update] | Gap, None]:
        """Updates with their positions, none lost or doubled; a `Gap` where history no longer covers what was missed.

        At most 1,000 updates wait for who takes them; who is slower than that gets them from history.

        Args:
            after: the last position seen; without one events begin now, the other kinds with the whole; `BEGINNING` for all that history has.

        Raises:
            StoreUnavailable: the store is away as it begins.
        """
        began = False
        while True:
            # Anew each time: while nobody sits in a feed it is forgotten, and another may have taken its place.
            feed = self._client.service(Feeds).feed(self._names.workspace, self.name, self._kind)
            queue: asyncio.Queue[Update | Restart] = asyncio.Queue()
            try:
                start, seat = await feed.join(partial(_put, queue), after)
            except StoreError:
                if not began:
                    raise
                await asyncio.sleep(_JOIN_AGAIN)
                continue
            began = True
            try:
                if after is not None and not start.recovered:
                    yield Gap(Position(start.epoch, start.offset))
                after = Position(start.epoch, start.offset)
                for update in start.updates:
                    after = Position(start.epoch, update.offset)
                    yield after, update
                while not isinstance(item := await queue.get(), Restart):
                    after = Position(start.epoch, item.offset)
                    yield after, item
            finally:
                seat.leave()

    async def _publish(
        self, type: str, data: bytes, *, id: str = "", version: int | None = None, body: bytes = b"", extra: bytes = b""
    ) -> Position:  # fmt: skip
        names = self._names

        def publishing(id: str) -> tuple[list[str], tuple[Argument, ...]]:
            keys = [names.meta, names.body, names.bus]
            if id:
                keys.append(names.once(check_part(id)))
            return keys, (
                self._kind, secrets.token_hex(6), names.channel, f"{names.workspace} {self._kind} {self.name}",
                type, id or "-", data, _KEPT, _AGE, -1 if version is None else version, body, extra,
            )  # fmt: skip

        # Who is present, and what a version is asked of, is of this moment alone.
        keep = version is None and self._kind != "presence"
        order = f"topic {names.workspace} {self._kind} {self.name}"
        return await self._client.service(Publisher).publish(
            names.workspace, order, publishing, id, keep=keep
        )


class Topic(_Topic):
    """Events with history, reached as `ws.topic(name)`."""

    _kind = "events"

    async def publish(self, event: object, *, id: str = "") -> Position:
        """Tell everybody who listens. Budget: 1 trip; a script of 7 commands, 9 with an id, whatever the number of listeners.

        Args:
            event: what msgspec can write as JSON.
            id: idempotency key: the same again within a day publishes nothing.

        Returns:
            where it stands; of an empty epoch while the store is away: it is kept, and follows when the store is back.

        Raises:
            StoreUnavailable: the reply was lost, and there is no id by which it could be sent again.
            JournalFull, JournalBroken: the store is away, and the event could not be kept.
        """
        return await self._publish("msg", _json(event), id=id)


class SharedState(_Topic):
    """A document that many see and change, reached as `ws.state(name)`. Its version is the offset of its position."""

    _kind = "state"

    async def get(self) -> tuple[Position, Any]:
        """Document and position of one moment. Budget: a script of 2 commands."""
        start = await read(self._client, self._names, None)
        return Position(start.epoch, start.reached), msgspec.json.decode(start.updates[0].data)

    async def set(self, document: object, *, version: int | None = None) -> Position:
        """Replace the document. Budget: a script of 7 commands.

        Raises:
            VersionConflict: another version than the given is current.
        """
        data = _json(document)
        return await self._publish("snap", data, version=version, body=data)

    async def patch(
        self, merge: object, *, version: int | None = None, check: Callable[[bytes], object] | None = None
    ) -> Position:
        """Apply a JSON Merge Patch (RFC 7386). Budget: 2 scripts, of 2 and 7 commands; again for each writer that was faster.

        Args:
            merge: the patch.
            version: the only one that it may be applied to.
            check: called with the document that it makes, as JSON; what it raises is raised, and nothing is changed.

        Raises:
            VersionConflict: another version than the given is current.
        """
        data = _json(merge)
        change = msgspec.json.decode(data)
        position, document = await self.get()
        for _ in range(_TRIES):
            if version is not None and position.offset != version:
                break
            merged = msgspec.json.encode(merge_patch(document, change))
            if check is not None:
                check(merged)
            try:
                return await self._publish("patch", data, version=position.offset, body=merged)
            except VersionConflict:
                if version is not None:
                    raise
                position, document = await self.get()
        raise VersionConflict(position.offset)


class SharedText(_Topic):
    """Text that grows, reached as `ws.text(name)`."""

    _kind = "append"

    async def append(self, text: str) -> Position:
        """Add a piece. Budget: a script of 6 commands; an agent's tokens go through `writer()`."""
        return await self._append(text)

    async def end(self, text: str = "") -> Position:
        """Add a last piece; what is appended later begins anew. Budget: a script of 7 commands."""
        return await self._append(text, how="e")

    def writer(self, *, frame: float = 0.04, patience: float = 10.0, anew: bool = False) -> TextWriter:
        """Write token by token: `async with ws.text(name).writer() as out: await out.write(token)`.

        Budget: a script of 6 commands for each 40 ms in which something was written, 1 more where the text had a beginning.

        Args:
            frame: seconds between two pieces.
            patience: seconds to go on trying while the store is away, before `write` and the block's end raise.
            anew: forget what the text had before.
        """

        async def append(piece: str, length: int, how: str) -> Position:
            return await self._append(piece, version=length, how=how)

        return TextWriter(append, frame, patience, anew=anew)

    async def _append(self, text: str, *, version: int | None = None, how: str = "") -> Position:
        return await self._publish(
            "text", _json(text), body=text.encode(), version=version, extra=how.encode()
        )


class Presence(_Topic):
    """Who is there, reached as `ws.presence(name)`. A member is there as long as a process that lives says so."""

    _kind = "presence"

    async def join(self, member: str, data: object = None) -> Position:
        """Show a member. Budget: a script of 7 commands; 1 command per process and 10 s as long as it has any.

        Raises:
            StoreError: the member is not shown, or not by the new data: what may have arrived is taken back.
        """
        check_part(member.replace(":", "-"))
        lease = self._client.service(PresenceLease)
        show = partial(self._join, member, _json(data))
        return await lease.show((self._names.meta, member), show, partial(self._leave, lease.process, member))

    async def leave(self, member: str) -> Position:
        """Take a member out, unless another process shows it too. Budget: a script of at most 8 commands.

        Raises:
            StoreError: it is not known to be out; the lease tries again every 10 s until it is.
        """
        lease = self._client.service(PresenceLease)
        return await lease.hide((self._names.meta, member), partial(self._leave, lease.process, member))

    async def members(self) -> dict[str, Any]:
        """Who is there. Budget: 2 commands."""
        fields = await self._redis.execute("HGETALL", self._names.body)
        found, _ = await present(self._client, cast("list[bytes]", fields))
        return {member: msgspec.json.decode(data) for member, data in found.items()}

    async def reap(self, process: str) -> None:
        """Take out what a process showed that has died; listeners hear of each member once, however many reap.

        Budget: 1 command, and a script of at most 8 for each member.
        """
        fields = cast("list[bytes]", await self._redis.execute("HKEYS", self._names.body))
        for holder, member in holdings(fields):
            if holder == process:
                await self._leave(holder, member)

    async def _leave(self, process: str, member: str) -> Position:
        shown = msgspec.json.encode({"leave": [member]})
        return await self._publish("leave", shown, body=f"{process} {member}".encode())

    async def _join(self, member: str, data: bytes) -> Position:
        shown = msgspec.json.encode({"join": {member: msgspec.Raw(data)}})
        field = f"{self._client.service(PresenceLease).process} {member}".encode()
        return await self._publish("join", shown, body=field, extra=data)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _put(queue: asyncio.Queue[Update | Restart], item: Update | Restart) -> None:
    if queue.qsize() >= _WAITING:
        while not queue.empty():
            queue.get_nowait()
        item = Restart()
    queue.put_nowait(item)


def _json(value: object) -> bytes:
    """JSON in one line: a message with a newline would not survive an event stream."""
    return msgspec.json.format(msgspec.json.encode(value), indent=-1)
