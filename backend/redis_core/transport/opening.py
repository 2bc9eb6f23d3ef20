"""How a connection is opened: a socket, TLS, and the greeting that tells who we are."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis_core.errors import CommandError, DeadlineExceeded, StoreError, StoreUnavailable
from redis_core.transport.base import Command, TransportStats
from redis_core.transport.connection import Connection, LinkOptions

if TYPE_CHECKING:
    from redis_core.address import StoreAddress

__all__ = ["open_connection"]


async def open_connection(
    address: StoreAddress,
    host: tuple[str, int],
    options: LinkOptions,
    stats: TransportStats,
    on_push: Callable[[list[Any]], None] | None = None,
) -> Connection:
    """Open a socket and introduce ourselves: RESP3, user, name, database.

    Args:
        address: the store; its path if it is a unix socket.
        host: host and port, otherwise.
        options: bounds and timeouts.
        stats: the transport's totals.
        on_push: takes what the server sends unasked.

    Raises:
        StoreUnavailable: it cannot be reached, or not within the connect timeout; nothing was sent.
        CredentialsRejected: it does not accept our user or password.
    """
    target = (
        f"unix://{address.path}" if address.scheme == "unix" else f"{address.scheme}://{host[0]}:{host[1]}"
    )
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(target, options, stats, on_push)

    connection: Connection | None = None
    try:
        async with asyncio.timeout(options.connect_timeout):
            if address.scheme == "unix":
                _, connection = await loop.create_unix_connection(protocol, address.path)
            else:
                name = host[0] if options.tls is not None else None
                _, connection = await loop.create_connection(
                    protocol, host[0], host[1], ssl=options.tls, server_hostname=name
                )
            await _introduce(connection, address, options)
    except (StoreError, OSError, ValueError) as error:
        failure = _connect_failure(target, options, error)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    else:
        return connection
    if connection is not None:
        connection.close()
    # Raised out here, so that no traceback leads to frames that hold a password.
    raise failure


def _connect_failure(target: str, options: LinkOptions, error: Exception) -> StoreError:
    """What an attempt to connect ended with; `not_sent`: whatever became of the greeting, no caller's command left."""
    if isinstance(error, StoreError):
        return type(error)(str(error))
    if isinstance(error, TimeoutError) and error.errno is None:
        return DeadlineExceeded(f"{target}: no connection within {options.connect_timeout:g} s")
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", "") or error.reason or error
        return StoreUnavailable(f"{target}: TLS failed: {said}")
    said = str(error)  # of a ValueError: a host name or path that the system cannot even look up
    if isinstance(error, socket.gaierror):
        said = error.strerror or said
    elif isinstance(error, OSError) and error.errno:
        said = os.strerror(error.errno)  # asyncio's own text names no reason
    return StoreUnavailable(f"{target}: {said}")


async def _introduce(connection: Connection, address: StoreAddress, options: LinkOptions) -> None:
    password = address.password.reveal() if address.password is not None else None
    user = address.username or "default"
    auth: Command = () if password is None else ("AUTH", user, password)
    (hello,) = await connection.call(
        [("HELLO", 3, *auth, "SETNAME", options.client_name)], options.connect_timeout
    )
    if isinstance(hello, CommandError) and hello.code in {"ERR", "NOPROTO"}:
        # A server or proxy without HELLO: RESP2, which differs in nothing that callers see.
        connection.resp3 = False
        steps: list[Command] = [("CLIENT", "SETNAME", options.client_name), ("CLIENT", "ID")]
        if password is not None:
            steps.insert(0, ("AUTH", user, password) if address.username else ("AUTH", password))
        replies = await connection.call(steps, options.connect_timeout)
        hello = replies[0] if password is not None else [b"id", replies[-1]]
    if isinstance(hello, StoreError):
        raise hello
    if isinstance(hello, list) and b"id" in hello:
        client_id = hello[hello.index(b"id") + 1]
        connection.client_id = client_id if isinstance(client_id, int) else 0
    if address.database:
        (selected,) = await connection.call([("SELECT", address.database)], options.connect_timeout)
        if isinstance(selected, StoreError):
            raise type(selected)(f"{selected} (database {address.database} of {connection.target})")
