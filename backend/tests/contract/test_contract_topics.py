"""Topics behave the same on every store."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from redis_core.client import Client
from redis_core.errors import VersionConflict
from redis_core.pubsub import Gap, Position


async def heard(topic: Any, count: int, after: Position | None = None) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20):
        async for item in topic.listen(after=after):
            found.append(
                "gap" if isinstance(item, Gap) else (item[0].offset, json.loads(bytes(item[1].data)))
            )
            if len(found) == count:
                break
    return found


async def test_a_listener_gets_history_after_its_position_and_then_what_comes(client: Client) -> None:
    topic = client.workspace("acme").topic("campaign:9")
    first = await topic.publish({"n": 1})
    await topic.publish({"n": 2})
    listening = asyncio.create_task(heard(topic, 22, first))
    for number in range(3, 24):
        await topic.publish({"n": number})
    assert await listening == [(n, {"n": n}) for n in range(2, 24)]


async def test_an_id_is_published_once(client: Client) -> None:
    topic = client.workspace("acme").topic("a")
    assert await topic.publish(1, id="x") == await topic.publish(1, id="x")
    assert (await topic.publish(2)).offset == 2


async def test_a_position_that_history_does_not_cover_is_a_gap(client: Client) -> None:
    topic = client.workspace("acme").topic("a")
    first = await topic.publish(1)
    await topic.publish(2)
    await topic.publish(3)
    await client.execute("XTRIM", client.workspace("acme").keys.key("topic", "events", "a"), "MAXLEN", 1)
    assert await heard(topic, 2, first) == ["gap", (3, 3)]
    assert await heard(topic, 2, Position("another", 1)) == ["gap", (3, 3)]


async def test_a_message_lost_on_the_way_is_healed_from_history(client: Client) -> None:
    workspace = client.workspace("acme")
    topic = workspace.topic("a")
    first = await topic.publish(0)
    listening = asyncio.create_task(heard(topic, 3, first))
    await asyncio.sleep(0.3)
    # As published, but for the message.
    key = workspace.keys.key
    await client.execute("XADD", key("topic", "events", "a"), "2-0", "t", "msg", "i", "-", "d", "1")
    await client.execute("HSET", key("topic-meta", "events", "a"), "o", 2)
    await client.execute("INCR", key("bus"))
    await topic.publish(2)
    await client.execute("XADD", key("topic", "events", "a"), "4-0", "t", "msg", "i", "-", "d", "3")
    await client.execute("HSET", key("topic-meta", "events", "a"), "o", 4)
    await client.execute("INCR", key("bus"))
    assert await listening == [(2, 1), (3, 2), (4, 3)]


async def test_state_is_patched_by_version(client: Client) -> None:
    state = client.workspace("acme").state("doc:9")
    at = await state.set({"a": 1, "b": [], "c": {"d": 1}})
    await state.patch({"a": None, "c": {"e": 2}}, version=at.offset)
    with pytest.raises(VersionConflict):
        await state.patch({"a": 2}, version=at.offset)
    await asyncio.gather(*(state.patch({f"k{n}": n}) for n in range(5)))
    position, document = await state.get()
    assert document == {"b": [], "c": {"d": 1, "e": 2}} | {f"k{n}": n for n in range(5)}
    assert position.offset == 7
    assert await heard(state, 1) == [(7, document)]
    assert (await heard(state, 1, at))[0] == (2, {"a": None, "c": {"e": 2}})


async def test_text_resumes_by_byte(client: Client) -> None:
    text = client.workspace("acme").text("answer:7")
    at = await text.append("Grüße")
    await text.append(" an alle")
    await text.end()
    assert await heard(text, 1, at) == [(16, {"from": 7, "text": " an alle", "done": True})]
    assert (await text.append("new")).epoch != at.epoch


async def test_a_writer_goes_on_with_a_text_or_begins_it_anew(client: Client) -> None:
    text = client.workspace("acme").text("answer:8")
    await text.append("so far, ")
    async with text.writer(frame=0) as out:
        for token in ("Grüße", " an", " alle"):
            await out.write(token)
            await asyncio.sleep(0)
    assert await heard(text, 1) == [(24, {"from": 0, "text": "so far, Grüße an alle", "done": True})]
    await text.append("of a run that failed")
    async with text.writer(anew=True) as out:
        await out.write("again")
    assert await heard(text, 1) == [(6, {"from": 0, "text": "again", "done": True})]


async def test_presence_forgets_members_of_a_process_that_died(client: Client) -> None:
    presence = client.workspace("acme").presence("doc:9")
    await presence.join("u1", {"x": 1})
    await presence.join("u2")
    await presence.leave("u2")
    assert await presence.members() == {"u1": {"x": 1}}
    await client.execute(
        "HSET", client.workspace("acme").keys.key("presence", "presence", "doc", "9"), "dead u3", "1"
    )
    assert await presence.members() == {"u1": {"x": 1}}


async def test_tenants_hear_nothing_of_each_other(client: Client) -> None:
    listening = asyncio.create_task(heard(client.workspace("acme").topic("a"), 1))
    await asyncio.sleep(0.3)
    await client.workspace("other").topic("a").publish("theirs")
    await client.workspace("acme").topic("a").publish("ours")
    assert await listening == [(1, "ours")]


async def test_an_event_costs_the_same_however_many_listen(client: Client) -> None:
    topic = client.workspace("acme").topic("a")
    first = await topic.publish(0)
    costs = []
    for listeners in (1, 20):
        listening = [asyncio.create_task(heard(topic, 1, first)) for _ in range(listeners)]
        await asyncio.sleep(0.3)
        before = client.stats.commands
        first = await topic.publish("x")
        costs.append(client.stats.commands - before)
        await asyncio.gather(*listening)
    assert costs == [1, 1]


async def test_an_event_costs_one_command_to_send(client: Client) -> None:
    topic = client.workspace("acme").topic("a")
    await topic.publish(1)
    before = client.stats.commands
    await topic.publish(2)
    assert client.stats.commands - before == 1
