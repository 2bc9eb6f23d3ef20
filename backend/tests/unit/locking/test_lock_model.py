"""The scripts of the locks against a twin in Python: who is granted what, in which order, with which token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from redis_core.client import Client
from redis_core.keys import WorkspaceKeys
from redis_core.locking.store import LockStore
from redis_core.locking.token import Token
from redis_core.resilience.epoch import EPOCH_KEY
from redis_core.testing import FakeClock
from redis_core.transport.memory import MockRedisClient

T = TypeVar("T")

TTL, PATIENCE = 10.0, 15.0
HOLDERS = st.sampled_from(["p.1", "p.2", "q.1", "q.2"])
KEYS = WorkspaceKeys("acme")


class LocksAgainstATwin(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.client = Client(MockRedisClient(clock=self.clock))
        self.stores = {"p": LockStore(self.client), "q": LockStore(self.client)}
        self.holder: str | None = None
        self.ends = 0.0
        self.line: list[tuple[str, float]] = []
        self.tokens: list[Token] = []
        self.token: Token | None = None
        self.raised = 0

    def run(self, work: Awaitable[T]) -> T:
        # Arrivals are ordered by the store's time, in which no two commands are at one moment.
        self.clock.advance(0.001)
        self.expire()

        async def waited() -> T:
            return await work

        return self.loop.run_until_complete(waited())

    def expire(self) -> None:
        if self.holder is not None and self.clock.now() >= self.ends:
            self.holder = None

    def store(self, holder: str) -> LockStore:
        return self.stores[holder[0]]

    @rule(holder=HOLDERS, stands=st.booleans())
    def take(self, holder: str, stands: bool) -> None:
        found = self.run(self.store(holder).take(KEYS, "l", holder, TTL, PATIENCE if stands else 0))
        now = self.clock.now()
        if self.holder is None and self.line and self.line[0][0] != holder:
            self.line = [(name, until) for name, until in self.line if until > now]
        if self.holder == holder:
            assert isinstance(found, Token)
            self.ends = now + TTL
            if found != self.token:
                assert found.epoch >= self.raised, "only a raised epoch makes a new token"
                self.granted(found)
        elif self.holder is None and (not self.line or self.line[0][0] == holder):
            assert isinstance(found, Token), "free, and its turn"
            self.line = self.line[1:]
            self.holder, self.ends = holder, now + TTL
            self.granted(found)
        else:
            assert not isinstance(found, Token), "another has it, or is before"
            if stands:
                waits = dict(self.line)
                waits[holder] = now + PATIENCE
                self.line = list(waits.items())

    def granted(self, token: Token) -> None:
        assert all(token > earlier for earlier in self.tokens)
        self.tokens.append(token)
        self.token = token

    @rule(holder=HOLDERS)
    def renew(self, holder: str) -> None:
        assert self.run(self.store(holder).renew(KEYS, "l", holder, TTL)) == (self.holder == holder)
        if self.holder == holder:
            self.ends = self.clock.now() + TTL

    @rule(holder=HOLDERS)
    def leave(self, holder: str) -> None:
        self.run(self.store(holder).leave(KEYS, "l", holder, None))
        if self.holder == holder:
            self.holder = None
        else:
            self.line = [(name, until) for name, until in self.line if name != holder]

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, 16.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.expire()

    @rule()
    def the_store_comes_back_empty(self) -> None:
        self.run(self.client.flushdb())
        self.holder, self.line = None, []

    @rule()
    def the_epoch_is_raised(self) -> None:
        self.raised = int(self.clock.now() * 1_000_000) + 1
        self.run(self.client.execute("SET", EPOCH_KEY, self.raised))

    @invariant()
    def the_store_agrees_on_the_holder(self) -> None:
        value = self.run(self.client.execute("GET", "ws:{acme}:lock:l"))
        assert (value.split(b" ")[0].decode() if isinstance(value, bytes) else None) == self.holder

    def teardown(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()


LocksAgainstATwin.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLocksAgainstATwin = LocksAgainstATwin.TestCase
