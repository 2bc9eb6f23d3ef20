"""Clients that are a role's ACL user, for tests that hold the permissions against what the code really sends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from redis_core.acl import AclUser, Role, role_user, setuser
from redis_core.client import Client, connect
from redis_core.config import Settings
from redis_core.secret import Secret
from redis_core.transport.base import Command, Reply
from tests.stores import clean_client

__all__ = ["any_key", "clean_client_as", "client_as", "made_user", "make_user", "user_url"]

_PASSWORD = Secret("the-password-of-a-test")
_OPERATORS = frozenset(
    {"KEYS", "CONFIG", "FLUSHALL", "FLUSHDB", "SCRIPT", "DBSIZE", "MEMORY", "SCAN", "OBJECT", "PEXPIRETIME"}
)
"""What tests look at a store with, and the code under test never sends."""


class Watched(Client):
    """A client that asks what a test wants to know of the store as its operator, and all else as its user."""

    operator: Client

    async def _execute(self, batch: Sequence[Command]) -> list[Reply]:
        if all(str(command[0]).upper() in _OPERATORS for command in batch):
            return await self.operator._execute(batch)
        return await super()._execute(batch)

    async def aclose(self) -> None:
        await super().aclose()
        await self.operator.aclose()


async def make_user(operator: Client, user: AclUser) -> None:
    """Make a user whose password is the tests'."""
    await operator.execute(*setuser(user, _PASSWORD))


def user_url(name: str, socket: str, password: Secret = _PASSWORD) -> str:
    """Where the server behind this socket is, for this user."""
    return f"unix://{name}:{quote(password.reveal(), safe='')}@{socket}"


def made_user(role: Role, socket: str) -> str:
    """Where the server is for the user of a role, which is made; for fixtures that have no event loop."""

    async def make() -> None:
        async with await clean_client(socket) as operator:
            await make_user(operator, role_user(role))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result(30)
    return user_url(role, socket)


async def client_as(name: str, socket: str, password: Secret = _PASSWORD) -> Client:
    """A client of the server behind this socket as a user, unless said otherwise one that `make_user` made."""
    settings = Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        redis_url=user_url(name, socket, password),
        redis_command_timeout=20,
        redis_connect_timeout=20,
        redis_failover=False,
    )
    return await connect(settings)


def any_key(role: Role) -> AclUser:
    """A user with a role's commands and none of its bounds on keys and channels, for tests of bare commands."""
    return AclUser(f"{role}-any-key", role_user(role).commands, ("~*",), ("*",))


async def clean_client_as(user: AclUser | str, socket: str) -> Client:
    """A client of an empty server as this user, or as that of a role."""
    chosen = role_user(user) if isinstance(user, str) else user  # type: ignore[arg-type]  # a role, by the tests' tables
    operator = await clean_client(socket)
    await make_user(operator, chosen)
    plain = await client_as(chosen.name, socket)
    watched = Watched(plain.transport, plain.settings)
    watched.operator = operator
    return watched
