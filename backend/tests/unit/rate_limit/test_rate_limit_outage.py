"""What a limiter does when the store does not answer: as each rule says, always marked, and never for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
)
from redis_core.rate_limit import RateLimiter, RateLimits, Rule, Subject
from redis_core.rate_limiting.headers import problem_of
from redis_core.transport.base import Command, Reply
from redis_core.transport.memory import MockRedisClient
from tests.rate_world import USER, Clock, limits, one_rule
from tests.server_process import ServerProcess
from tests.stores import valkey_binary

PATH = "/api/v1/agents"


class Failing(MockRedisClient):
    """A memory store that fails while it is told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.failure: Callable[[], Exception] | None = None
        self.calls = 0

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure()
        return await super().execute(batch, timeout=timeout)


@pytest.fixture
async def failing() -> AsyncIterator[tuple[Failing, Client, Clock]]:
    clock = Clock()
    store = Failing(clock)
    async with Client(store) as client:
        yield store, client, clock


def away() -> Exception:
    return StoreUnavailable("away")


FAILURES = [
    away,
    lambda: DeadlineExceeded("late"),
    lambda: StoreOverloaded("full"),
    lambda: StoreReadOnly("READONLY"),
    lambda: CredentialsRejected("NOAUTH"),
]


@pytest.mark.parametrize("plan", ["exact", "economy"])
@pytest.mark.parametrize("failure", FAILURES, ids=["away", "late", "full", "read-only", "credentials"])
async def test_a_decision_without_the_store_is_marked(failing: Any, failure: Any, plan: Any) -> None:
    # upstash-ratelimit answers success after 5 s, and nobody can tell it from a true one.
    store, client, clock = failing
    limiter = RateLimiter(client, one_rule("2/min", on_failure="open"), plan=plan, clock=clock)
    assert not (await limiter.check(USER, PATH)).degraded
    store.failure = failure
    for _ in range(5):
        decision = await limiter.check(USER, PATH)
        assert decision.allowed
        assert decision.degraded
        assert decision.source == "local"
    assert limiter.stats.degraded == 5


async def test_a_closed_rule_refuses_and_says_that_it_is_for_now(failing: Any) -> None:
    store, client, clock = failing
    store.failure = away
    limiter = RateLimiter(client, one_rule("5/15min", on_failure="closed"), clock=clock)
    decision = await limiter.check(USER, "/login")
    assert not decision.allowed
    assert decision.degraded
    problem = problem_of(decision)
    assert problem.status == 503
    assert problem.type.endswith("#temporary-reduced-capacity")
    store.failure = None
    clock.time += 2
    assert await limiter.check(USER, "/login")


async def test_a_local_rule_counts_this_process_share(failing: Any) -> None:
    store, client, clock = failing
    store.failure = away
    limiter = RateLimiter(client, limits("12/min"), instances=4, clock=clock)
    decisions = [await limiter.check(USER, PATH) for _ in range(5)]
    assert [decision.allowed for decision in decisions] == [True, True, True, False, False]
    assert all(decision.degraded for decision in decisions)
    assert problem_of(decisions[-1]).status == 429
    assert await limiter.check(Subject(user="other"), PATH)
    clock.time += 63
    assert await limiter.check(USER, PATH)


async def test_each_rule_does_what_it_says(failing: Any) -> None:
    store, client, clock = failing
    store.failure = away
    rates = RateLimits(
        rules=(Rule("open", "1/min", on_failure="open"), Rule("local", "2/min", on_failure="local"))
    )
    limiter = RateLimiter(client, rates, clock=clock)
    decisions = [await limiter.check(USER, PATH) for _ in range(3)]
    assert [decision.violated for decision in decisions] == [(), (), ("local",)]


async def test_a_store_that_fails_again_and_again_is_left_alone_for_a_second(failing: Any) -> None:
    store, client, clock = failing
    store.failure = away
    limiter = RateLimiter(client, one_rule("100/min", on_failure="open"), plan="exact", clock=clock)
    for _ in range(50):
        await limiter.check(USER, PATH)
    tried = store.calls
    assert tried <= 6
    store.failure = None
    assert (await limiter.check(USER, PATH)).degraded
    clock.time += 1.1
    assert not (await limiter.check(USER, PATH)).degraded


async def test_an_error_of_ours_is_an_error(failing: Any) -> None:
    store, client, clock = failing
    store.failure = lambda: CommandError("ERR wrong number of arguments")
    for plan in ("exact", "economy"):
        limiter = RateLimiter(client, limits("5/min"), plan=plan, clock=clock)
        with pytest.raises(CommandError):
            await limiter.check(USER, PATH)


async def test_a_store_that_memory_stands_in_for_is_away(failing: Any) -> None:
    store, client, clock = failing
    limiter = RateLimiter(client, limits("5/min"), clock=clock)
    store.mode = "degraded"
    calls = store.calls
    assert (await limiter.check(USER, PATH)).degraded
    assert store.calls == calls


async def test_what_cannot_be_given_back_is_told_and_leaves_with_its_window(failing: Any) -> None:
    store, client, clock = failing
    limiter = RateLimiter(client, limits("3/min"), clock=clock)
    held = await limiter.reserve(USER, PATH)
    store.failure = away
    await held.release(give_back=True)
    assert limiter.stats.corrections_lost == 1
    store.failure = None
    assert (await limiter.peek(USER, PATH)).remaining == 2
    clock.time += 62
    assert (await limiter.peek(USER, PATH)).remaining == 3


async def test_a_reservation_works_without_the_store(failing: Any) -> None:
    store, client, clock = failing
    store.failure = away
    limiter = RateLimiter(client, limits("3/min"), clock=clock)
    with pytest.raises(RuntimeError):
        async with await limiter.reserve(USER, PATH) as held:
            assert held.decision.degraded
            raise RuntimeError
    assert (await limiter.check(USER, PATH)).remaining == 2


@pytest.mark.parametrize("plan", ["exact", "economy"])
async def test_a_silent_server_holds_nobody_up(plan: Any) -> None:
    # slowapi's synchronous Redis stops the whole event loop while the server pauses.
    with ServerProcess(valkey_binary()) as server:
        settings = Settings(_env_file=None, redis_url=f"redis://127.0.0.1:{server.port}")  # type: ignore[call-arg]
        async with await connect(settings) as client:
            limiter = RateLimiter(client, one_rule("100/min", on_failure="open"), plan=plan, timeout=0.1)
            calm = RateLimiter(client, one_rule("100/min"), plan=plan, timeout=20)
            assert not (await calm.check(USER, PATH)).degraded
            assert not (await limiter.check(USER, PATH)).degraded
            server.freeze()
            try:
                async with asyncio.timeout(10):
                    decisions = await asyncio.gather(*(limiter.check(USER, PATH) for _ in range(20)))
            finally:
                server.thaw()
            assert all(decision.degraded and decision.allowed for decision in decisions)
            assert not (await calm.check(USER, PATH)).degraded
