"""Pipelines and transactions: one trip, a result each, and errors where they belong."""

from __future__ import annotations

import pytest

from redis_core.errors import CommandError, NoScript, ProtocolError, StoreUnavailable, WrongType
from redis_core.script import Script
from tests.unit.test_client import Told, client_of


async def test_commands_leave_together_and_each_has_its_result() -> None:
    told = Told([b"v", 2, b"OK"])
    async with client_of(told).pipeline() as batch:
        value, number, done = batch.get("k"), batch.incr("n"), batch.set("a", "b")
        assert len(batch) == 3
    assert told.asked == [([("GET", "k"), ("INCRBY", "n", 1), ("SET", "a", "b")], None)]
    assert (await value, await number, await done) == (b"v", 2, True)
    assert await value == b"v"
    assert len(batch) == 0


async def test_error_of_one_command_harms_no_other() -> None:
    told = Told([WrongType("WRONGTYPE no"), 2])
    async with client_of(told).pipeline() as batch:
        bad, good = batch.incr("k"), batch.incr("n")
    with pytest.raises(WrongType):
        await bad
    assert await good == 2
    results = await batch.send()
    assert results == []


async def test_reply_of_a_wrong_shape_harms_no_other() -> None:
    told = Told([5, b"v"])
    batch = client_of(told).pipeline()
    bad, good = batch.type("t"), batch.get("k")
    with pytest.raises(ProtocolError):
        await batch.send()
    with pytest.raises(ProtocolError):
        await bad
    assert await good == b"v"


async def test_empty_batch_costs_nothing() -> None:
    told = Told()
    async with client_of(told).pipeline():
        pass
    async with client_of(told).transaction():
        pass
    assert told.asked == []


async def test_result_before_the_batch_was_sent_is_a_mistake_that_says_so() -> None:
    pending = client_of(Told()).pipeline().get("k")
    with pytest.raises(RuntimeError, match="has not been executed"):
        await pending


async def test_nothing_is_sent_when_the_block_fails() -> None:
    told = Told()
    with pytest.raises(KeyError):
        async with client_of(told).pipeline() as batch:
            batch.get("k")
            raise KeyError
    assert told.asked == []


async def test_lost_store_is_raised_at_the_end_of_the_block() -> None:
    told = Told(StoreUnavailable("gone"), StoreUnavailable("gone"))
    with pytest.raises(StoreUnavailable):
        async with client_of(told).pipeline() as batch:
            batch.incr("k")


async def test_only_unknown_scripts_are_sent_again_in_full() -> None:
    known, unknown = Script("a", "return 1"), Script("b", "return 2")
    told = Told([b"v", 1, NoScript("NOSCRIPT")], [2])
    async with client_of(told).pipeline() as batch:
        value, one, two = batch.get("k"), batch.run(known, ["k"]), batch.run(unknown, ["k"], [5])
    assert (await value, await one, await two) == (b"v", 1, 2)
    assert told.asked[1][0] == [("EVAL", "return 2", 1, "k", 5)]


async def test_transaction_sends_scripts_in_full_and_is_never_repeated() -> None:
    told = Told([1, 2])
    async with client_of(told).transaction() as batch:
        batch.incr("n")
        batch.run(Script("a", "return 2"))
    assert told.asked[0][0] == [("INCRBY", "n", 1), ("EVAL", "return 2", 0)]
    told = Told(StoreUnavailable("away"), [1])
    with pytest.raises(StoreUnavailable):
        async with client_of(told).transaction() as batch:
            batch.incr("n")
    assert len(told.asked) == 1


async def test_any_command_can_be_queued() -> None:
    told = Told([CommandError("ERR unknown command")])
    batch = client_of(told).pipeline()
    batch.execute("NOSUCH", b"\xff")
    (result,) = await batch.send()
    assert isinstance(result, CommandError)
