"""The client: typed commands over one transport, pipelines, scripts, safe retries, and the process' singleton."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast

from redis_core.commands import Commands, Key, not_permitted, scan_iter, wrong_shape
from redis_core.confined import Confined, Sender
from redis_core.errors import (
    CredentialsRejected,
    NoScript,
    PermissionDenied,
    QuotaExceeded,
    StoreError,
    StoreUnavailable,
)
from redis_core.fair_share import BUSY, FairShare
from redis_core.keys import cache_address, is_rate_key
from redis_core.measuring.tally import Tallies
from redis_core.pipeline import Pipeline, Transaction
from redis_core.resilience.classify import TROUBLE
from redis_core.resilience.outage import NO_OUTAGE, Outage
from redis_core.retry import RetryBudget, may_repeat
from redis_core.script import Script
from redis_core.transport.base import (
    Argument,
    Command,
    Guarded,
    Reply,
    RotatingTransport,
    Subscription,
    Transport,
    TransportStats,
)

if TYPE_CHECKING:
    from redis_core.config import Settings
    from redis_core.keys import WorkspaceKeys
    from redis_core.secret_watch import SecretWatch
    from redis_core.workspace import Workspace

__all__ = ["Client", "close_redis", "connect", "get_redis"]

_KEPT_HANDLES: Final = 10_000
"""Workspace handles kept for reuse; they hold nothing that cannot be made again."""

T = TypeVar("T")
S = TypeVar("S", bound="Service")


class Service(Protocol):
    """What a client keeps one of, and closes with itself."""

    async def aclose(self) -> None:
        """End its tasks. Idempotent."""
        ...


class Client(Commands):
    """Redis commands on one store, for any number of concurrent tasks of one event loop.

    What concurrent tasks issue in one turn of the loop leaves as one batch, the order of each kept. A call that is cancelled
    disturbs no other. Only what is safe to send twice is sent twice (see `retry.py`). Keys are sent as given: this raw client
    refuses nothing, so tenants' data belongs behind `workspace()`, which makes the keys.

    Args:
        transport: the store.
        settings: what services take their defaults from; the environment's unless given.
        timeout: seconds a call may take, its retry included; None takes the transport's default for each try.
    """

    def __init__(
        self, transport: Transport, settings: Settings | None = None, *, timeout: float | None = None
    ) -> None:
        from redis_core.measuring.meter import Meter  # noqa: PLC0415 - msgspec, which `import redis_core` need not load

        self.transport = transport
        self.meter = Meter(transport)
        """What the metrics are counted with."""
        self.tallies = Tallies()
        """What each workspace did, for who reports its usage."""
        self._settings = settings
        self._timeout = timeout
        self._retries = RetryBudget()
        self._stats = transport.stats
        self._fair_share = FairShare(transport.stats)
        self._services: dict[Callable[[Client], Service], Service] = {}
        self._workspaces: dict[str, Workspace] = {}
        self.secrets: SecretWatch | None = None
        """The watch over secrets that are kept elsewhere; None if the settings name none."""
        self._primary: Client | None = None
        self._guard = cast("Guarded | None", getattr(transport, "guard", None))
        if self._guard is not None:
            self._guard.outage.orphaned = self._attend
        self._sender: Sender | None = None

    @property
    def settings(self) -> Settings:
        """What services take their defaults from."""
        if self._settings is None:
            from redis_core.config import load_settings  # noqa: PLC0415 - pydantic costs 0.2 s that few of us need

            self._settings = load_settings()
        return self._settings

    @property
    def mode(self) -> str:
        """The store's mode: `upstash`, `tcp`, `cluster`, `memory`, `degraded` or `recovering`."""
        return self.transport.mode

    @property
    def store_mode(self) -> str:
        """The mode of the store itself, also while it is away: what decides how services use it."""
        return self.transport.mode if self._guard is None else self._guard.store.mode

    @property
    def stats(self) -> TransportStats:
        """The transport's running totals."""
        return self.transport.stats

    def within(self, seconds: float) -> Client:
        """This client with another deadline: `await redis.within(0.05).get(key)`."""
        return self._view(self.transport, seconds)

    @property
    def outage(self) -> Outage:
        """What is known of the store being away; always healthy where there is no failover."""
        return NO_OUTAGE if self._guard is None else self._guard.outage

    @property
    def primary(self) -> Client:
        """This client without the fallback to memory: while the store is away every call raises `StoreUnavailable`, not sent, at once.

        Services speak to this one, and do what their feature's row of the resilience guide says. Itself where there is no failover.
        """
        if self._primary is None:
            transport = self.transport if self._guard is None else self._guard.primary
            self._primary = self if transport is self.transport else self._view(transport, self._timeout)
        return self._primary

    def _view(self, transport: Transport, timeout: float | None) -> Client:
        # It shares everything else: the services, the retry budget, what is measured.
        view = object.__new__(Client)
        vars(view).update(vars(self))
        view.transport, view._timeout = transport, timeout
        view._primary = view._sender = None
        view._guard = cast("Guarded | None", getattr(transport, "guard", None))
        return view

    def service(self, kind: Callable[[Client], S]) -> S:
        """The one instance of a service on this client: made at first use, closed with it.

        Args:
            kind: the service's class.
        """
        service = self._services.get(kind)
        if service is None:
            service = self._services[kind] = kind(self)
        return cast("S", service)

    def workspace(self, workspace: str) -> Workspace:
        """The handle of one tenant, through which all its keys are made.

        Raises:
            InvalidKey: the id may not name a workspace.
        """
        handle = self._workspaces.get(workspace)
        if handle is None:
            # The one import from above, listed in the import contract: the handle is made of the services of floor 4.
            from redis_core.workspace import Workspace  # noqa: PLC0415

            handle = Workspace(self, workspace)
            if len(self._workspaces) >= _KEPT_HANDLES:
                self._workspaces.clear()
            self._workspaces[workspace] = handle
        return handle

    def hold_to(self, rate_of: Callable[[str], float | None] | None) -> None:
        """Hold workspaces to rates of commands; see `quotas.py`. Budget: nothing.

        Args:
            rate_of: commands a second that a workspace may send, or None; None for all holds nobody.
        """
        self._fair_share.hold_to(rate_of)

    def _attend(self) -> None:
        """Make the services that carry out what processes that are gone have kept."""
        from redis_core.workspace import KEEPERS  # noqa: PLC0415 - as above

        for kind in KEEPERS:
            self.service(kind)

    def confined(self, keys: WorkspaceKeys, *shared: str) -> Confined:
        """This client for one workspace: a command that would leave it is an `IsolationError`. Services speak through it.

        Args:
            keys: the workspace's key names.
            shared: how other keys begin that may be used too, none of them a workspace's.
        """
        sender = self._sender
        if sender is None:
            sender = self._sender = Sender(
                self.transport, self._send, self._execute, self._transact, self.run, self.tallies
            )
        return Confined(sender, keys, *shared)

    def delete(self, *keys: Key) -> Awaitable[int]:
        """Remove keys; how many there were.

        The manual's addresses of the cache are understood: `cache:acme:*` flushes that workspace's cache, `cache:acme:profile:*`
        one region of it, `cache:acme:profile:42` removes one value, wherever they are kept. Each counts as one. So is
        `rate:u1:/api/v1/agents`: over REST, where limits are counted in strings of several names, all of them go.
        Budget: 1 command; 2 for each address of the cache; over REST a scan of the key space for each of a rate limit.
        """
        addresses = [address for key in keys if (address := cache_address(key)) is not None]
        if addresses:
            return self._delete_cached(keys, addresses)
        if self.mode == "upstash" and any(is_rate_key(key) for key in keys):
            return self._delete_rates(keys)
        return super().delete(*keys)

    async def _delete_rates(self, keys: Sequence[Key]) -> int:
        counted = [
            name
            for key in keys
            if is_rate_key(key)
            for name in [
                found
                async for found in scan_iter(
                    self, f"{str(key, 'utf-8') if isinstance(key, bytes) else key}:*"
                )
            ]
        ]
        return await super().delete(*keys, *counted)

    async def _delete_cached(self, keys: Sequence[Key], addresses: Sequence[tuple[str, str, str]]) -> int:
        for workspace, region, key in addresses:
            cache = self.workspace(workspace).cache
            if key:
                await cache.delete(region, key)
            else:
                await cache.flush(region or None)
        others = [key for key in keys if cache_address(key) is None]
        return len(addresses) + (await super().delete(*others) if others else 0)

    def pipeline(self) -> Pipeline:
        """Commands that are sent together, in order, each with its own result. Budget: 1 trip."""
        return Pipeline(self.transport, self._execute)

    def transaction(self) -> Transaction:
        """Commands that are done together or not at all (MULTI/EXEC). Budget: 1 trip."""
        return Transaction(self.transport, self._transact)

    async def run(self, script: Script, keys: Sequence[str] = (), args: Sequence[Argument] = ()) -> Reply:
        """Run a Lua script atomically: by its SHA1, and in full where the store does not know it."""
        try:
            return await self._send(script.evalsha(self.transport.script_header, keys, args), _as_it_is)
        except NoScript:
            return await self._send(script.eval(self.transport.script_header, keys, args), _as_it_is)

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        """Listen to channels and patterns; returns when the store has confirmed them."""
        try:
            return await self.transport.subscribe(*channels, patterns=patterns)
        except PermissionDenied as error:
            raise not_permitted(("SUBSCRIBE",), error, self.transport.target) from error

    async def aclose(self) -> None:
        """Let go of the store. Idempotent."""
        services = list(self._services.values())
        self._services.clear()
        try:
            for service in services:
                await service.aclose()
            if self.secrets is not None:
                await self.secrets.aclose()
        finally:
            await self.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _send(self, command: Command, decode: Callable[[Any], T], /) -> T:
        reply = (await self._execute((command,)))[0]
        if isinstance(reply, StoreError):
            self.meter.failed(reply)
            if isinstance(reply, PermissionDenied):
                raise not_permitted(command, reply, self.transport.target)
            raise reply
        try:
            return decode(reply)
        except (TypeError, ValueError, LookupError) as error:
            raise wrong_shape(command, reply, error) from error

    async def _execute(self, batch: Sequence[Command]) -> list[Reply]:
        """Send a batch, and once more if that is safe, of use, and within budget and deadline."""
        if self._stats.in_flight > BUSY or self._fair_share.limited:
            await self._wait_turn(batch)
        meter = self.meter
        meter.left -= 1
        if meter.left < 0:
            return await self._measured(batch, self._unmeasured)
        # As `_unmeasured`, without its frame and the transport's: most calls of a busy process end here.
        guard = self._guard
        try:
            if guard is None or not guard.direct:
                return await self.transport.execute(batch, timeout=self._timeout)
            # What the guard's own `execute` does, without a coroutine of its own: that is most of what it would cost.
            try:
                replies = await guard.store.execute(batch, timeout=self._timeout)
            except StoreError as error:
                return await guard.failed(batch, self._timeout, error)
            guard.answered += 1
            # One reply is looked at directly: a fifth of what the set's own question costs.
            single = len(replies) == 1
            if type(replies[0]) not in TROUBLE if single else TROUBLE.isdisjoint(map(type, replies)):
                return replies
            return await guard.troubled(batch, self._timeout, replies)
        except StoreError as error:
            return await self._retried(batch, error)

    async def _wait_turn(self, batch: Sequence[Command]) -> None:
        try:
            await self._fair_share.enter(batch, self._timeout)
        except StoreError as error:
            self.meter.failed(error)
            if isinstance(error, QuotaExceeded):
                self.meter.count("quota_refusals_total", "commands")
            raise

    async def _unmeasured(self, batch: Sequence[Command]) -> list[Reply]:
        try:
            return await self.transport.execute(batch, timeout=self._timeout)
        except StoreError as error:
            return await self._retried(batch, error)

    async def _retried(self, batch: Sequence[Command], error: StoreError) -> list[Reply]:
        self.meter.failed(error)
        if isinstance(error, CredentialsRejected) and self.secrets is not None:
            # Nothing was done. Perhaps the secret was replaced a moment ago: looked for once, and then asked once more.
            if await self.secrets.refresh(store_secret(self.transport)):
                return await self.transport.execute(batch, timeout=self._timeout)
            raise error
        if (
            not isinstance(error, StoreUnavailable)
            or not self.outage.available
            or not may_repeat(batch, error)
            or not self._retries.withdraw()
        ):
            raise error
        return await self._again(batch, error)

    async def _measured(
        self, batch: Sequence[Command], send: Callable[[Sequence[Command]], Awaitable[list[Reply]]]
    ) -> list[Reply]:
        """Send a batch and tell the meter how that went."""
        weight = self.meter.begin()
        # For all calls that this one stands for at once: the others pay for neither.
        self._retries.deposit(weight)
        replies: list[Reply] = []
        started = time.perf_counter()
        try:
            replies = await send(batch)
        finally:
            self.meter.end(batch, replies, time.perf_counter() - started, weight)
        return replies

    async def _transact(self, batch: Sequence[Command]) -> list[Reply]:
        if self._stats.in_flight > BUSY or self._fair_share.limited:
            await self._wait_turn(batch)
        self.meter.left -= 1
        if self.meter.left < 0:
            return await self._measured(batch, self._transact_once)
        return await self._transact_once(batch)

    async def _transact_once(self, batch: Sequence[Command]) -> list[Reply]:
        try:
            return await self.transport.transaction(batch, timeout=self._timeout)
        except StoreError as error:
            self.meter.failed(error)
            raise

    async def _again(self, batch: Sequence[Command], error: StoreUnavailable) -> list[Reply]:
        if self._timeout is not None:
            # The caller's deadline covers all tries, and the first one may have used all of it.
            raise error
        await asyncio.sleep(self._retries.delay())
        return await self.transport.execute(batch)


async def connect(settings: Settings | None = None, **overrides: object) -> Client:
    """A client of the store that the settings name.

    It does not wait for the store to answer: a store that is away shows as `StoreUnavailable` of the first call.

    Args:
        settings: all of them, instead of the environment's.
        overrides: single settings by field name, over the environment's.

    Raises:
        ConfigError: a setting is wrong.
    """
    from redis_core.config import load_settings  # noqa: PLC0415 - pydantic costs 0.2 s that `import redis_core` need not
    from redis_core.secret_source import references_of  # noqa: PLC0415
    from redis_core.transport.factory import open_transport  # noqa: PLC0415 - as are the transports' libraries

    chosen = settings if settings is not None else load_settings(**overrides)
    if not references_of(chosen):
        return Client(await open_transport(chosen), chosen)
    from redis_core.secret_watch import watch_secrets  # noqa: PLC0415 - as is what it logs with

    resolved, watch = await watch_secrets(chosen)
    client = Client(await open_transport(resolved), resolved)
    client.secrets = watch
    if isinstance(client.transport, RotatingTransport):
        watch.on_change(store_secret(client.transport), client.transport.rotate)
    return client


def store_secret(transport: Transport) -> str:
    """The setting that holds the store's secret."""
    guard = cast("Guarded | None", getattr(transport, "guard", None))
    store = transport if guard is None else guard.store
    return "UPSTASH_REDIS_TOKEN" if store.mode == "upstash" else "REDIS_PASSWORD"


class _Singleton:
    """The process' client. The only global state there is."""

    client: Client | None = None
    loop: asyncio.AbstractEventLoop | None = None
    opening: asyncio.Task[Client] | None = None


async def get_redis() -> Client:
    """The process' one client, connected by the environment's settings at first use.

    A client belongs to an event loop: in another loop than the last one (tests, `asyncio.run` twice) it is made anew.

    Raises:
        ConfigError: a setting is wrong.
    """
    loop = asyncio.get_running_loop()
    if _Singleton.loop is not loop:
        _Singleton.client, _Singleton.opening, _Singleton.loop = None, None, loop
    if _Singleton.client is not None:
        return _Singleton.client
    opening = _Singleton.opening = _Singleton.opening or loop.create_task(connect())
    try:
        # Shielded: one caller's cancellation does not cancel the others' connection.
        client = await asyncio.shield(opening)
    finally:
        if opening.done():
            _Singleton.opening = None
    _Singleton.client = client
    return client


async def close_redis() -> None:
    """Close the process' client, if there is one in this loop; the next `get_redis()` makes another."""
    client, _Singleton.client = _Singleton.client, None
    if client is not None and _Singleton.loop is asyncio.get_running_loop():
        await client.aclose()


def _as_it_is(reply: Any) -> Any:
    return reply
