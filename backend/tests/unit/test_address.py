"""Addresses: taken apart once, refused with a remedy, and never showing what is secret."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.address import StoreAddress, parse_address, redact_url
from redis_core.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", StoreAddress("redis", (("localhost", 6379),))),
        ("rediss://h:6380/2", StoreAddress("rediss", (("h", 6380),), database=2)),
        (" REDIS://h ", StoreAddress("redis", (("h", 6379),))),
        ("redis://[::1]:7000", StoreAddress("redis", (("::1", 7000),))),
        ("unix:///run/redis.sock", StoreAddress("unix", path="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=3", StoreAddress("unix", path="/run/a b.sock", database=3)),
        ("https://x.upstash.io", StoreAddress("https", (("x.upstash.io", 443),))),
        ("https://x.upstash.io/", StoreAddress("https", (("x.upstash.io", 443),))),
        ("http://127.0.0.1:8079", StoreAddress("http", (("127.0.0.1", 8079),))),
        ("http://[::1]:8079", StoreAddress("http", (("::1", 8079),))),
        ("redis+cluster://a,b:7001", StoreAddress("redis+cluster", (("a", 6379), ("b", 7001)))),
        (
            "redis+sentinel://a,b:26380/main/2",
            StoreAddress("redis+sentinel", (("a", 26379), ("b", 26380)), database=2, service="main"),
        ),
    ],
)
def test_good_addresses(url: str, expected: StoreAddress) -> None:
    assert parse_address("REDIS_URL", url) == expected


def test_user_and_password() -> None:
    address = parse_address("REDIS_URL", "redis://al%40ice:p%2Fw%3A@h:1/0")
    assert address.username == "al@ice"
    assert address.password is not None
    assert address.password.reveal() == "p/w:"
    only_password = parse_address("REDIS_URL", "redis://:pw@h")
    assert only_password.username is None
    assert only_password.password is not None
    nobody = parse_address("REDIS_URL", "redis://alice@h")
    assert (nobody.username, nobody.password) == ("alice", None)
    unix = parse_address("REDIS_URL", "unix://u:pw@/run/s")
    assert (unix.username, unix.path) == ("u", "/run/s")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("localhost:6379", "begin it with one of"),
        ("ftp://h", "begin it with one of"),
        ("redis://", "name a host"),
        ("redis://h:port", "host:port"),
        ("redis://h:99999", "host:port"),
        ("redis://h/one", "must be a number"),
        ("redis://h/-1", "must be a number"),
        ("redis://h/\u0661", "must be a number"),
        ("redis://a,b", r"redis\+cluster://"),
        ("redis+sentinel://h", "name the master"),
        ("unix://relative/path", "absolute path"),
        ("unix://", "absolute path"),
        ("https://h/path", "without a path"),
        ("https://default:token@h", "UPSTASH_REDIS_TOKEN"),
        ("http://x.upstash.io", "use https://"),
        ("http://10.0.0.1", "use https://"),
        ("http://localhost.example.com", "use https://"),
        ("http://127.0.0.1.example.com", "use https://"),
        ("http://0.0.0.0", "use https://"),
    ],
)
def test_bad_addresses_say_variable_value_and_remedy(url: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy) as caught:
        parse_address("REDIS_URL", url)
    assert caught.value.variable == "REDIS_URL"
    assert caught.value.value == redact_url(url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_http_is_for_loopback(host: str) -> None:
    assert parse_address("UPSTASH_REDIS_URL", f"http://{host}:8079").is_rest


SECRET = "S3CR3TS3CR3T"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@h:1/x",
        f"redis://{SECRET}@:1",
        f"ftp://u:{SECRET}@h",
        f"u:{SECRET}@h",
        f"https://u:{SECRET}@h",
        f"http://u:{SECRET}@example.com",
        f"redis://u:{SECRET}/with-slash@h:1",
        f"redis://u:1/{SECRET}@h:1",
        f"redis://u:{SECRET}?x@h:x",
        f"redis://u:a?{SECRET}@h:x",
        f"redis://u:{SECRET}#x@h:x",
        f"redis://u:a@{SECRET}@h:x",
        f"redis+sentinel://u:{SECRET}@h",
        f"unix://u:{SECRET}@relative",
        f"https://h/?token={SECRET}&x",
        f"{SECRET}{SECRET}{SECRET}=",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    shown: object
    try:
        shown = parse_address("REDIS_URL", url)
    except ConfigError as error:
        shown = error
    assert SECRET not in str(shown)
    assert SECRET not in repr(shown)
    if isinstance(shown, ConfigError):
        assert SECRET not in "".join(traceback.format_exception(shown)).replace(f'"{url}"', "")


@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_any_text_is_an_address_or_a_config_error(host: str, rest: str) -> None:
    for scheme in ("redis", "https", "unix", "redis+sentinel", "nope"):
        try:
            parse_address("REDIS_URL", f"{scheme}://{host}/{rest}")
        except ConfigError:
            continue


def test_an_address_never_shows_its_password() -> None:
    address = parse_address("REDIS_URL", f"redis://alice:{SECRET}@h:1/2")
    assert str(address) == "redis://alice:***@h:1/2"
    for shown in (str(address), repr(address), f"{address}", address.base_url):
        assert SECRET not in shown


def test_text_of_an_address_reads_like_its_url() -> None:
    for url in (
        "redis://h:1",
        "redis://[::1]:7000/2",
        "unix:///s",
        "redis+cluster://a:1,b:2",
        "redis+sentinel://a:1/m/2",
    ):
        assert str(parse_address("REDIS_URL", url)) == url


def test_a_password_with_a_slash_is_not_taken_for_the_name_of_a_master() -> None:
    with pytest.raises(ConfigError, match="%2F") as refused:
        parse_address("REDIS_URL", "redis+sentinel://0/:geheim@a/name")
    assert "geheim" not in str(refused.value)
