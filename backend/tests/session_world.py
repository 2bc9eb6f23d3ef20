"""What the tests of sessions share: a clock to move, the events that were told, and a count of commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis_core.client import Client
from redis_core.secret import Secret
from redis_core.session import PepperRing, Session, SessionData, SessionEvent, SessionPolicy, Sessions
from tests.hand_clock import HandClock

DAY = 86_400.0
HOUR = 3_600.0
PEPPERS = PepperRing(Secret("k1:0123456789abcdef0123456789abcdef"))


@dataclass
class World:
    """One store, and as many processes as a test wants: each `process()` is a `Sessions` that remembers by itself."""

    client: Client
    plan: Any = "auto"
    clock: HandClock = field(default_factory=HandClock)
    events: list[SessionEvent] = field(default_factory=list)
    peppers: PepperRing = PEPPERS

    def process(self, **changes: Any) -> Sessions[Any]:
        policy = SessionPolicy(**changes.pop("policy", {}))
        arguments = {"policy": policy, "on_event": self.events.append, "clock": self.clock, "plan": self.plan}
        return Sessions(self.client, self.peppers, **(arguments | changes))

    def told(self, kind: str) -> list[SessionEvent]:
        return [event for event in self.events if event.kind == kind]

    async def cost(self, work: Callable[[], Any]) -> tuple[int, int]:
        """Commands and trips of some work."""
        stats = self.client.stats
        before = stats.commands, stats.trips
        await work()
        return stats.commands - before[0], stats.trips - before[1]

    async def keys(self) -> set[str]:
        reply = await self.client.execute("KEYS", "*")
        assert isinstance(reply, list)
        return {name.decode() for name in reply if isinstance(name, bytes)}


async def load(sessions: Sessions[Any], token: str) -> Session[SessionData]:
    """A session that must be there."""
    session = await sessions.get(token)
    assert session is not None
    return session
