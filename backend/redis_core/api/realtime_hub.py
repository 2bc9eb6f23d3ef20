"""The hub: all realtime streams of one process, the one timer that pings them, and what a workspace may use."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

import msgspec

from redis_core.api.realtime_frames import LIVE, STALE, Frame, Want, hello_frame, update_frame
from redis_core.api.realtime_limits import Allowance, RealtimeLimits
from redis_core.api.realtime_stream import Stream
from redis_core.api.realtime_wire import Wire
from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import StoreError
from redis_core.log import get_logger
from redis_core.realtime.feed import Feed, Feeds, Kind, Update
from redis_core.realtime.fleet import FLEET, FleetFeed
from redis_core.realtime_token import Claims, is_topic

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from redis_core.client import Client

__all__ = ["Hub", "HubFigures", "Refused"]

_log = get_logger(__name__)

_TICK_SECONDS: Final = 1.0
_SOCKET_RESTARTS: Final = 1012
_SOCKET_POLICY: Final = 1008
_PRUNE_AT: Final = 1_000


class Refused(Exception):
    """A request that the hub does not do.

    Args:
        status: of HTTP.
        code: for programs.
        detail: for people.
        retry_after: seconds after which it may.
    """

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


class HubFigures(msgspec.Struct, frozen=True):
    """What a process' hub does."""

    streams: int
    parked: int
    """Streams whose last write is under way."""
    opened: int
    lagged: int
    """How often a stream fell behind and was resumed from history."""
    slow: int
    """Streams ended because a write took too long."""
    live: bool
    """Whether the link to the store is up."""


class Hub:
    """Writes to all clients of this process.

    Args:
        client: the store.
        limits: of workspaces and streams.
        clock: of pings, expiry and rates.
    """

    def __init__(self, client: Client, limits: RealtimeLimits, clock: Clock = SYSTEM_CLOCK) -> None:
        self.client = client
        self.limits = limits
        self.clock = clock
        self.may_step = True
        """False lets a task write to each stream, whatever the server."""
        self.lagged = 0
        self.slow = 0
        self.sent = 0
        """Frames written to clients."""
        self.unknown = 0
        """WebSockets that have not shown a token yet."""
        self._opened = 0
        self._streams: dict[str, Stream] = {}
        self._allowances: dict[str, Allowance] = {}
        self._members: dict[tuple[str, str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False
        self._feeds = client.service(Feeds)
        self._unlisten: Callable[[], None] | None = None
        self._encoded: tuple[Update | None, Frame | None] = (None, None)
        client.meter.watch(self, Hub.totals)

    @property
    def live(self) -> bool:
        """Whether the link to the store is up."""
        return self._feeds.live

    @property
    def figures(self) -> HubFigures:
        """What it does just now."""
        return HubFigures(
            streams=len(self._streams),
            parked=sum(stream.parked for stream in self._streams.values()),
            opened=self._opened,
            lagged=self.lagged,
            slow=self.slow,
            live=self.live,
        )

    def totals(self) -> dict[str, float]:
        """What it does and did, by the metrics' names."""
        return {
            "streams": len(self._streams),
            "streams_parked": sum(stream.parked for stream in self._streams.values()),
            "stream_lags_total": self.lagged,
            "stream_messages_total": self.sent,
        }

    # --- streams ---

    def open(self, claims: Claims, wire: Wire, receive: Receive, send: Send) -> Stream:
        """A new stream, in the task that serves its connection.

        Raises:
            Refused: the workspace has as many as it may, or the process shuts down.
        """
        if self._draining:
            raise Refused(
                503,
                "shutting-down",
                "This process shuts down: another one serves.",
                retry_after=self._spread(),
            )
        allowance = self.allowance(claims.workspace)
        if allowance.streams >= self.limits.max_streams:
            raise Refused(
                429,
                "too-many-connections",
                f"The workspace has {self.limits.max_streams} streams open, as many as it may.",
                retry_after=self._spread(),
            )
        stream = Stream(self, secrets.token_urlsafe(18), claims, wire, receive, send)
        now = self.clock.monotonic()
        # The first ping comes at a random moment, so that those of streams opened together do not.
        stream.next_ping = now + self.limits.heartbeat * random.uniform(0.5, 1)  # noqa: S311 - no secret
        stream.authorise(claims, now, claims.expires - self.clock.now())
        allowance.streams += 1
        self._opened += 1
        self._streams[stream.id] = stream
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        if self._unlisten is None:
            self._unlisten = self._feeds.on_link(self._link_changed)
        return stream

    async def greet(self, stream: Stream) -> None:
        """Write the first frames of a stream."""
        await stream.start(hello_frame(stream.id, self.limits.heartbeat, stream.claims.expires))
        if not self.live:
            stream.write(STALE)

    def find(self, id: str, claims: Claims) -> Stream:
        """The stream of that id, if it is this user's.

        Raises:
            Refused: there is none.
        """
        stream = self._streams.get(id)
        owner = None if stream is None else stream.claims
        # One answer for all cases: who guesses learns nothing.
        if (
            stream is None
            or owner is None
            or stream.ended
            or (owner.workspace, owner.user) != (claims.workspace, claims.user)
        ):
            raise Refused(
                404, "stream-unknown", "This process has no such stream of yours: open another one."
            )
        return stream

    def authorise(self, stream: Stream, claims: Claims) -> None:
        """Let a stream go on with a new token of its own workspace and user.

        Raises:
            Refused: it is another one's.
        """
        owner = stream.claims
        if (owner.workspace, owner.user) != (claims.workspace, claims.user):
            raise Refused(
                403, "wrong-workspace", "The token is of another workspace or user than the stream's."
            )
        stream.authorise(claims, self.clock.monotonic(), claims.expires - self.clock.now())

    def close(self, stream: Stream) -> None:
        """Forget a stream whose connection is over. Budget: as presence's `leave` for each member it held."""
        if self._streams.pop(stream.id, None) is None:
            return
        stream.close()
        workspace = stream.claims.workspace
        self._allowances[workspace].streams -= 1
        presences, stream.presences = stream.presences or (), set()
        for topic, member in presences:
            self._background(self._leave(workspace, topic, member))

    def disconnect(self, workspace: str | None, user: str | None) -> int:
        """End the streams of a workspace, of a user in it, or of a user in all, in this process; how many.

        Their clients are told to get a new token, which whoever is still logged in does, and misses nothing.
        """
        if workspace is None and user is None:
            return 0
        ending = [
            stream
            for stream in self._streams.values()
            if stream.ended is None
            and workspace in {None, stream.claims.workspace}
            and user in {None, stream.claims.user}
        ]
        for stream in ending:
            stream.end("expired", 0, code=_SOCKET_POLICY)
        return len(ending)

    def drain(self) -> None:
        """Tell every client to come back at a random moment, and end its stream. Idempotent; takes no more streams."""
        if self._draining:
            return
        self._draining = True
        if self._streams:
            _log.info("realtime streams end with this process", streams=len(self._streams))
        for stream in list(self._streams.values()):
            stream.end("shutdown", self._spread_ms(), code=_SOCKET_RESTARTS)

    async def aclose(self) -> None:
        """Drain, and wait for what runs in the background."""
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        for stream in list(self._streams.values()):
            stream.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- what streams use ---

    def allowance(self, workspace: str) -> Allowance:
        """What the workspace has left."""
        allowance = self._allowances.get(workspace)
        if allowance is None:
            if len(self._allowances) >= _PRUNE_AT:
                self._allowances = {name: one for name, one in self._allowances.items() if not one.idle}
            allowance = self._allowances[workspace] = Allowance(self.limits, self.clock)
        return allowance

    def feed(self, workspace: str, topic: str, kind: Kind) -> Feed | FleetFeed:
        """The feed of a topic; the fleet has one, whatever it is called."""
        if workspace == FLEET:
            return self.client.service(FleetFeed)
        return self._feeds.feed(workspace, topic, kind)

    def frame(self, topic: str, update: Update) -> Frame:
        """An update's frame, encoded once: a feed gives one update to all its subscribers before the next."""
        last, frame = self._encoded
        if last is not update or frame is None:
            frame = update_frame(topic, update)
            self._encoded = (update, frame)
        return frame

    @staticmethod
    def refusal(claims: Claims, want: Want) -> str | None:
        """Why a subscription is not given, or None."""
        if not is_topic(want.topic) or want.offset < 0:
            return "invalid-topic"
        return None if claims.may_read(want.topic) else "forbidden"

    async def join(self, stream: Stream, topic: str, member: str, data: object) -> None:
        """Show a member in a topic's presence until the stream ends. Budget: as presence's `join`."""
        workspace, key = stream.claims.workspace, (topic, member)
        if stream.presences is None:
            stream.presences = set()
        first = key not in stream.presences
        if first:
            # Counted before the store is asked: a stream that ends meanwhile, this one or the one before it, then finds it right.
            stream.presences.add(key)
            self._members[workspace, *key] = self._members.get((workspace, *key), 0) + 1
        try:
            await self.client.workspace(workspace).presence(topic).join(member, data)
        except BaseException:
            if first and key in stream.presences:
                stream.presences.discard(key)
                # It may have arrived; and who showed the member before may be gone by now.
                self._background(self._leave(workspace, topic, member))
            raise

    async def leave(self, stream: Stream, topic: str, member: str) -> None:
        """Take a member out. Budget: as presence's `leave`, unless another stream of this process holds it."""
        if stream.presences is not None and (topic, member) in stream.presences:
            stream.presences.discard((topic, member))
            await self._leave(stream.claims.workspace, topic, member)

    async def _leave(self, workspace: str, topic: str, member: str) -> None:
        key = (workspace, topic, member)
        left = self._members.pop(key, 1) - 1
        if left > 0:
            self._members[key] = left
            return
        try:
            await self.client.workspace(workspace).presence(topic).leave(member)
        except StoreError as error:
            # The lease tries again.
            _log.warning("a member has not left yet", topic=topic, reason=str(error))

    # --- the timer ---

    def _tick(self) -> None:
        self._timer = None
        now = self.clock.monotonic()
        for stream in list(self._streams.values()):
            if stream.due <= now or stream.needs_look:
                stream.tick(now)
        if self._streams:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _link_changed(self, live: bool) -> None:
        for stream in list(self._streams.values()):
            stream.write(LIVE if live else STALE)
            if live:
                stream.retry()

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spread(self) -> int:
        return 1 + self._spread_ms() // 1_000

    def _spread_ms(self) -> int:
        """Milliseconds, random, so that clients of a process that goes do not all come at once."""
        return random.randrange(self.limits.drain_seconds * 1_000 + 1)  # noqa: S311 - no secret
