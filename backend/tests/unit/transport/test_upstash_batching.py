"""What concurrent callers of one REST transport share: requests, order, bounds, deadlines."""

from __future__ import annotations

import asyncio

import pytest

from redis_core.errors import DeadlineExceeded, LimitExceeded, StoreOverloaded, StoreUnavailable
from redis_core.transport.rest.wire import MAX_COMMANDS
from redis_core.transport.upstash import UpstashTransport
from tests.unit.transport.rest_stub import http, rest_stub, says, says_and_closes, silence, until, upstash


async def test_a_hundred_concurrent_gets_are_one_request_and_each_gets_its_own() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.values = {f"k{number}": b"v%d" % number for number in range(100)}
        replies = await asyncio.gather(*(redis.execute([("GET", f"k{number}")]) for number in range(100)))
        assert replies == [[b"v%d" % number] for number in range(100)]
        assert [request.path for request in stub.requests] == ["/pipeline"]
        assert redis.stats.trips == 1
        assert redis.stats.commands == 100


async def test_commands_leave_in_the_order_they_were_issued() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        await asyncio.gather(
            redis.execute([("ECHO", "1"), ("ECHO", "2")]),
            redis.execute([("ECHO", "3")]),
            redis.execute([("ECHO", "4")]),
        )
        assert [command[1] for command in stub.commands] == ["1", "2", "3", "4"]


async def test_an_error_of_one_caller_does_not_reach_the_others() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        first, second = await asyncio.gather(redis.execute([("BOGUS",)]), redis.execute([("ECHO", "x")]))
        assert isinstance(first[0], Exception)
        assert second == [b"x"]
        assert len(stub.requests) == 1


async def test_more_commands_than_a_request_holds_go_in_several_in_order() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        replies = await redis.execute([("INCR", "n")] * (2 * MAX_COMMANDS + 5))
        assert replies == list(range(1, 2 * MAX_COMMANDS + 6))
        assert [len(request.json) for request in stub.requests] == [MAX_COMMANDS, MAX_COMMANDS, 5]
        assert stub.most_at_once == 1


async def test_callers_are_spread_over_requests_when_one_is_full() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        replies = await asyncio.gather(
            *(redis.execute([("ECHO", f"{number}-{part}") for part in range(400)]) for number in range(5))
        )
        assert replies == [[b"%d-%d" % (number, part) for part in range(400)] for number in range(5)]
        assert sorted(len(request.json) for request in stub.requests) == [400, 800, 800]


async def test_a_batch_larger_than_a_request_is_split_and_put_together_again() -> None:
    async with rest_stub() as stub, upstash(stub, command_timeout=10) as redis:
        replies = await redis.execute([("SET", f"k{number}", "x" * 4_000_000) for number in range(5)])
        assert replies == [b"OK"] * 5
        assert [len(request.body) <= 10_000_000 for request in stub.requests] == [True] * 3


async def test_at_most_so_many_requests_are_under_way_and_what_waits_grows_into_one() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=2) as redis:
        stub.gate = asyncio.Event()
        calls = []
        for number in range(20):
            calls.append(asyncio.ensure_future(redis.execute([("ECHO", str(number))])))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await until(lambda: len(stub.requests) == 2)
        stub.gate.set()
        assert await asyncio.gather(*calls) == [[b"%d" % number] for number in range(20)]
        assert stub.most_at_once == 2
        assert stub.connections == 2
        assert len(stub.requests) == 3
        assert len(stub.requests[2].json) == 18


async def test_too_many_waiting_commands_are_refused_and_nothing_was_sent() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=1, max_in_flight=3) as redis:
        stub.gate = asyncio.Event()
        calls = [asyncio.ensure_future(redis.execute([("INCR", "n")])) for _ in range(3)]
        await until(lambda: stub.requests)
        with pytest.raises(StoreOverloaded) as caught:
            await redis.execute([("INCR", "n")])
        assert caught.value.outcome == "not_sent"
        stub.gate.set()
        await asyncio.gather(*calls)
        assert await redis.execute([("INCR", "n")]) == [4]


# --- cancellation ---


async def test_a_cancelled_caller_disturbs_no_other() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.gate = asyncio.Event()
        calls = [asyncio.ensure_future(redis.execute([("ECHO", str(number))])) for number in range(10)]
        await until(lambda: stub.requests)
        calls[0].cancel()
        calls[5].cancel()
        stub.gate.set()
        replies = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(replies[place]) for place in (0, 5)] == [asyncio.CancelledError] * 2
        assert [reply for reply in replies if type(reply) is list] == [
            [b"%d" % number] for number in (1, 2, 3, 4, 6, 7, 8, 9)
        ]
        assert stub.connections == 1


async def test_what_is_cancelled_before_it_leaves_is_not_sent() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        calls = [asyncio.ensure_future(redis.execute([("INCR", f"n{number}")])) for number in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert stub.commands == [["INCR", "n0"], ["INCR", "n2"]]


async def test_if_all_are_cancelled_before_they_leave_no_request_is_made() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        call = asyncio.ensure_future(redis.execute([("INCR", "n")]))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await redis.execute([("INCR", "n")]) == [1]
        assert len(stub.requests) == 1


# --- deadlines ---


async def test_a_caller_in_a_hurry_gets_its_deadline_and_the_others_their_replies() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.gate = asyncio.Event()
        patient = asyncio.ensure_future(redis.execute([("ECHO", "patient")]))
        with pytest.raises(DeadlineExceeded) as caught:
            await redis.execute([("INCR", "n")], timeout=0.03)
        assert caught.value.outcome == "unknown"
        assert len(stub.requests) == 1
        stub.gate.set()
        assert await patient == [b"patient"]
        assert await redis.execute([("GET", "n")]) == [b"1"]
        assert stub.connections == 1


async def test_a_deadline_that_passes_in_the_queue_says_that_nothing_was_sent() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=1) as redis:
        stub.gate = asyncio.Event()
        first = asyncio.ensure_future(redis.execute([("PING",)]))
        await until(lambda: stub.requests)
        with pytest.raises(DeadlineExceeded) as caught:
            await redis.execute([("INCR", "n")], timeout=0.03)
        assert caught.value.outcome == "not_sent"
        stub.gate.set()
        await first
        assert await redis.execute([("GET", "n")]) == [None]


async def test_a_silent_server_costs_the_deadline_and_its_connection() -> None:
    async with rest_stub() as stub, upstash(stub, command_timeout=0.05) as redis:
        stub.answers.append(silence)
        with pytest.raises(DeadlineExceeded) as caught:
            await redis.execute([("INCR", "n")])
        assert caught.value.outcome == "unknown"
        await until(lambda: redis.stats.in_flight == 0)
        assert await redis.execute([("PING",)], timeout=5) == [b"PONG"]
        assert stub.connections == 2


async def test_silent_requests_do_not_occupy_the_pool_for_ever() -> None:
    async with rest_stub() as stub, upstash(stub, max_connections=1, command_timeout=0.05) as redis:
        stub.answers.append(silence)
        with pytest.raises(DeadlineExceeded):
            await redis.execute([("PING",)])
        assert await redis.execute([("PING",)], timeout=5) == [b"PONG"]


async def test_every_caller_has_its_own_deadline() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.gate = asyncio.Event()
        ended: list[float] = []

        async def call(timeout: float) -> None:
            with pytest.raises(DeadlineExceeded, match=f"{timeout:g} s"):
                await redis.execute([("PING",)], timeout=timeout)
            ended.append(timeout)

        await asyncio.gather(*(call(timeout) for timeout in (0.15, 0.05, 0.1)))
        assert ended == [0.05, 0.1, 0.15]


# --- a batch that takes several requests ---


async def test_a_batch_that_fails_in_the_middle_is_of_unknown_outcome() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says(http(429, "")))
        with pytest.raises(StoreOverloaded) as first:
            await redis.execute([("INCR", "n")] * (MAX_COMMANDS + 1))
        assert first.value.outcome == "not_sent"
        stub.answers.extend([_pipeline_of_ones, says(http(429, ""))])
        with pytest.raises(StoreOverloaded, match=f"after {MAX_COMMANDS} of") as second:
            await redis.execute([("INCR", "n")] * (MAX_COMMANDS + 1))
        assert second.value.outcome == "unknown"


async def test_the_deadline_of_a_batch_covers_all_its_requests() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.extend([_pipeline_of_ones, silence])
        with pytest.raises(DeadlineExceeded) as caught:
            await redis.execute([("INCR", "n")] * (MAX_COMMANDS + 1), timeout=0.2)
        assert caught.value.outcome == "unknown"


async def test_a_batch_without_time_left_is_not_begun() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        with pytest.raises(DeadlineExceeded) as caught:
            await redis.execute([("INCR", "n")] * (MAX_COMMANDS + 1), timeout=0)
        assert caught.value.outcome == "not_sent"
        assert stub.requests == []


async def test_all_callers_of_a_lost_request_are_told() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.answers.append(says_and_closes(b""))
        results = await asyncio.gather(
            *(redis.execute([("INCR", "n")]) for _ in range(10)), return_exceptions=True
        )
        assert {type(result) for result in results} == {StoreUnavailable}
        assert {result.outcome for result in results if isinstance(result, StoreUnavailable)} == {"unknown"}
        assert len({id(result) for result in results}) == 10
        assert redis.stats.errors == 1
        assert len(stub.requests) == 1


async def test_a_reply_that_is_too_large_was_applied() -> None:
    async with rest_stub() as stub, upstash(stub, max_reply_bytes=1_024) as redis:
        stub.values["k"] = b"x" * 10_000
        with pytest.raises(LimitExceeded) as caught:
            await redis.execute([("GET", "k")])
        assert caught.value.outcome == "applied"
        assert await redis.execute([("PING",)]) == [b"PONG"]


async def test_a_defect_of_ours_reaches_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        assert isinstance(redis, UpstashTransport)

        async def defect(request: object) -> tuple[int, bytes]:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(redis._session, "exchange", defect)
            with pytest.raises(ZeroDivisionError):
                await redis.execute([("PING",)])
        assert await redis.execute([("PING",)]) == [b"PONG"]


async def test_its_loop_may_end_while_callers_wait() -> None:
    async with rest_stub() as stub, upstash(stub) as redis:
        stub.gate = asyncio.Event()
        call = asyncio.ensure_future(redis.execute([("PING",)]))
        await until(lambda: stub.requests)
        # What asyncio.run does at its end: cancel whatever runs.
        for task in asyncio.all_tasks():
            if task.get_name() == "redis-rest":
                task.cancel()
        with pytest.raises(StoreUnavailable):
            await call


async def _pipeline_of_ones(received: object, writer: asyncio.StreamWriter) -> None:
    writer.write(http(200, "[" + ",".join(['{"result":1}'] * MAX_COMMANDS) + "]"))
