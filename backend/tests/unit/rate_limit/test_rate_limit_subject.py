"""Whose request it is: addresses that cannot be forged, networks that are one client, keys that cannot be another's."""

from __future__ import annotations

import pytest

from redis_core.errors import InvalidKey
from redis_core.rate_limit import Subject, client_address
from redis_core.rate_limiting.subject import address_subject, key_for

IP = Subject(ip="203.0.113.7")


@pytest.mark.parametrize(
    ("forwarded", "hops", "address"),
    [
        ([], 0, "10.0.0.1"),
        (["198.51.100.1"], 0, "10.0.0.1"),
        (["198.51.100.1"], 1, "198.51.100.1"),
        (["6.6.6.6, 198.51.100.1"], 1, "198.51.100.1"),
        (["6.6.6.6", "198.51.100.1"], 1, "198.51.100.1"),
        (["6.6.6.6, 198.51.100.1, 10.9.9.9"], 2, "198.51.100.1"),
        (["198.51.100.1"], 2, "10.0.0.1"),
        (["not-an-address"], 1, "10.0.0.1"),
        (["[2001:db8::5]"], 1, "2001:db8::5"),
        (["::ffff:198.51.100.1"], 1, "198.51.100.1"),
    ],
)
def test_only_what_our_own_proxies_saw_is_believed(forwarded: list[str], hops: int, address: str) -> None:
    # fastapi-limiter takes X-Forwarded-For from anybody: a client then has as many budgets as it likes.
    assert client_address("10.0.0.1", forwarded, hops) == address


def test_a_network_of_ipv6_is_one_client() -> None:
    assert address_subject("2001:db8:1:2:3:4:5:6") == address_subject("2001:db8:1:2::1")
    assert address_subject("2001:db8:1:2::1") != address_subject("2001:db8:1:3::1")
    assert address_subject("2001:db8:1:2::1", 56) == address_subject("2001:db8:1:3::1", 56)
    assert address_subject("::ffff:203.0.113.7") == "203.0.113.7"
    assert address_subject(None) == address_subject("nonsense") == "unknown"


def test_keys_are_as_the_manual_has_them() -> None:
    subject = Subject(user="u1", workspace="acme", ip="2001:db8::1")
    assert key_for(subject, "user", "/api/v1/agents") == "rate:u1:/api/v1/agents"
    assert key_for(subject, "user", "/agents/{id}") == "rate:u1:/agents/<id>"
    assert key_for(subject, "workspace", "all") == "ws:{acme}:rate:all"
    assert key_for(subject, "ip", "all") == "rate:ip=2001-db8--/64:all"
    assert key_for(subject, "everyone", "all") == "rate:everyone=:all"


def test_who_has_no_user_is_counted_by_address_and_no_workspace_by_nothing() -> None:
    assert key_for(IP, "user", "/a") == "rate:anonymous=203.0.113.7:/a"
    assert key_for(IP, "ip", "/a") == "rate:ip=203.0.113.7:/a"
    assert key_for(IP, "workspace", "/a") is None


@pytest.mark.parametrize(
    "user", ["ip=203.0.113.7", "anonymous=203.0.113.7", "everyone=", "a:b", "a*", "", "a b", "x" * 600]
)
def test_a_user_cannot_be_named_like_another_subject(user: str) -> None:
    with pytest.raises(InvalidKey):
        key_for(Subject(user=user), "user", "/a")


def test_a_workspace_is_checked() -> None:
    with pytest.raises(InvalidKey):
        key_for(Subject(workspace="a}:x"), "workspace", "/a")
