"""Positions, updates, and how both are read back from the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec
from msgspec import structs

from redis_core.keys import bus_channel_of, presence_key
from redis_core.script import load_script

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.keys import WorkspaceKeys

__all__ = [
    "BEGINNING",
    "Kind",
    "Message",
    "Names",
    "Position",
    "Restart",
    "Start",
    "Update",
    "present",
    "read",
    "rest_of",
]

Kind = Literal["events", "state", "append", "presence"]
UpdateType = Literal["msg", "snap", "patch", "text", "pres"]

_READ: Final = load_script("topic_read")


class Position(msgspec.Struct, frozen=True):
    """Where a reader of a topic is."""

    epoch: str
    """Changes when the topic begins anew; offsets of different epochs say nothing of each other."""
    offset: int


BEGINNING: Final = Position("0", 0)
"""Before all that a topic's history has; the epochs that topics take have 12 characters."""


class Update(msgspec.Struct, frozen=True):
    """One change of a topic, encoded once for all who get it."""

    offset: int
    type: UpdateType
    data: msgspec.Raw
    """JSON; of `text` and `pres` an object with the fields of their frames."""
    id: str = ""
    """What an event was published under; of `pres` the process that says it."""

    @property
    def value(self) -> Any:
        """The data, decoded."""
        return msgspec.json.decode(self.data)


class Restart(msgspec.Struct, frozen=True):
    """The topic began anew, or history no longer covers what was missed: subscribers join again."""


class Start(msgspec.Struct):
    """What a subscriber gets first."""

    epoch: str
    offset: int
    """The position before the first of the updates."""
    recovered: bool
    """False: a position was given, and history no longer covers what came after it."""
    updates: list[Update]
    reached: int = 0
    """The topic's position when this was read."""
    holders: set[str] = msgspec.field(default_factory=set[str])
    """The processes that say of members that they are there."""


class Message(msgspec.Struct, frozen=True):
    """One message of the bus."""

    workspace: str
    kind: Kind
    topic: str
    sequence: int
    epoch: str
    before: int
    update: Update

    @classmethod
    def of(cls, payload: bytes) -> Message | None:
        """What a payload says; None if it is not one of ours."""
        words = payload.split(b" ", 9)
        try:
            workspace, kind, topic, sequence, epoch, before, offset, kind_of_update, once = (
                word.decode() for word in words[:9]
            )
            update = _update(int(offset), kind_of_update, once, words[9])
            return cls(workspace, cast("Kind", kind), topic, int(sequence), epoch, int(before), update)
        except (ValueError, IndexError):
            return None


class Names:
    """The keys of one topic of one kind.

    Raises:
        InvalidKey: a part of the topic's name may not stand in a key.
    """

    __slots__ = ("body", "bus", "channel", "keys", "kind", "meta", "topic", "workspace")

    def __init__(self, keys: WorkspaceKeys, topic: str, kind: Kind) -> None:
        self.keys = keys
        self.workspace, self.topic = keys.workspace, topic
        self.kind: Kind = kind
        parts = topic.split(":")
        self.meta = keys.key("topic-meta", kind, *parts)
        self.body = keys.key(
            {"append": "topic-text", "presence": "presence"}.get(kind, "topic"), kind, *parts
        )
        self.bus = keys.key("bus")
        self.channel = bus_channel_of(keys.workspace)

    def once(self, id: str) -> str:
        """The key that remembers an idempotency key."""
        return self.keys.key("topic-once", self.kind, *self.topic.split(":"), id)


async def read(
    client: Client, names: Names, after: Position | None, *, whole: bool = True, lost: int = 0
) -> Start:
    """What comes after a position, or the whole where there is none or history does not cover it.

    Args:
        client: the store.
        names: the topic.
        after: the reader's position.
        whole: False leaves the document out: only whether history covers the position matters.
        lost: the store has lost updates of the position's epoch, and had this sequence of the bus or none that is known (1): the topic
            gets another epoch, so that nobody takes later updates for them.

    Budget: 1 trip; a script of 2 commands, for presence 1 command more.
    """
    epoch, offset = ("-", 0) if after is None else (after.epoch or "-", after.offset)
    reply = cast(
        "list[Any]",
        await client.confined(names.keys).run(
            _READ,
            (names.meta, names.body, names.bus),
            (names.kind, epoch, max(offset, 0), secrets.token_hex(6), lost),
        ),
    )
    now, reached = reply[0].decode(), int(reply[1])
    same = now == epoch and 0 <= offset <= reached
    if names.kind == "presence":
        members, holders = await present(client, reply[4] or [])
        whole_of_it = Update(reached, "pres", msgspec.Raw(msgspec.json.encode({"members": members})))
        return Start(now, reached, True, [whole_of_it], reached, holders)  # noqa: FBT003 - recovered
    if names.kind == "append":
        return _text(now, reached, reply, offset if same else None, after)
    entries = [_entry(entry) for entry in reply[4] or []]
    if same and (offset == reached or (bool(entries) and entries[0].offset == offset + 1)):
        return Start(now, offset, True, entries, reached)  # noqa: FBT003 - recovered
    if names.kind == "state":
        snap = [Update(reached, "snap", msgspec.Raw(reply[2] or b"null"))] if whole else []
        return Start(now, reached, after is None, snap, reached)
    if after is None:
        return Start(now, reached, True, [], reached)  # noqa: FBT003 - recovered
    # A topic that has never had an update has lost none, whatever epoch the reader has seen.
    first = entries[0].offset - 1 if entries else reached
    return Start(now, first, epoch in {"-", BEGINNING.epoch} and not first, entries, reached)


def _text(now: str, reached: int, reply: list[Any], offset: int | None, after: Position | None) -> Start:
    body: bytes = reply[4] or b""
    ended = bool(reply[3])
    begin = offset or 0
    intact = len(body) == max(reached - ended - begin, 0)
    piece: dict[str, object] = {"from": begin, "text": body.decode("utf-8", "replace")}
    if ended:
        piece["done"] = True
    updates = [Update(reached, "text", msgspec.Raw(msgspec.json.encode(piece)))] if reached > begin else []
    return Start(now, begin, intact and (after is None or offset is not None), updates, reached)


def rest_of(update: Update, offset: int) -> Update:
    """An update for who has a part of it already: a piece of text from this position on; all others are whole."""
    if update.type != "text":
        return update
    piece = update.value
    piece["text"] = piece["text"].encode()[offset - piece["from"] :].decode("utf-8", "replace")
    return structs.replace(update, data=msgspec.Raw(msgspec.json.encode(piece | {"from": offset})))


async def present(client: Client, fields: list[bytes]) -> tuple[dict[str, msgspec.Raw], set[str]]:
    """The members whose process lives, and all processes that are named. Budget: 1 command, if there are any."""
    found = list(zip(holdings(fields[::2]), fields[1::2], strict=True))
    holders = sorted({holder for (holder, _), _ in found})
    if not holders:
        return {}, set()
    leases = await client.mget(*map(presence_key, holders))
    alive = {holder for holder, lease in zip(holders, leases, strict=True) if lease is not None}
    members = {member: msgspec.Raw(data) for (holder, member), data in found if holder in alive}
    return members, set(holders)


def holdings(fields: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Process and member of each field of a presence hash."""
    for field in fields:
        holder, _, member = field.decode().partition(" ")
        yield holder, member


def _entry(entry: list[Any]) -> Update:
    fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
    return _update(
        int(entry[0].partition(b"-")[0]), fields[b"t"].decode(), fields[b"i"].decode(), fields[b"d"]
    )


def _update(offset: int, type: str, id: str, data: bytes) -> Update:
    return Update(offset, cast("UpdateType", type), msgspec.Raw(data), "" if id == "-" else id)
