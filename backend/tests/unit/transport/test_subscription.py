"""Many listeners on one link: who hears what, slow readers, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from redis_core.errors import InvalidKey, StoreUnavailable
from redis_core.transport.base import Message
from redis_core.transport.subscription import BUFFERED_MESSAGES, SubscriptionRouter


class Link:
    """An upstream that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def listen(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        self.told.append(("listen", tuple(channels), tuple(patterns)))
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error

    async def ignore(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        self.told.append(("ignore", tuple(channels), tuple(patterns)))


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def router(link: Link) -> SubscriptionRouter:
    return SubscriptionRouter(link)


async def test_each_channel_is_subscribed_once_and_unsubscribed_with_its_last_listener(
    router: SubscriptionRouter, link: Link
) -> None:
    first = await router.subscribe(["a", "b"], ["p*"])
    second = await router.subscribe(["b", "b", "c"], [])
    assert link.told == [("listen", ("a", "b"), ("p*",)), ("listen", ("c",), ())]
    await first.aclose()
    await first.aclose()
    assert link.told[2:] == [("ignore", ("a",), ("p*",))]
    await second.aclose()
    assert link.told[3:] == [("ignore", ("b", "c"), ())]
    assert router.channels == router.patterns == []


async def test_messages_reach_those_who_listen_and_nobody_else(router: SubscriptionRouter) -> None:
    a, b, p = (
        await router.subscribe(["a"], []),
        await router.subscribe(["b"], []),
        await router.subscribe([], ["*"]),
    )
    router.deliver(b"a", b"1")
    router.deliver(b"a", b"1", b"*")
    router.deliver(b"nobody", b"2")
    assert await anext(a) == Message(b"a", b"1")
    assert await anext(p) == Message(b"a", b"1", b"*")
    for feed in (a, b, p):
        await feed.aclose()
        assert [message async for message in feed] == []


async def test_slow_reader_loses_the_oldest_and_is_told(router: SubscriptionRouter) -> None:
    feed = await router.subscribe(["a"], [])
    for number in range(BUFFERED_MESSAGES + 1):
        router.deliver(b"a", b"%d" % number)
    assert (await anext(feed)).gap
    assert (await anext(feed)).payload == b"%d" % (BUFFERED_MESSAGES // 2)


async def test_gap_reaches_everybody_once(router: SubscriptionRouter) -> None:
    feed = await router.subscribe(["a", "b"], ["c"])
    router.gap()
    router.end(None)
    assert [message.gap async for message in feed] == [True]


async def test_error_at_the_end_is_raised_after_what_came_before(router: SubscriptionRouter) -> None:
    feed = await router.subscribe(["a"], [])
    router.deliver(b"a", b"1")
    router.end(StoreUnavailable("gone"))
    assert (await anext(feed)).payload == b"1"
    with pytest.raises(StoreUnavailable):
        await anext(feed)


async def test_refused_subscription_leaves_nothing(router: SubscriptionRouter, link: Link) -> None:
    link.error = StoreUnavailable("no")
    with pytest.raises(StoreUnavailable):
        await router.subscribe(["a"], ["b"])
    assert router.channels == router.patterns == []


async def test_name_that_cannot_be_sent_is_refused_before_anything_is(
    router: SubscriptionRouter, link: Link
) -> None:
    with pytest.raises(InvalidKey):
        await router.subscribe(["fine", "\ud800"], [])
    assert router.channels == []
    assert link.told == []


async def test_closing_that_is_cancelled_leaves_no_listener(router: SubscriptionRouter, link: Link) -> None:
    feed = await router.subscribe(["a"], [])
    link.hold = asyncio.Event()
    joining = asyncio.create_task(router.subscribe(["b"], []))
    await asyncio.sleep(0)
    closing = asyncio.create_task(feed.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert router.channels == ["b"]
    link.hold.set()
    await joining


async def test_late_unsubscribe_does_not_end_a_new_listeners_channel(
    router: SubscriptionRouter, link: Link
) -> None:
    feed = await router.subscribe(["a"], [])
    link.hold = asyncio.Event()
    joining = asyncio.create_task(router.subscribe(["b"], []))
    await asyncio.sleep(0)
    closing = asyncio.create_task(feed.aclose())
    again = asyncio.create_task(router.subscribe(["a"], []))
    await asyncio.sleep(0)
    link.hold.set()
    await asyncio.gather(joining, closing, again)
    # Whatever the order upstream, what is listened to at the end was asked for last.
    about_a = [what for what, channels, _ in link.told if "a" in channels]
    assert about_a[-1] == "listen"
    assert set(router.channels) == {"a", "b"}
