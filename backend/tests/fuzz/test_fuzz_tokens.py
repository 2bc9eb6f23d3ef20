"""Cookies, session tokens, realtime tokens, bearer headers: nothing is accepted that we did not make, and nothing stops us."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st

from redis_core.api.admin_token import AdminTokens, actor_of_token, admin_tokens, hash_of
from redis_core.api.session_cookie import SessionCookie
from redis_core.config import load_settings
from redis_core.errors import ConfigError
from redis_core.gateway import GatewayToken
from redis_core.gateway.tokens import TokenTable
from redis_core.realtime_token import issue, read
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing
from redis_core.sessions.token import mint_token, read_token
from tests.fuzz_world import fuzz, mutated, no_leak

RING = PepperRing(Secret("k1:" + "p" * 40 + ",k2:" + "q" * 40))
MADE = [mint_token(RING, workspace, user)[0] for workspace in ("acme", "_") for user in ("ada", None)]
ISSUED = [issue("acme", "ada", read=("*",), keys=RING), issue("acme", "bob", write=("news",), keys=RING)]

nearly = mutated(st.sampled_from([token.encode() for token in (*MADE, *ISSUED)]))
anything = st.one_of(
    nearly,
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@fuzz("session tokens", data=anything)
def test_a_session_token_that_is_not_ours_is_none(data: bytes) -> None:
    text = data.decode("latin-1")
    found = read_token(RING, text)
    assert (found is not None) == (text in MADE)


@fuzz("realtime tokens", data=anything)
def test_a_realtime_token_that_is_not_ours_is_none(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert (read(RING, text) is not None) == (text in ISSUED)


@fuzz("cookies", data=st.lists(anything, max_size=4), name=st.sampled_from([b"cookie", b"Cookie", b"COOKIE"]))
def test_a_cookie_header_of_any_bytes_gives_a_token_or_none(data: list[bytes], name: bytes) -> None:
    cookie = SessionCookie()
    for headers in (
        [(name, one) for one in data],
        [(b"cookie", b"; ".join(cookie.name.encode() + b"=" + one for one in data))],
    ):
        text = cookie.read(headers)
        if text is not None and read_token(RING, text) is not None:
            assert text in MADE


@fuzz("bearer headers", data=anything, known=st.binary(min_size=1, max_size=40))
def test_a_bearer_header_of_any_bytes_opens_only_with_the_token(data: bytes, known: bytes) -> None:
    secret = known.hex()
    table = TokenTable([GatewayToken(Secret(secret))])
    assume(data.strip() != secret.encode())
    for header in (data, b"Bearer " + data, b"bearer  " + data):
        assert table.bearer(header) is None or header.split()[-1] == secret.encode()
    tokens = AdminTokens(
        admin_tokens(load_settings(mock_redis=True, admin_tokens=f"ada:admin:{hash_of(secret)}"))
    )
    assert tokens.actor(data.decode("latin-1")) is None
    assert tokens.actor(data.decode("utf-8", "surrogateescape")) is None
    assert actor_of_token((), secret) is None


@fuzz("settings of secrets", data=anything)
def test_a_setting_of_secrets_of_any_text_is_taken_or_refused_without_showing_it(data: bytes) -> None:
    text = data.decode("latin-1")
    for parse in (PepperRing, AdminTokens().replace):
        try:
            parse(Secret(text))
        except ConfigError as error:
            if len(text) > 40:
                no_leak(str(error), text)
