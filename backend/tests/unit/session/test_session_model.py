"""Sessions against a model: whatever is done in whatever order, a session is there exactly while it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from redis_core.client import Client
from redis_core.errors import SessionGone
from redis_core.transport.memory import MockRedisClient
from tests.session_world import DAY, HOUR, World

T = TypeVar("T")
USERS = st.sampled_from(["u1", "u2"])
WORKSPACES = st.sampled_from(["acme", "other"])
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(-5, 5) | st.lists(st.integers(0, 3), max_size=2) | st.text(max_size=3)


@dataclass
class Twin:
    """What we expect of one session."""

    user: str
    workspace: str
    created: float
    touched: float
    data: dict[str, Any] = field(default_factory=dict)
    ended: bool = False

    def alive(self, now: float) -> bool:
        return not self.ended and now < min(self.touched + DAY, self.created + 30 * DAY)


class SessionMachine(RuleBasedStateMachine):
    tokens = Bundle("tokens")
    plan = "script"

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.world = World(Client(MockRedisClient()), self.plan)
        # The store's own expiry goes by the real clock, so the machine's time only judges through ours.
        self.sessions = self.world.process()
        self.twins: dict[str, Twin] = {}

    def do(self, work: Awaitable[T]) -> T:
        async def waiting() -> T:
            return await work

        return self.loop.run_until_complete(waiting())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.world.client.aclose())
            self.loop.close()

    def read(self, token: str) -> Any:
        session = self.do(self.sessions.get(token))
        twin, now = self.twins[token], self.world.clock.time
        assert (session is not None) == twin.alive(now)
        if session is None:
            twin.ended = True
            return None
        if now - twin.touched >= HOUR:
            twin.touched = now
        assert (session.user_id, session.workspace, dict(session.data)) == (
            twin.user,
            twin.workspace,
            twin.data,
        )
        assert session.ends == min(twin.touched + DAY, twin.created + 30 * DAY)
        return session

    @rule(target=tokens, user=USERS, workspace=WORKSPACES, data=st.dictionaries(NAMES, VALUES))
    def login(self, user: str, workspace: str, data: dict[str, Any]) -> str:
        _, token = self.do(self.sessions.create(user, workspace, data))
        now = self.world.clock.time
        self.twins[token] = Twin(user, workspace, now, now, dict(data))
        return token

    @rule(token=tokens)
    def use(self, token: str) -> None:
        self.read(token)

    @rule(token=tokens, name=NAMES, value=VALUES)
    def write(self, token: str, name: str, value: Any) -> None:
        session = self.read(token)
        if session is not None:
            session.data[name] = value
            self.do(session.save())
            self.twins[token].data[name] = value

    @rule(token=tokens, name=NAMES)
    def remove(self, token: str, name: str) -> None:
        session = self.read(token)
        if session is not None and name in session.data:
            del session.data[name]
            self.do(session.save())
            del self.twins[token].data[name]

    @rule(target=tokens, token=consumes(tokens))
    def rotate(self, token: str) -> Any:
        session = self.read(token)
        if session is None:
            return multiple()
        new = self.do(self.sessions.rotate(session))
        self.twins[new] = Twin(**{**vars(self.twins[token]), "touched": self.world.clock.time})
        self.twins[token].ended = True
        return new

    @rule(token=tokens, name=NAMES)
    def write_after_logout(self, token: str, name: str) -> None:
        session = self.read(token)
        if session is not None:
            self.do(self.sessions.revoke(session))
            self.twins[token].ended = True
            session.data[name] = ["late"]
            try:
                self.do(session.save())
            except SessionGone:
                return
            raise AssertionError("a write after logout was taken")

    @rule(user=USERS, workspace=WORKSPACES)
    def end_user_here(self, user: str, workspace: str) -> None:
        self.do(self.sessions.revoke_user(user, workspace))
        for twin in self.twins.values():
            twin.ended |= (twin.user, twin.workspace) == (user, workspace)

    @rule(user=USERS)
    def end_user(self, user: str) -> None:
        self.do(self.sessions.revoke_user(user))
        for twin in self.twins.values():
            twin.ended |= twin.user == user

    @rule(workspace=WORKSPACES)
    def end_workspace(self, workspace: str) -> None:
        self.do(self.sessions.revoke_workspace(workspace))
        for twin in self.twins.values():
            twin.ended |= twin.workspace == workspace

    @rule(seconds=st.sampled_from([0.001, 60, HOUR - 0.001, HOUR, DAY - 0.001, DAY, 7 * DAY]))
    def wait(self, seconds: float) -> None:
        # In whole milliseconds, as sessions count.
        self.world.clock.time = round(self.world.clock.time + seconds, 3)

    @rule(user=USERS, workspace=WORKSPACES)
    def devices(self, user: str, workspace: str) -> None:
        shown = self.do(self.sessions.list(user, workspace))
        now = self.world.clock.time
        mine = [t for t in self.twins.values() if (t.user, t.workspace) == (user, workspace) and t.alive(now)]
        assert sorted(info.ends for info in shown) == sorted(
            min(t.touched + DAY, t.created + 30 * DAY) for t in mine
        )

    @invariant()
    def nothing_is_kept_for_ever(self) -> None:
        if hasattr(self, "world"):
            for key in self.do(self.world.keys()):
                assert self.do(self.world.client.pttl(key)) > 0, key


class EconomyMachine(SessionMachine):
    plan = "economy"


SessionMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
EconomyMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestScriptPlan = SessionMachine.TestCase
TestEconomyPlan = EconomyMachine.TestCase
