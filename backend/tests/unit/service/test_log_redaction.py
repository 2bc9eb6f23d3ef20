"""Nothing secret in a line of the log or in a command's error, wherever it stood."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from redis_core.address import redact_url
from redis_core.cli.output import failure_of
from redis_core.errors import StoreUnavailable
from redis_core.log import get_logger
from redis_core.log_format import configure_logs, redact
from redis_core.secret import Secret


@pytest.fixture(autouse=True, scope="module")
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


_MARK = "geheim"
# Whatever can stand in a URL, a header or a variable without ending it; the mark is what is looked for.
_LETTERS = st.characters(min_codepoint=33, max_codepoint=126)
passwords = st.builds(lambda before, after: before + _MARK + after, *(st.text(_LETTERS, max_size=12),) * 2)
names = st.sampled_from(
    ["token", "Authorization", "REDIS_PASSWORD", "set-cookie", "api_key", "session_peppers", "clientSecret"]
)
plain = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A text with a secret in it."""
    if draw(st.booleans()):
        url = draw(
            st.sampled_from([
                "redis://user:{}@host:6379/0", "rediss://:{}@host", "https://{}@host/path", "redis+cluster://u:{}@a:1,b:2",
            ])
        )  # fmt: skip
        return f"{draw(plain)} {url.replace('{}', draw(passwords))} {draw(plain)}"
    secret = draw(passwords)
    if draw(st.booleans()):
        # As a program shows a mapping: what would end the text is escaped.
        shown = json.dumps({"password": secret}) if draw(st.booleans()) else repr({"X-Admin-Token": secret})
        return f"{draw(plain)} {shown} {draw(plain)}"
    carrier = draw(
        st.sampled_from([
            "Authorization: Token {}", "authorization: Digest {}", "Cookie: a=b; __Host-session={}; c=d", "set-cookie: {}",
            "UPSTASH_REDIS_TOKEN={}", "X-Api-Key: {}", "ACL SETUSER app on >{} ~*",
            "Authorization: Bearer {}", "authorization: BASIC {}", "Authorization: {}", "(b'authorization', b'Bearer {}')",
            "https://host/get/k?_token={}&x=1", "https://host/?access_token={}", "/x?a=1&client_secret={}", "/x?X-Amz-Signature={}",
        ])
    )  # fmt: skip
    if "?" in carrier:
        secret = secret.replace("&", "%26")  # what would end it in a query
    return f"{draw(plain)} {carrier.replace('{}', secret)} {draw(plain)}"


class Loud(Exception):
    """An error with a secret in its text."""


@dataclass
class Holder:
    url: str


values = st.recursive(
    st.one_of(
        texts(),
        texts().map(str.encode),
        texts().map(Loud),
        texts().map(Holder),
        passwords.map(Secret),
        st.tuples(names, passwords),
        st.tuples(names.map(str.encode), passwords.map(str.encode)),
        st.dictionaries(
            names, st.one_of(passwords, st.lists(passwords), passwords.map(str.encode)), max_size=2
        ),
        st.integers(),
        st.none(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(plain, inner, max_size=3), st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@given(value=values, event=texts())
@example(value={"tokens": [f"{_MARK}-1", f"{_MARK}-2"]}, event="")
@example(value=[[[[[[[[[[f"Bearer {_MARK}"]]]]]]]]]], event="")
@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_reaches_a_line_wherever_it_stands(value: object, event: str, *, as_json: bool) -> None:
    out = io.StringIO()
    configure_logs(out, json=as_json)
    get_logger("redis_core.x").warning(event, value=value)
    try:
        raise Loud(event)
    except Loud as error:
        get_logger("redis_core.x").exception("failed", error=error)
    logging.getLogger("another").warning("%s", event)
    assert _MARK not in out.getvalue()
    if as_json:
        assert all(json.loads(line) for line in out.getvalue().splitlines())


@given(text=texts())
@example(text=f"https://host/get/k?_token=a@{_MARK}&x=1")
def test_no_secret_reaches_a_commands_error(text: str) -> None:
    for error in (StoreUnavailable(text), Loud(text)):
        assert _MARK not in failure_of(error).message


@given(secret=passwords, scheme=st.sampled_from(["redis", "rediss", "https", "redis+sentinel", "ftp"]))
def test_no_password_of_a_url_is_shown(secret: str, scheme: str) -> None:
    assert _MARK not in redact_url(f"{scheme}://user:{secret}@host:1/0?x={secret}")


def test_what_is_no_secret_stays() -> None:
    kept: dict[str, object] = {
        "path": "/api/v1/admin/redis-metrics?window=60",
        "url": "https://host.example/get/key?a=1",
        "tokens_used": 12,
        "secret_rotated": True,
        "who": "ada@example.com",
        "keys": ["a", "b"],
    }
    assert redact(kept) == kept


def test_a_value_that_holds_itself_does_not_stop_the_log() -> None:
    ring: list[object] = []
    ring.append(ring)
    assert "..." in str(redact(ring))


def test_a_long_line_costs_no_more_than_its_length() -> None:
    for text in (
        "://" * 300_000,
        "bearer " * 100_000,
        "?token" * 100_000,
        "authorization:" * 100_000,
        "?a" + "b-" * 300_000,
    ):
        redact(text)  # the suite's time limit is the assertion: a pattern that goes back would take hours
