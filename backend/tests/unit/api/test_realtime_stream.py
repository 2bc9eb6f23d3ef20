"""One client's stream: nobody waits for a slow one, and it misses nothing that history has."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from redis_core.api.realtime_frames import Want
from redis_core.api.realtime_wire import EventStreamWire
from tests.realtime_world import Connection, claims_of, opened, scripted_hub, settle

FILL = "x" * 1_000


async def test_says_hello_first_and_then_where_each_topic_stands() -> None:
    hub, _, clock = scripted_hub()
    stream, connection = await opened(hub, claims_of(clock), "a", "b")
    assert [frame["t"] for frame in connection.frames] == ["hello", "sub", "sub"]
    assert connection.frames[0]["stream"] == stream.id


async def test_an_update_is_there_before_publish_returns() -> None:
    hub, feeds, clock = scripted_hub()
    _, connection = await opened(hub, claims_of(clock), "a")
    feeds.feed("acme", "a", "events").publish(1)
    assert connection.numbers == [1]


async def test_one_frame_is_encoded_for_all_who_get_it() -> None:
    hub, feeds, clock = scripted_hub()
    for _ in range(3):
        await opened(hub, claims_of(clock), "a")
    feed = feeds.feed("acme", "a", "events")
    feed.publish(1)
    assert hub.frame("a", feed.history[-1]) is hub.frame("a", feed.history[-1])


async def test_a_stalled_client_holds_nobody_up_and_misses_nothing() -> None:
    hub, feeds, clock = scripted_hub(max_held=20_000)
    stalled = (await opened(hub, claims_of(clock), "a"))[1]
    healthy = [(await opened(hub, claims_of(clock), "a"))[1] for _ in range(20)]
    feed = feeds.feed("acme", "a", "events")
    stalled.pause()
    for number in range(300):
        feed.publish([number, FILL])
    assert all([data[0] for data in one.numbers] == list(range(300)) for one in healthy)
    assert hub.figures.lagged == 1
    stalled.resume()
    await settle()
    assert [data[0] for data in stalled.numbers] == list(range(300))
    assert stalled.of("lag") == [{"t": "lag", "topics": ["a"]}]
    assert [frame["recovered"] for frame in stalled.of("sub")] == [True, True]


async def test_a_short_pause_costs_no_history() -> None:
    hub, feeds, clock = scripted_hub()
    _, connection = await opened(hub, claims_of(clock), "a")
    feed = feeds.feed("acme", "a", "events")
    connection.pause()
    for number in range(10):
        feed.publish(number)
    connection.resume()
    await settle()
    assert connection.numbers == list(range(10))
    assert (feed.joins, connection.of("lag")) == (1, [])


async def test_what_history_no_longer_has_is_told() -> None:
    hub, feeds, clock = scripted_hub(max_held=2_000)
    _, connection = await opened(hub, claims_of(clock), "a")
    feed = feeds.feed("acme", "a", "events")
    feed.kept = 5
    connection.pause()
    for number in range(50):
        feed.publish([number, FILL])
    connection.resume()
    await settle()
    assert connection.of("gap") == [{"t": "gap", "topic": "a", "kind": "events"}]
    assert [data[0] for data in connection.numbers][-5:] == list(range(45, 50))


@given(st.lists(st.sampled_from(["publish", "pause", "resume", "turn"]), max_size=80))
@settings(max_examples=60, deadline=None)
def test_however_a_client_reads_it_gets_every_update_once_and_in_order(steps: list[str]) -> None:
    async def run() -> None:
        hub, feeds, clock = scripted_hub(max_held=3_000)
        _, connection = await opened(hub, claims_of(clock), "a")
        feed = feeds.feed("acme", "a", "events")
        count = 0
        for step in steps:
            if step == "publish":
                feed.publish([count, FILL])
                count += 1
            elif step == "pause":
                connection.pause()
            elif step == "resume":
                connection.resume()
            else:
                await asyncio.sleep(0)
        connection.resume()
        await settle()
        assert [data[0] for data in connection.numbers] == list(range(count))
        await hub.aclose()

    asyncio.run(run())


async def test_one_that_stays_parked_is_told_to_come_back_and_cut_off() -> None:
    hub, feeds, clock = scripted_hub(max_parked=30.0)
    stream, connection = await opened(hub, claims_of(clock), "a")
    connection.pause()
    feeds.feed("acme", "a", "events").publish(1)
    await settle()
    clock.time += 31
    stream.tick(clock.time)
    assert stream.ended == "slow"
    clock.time += 2
    stream.tick(clock.time)
    assert connection.aborted


async def test_a_broken_connection_is_its_own_end_only() -> None:
    hub, feeds, clock = scripted_hub()
    broken, connection = await opened(hub, claims_of(clock), "a")
    _, other = await opened(hub, claims_of(clock), "a")
    connection.broken = True
    feeds.feed("acme", "a", "events").publish(1)
    assert (broken.ended, connection.aborted, other.numbers) == ("gone", True, [1])


async def test_a_server_that_cannot_be_stepped_gets_a_task_and_the_same_frames() -> None:
    hub, feeds, clock = scripted_hub()
    connection = Connection()

    async def yielding(message: object) -> None:
        await asyncio.sleep(0)
        await connection.send(message)

    stream = hub.open(claims_of(clock), EventStreamWire(), connection.receive, yielding)
    await hub.greet(stream)
    stream.subscribe([Want("a")])
    await settle()
    for number in range(5):
        feeds.feed("acme", "a", "events").publish(number)
    assert connection.numbers == []
    await settle()
    assert connection.numbers == list(range(5))


async def test_pings_every_heartbeat_and_tells_ahead_that_the_token_ends() -> None:
    hub, _, clock = scripted_hub(heartbeat=10)
    stream, connection = await opened(hub, claims_of(clock, seconds=300))
    for _ in range(24):
        clock.time += 10
        stream.tick(clock.time)
    assert 23 <= len(connection.of("ping")) <= 24
    assert len(connection.of("auth")) == 1
    clock.time += 61
    stream.tick(clock.time)
    assert connection.frames[-1] == {"t": "bye", "retry": 0, "reason": "expired"}
    assert connection.ended


async def test_a_new_token_lets_it_go_on_and_ends_what_it_does_not_cover() -> None:
    hub, feeds, clock = scripted_hub()
    stream, connection = await opened(hub, claims_of(clock, seconds=100), "a", "b")
    clock.time += 90
    hub.authorise(stream, claims_of(clock, seconds=100, read=["a"]))
    clock.time += 90
    stream.tick(clock.time)
    assert stream.ended is None
    feeds.feed("acme", "a", "events").publish("mine")
    feeds.feed("acme", "b", "events").publish("no longer mine")
    assert connection.numbers == ["mine"]
    assert connection.of("refused") == [{"t": "refused", "topic": "b", "kind": "events", "code": "forbidden"}]


async def test_the_link_to_the_store_shows_and_a_topic_it_could_not_give_comes_with_it() -> None:
    hub, feeds, clock = scripted_hub()
    _, watching = await opened(hub, claims_of(clock), "a")
    feeds.link(False)
    _, late = await opened(hub, claims_of(clock), "a")
    assert [frame["t"] for frame in late.frames] == ["hello", "stale"]
    feeds.link(True)
    await settle()
    assert [frame["t"] for frame in late.frames] == ["hello", "stale", "live", "sub"]
    assert [frame["t"] for frame in watching.frames] == ["hello", "sub", "stale", "live"]


async def test_topics_beyond_the_cap_and_beyond_the_token_are_refused_one_by_one() -> None:
    hub, _, clock = scripted_hub(max_topics=2)
    stream, _ = await opened(hub, claims_of(clock, read=["a:*"]))
    wants = [Want("a:1"), Want("b:1"), Want("a b"), Want("a:2"), Want("a:3"), Want("a:1")]
    assert [(want.topic, code) for want, code in stream.subscribe(wants)] == [
        ("b:1", "forbidden"),
        ("a b", "invalid-topic"),
        ("a:3", "too-many-topics"),
    ]


async def test_what_it_unsubscribes_comes_no_more() -> None:
    hub, feeds, clock = scripted_hub()
    stream, connection = await opened(hub, claims_of(clock), "a", "b")
    stream.unsubscribe(["a"])
    feeds.feed("acme", "a", "events").publish(1)
    feeds.feed("acme", "b", "events").publish(2)
    assert connection.numbers == [2]


async def test_a_closed_stream_leaves_nothing_behind() -> None:
    hub, feeds, clock = scripted_hub()
    stream, _ = await opened(hub, claims_of(clock), "a")
    hub.close(stream)
    hub.close(stream)
    assert feeds.feed("acme", "a", "events").sinks == {}
    assert hub.figures.streams == 0
    assert hub.allowance("acme").streams == 0
