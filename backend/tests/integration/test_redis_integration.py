"""The operations manual's verification: does this deployment's store do what the product needs?

With pytest it runs against the test's Valkey. As a script it runs against the store that the environment names, or `--url`:

    python backend/tests/integration/test_redis_integration.py [--url URL] [--token TOKEN] [--json]

It prints a line a check and ends with 0 if all passed, 1 if one failed, 3 if a setting is wrong. What it writes is in two
workspaces of its own with random names, expires within a minute, and is removed at the end.
"""
# ruff: noqa: T201 - a script prints

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from redis_core import Client, Script, Workspace, connect, load_settings
from redis_core.errors import ConfigError, InvalidKey, RedisCoreError, WrongType

if TYPE_CHECKING:
    import pytest

Check = Callable[[Workspace], Awaitable[str]]

_LIFETIME: Final = 60
_MESSAGE_WITHIN: Final = 10.0

_TAKE_ONE: Final = Script(
    "take-one",
    """
local left = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
if left <= 0 then return -1 end
redis.call('SET', KEYS[1], left - 1, 'EX', ARGV[2])
return left - 1
""",
)


async def connection(workspace: Workspace) -> str:
    before = time.monotonic()
    _expect(await workspace.client.ping(), True)
    return f"PING in {(time.monotonic() - before) * 1_000:.1f} ms"


async def set_get_and_ttl(workspace: Workspace) -> str:
    redis, key = workspace.client, workspace.keys.key("app", "text")
    value = "grüße\0".encode() + bytes(range(256))
    _expect(await redis.set(key, value, ex=_LIFETIME), True)
    _expect(await redis.get(key), value)
    ttl = await redis.ttl(key)
    _expect(0 < ttl <= _LIFETIME, True)
    _expect(await redis.delete(key), 1)
    _expect(await redis.get(key), None)
    return f"bytes come back as they went, ttl {ttl} s"


async def hashes(workspace: Workspace) -> str:
    redis, key = workspace.client, workspace.keys.key("app", "hash")
    await redis.hset(key, {"name": "launch", "views": 1})
    await redis.expire(key, _LIFETIME)
    _expect(await redis.hincrby(key, "views", 2), 3)
    _expect(await redis.hgetall(key), {b"name": b"launch", b"views": b"3"})
    return "fields set, counted, read"


async def scripts(workspace: Workspace) -> str:
    redis, key = workspace.client, workspace.keys.key("app", "script")
    taken = await asyncio.gather(*(redis.run(_TAKE_ONE, [key], [5, _LIFETIME]) for _ in range(20)))
    _expect(sorted(str(left) for left in taken), sorted(["4", "3", "2", "1", "0", *["-1"] * 15]))
    return "5 of 20 concurrent calls were let through"


async def pipelines(workspace: Workspace) -> str:
    redis, key = workspace.client, workspace.keys.key("app", "pipeline")
    async with redis.pipeline() as batch:
        stored = batch.set(key, "1", ex=_LIFETIME)
        counted = batch.incr(key)
        refused = batch.lpush(key, "not a list")
        read = batch.get(key)
    _expect((await stored, await counted, await read), (True, 2, b"2"))
    try:
        await refused
    except WrongType:
        return "results in order, an error harms no other"
    raise AssertionError("LPUSH on a string was not refused")


async def transactions(workspace: Workspace) -> str:
    redis = workspace.client
    ours, theirs = workspace.keys.key("app", "ours"), workspace.keys.key("app", "theirs")

    async def move() -> tuple[int, int]:
        async with redis.transaction() as batch:
            taken, given = batch.incr(ours, -1), batch.incr(theirs, 1)
            batch.expire(ours, _LIFETIME)
            batch.expire(theirs, _LIFETIME)
        return await taken, await given

    for taken, given in await asyncio.gather(*(move() for _ in range(20))):
        _expect(taken + given, 0)
    return "20 concurrent ones, none interleaved"


async def messages(workspace: Workspace) -> str:
    redis, channel = workspace.client, workspace.keys.key("app", "channel")
    async with asyncio.timeout(_MESSAGE_WITHIN), await redis.subscribe(channel) as subscription:
        for number in range(3):
            await redis.publish(channel, f"message {number}")
        received = [(await anext(subscription)).payload for _ in range(3)]
    _expect(received, [b"message 0", b"message 1", b"message 2"])
    return "3 published, 3 received, in order"


async def isolation(workspace: Workspace) -> str:
    redis = workspace.client
    other = redis.workspace(f"{workspace.id}-b")
    mine, others = workspace.keys.key("app", "same"), other.keys.key("app", "same")
    await asyncio.gather(
        redis.set(mine, "mine", ex=_LIFETIME), redis.set(others, "the other's", ex=_LIFETIME)
    )
    _expect(await redis.mget(mine, others), [b"mine", b"the other's"])
    _expect((workspace.keys.owns(others), other.keys.owns(mine)), (False, False))
    for hostile in (f"same:../{other.id}", "*", "}:ws", "", "a\nb"):
        try:
            workspace.keys.key("app", hostile)
        except InvalidKey:
            continue
        raise AssertionError(f"{hostile!r} was accepted as a part of a key")
    await redis.delete(mine)
    _expect(await redis.get(others), b"the other's")
    await redis.delete(others)
    return "the same name twice, two values; hostile names refused"


CHECKS: Final[tuple[Check, ...]] = (
    connection,
    set_get_and_ttl,
    hashes,
    scripts,
    pipelines,
    transactions,
    messages,
    isolation,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The hook and not the decorator: a deployment that runs this as a script has no pytest.
    metafunc.parametrize("check", CHECKS, ids=lambda check: check.__name__)


async def test_the_store_does_what_the_product_needs(valkey: Client, check: Check) -> None:
    workspace = valkey.workspace("verification")
    assert await check(workspace)
    await _remove(workspace)
    assert await valkey.dbsize() == 0


def _expect(found: object, wanted: object) -> None:
    """As `assert`, also where a script runs under `python -O`."""
    if found != wanted:
        raise AssertionError(f"expected {wanted!r}, found {found!r}")


async def _remove(workspace: Workspace) -> None:
    names = ("text", "hash", "script", "pipeline", "ours", "theirs", "same")
    await workspace.client.delete(*(workspace.keys.key("app", name) for name in names))


async def _verify(client: Client) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for check in CHECKS:
        workspace = client.workspace(f"verification-{secrets.token_hex(6)}")
        name = check.__name__.replace("_", " ")
        try:
            said = await check(workspace)
            await _remove(workspace)
        except (AssertionError, RedisCoreError, TimeoutError) as error:
            rows.append({"check": name, "passed": False, "said": f"{type(error).__name__}: {error}"})
        else:
            rows.append({"check": name, "passed": True, "said": said})
    return rows


async def _main(options: argparse.Namespace) -> int:
    overrides: dict[str, object] = {}
    if options.url:
        overrides = {"upstash_redis_url": options.url, "mock_redis": False}
    if options.token:
        overrides["upstash_redis_token"] = options.token
    try:
        client = await connect(load_settings(redis_failover=False, **overrides))
    except ConfigError as error:
        print(f"verification: {error}", file=sys.stderr)
        return 3
    async with client:
        rows = await _verify(client)
        place = f"{client.transport.target} ({client.mode})"
    passed = sum(row["passed"] is True for row in rows)
    if options.json:
        print(json.dumps({"store": place, "passed": passed, "checks": rows}))
    else:
        print(place)
        for row in rows:
            print(f"  {'pass' if row['passed'] else 'FAIL'}  {row['check']:<16}  {row['said']}")
        print(f"{passed} of {len(rows)} checks passed.")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Verify that a store does what RaptorFlow needs.")
    parser.add_argument("--url", help="the store, instead of the one that the environment names")
    parser.add_argument("--token", help="Upstash's REST token, for an https:// URL")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    sys.exit(asyncio.run(_main(parser.parse_args())))
