"""An agent's tokens become pieces: each once, in order, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
import json
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.client import Client
from redis_core.errors import Outcome, StoreReadOnly, StoreUnavailable, VersionConflict
from redis_core.pubsub import Position, SharedText
from redis_core.realtime.writer import TextWriter


async def whole(text: SharedText) -> str:
    """What a reader that begins now gets."""
    async for item in text.listen():
        assert isinstance(item, tuple)
        return str(json.loads(bytes(item[1].data))["text"])
    raise AssertionError("the text has no end")


async def test_a_thousand_tokens_a_second_cost_a_piece_in_40_ms(memory: Client) -> None:
    text = memory.workspace("acme").text("answer:7")
    before, began = memory.stats.commands, asyncio.get_running_loop().time()
    async with text.writer() as out:
        for number in range(500):
            await out.write(f"{number} ")
            await asyncio.sleep(0.001)
    seconds = asyncio.get_running_loop().time() - began
    # One more for a frame that was under way, and one for the end.
    assert memory.stats.commands - before <= seconds / 0.04 + 3
    assert await whole(text) == "".join(f"{number} " for number in range(500))


async def test_tokens_of_one_moment_are_one_piece(memory: Client) -> None:
    text = memory.workspace("acme").text("a")
    before = memory.stats.commands
    async with text.writer(frame=60) as out:
        for number in range(10_000):
            await out.write(str(number % 10))
    # What was written before the loop had a turn, and the end.
    assert memory.stats.commands - before <= 2
    assert len(await whole(text)) == 10_000


async def test_a_writer_that_writes_nothing_only_ends_the_text(memory: Client) -> None:
    text = memory.workspace("acme").text("a")
    await text.append("so far")
    async with text.writer():
        pass
    assert (await text.append("new")).offset == 3


async def test_what_was_written_before_an_exception_is_there_and_the_text_goes_on(memory: Client) -> None:
    text = memory.workspace("acme").text("a")
    with pytest.raises(ZeroDivisionError):
        async with text.writer(frame=60) as out:
            await out.write("one ")
            await asyncio.sleep(0)
            await out.write("two ")
            raise ZeroDivisionError
    async with text.writer() as out:
        await out.write("three")
    assert await whole(text) == "one two three"


async def test_what_was_written_before_a_cancellation_is_there(memory: Client) -> None:
    text = memory.workspace("acme").text("a")
    written = asyncio.Event()

    async def write() -> None:
        async with text.writer(frame=60) as out:
            await out.write("one ")
            await asyncio.sleep(0)
            await out.write("two")
            written.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await whole(text) == "one two"


async def test_a_text_begins_anew_when_told_to(memory: Client) -> None:
    text = memory.workspace("acme").text("a")
    await text.append("of the run that failed")
    async with text.writer(anew=True, frame=0) as out:
        await out.write("of ")
        await asyncio.sleep(0.01)
        await out.write("this one")
    assert await whole(text) == "of this one"


async def test_nobody_writes_after_the_end(memory: Client) -> None:
    async with memory.workspace("acme").text("a").writer() as out:
        pass
    with pytest.raises(RuntimeError):
        await out.write("late")


async def test_a_store_that_takes_no_writes_is_told_to_the_writer() -> None:
    async def append(_piece: str, _length: int, _how: str) -> Position:
        raise StoreReadOnly("full")

    out = TextWriter(append, 0, 60)
    with pytest.raises(StoreReadOnly):
        async with out:
            await out.write("a")
            await asyncio.sleep(0.01)
            await out.write("b")


class FaultyText:
    """A text as the script keeps it; each call goes well, is lost on the way there, or on the way back."""

    def __init__(self, text: str, faults: list[str]) -> None:
        self.stored = text.encode()
        self.faults = faults
        self.ended = False

    async def append(self, piece: str, length: int, how: str) -> Position:
        fault = self.faults.pop(0) if self.faults else "well"
        if fault == "lost":
            raise StoreUnavailable("not sent")
        if fault != "unsure":
            if length != len(self.stored) + self.ended:
                raise VersionConflict(len(self.stored) + self.ended)
            self.stored = (b"" if "a" in how else self.stored) + piece.encode()
            self.ended = "e" in how
        if fault in {"answer lost", "unsure"}:
            raise StoreUnavailable("no answer", outcome=Outcome.UNKNOWN)
        return Position("e", len(self.stored) + self.ended)


@given(
    before=st.sampled_from(["", "this was here before"]),
    tokens=st.lists(st.text(min_size=1, max_size=3), max_size=6),
    faults=st.lists(st.sampled_from(["well", "lost", "answer lost", "unsure"]), max_size=6),
    anew=st.booleans(),
)
def test_each_token_is_there_once_whatever_gets_lost(
    before: str, tokens: list[str], faults: list[str], anew: bool
) -> None:
    async def write() -> None:
        store = FaultyText(before, faults)
        out = TextWriter(store.append, 0, 60, anew=anew)
        async with out:
            for token in tokens:
                await out.write(token)
                await asyncio.sleep(0)
        assert store.stored.decode() == ("" if anew else before) + "".join(tokens)
        assert store.ended

    with patch("redis_core.realtime.writer._AGAIN", 0):
        asyncio.run(write())
