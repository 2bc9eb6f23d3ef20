"""The cookie header, as browsers and attackers send it, and the cookie that is set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.api.session_cookie import SessionCookie
from redis_core.config import load_settings
from redis_core.errors import ConfigError
from redis_core.sessions.token import MAX_TOKEN_CHARS

COOKIE = SessionCookie()
NAME = b"__Host-rf_session"
CHARS = "ABCxyz019._-"
TOKENS = st.text(CHARS, min_size=1, max_size=60)
OTHERS = st.lists(
    st.tuples(
        st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True).filter(lambda name: name != NAME),
        st.from_regex(rb"[!#-+\x2d-:<-\[\]-~]{0,12}", fullmatch=True),
    ),
    max_size=5,
)


@given(TOKENS, OTHERS, st.integers(min_value=0, max_value=5), st.booleans())
def test_the_token_is_found_among_other_cookies(
    token: str, others: list[tuple[bytes, bytes]], place: int, split: bool
) -> None:
    pairs = [name + b"=" + value for name, value in others]
    pairs.insert(place, NAME + b"=" + token.encode())
    # HTTP/2 may send each pair in a header of its own.
    headers = [(b"cookie", pair) for pair in pairs] if split else [(b"cookie", b"; ".join(pairs))]
    assert COOKIE.read([(b"host", b"x"), *headers]) == token


@given(OTHERS)
def test_without_it_there_is_none(others: list[tuple[bytes, bytes]]) -> None:
    assert COOKIE.read([(b"cookie", b"; ".join(name + b"=" + value for name, value in others))]) is None


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_arbitrary_bytes_never_raise(values: list[bytes]) -> None:
    COOKIE.read([(b"cookie", value) for value in values])
    COOKIE.read([(b"cookie", NAME + b"=" + value) for value in values])


def test_two_different_values_are_none_and_equal_ones_are_one() -> None:
    assert COOKIE.read([(b"cookie", NAME + b"=a; " + NAME + b"=b")]) is None
    assert COOKIE.read([(b"cookie", NAME + b"=a; " + NAME + b"=a")]) == "a"


@pytest.mark.parametrize(
    "header", [b"x" + NAME + b"=a", NAME + b"x=a", b"y=" + NAME + b"=a", NAME.lower() + b"=a"]
)
def test_a_name_that_only_looks_like_it_is_another(header: bytes) -> None:
    assert COOKIE.read([(b"cookie", header)]) is None


def attributes(value: bytes) -> set[str]:
    return set(value.decode().split("; ")[1:])


def test_asvs_3_3_1_to_3_3_4_the_cookie_is_secure_host_only_same_site_and_hidden_from_scripts() -> None:
    value = COOKIE.setting("tok", 60, [])
    assert value.startswith(b"__Host-rf_session=tok; ")
    assert attributes(value) == {"Path=/", "Max-Age=60", "Secure", "HttpOnly", "SameSite=Lax"}
    assert attributes(COOKIE.clearing) == {"Path=/", "Max-Age=0", "Secure", "HttpOnly", "SameSite=Lax"}


def test_asvs_3_3_5_name_and_value_are_at_most_4096_bytes() -> None:
    assert len(COOKIE.name) + MAX_TOKEN_CHARS <= 4096


@pytest.mark.parametrize(
    "host", [b"localhost", b"localhost:8000", b"127.0.0.1:80", b"[::1]:8000", b"[::1]", b"app.localhost"]
)
def test_the_cookie_for_plain_http_is_set_on_loopback(host: bytes) -> None:
    value = SessionCookie.insecure_localhost().setting("tok", 60, [(b"host", host)])
    assert value.startswith(b"rf_session=tok; ")
    assert attributes(value) == {"Path=/", "Max-Age=60", "HttpOnly", "SameSite=Lax"}


@pytest.mark.parametrize("host", [b"example.com", b"localhost.example.com", b"", b"10.0.0.1:8000"])
def test_the_cookie_for_plain_http_is_set_nowhere_else(host: bytes) -> None:
    with pytest.raises(ConfigError, match="SESSION_COOKIE_INSECURE_LOCALHOST"):
        SessionCookie.insecure_localhost().setting("tok", 60, [(b"host", host)])


def test_the_switch_is_asked_for_by_name_and_refused_in_production() -> None:
    assert SessionCookie.from_settings(load_settings()) == SessionCookie()
    assert not SessionCookie.from_settings(load_settings(session_cookie_insecure_localhost=True)).secure
    with pytest.raises(ConfigError, match="https"):
        SessionCookie.from_settings(
            load_settings(
                raptorflow_env="production", redis_url="redis://x", session_cookie_insecure_localhost=True
            )
        )
    with pytest.raises(ValueError, match="secure"):
        SessionCookie(secure=False)
