"""The client: what it repeats and what never, scripts, deadlines, and the process' singleton."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

import redis_core.client as client_module
from redis_core.client import Client, close_redis, connect, get_redis
from redis_core.errors import (
    CommandError,
    ConfigError,
    CredentialsRejected,
    DeadlineExceeded,
    NoScript,
    Outcome,
    ProtocolError,
    StoreError,
    StoreUnavailable,
)
from redis_core.script import Script
from redis_core.transport.base import Command, Reply, Subscription, Transport, TransportStats


class Told:
    """A transport that answers what it was told to, in order, and notes what it was asked."""

    mode = "tcp"
    target = "nowhere"

    def __init__(self, *answers: list[Reply] | StoreError, header: str = "") -> None:
        self.script_header = header
        self.stats = TransportStats()
        self.answers = list(answers)
        self.asked: list[tuple[list[Command], float | None]] = []
        self.closed = 0

    async def execute(self, batch: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.asked.append((list(batch), timeout))
        answer = self.answers.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    transaction = execute

    async def subscribe(self, *channels: str, patterns: Sequence[str] = ()) -> Subscription:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed += 1


def client_of(told: Told, timeout: float | None = None) -> Client:
    return Client(cast("Transport", told), timeout=timeout)


LOST = StoreUnavailable("lost", outcome=Outcome.UNKNOWN)
AWAY = StoreUnavailable("away", outcome=Outcome.NOT_SENT)


async def test_lost_read_is_sent_again_once() -> None:
    told = Told(LOST, [b"v"])
    assert await client_of(told).get("k") == b"v"
    assert len(told.asked) == 2
    told = Told(LOST, LOST, [b"v"])
    with pytest.raises(StoreUnavailable):
        await client_of(told).get("k")
    assert len(told.asked) == 2


async def test_lost_write_is_never_sent_again() -> None:
    told = Told(LOST)
    with pytest.raises(StoreUnavailable):
        await client_of(told).incr("n")
    assert len(told.asked) == 1


async def test_write_that_never_left_is_sent_again() -> None:
    told = Told(AWAY, [1])
    assert await client_of(told).incr("n") == 1


async def test_deadline_covers_all_tries() -> None:
    told = Told(DeadlineExceeded("slow", outcome=Outcome.UNKNOWN))
    with pytest.raises(DeadlineExceeded):
        await client_of(told).within(0.05).get("k")
    assert told.asked == [([("GET", "k")], 0.05)]


async def test_views_share_the_retry_budget() -> None:
    told = Told(*[LOST] * 40)
    client = client_of(told)
    for _ in range(14):
        with pytest.raises(StoreUnavailable):
            await client.get("k")
    assert client.within(1)._retries is client._retries
    # Ten to begin with, and a tenth of a token for each call.
    assert len(told.asked) == 14 + 11


@pytest.mark.parametrize("error", [CommandError("ERR no"), CredentialsRejected("NOAUTH no")])
async def test_what_the_store_refuses_is_raised_and_not_repeated(error: StoreError) -> None:
    told = Told([error])
    with pytest.raises(type(error)):
        await client_of(told).get("k")
    assert len(told.asked) == 1


async def test_unknown_script_is_sent_in_full_once() -> None:
    script = Script("s", "return 1")
    told = Told([NoScript("NOSCRIPT")], [1])
    assert await client_of(told).run(script, ["k"], [2]) == 1
    assert [batch[0][0] for batch, _ in told.asked] == ["EVALSHA", "EVAL"]
    assert told.asked[1][0] == [("EVAL", "return 1", 1, "k", 2)]


async def test_store_that_forgets_scripts_at_once_is_no_endless_loop() -> None:
    told = Told([NoScript("NOSCRIPT")], [NoScript("NOSCRIPT")])
    with pytest.raises(NoScript):
        await client_of(told).run(Script("s", "return 1"))
    assert len(told.asked) == 2


async def test_script_bears_the_header_of_its_store_and_its_hash_follows() -> None:
    script = Script("s", "return 1")
    told = Told([NoScript("NOSCRIPT")], [1], header="#!lua flags=allow-key-locking\n")
    await client_of(told).run(script)
    assert told.asked[1][0][0][1] == "#!lua flags=allow-key-locking\nreturn 1"
    assert told.asked[0][0] == [script.evalsha("#!lua flags=allow-key-locking\n", [], [])]
    assert script.evalsha("", [], []) != told.asked[0][0][0]


async def test_closing_closes_the_transport_whatever_a_service_does() -> None:
    class Broken:
        def __init__(self, client: Client) -> None:
            pass

        async def aclose(self) -> None:
            raise RuntimeError("broken")

    told = Told()
    client = client_of(told)
    assert client.service(Broken) is client.service(Broken)
    with pytest.raises(RuntimeError):
        await client.aclose()
    assert told.closed == 1
    async with client:
        pass
    assert told.closed == 2


async def test_reply_that_is_no_answer_to_the_command_is_a_protocol_error() -> None:
    told = Told([b"no number, but a secret"])
    with pytest.raises(ProtocolError, match="INCRBY") as caught:
        await client_of(told).incr("n")
    assert caught.value.outcome is Outcome.APPLIED
    assert "secret" not in str(caught.value)
    assert len(told.asked) == 1


# --- the singleton ---


@pytest.fixture
def mock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_REDIS", "true")


@pytest.mark.usefixtures("mock")
async def test_process_has_one_client() -> None:
    clients = await asyncio.gather(*(get_redis() for _ in range(10)))
    assert len(set(map(id, clients))) == 1
    await close_redis()
    await close_redis()
    assert await get_redis() is not clients[0]
    await close_redis()


@pytest.mark.usefixtures("mock")
def test_each_loop_has_a_client_of_its_own() -> None:
    async def one() -> Client:
        client = await get_redis()
        assert await client.ping()
        return client

    assert asyncio.run(one()) is not asyncio.run(one())


@pytest.mark.usefixtures("mock")
async def test_caller_that_gives_up_leaves_the_client_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    real = connect
    gate = asyncio.Event()

    async def slow() -> Client:
        await gate.wait()
        return await real()

    monkeypatch.setattr(client_module, "connect", slow)
    first, second = asyncio.create_task(get_redis()), asyncio.create_task(get_redis())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await (await second).ping()
    await close_redis()


async def test_wrong_setting_shows_at_once_and_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "nonsense")
    with pytest.raises(ConfigError):
        await get_redis()
    monkeypatch.delenv("REDIS_URL")
    monkeypatch.setenv("MOCK_REDIS", "true")
    assert await (await get_redis()).ping()
    await close_redis()


async def test_connecting_does_not_wait_for_the_store() -> None:
    client = await connect(redis_url="redis://127.0.0.1:1", redis_failover=False)
    with pytest.raises(StoreUnavailable):
        await client.ping()
    await client.aclose()
