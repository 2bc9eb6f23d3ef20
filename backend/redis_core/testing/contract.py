"""What every transport must do, as tests that a transport of one's own can be put to.

::

    class TestMyTransport(TransportContract):
        @pytest_asyncio.fixture
        async def transport(self):
            transport = MyTransport(...)
            yield transport
            await transport.aclose()

Needs pytest and pytest-asyncio. The store behind the transport may hold other data; the tests use names of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence

import pytest

from redis_core.errors import CommandError, NoScript, WrongType
from redis_core.transport.base import Command, Reply, Transport

__all__ = ["TransportContract"]

_SECONDS = 20.0
"""What no call of these tests takes, on whatever machine."""


def _name() -> str:
    """A key of this test alone; the hash tag keeps what is made of it in one slot."""
    return f"sys:contract:{{{secrets.token_hex(8)}}}"


async def _run(transport: Transport, *batch: Command) -> list[Reply]:
    return await asyncio.wait_for(transport.execute(batch), _SECONDS)


@pytest.mark.asyncio
class TransportContract:
    """Subclass it with a fixture `transport`."""

    async def test_it_has_the_shape_of_a_transport(self, transport: Transport) -> None:
        """Mode, target, header and totals are there to be read."""
        _holds(isinstance(transport, Transport), "it has every member of the protocol")
        _holds(bool(transport.mode) and bool(transport.target), "it says what it is and where")
        _holds(
            transport.script_header == "" or transport.script_header.endswith("\n"), "the header is a line"
        )

    async def test_a_batch_has_one_reply_a_command_in_order(self, transport: Transport) -> None:
        """SET, GET, INCR and DEL of one batch see each other."""
        key = _name()
        replies = await _run(
            transport, ("SET", key, "41"), ("INCR", key), ("GET", key), ("DEL", key), ("GET", key)
        )
        _same(replies[1:], [42, b"42", 1, None])

    async def test_an_empty_batch_costs_nothing(self, transport: Transport) -> None:
        """Nothing is counted as sent."""
        before = transport.stats.commands
        _same(await _run(transport), [])
        _same(transport.stats.commands, before)

    async def test_commands_are_counted(self, transport: Transport) -> None:
        """Each of a batch, and one trip for all."""
        before = transport.stats.commands
        await _run(transport, ("GET", _name()), ("GET", _name()))
        _same(transport.stats.commands - before, 2)

    async def test_an_error_is_a_value_and_harms_no_other(self, transport: Transport) -> None:
        """Only a lost store raises."""
        key = _name()
        _, wrong, right, unknown, _ = await _run(
            transport,
            ("SET", key, "text"),
            ("LPUSH", key, "x"),
            ("GET", key),
            ("NOSUCHCOMMAND",),
            ("DEL", key),
        )
        _holds(isinstance(wrong, WrongType), f"LPUSH on a string is WrongType, not {wrong!r}")
        _same(right, b"text")
        _holds(isinstance(unknown, CommandError), f"an unknown command is a CommandError, not {unknown!r}")

    @pytest.mark.parametrize(
        "value", [b"", b"\r\n", bytes(range(256)), "größer €".encode(), b"x" * 300_000], ids=len
    )
    async def test_any_bytes_come_back_as_they_were(self, transport: Transport, value: bytes) -> None:
        """Values are bytes, not text."""
        key = _name()
        _same((await _run(transport, ("SET", key, value), ("GET", key), ("DEL", key)))[1], value)

    async def test_concurrent_tasks_get_their_own_replies(self, transport: Transport) -> None:
        """A hundred at once."""

        async def one(number: int) -> bool:
            key = _name()
            replies = await _run(transport, ("SET", key, number), ("GET", key), ("DEL", key))
            return replies[1] == str(number).encode()

        _holds(all(await asyncio.gather(*map(one, range(100)))), "nobody gets another's reply")

    async def test_a_cancelled_call_disturbs_no_other(self, transport: Transport) -> None:
        """Its replies are dropped, the connection goes on."""
        key = _name()
        calls = [asyncio.ensure_future(_run(transport, ("SET", key, n), ("GET", key))) for n in range(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        others = await asyncio.gather(*calls[1::2])
        _same([replies[1] for replies in others], [str(n).encode() for n in range(1, 20, 2)])
        _same((await _run(transport, ("DEL", key)))[0], 1)

    async def test_a_transaction_is_done_as_a_whole(self, transport: Transport) -> None:
        """All its replies, in order."""
        key = _name()
        batch: Sequence[Command] = (("INCR", key), ("INCR", key), ("DEL", key))
        _same(await asyncio.wait_for(transport.transaction(batch), _SECONDS), [1, 2, 1])

    async def test_a_script_is_known_by_its_sha1_once_it_ran(self, transport: Transport) -> None:
        """NOSCRIPT before, its reply after."""
        text = f"{transport.script_header}return {{KEYS[1], ARGV[1], '{secrets.token_hex(8)}'}}"
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        key = _name()
        [unknown] = await _run(transport, ("EVALSHA", digest, 1, key, "a"))
        _holds(isinstance(unknown, NoScript), f"an unknown script is NoScript, not {unknown!r}")
        full = await _run(transport, ("EVAL", text, 1, key, "a"))
        _same(await _run(transport, ("EVALSHA", digest, 1, key, "a")), full)

    async def test_a_message_reaches_who_listens(self, transport: Transport) -> None:
        """Once `subscribe` has returned."""
        channel = _name()
        async with await asyncio.wait_for(transport.subscribe(channel), _SECONDS) as messages:
            await _run(transport, ("PUBLISH", channel, b"\x00hello"))
            message = await asyncio.wait_for(anext(messages), _SECONDS)
        _same((message.channel, message.payload), (channel.encode(), b"\x00hello"))

    async def test_it_may_be_closed_twice(self, transport: Transport) -> None:
        """The second time there is nothing left to close."""
        await asyncio.wait_for(transport.aclose(), _SECONDS)
        await asyncio.wait_for(transport.aclose(), _SECONDS)


def _holds(so: bool, what: str) -> None:
    """An assertion that says what it is about wherever pytest does not rewrite asserts."""
    if not so:
        raise AssertionError(what)


def _same(found: object, expected: object) -> None:
    _holds(found == expected, f"expected {expected!r}, found {found!r}")
