"""The tier in the store: one workspace's values, generations and leases, and what each operation costs."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from redis_core.caching.backplane import Change
from redis_core.caching.envelope import Envelope, EnvelopeKeys, open_envelope, seal_envelope
from redis_core.caching.reader import READ_TIMEOUT, Reader
from redis_core.caching.region import CacheRegion
from redis_core.errors import CodecError, DeadlineExceeded, Outcome
from redis_core.keys import CACHE_BUS, check_part
from redis_core.log import get_logger
from redis_core.quotas import Quotas
from redis_core.resilience.epoch import EPOCH_KEY, generation_of
from redis_core.script import load_script
from redis_core.transport.base import Command, Reply

if TYPE_CHECKING:
    from redis_core.caching.backplane import Backplane
    from redis_core.client import Client
    from redis_core.clock import Clock
    from redis_core.keys import WorkspaceKeys

__all__ = ["CacheStore", "Snapshot", "Stored"]

_TAG_GENERATION_TTL: Final = 30 * 86_400
"""Seconds a tag's generation lives: tags are as many as the things they name, so they must end."""
_GENERATION_BYTES: Final = 9
"""Random bytes of a generation: only whether it is the same one is ever asked, so one that was lost never comes back."""

_MOST_LEASES: Final = 1_000
"""Leases of one batch: a longer one might not be answered in time."""

_DONE_MS: Final = 1_000
"""Milliseconds after a value was stored in which nobody gets its lease without having looked again; of brief values less."""

_LOG: Final = get_logger("redis_core.isolation")
_FILL: Final = load_script("cache_fill")
_LEASE: Final = load_script("cache_lease")


class Stored(msgspec.Struct, frozen=True):
    """A value as it was found: its envelope, and its payload or None for a remembered absence."""

    envelope: Envelope
    payload: bytes | None


class Snapshot(msgspec.Struct, frozen=True):
    """One read of the store: what was there, and the generations it must be of."""

    generations: tuple[bytes | None, ...]
    """Of the workspace, the region and its tags, None where there is none yet; and of a store that once went back in time."""
    stored: dict[str, Stored]
    """What was found by key, of the present generations, fresh or stale."""
    corrupt: int = 0
    """How many did not open."""


class CacheStore:
    """One workspace's cache in the store.

    Args:
        client: the store.
        keys: the workspace's key names.
        backplane: makes the command that tells other processes.
        envelope_keys: gives the keys that encrypt the regions that ask for it, or says that there are none.
        clock: the time.
    """

    def __init__(
        self,
        client: Client,
        keys: WorkspaceKeys,
        backplane: Backplane,
        envelope_keys: Callable[[], EnvelopeKeys],
        clock: Clock,
    ) -> None:
        self._client = client.confined(keys, CACHE_BUS)
        # For what a reader waits for: a store that hangs must not hold it up.
        self._quick = client.within(READ_TIMEOUT).confined(keys, EPOCH_KEY)
        self._keys = keys
        self._backplane = backplane
        self._envelope_keys = envelope_keys
        self._clock = clock
        self._generation = keys.key("gen")
        self._quotas = client.service(Quotas)
        self._of_region: dict[CacheRegion[Any], tuple[str, ...]] = {}
        self._prefixes: dict[str, str] = {}
        self._reader = Reader(self._quick)
        # Across nodes a batch has no order, and the others may not be told before it is done.
        self._in_two_trips = client.store_mode == "cluster"
        # Read with everything else, so that what comes back with a store that went back in time is a miss. One shard's is not a cluster's.
        self._epoch = () if client.store_mode == "cluster" else (EPOCH_KEY,)

    def value_key(self, region: str, key: str) -> str:
        """Where a value is."""
        prefix = self._prefixes.get(region)
        if prefix is None:
            prefix = self._prefixes[region] = self._keys.key("cache", region) + ":"
        return prefix + check_part(key)

    def lease_key(self, region: str, key: str) -> str:
        """Where the lease of its load is."""
        return self._keys.key("cache-lease", region, key)

    def _generation_keys(self, region: CacheRegion[Any], tags: Sequence[str]) -> tuple[str, ...]:
        names = self._of_region.get(region)
        if names is None:
            self._keys_of(region)  # so that it fails before anything is read or loaded
            names = self._of_region[region] = (self._generation, self._keys.key("gen", region.name))
        # Sorted: the order in which a caller names them means nothing.
        return (
            names + tuple(self._keys.key("gen", "tag", tag) for tag in sorted(set(tags))) if tags else names
        )

    def _keys_of(self, region: CacheRegion[Any]) -> EnvelopeKeys | None:
        return self._envelope_keys() if region.encrypt else None

    # --- reading ---

    async def read(
        self, region: CacheRegion[Any], keys: Sequence[str], tags: Sequence[str], within: float = READ_TIMEOUT
    ) -> Snapshot:
        """Values and generations. Budget: 1 command, shared with all that is read in the same turn.

        Raises:
            StoreError: the store did not answer in time.
        """
        names = [self.value_key(region.name, key) for key in keys]
        generation_keys = self._generation_keys(region, tags)
        reading = self._reader.read((*names, *generation_keys, *self._epoch))
        if within < READ_TIMEOUT:
            try:
                done, _ = await asyncio.wait({reading}, timeout=within)
            finally:
                reading.cancel()  # nothing, if it is done
            if not done:
                raise DeadlineExceeded(
                    f"the cache's store did not answer within {within:g} s", outcome=Outcome.UNKNOWN
                )
        values = await reading
        generations = self._generations(values, generation_keys)
        stored: dict[str, Stored] = {}
        corrupt = 0
        for key, name in zip(keys, names, strict=True):
            try:
                found = self._open(region, name, values[name], generations)
            except CodecError:
                corrupt += 1
            else:
                if found is not None:
                    stored[key] = found
        return Snapshot(generations, stored, corrupt)

    async def look(self, region: CacheRegion[Any], key: str, tags: Sequence[str]) -> Stored | None:
        """One value. Budget: as `read`, of which this is the short way.

        Raises:
            StoreError: the store did not answer in time.
            CodecError: what is stored does not open.
        """
        name = self.value_key(region.name, key)
        generation_keys = self._generation_keys(region, tags)
        values = await self._reader.read((name, *generation_keys, *self._epoch))
        data = values[name]
        return (
            None
            if data is None
            else self._open(region, name, data, self._generations(values, generation_keys))
        )

    def _generations(
        self, values: Mapping[str, bytes | None], names: Sequence[str]
    ) -> tuple[bytes | None, ...]:
        found = [values[name] for name in names]
        generation = generation_of(values.get(EPOCH_KEY))
        if generation:
            found.append(generation)
        return tuple(found)

    def _open(
        self, region: CacheRegion[Any], name: str, data: bytes | None, generations: tuple[bytes | None, ...]
    ) -> Stored | None:
        """What these bytes hold, if it is this workspace's, of the present generations and version and its time is not over."""
        if data is None:
            return None
        envelope, payload = open_envelope(data, name, keys=self._keys_of(region))
        if envelope.workspace != self._keys.workspace:
            _LOG.error(
                "a cached value is another workspace's", workspace=self._keys.workspace, region=region.name
            )
            raise CodecError("a cached value is not of the workspace whose key it was found under")
        if (
            envelope.generations != generations
            or envelope.version != region.version
            or envelope.created + envelope.kept <= self._clock.now() * 1000
        ):
            return None
        return Stored(envelope, payload)

    # --- loading under a lease ---

    async def acquire(
        self, region: CacheRegion[Any], keys: Sequence[str], tags: Sequence[str], snapshot: Snapshot
    ) -> tuple[str, tuple[bytes, ...], list[str]]:
        """Leases for the loads of these keys. Budget: 1 command a key, 1 trip; before that as `_present`.

        Returns:
            The leases' token, the generations to store under, and the keys whose lease is ours.
        """
        generations = await self._present(region, tags, snapshot)
        token = _mark(generations) + secrets.token_hex(8)
        milliseconds = max(1, int(region.lease * 1000))
        batch = self._quick.pipeline()
        leases = [
            batch.set(self.lease_key(region.name, key), token, px=milliseconds, only_if="absent")
            for key in keys
        ]
        await batch.send()
        return token, generations, [key for key, lease in zip(keys, leases, strict=True) if await lease]

    async def _present(
        self, region: CacheRegion[Any], tags: Sequence[str], snapshot: Snapshot
    ) -> tuple[bytes, ...]:
        """The generations of a snapshot, those made that are missing. Budget: nothing; else 1 command for each and 1 more, 1 trip."""
        if None not in snapshot.generations:
            return cast("tuple[bytes, ...]", snapshot.generations)
        names = self._generation_keys(region, tags)
        known, of_data = snapshot.generations[: len(names)], snapshot.generations[len(names) :]
        batch = self._quick.pipeline()
        for place, (name, generation) in enumerate(zip(names, known, strict=True)):
            if generation is None:
                is_tag = place > 1
                batch.set(
                    name, new_generation(), ex=_TAG_GENERATION_TTL if is_tag else None, only_if="absent"
                )
        made = batch.mget(*names)
        await batch.send()
        return (*(reply or b"" for reply in await made), *cast("tuple[bytes, ...]", of_data))

    async def fill(
        self, region: CacheRegion[Any], values: Mapping[str, tuple[Envelope, bytes | None]], token: str
    ) -> dict[str, bool]:
        """Store loaded values whose lease still stands, and wake who waits. Budget: 4 commands a value, 1 trip.

        Where others wait, 1 more command for all of them.

        Returns:
            By key, whether it was stored: a deletion meanwhile refuses it.
        """
        batch = self._client.pipeline()
        replies = {}
        for key, (envelope, payload) in values.items():
            name = self.value_key(region.name, key)
            data = self._seal(region, name, envelope, payload)
            replies[key] = batch.run(
                _FILL,
                [self.lease_key(region.name, key), name],
                [token, data, self._kept(name, data, envelope), max(1, min(_DONE_MS, envelope.fresh // 2))],
            )
        await batch.send()
        results = {key: await reply for key, reply in replies.items()}
        awaited = tuple(key for key, result in results.items() if result == 2)  # noqa: PLR2004 - as the script says
        if awaited:
            await self._client.execute(*self._announce(region.name, awaited))
        return {key: bool(result) for key, result in results.items()}

    def _kept(self, name: str, data: bytes, envelope: Envelope) -> int:
        """Milliseconds that a value is kept in the store."""
        return self._quotas.keep(self._keys.workspace, len(name) + len(data), max(1, envelope.kept))

    async def renew(self, region: CacheRegion[Any], keys: Sequence[str], token: str) -> None:
        """Keep the leases of a load that runs, where they still stand. Budget: 3 commands a key; 1 trip for a thousand."""
        await self._lease(region, keys, "renew", token, int(region.lease * 1000))

    async def release(self, region: CacheRegion[Any], keys: Sequence[str], token: str) -> None:
        """Give leases back of what is not stored, and let who waits try. Budget: 3 commands a key, 1 trip for a thousand.

        Where others wait, 1 more command for all of them.
        """
        replies = await self._lease(region, keys, "release", token, 0)
        awaited = tuple(key for key, reply in zip(keys, replies, strict=True) if reply == 2)  # noqa: PLR2004 - as the script says
        if awaited:
            await self._client.execute(*self._announce(region.name, awaited))

    async def wait(self, region: CacheRegion[Any], key: str, generations: tuple[bytes, ...]) -> float | None:
        """Ask to be told when a load ends. Budget: 4 commands.

        Returns:
            Seconds after which its lease ends unless it is renewed; 0 if there is none any more, None if it is done or of other generations.
        """
        (reply,) = await self._lease(region, [key], "wait", _mark(generations), 0)
        milliseconds = cast("int", reply)
        return None if milliseconds < 0 else milliseconds / 1000

    async def oust(self, region: CacheRegion[Any], key: str, generations: tuple[bytes, ...]) -> None:
        """Take a lease away that is done or of other generations than these, the present ones: it is of no use any more. Budget: 3 commands."""
        await self._lease(region, [key], "oust", _mark(generations), 0)

    async def _lease(
        self, region: CacheRegion[Any], keys: Sequence[str], what: str, token: str, milliseconds: int
    ) -> list[Reply]:
        replies: list[Reply] = []
        for first in range(0, len(keys), _MOST_LEASES):
            batch = self._quick.pipeline()
            pending = [
                batch.run(_LEASE, [self.lease_key(region.name, key)], [what, token, milliseconds])
                for key in keys[first : first + _MOST_LEASES]
            ]
            await batch.send()
            replies += [await reply for reply in pending]
        return replies

    # --- writing and invalidating ---

    async def write(
        self,
        region: CacheRegion[Any],
        key: str,
        tags: Sequence[str],
        envelope: Envelope,
        payload: bytes | None,
    ) -> None:
        """Store a value that the caller knows to be right. Budget: 4 commands, 2 trips."""
        snapshot = await self.read(region, (), tags)
        generations = await self._present(region, tags, snapshot)
        sealed = Envelope(
            envelope.created,
            envelope.load,
            envelope.fresh,
            envelope.kept,
            region.version,
            generations,
            self._keys.workspace,
        )
        name = self.value_key(region.name, key)
        data = self._seal(region, name, sealed, payload)
        await self._change(
            [
                ("SET", name, data, "PX", self._kept(name, data, envelope)),
                ("UNLINK", self.lease_key(region.name, key)),
            ],
            self._announce(region.name, (key,)),
        )

    async def delete(self, region: str, keys: Sequence[str]) -> None:
        """Remove values, and the leases of loads that began before. Budget: 2 commands, 1 trip."""
        names = [name for key in keys for name in (self.value_key(region, key), self.lease_key(region, key))]
        await self._change([("UNLINK", *names)], self._announce(region, tuple(keys)))

    async def flush(self, region: str) -> None:
        """Make every value of a region, or of the workspace if it is empty, a miss. Budget: 2 commands, 1 trip."""
        name = self._keys.key("gen", region) if region else self._generation
        if not region:
            self._quotas.flushed(self._keys.workspace)
        await self._change([("SET", name, new_generation())], self._announce(region))

    async def flush_tag(self, tag: str) -> None:
        """Make every value that carries a tag a miss. Budget: 2 commands, 1 trip."""
        command = ("SET", self._keys.key("gen", "tag", tag), new_generation(), "EX", _TAG_GENERATION_TTL)
        await self._change([command], self._announce("", tag=tag))

    async def _change(self, commands: list[Command], announcement: Command) -> None:
        batch = self._client.pipeline()
        for command in commands:
            batch.execute(*command)
        if self._in_two_trips:
            replies = await batch.send()
            await self._client.execute(*announcement)
        else:
            batch.execute(*announcement)
            replies = await batch.send()
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    def _announce(self, region: str, keys: tuple[str, ...] = (), tag: str = "") -> Command:
        return self._backplane.announce(
            Change(self._backplane.origin, self._keys.workspace, region, keys, tag)
        )

    def _seal(self, region: CacheRegion[Any], name: str, envelope: Envelope, payload: bytes | None) -> bytes:
        return seal_envelope(
            envelope, payload, name, compress_above=region.compress_above, keys=self._keys_of(region)
        )


def _mark(generations: tuple[bytes, ...]) -> str:
    """How the token of a load under these generations begins."""
    return "g" + hashlib.blake2b(b"\0".join(generations), digest_size=4).hexdigest()


def new_generation() -> str:
    """A generation that never was and never will be again."""
    return secrets.token_urlsafe(_GENERATION_BYTES)
