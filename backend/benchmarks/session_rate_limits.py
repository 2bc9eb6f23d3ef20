"""What a decision costs, beside limits, throttled-py, pyrate-limiter and upstash-ratelimit, on the same server; and how exact it is.

All decide on a sliding window a minute long, for 1,000 users, 100 decisions at once, in one process and one event loop. The peers
take their fastest documented way; upstash-ratelimit, which only speaks HTTP, gets a client over TCP that costs it less.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from itertools import count
from typing import Any

from harness import Row as Line
from harness import Server, callers, closing, compare, peer, row, valkey_server

from redis_core.client import Client, connect
from redis_core.rate_limit import RateLimiter, Subject, limits_of
from redis_core.rate_limiting.algorithms import counter_for, take
from redis_core.rate_limiting.policy import Rule
from redis_core.transport.memory import MockRedisClient

Row = dict[str, Any]
Decide = Callable[[str], Awaitable[object]]

CALLERS = 100
USERS = [f"user{n}" for n in range(1000)]
MANY = 1_000_000
PATH = "/api/v1/agents"
LIMIT, WINDOW, START = 100, 60.0, 1_800_000_000.0
BILLED = {
    "cmdstat_eval",
    "cmdstat_evalsha",
    "cmdstat_bitfield",
    "cmdstat_pexpireat",
    "cmdstat_time",
    "cmdstat_mget",
    "cmdstat_set",
}


async def rows(quick: bool) -> list[Row]:
    """The rows of this subject."""
    lines: list[Line] = []
    with valkey_server() as server:
        async with closing(
            await connect(redis_url=server.url, mock_redis=False, redis_command_timeout=30)
        ) as client:
            lines += await decisions(client, server, quick=quick)
            lines += await billed(client, quick=quick)
            lines += await admitted(client)
            lines.append(await gap(client, server))
    lines.append(overshoot())
    return [asdict(line) for line in lines]


# --- what a decision costs ---


async def decisions(client: Client, server: Server, *, quick: bool) -> list[Line]:
    """Rate and CPU beside the peers'."""
    each, rounds = (60, 5) if quick else (200, 7)
    lines: list[Line] = []
    async with AsyncExitStack() as stack:
        sides = {"ours": ours(client)} | await peers(server, stack)
        work = [
            side(decide, each if name == "ours" else max(each // 6, 10)) for name, decide in sides.items()
        ]
        # Ours is so much quicker that a round of as many calls would be over before the clock has moved.
        mine, *theirs = await compare(*work, rounds=rounds)
        for name, cost in zip(list(sides)[1:], theirs, strict=True):
            what = f"decisions concurrent vs {name}"
            lines.append(row(what, mine.rate, "1/s", name, cost.rate, target=5, higher_is_better=True))
        for name, cost in zip(list(sides)[1:], theirs, strict=True):
            lines.append(row(f"decision cpu vs {name}", mine.cpu_us, "us", name, cost.cpu_us, target=8))
    return lines


def side(decide: Decide, each: int) -> Callable[[], Awaitable[int]]:
    """Rounds of one contestant."""
    turn = count()

    async def operation() -> None:
        await decide(USERS[next(turn) % len(USERS)])

    return lambda: callers(operation, concurrent=CALLERS, each=each)


def ours(client: Client) -> Decide:
    """The exact plan."""
    limiter = RateLimiter(client, limits_of([f"{MANY}/min"]), plan="exact", timeout=30)
    subjects = {user: Subject(user=user) for user in USERS}
    return lambda user: limiter.check(subjects[user], PATH)


async def peers(server: Server, stack: AsyncExitStack) -> dict[str, Decide]:
    """How each peer decides."""
    redis_asyncio, _ = peer("redis.asyncio", "redis")
    pool = redis_asyncio.BlockingConnectionPool.from_url(server.url, max_connections=CALLERS)
    link = await stack.enter_async_context(closing(redis_asyncio.Redis(connection_pool=pool)))
    known = dict(
        [
            limits_peer(server, "redispy", "redis"),
            limits_peer(server, "coredis", "coredis"),
            throttled_peer(server),
            await pyrate_peer(link),
            upstash_peer(link),
        ]
    )
    for decide in known.values():
        await decide("warm")
    return known


def limits_peer(server: Server, implementation: str, through: str) -> tuple[str, Decide]:
    limits, name = peer("limits", "limits")
    storage, _ = peer("limits.aio.storage", "limits")
    strategies, _ = peer("limits.aio.strategies", "limits")
    store = storage.RedisStorage(
        "async+" + server.url, implementation=implementation, max_connections=CALLERS
    )
    limiter = strategies.SlidingWindowCounterRateLimiter(store)
    item = limits.parse(f"{MANY}/minute")
    return f"{name} ({through})", lambda user: limiter.hit(item, user)


def throttled_peer(server: Server) -> tuple[str, Decide]:
    throttled, name = peer("throttled.asyncio", "throttled-py")
    store = throttled.RedisStore(server=server.url, options={"MAX_CONNECTIONS": CALLERS})
    limiter = throttled.Throttled(using="sliding_window", quota=throttled.per_min(MANY), store=store)
    return name, lambda user: limiter.limit(user)


async def pyrate_peer(link: Any) -> tuple[str, Decide]:
    pyrate, name = peer("pyrate_limiter", "pyrate-limiter")
    rates = [pyrate.Rate(MANY, pyrate.Duration.MINUTE)]
    # One bucket for each user, as its documentation has it; without, all names share one.
    limiters: dict[str, Any] = {}
    for user in (*USERS[:50], "warm"):
        limiters[user] = pyrate.Limiter(await pyrate.RedisBucket.init(rates, link, f"pyrate:{user}"))
    names = {user: USERS[n % 50] for n, user in enumerate(USERS)} | {"warm": "warm"}
    return name, lambda user: limiters[names[user]].try_acquire_async(names[user])


def upstash_peer(link: Any) -> tuple[str, Decide]:
    ratelimit, name = peer("upstash_ratelimit.asyncio", "upstash-ratelimit")

    class OverTcp:
        """What it asks of its client, without HTTP and the line that plain Redis refuses."""

        async def eval(self, script: str, keys: list[str], args: list[Any]) -> Any:
            body = script.split("\n", 1)[1] if script.startswith("#!") else script
            return await link.eval(body, len(keys), *keys, *args)

    limiter = ratelimit.Ratelimit(OverTcp(), ratelimit.SlidingWindow(max_requests=MANY, window=60))
    return name, lambda user: limiter.limit(user)


# --- what a store bills ---


async def billed(client: Client, *, quick: bool) -> list[Line]:
    """Commands of an allowed decision as Upstash counts them: a script, and each command it calls."""
    exact = RateLimiter(client, limits_of(["100000/min", "1000000/hour"]), plan="exact", timeout=30)
    await client.execute("CONFIG", "RESETSTAT")
    calls = 200
    for _ in range(calls):
        assert await exact.check(Subject(user="billed"), PATH)
    stats = await client.info("commandstats")
    spent = sum(
        int(line.split(",")[0].removeprefix("calls=")) for name, line in stats.items() if name in BILLED
    )
    every = spent / calls
    economy = await economy_bill(seconds=1800 if quick else 7200)
    return [
        row("billed commands per allowed decision, economy", economy, "commands", "the limit", 1.1, target=1),
        row("billed commands per allowed decision, exact", every, "commands", "the limit", 4, target=1),
    ]


class Clock:
    """Virtual time."""

    time = START

    def now(self) -> float:
        return self.time

    monotonic = now

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


async def economy_bill(seconds: float) -> float:
    """The average at five decisions a minute, in virtual time."""
    clock, calls = Clock(), 0
    async with closing(Client(MockRedisClient(clock=clock))) as client:
        limiter = RateLimiter(
            client, limits_of(["100/min", "2000/hour"]), plan="economy", clock=clock, timeout=30
        )
        while clock.time < START + seconds:
            assert await limiter.check(Subject(user="u"), PATH)
            clock.time += 12
            calls += 1
        return client.stats.commands / calls


async def admitted(client: Client) -> list[Line]:
    """How many of 200 at once pass a limit of 50."""
    lines: list[Line] = []
    for plan in ("exact", "economy"):
        limiter = RateLimiter(client, limits_of(["50/hour"]), plan=plan, timeout=30)  # type: ignore[arg-type]
        decided = await asyncio.gather(
            *(limiter.check(Subject(user=f"all-{plan}"), PATH) for _ in range(200))
        )
        passed = sum(decision.allowed for decision in decided)
        lines.append(
            Line(
                f"admitted at limit 50 of 200 parallel, {plan}",
                passed,
                "calls",
                "the limit",
                50,
                passed / 50,
                1,
                passed == 50,
            )
        )
    return lines


async def gap(client: Client, server: Server) -> Line:
    """The longest time in which the event loop did nothing else, while the server stands still for a second."""
    limiter = RateLimiter(client, limits_of(["1000000/min"]), plan="exact", timeout=0.25)
    longest, stop = 0.0, False

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not stop:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    async def ask() -> None:
        while not stop:
            await limiter.check(Subject(user="paused"), PATH)
            await asyncio.sleep(0.005)

    await limiter.check(Subject(user="paused"), PATH)
    tasks = [asyncio.create_task(work()) for work in (watch, *[ask] * 10)]
    await asyncio.sleep(0.05)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(1)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    stop = True
    await asyncio.gather(*tasks)
    return row("event-loop gap while Redis is paused 1 s", longest * 1000, "ms", "the limit", 20, target=1)


# --- how exact it is ---


def overshoot() -> Line:
    """The worst minute of bursty traces, above the limit, beside the usual two-window counter."""
    mine = max(worst(sliding(bursty(seed))) for seed in range(5))
    theirs = max(worst(two_windows(bursty(seed))) for seed in range(5))
    line = row(
        "worst overshoot, bursty, exact",
        max(mine, 0.01),
        "%",
        "two-window counter",
        theirs,
        target=theirs / 20,
    )
    return Line(**{**asdict(line), "ours": mine})


def bursty(seed: int) -> Iterator[float]:
    """Ten times the limit's rate for 5 to 20 s, then silence for 10 to 50 s, for an hour."""
    chance, now = random.Random(seed), START
    while now < START + 3600:
        ends = now + chance.uniform(5, 20)
        while now < ends:
            now += chance.expovariate(10 * LIMIT / WINDOW)
            yield now
        now += chance.uniform(10, 50)


def sliding(trace: Iterator[float]) -> list[float]:
    """What our sliding window lets pass; the tests hold the script to this twin."""
    policy = Rule("r", f"{LIMIT}/min").policy()
    counter = counter_for(policy)
    return [now for now in trace if not take([counter], [policy], [1], int(now * 1_000_000))[1]]


def two_windows(trace: Iterator[float]) -> list[float]:
    """What Cloudflare's counter lets pass: this window of the clock, and the one before by what of it is still inside."""
    passed: list[float] = []
    counts: dict[int, int] = {}
    for now in trace:
        window, inside = divmod(now, WINDOW)
        if counts.get(int(window), 0) + counts.get(int(window) - 1, 0) * (1 - inside / WINDOW) + 1 <= LIMIT:
            counts[int(window)] = counts.get(int(window), 0) + 1
            passed.append(now)
    return passed


def worst(times: list[float]) -> float:
    """The most in any window, above the limit, in per cent of it."""
    most = first = 0
    for last, now in enumerate(times):
        while times[first] <= now - WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return max(most - LIMIT, 0) / LIMIT * 100


async def _measure(quick: bool) -> list[Line]:
    return [Line(**line) for line in await rows(quick)]


if __name__ == "__main__":
    from harness import main

    sys.exit(main("rate limits", _measure))
