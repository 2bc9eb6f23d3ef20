"""A server that says what a test tells it to, whatever it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis

__all__ = ["HELLO", "Answer", "hello_then", "scripted_server"]

HELLO = b"%2\r\n+server\r\n+scripted\r\n+id\r\n:1\r\n"

Answer = Callable[[list[bytes]], bytes | None]
"""What to answer a command with; None closes the connection."""


@asynccontextmanager
async def scripted_server(answer: Answer, *, greeting: bytes = b"") -> AsyncIterator[str]:
    """Run it; its URL. HELLO is answered as it should be unless `answer` has something to say to it."""
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        writer.write(greeting)
        commands = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    said = answer(command)
                    if said is None:
                        return
                    writer.write(said)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def hello_then(reply: bytes | None) -> Answer:
    """Answers HELLO in good order and everything else with this."""
    return lambda command: HELLO if command[0] == b"HELLO" else reply
