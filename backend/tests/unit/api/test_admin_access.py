from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request

from redis_core.api.access import AdminAccess, is_loopback
from redis_core.api.problems import ProblemError
from redis_core.audit import Actor


def request_from(client: tuple[str, int] | None = ("127.0.0.1", 5), **headers: str) -> Request:
    named = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "server": ("127.0.0.1", 8000),
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    return Request(scope)


@pytest.mark.parametrize(
    "request_",
    [
        request_from(),
        request_from(("::1", 5), host="[::1]:8000"),
        request_from(("::ffff:127.0.0.1", 5), host="localhost"),
        request_from(sec_fetch_site="same-origin"),
        request_from(sec_fetch_site="none"),
    ],
)
async def test_a_caller_on_this_host_may(request_: Request) -> None:
    assert AdminAccess("development").refusal(request_) is None
    assert await AdminAccess("test")(request_) == Actor("local", "admin")


@pytest.mark.parametrize(
    "request_",
    [
        request_from(("10.0.0.9", 5)),
        request_from(("::ffff:10.0.0.9", 5)),
        request_from(("testclient", 5)),
        request_from(None),
        request_from(x_forwarded_for="127.0.0.1"),
        request_from(forwarded="for=127.0.0.1"),
        request_from(x_real_ip="127.0.0.1"),
        request_from(via="1.1 proxy"),
        request_from(host="attacker.example"),
        request_from(host="127.0.0.1.attacker.example"),
        request_from(host=""),
        request_from(sec_fetch_site="cross-site"),
        request_from(sec_fetch_site="same-site"),
    ],
)
async def test_everybody_else_may_not(request_: Request) -> None:
    with pytest.raises(ProblemError) as refused:
        await AdminAccess("development")(request_)
    assert (refused.value.status_code, refused.value.code) == (403, "admin-not-local")


def test_nobody_may_in_production() -> None:
    assert AdminAccess("production").refusal(request_from()) == "RAPTORFLOW_ENV is production"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "localhost.example", "127.0.0.1.nip.io", "2130706433", "::ffff:8.8.8.8"]
)
def test_names_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
