"""The grammar of keys: no text from outside makes a key of another workspace, and no key stops those who read keys."""

from __future__ import annotations

import contextlib

from hypothesis import strategies as st

from redis_core.address import parse_address, redact_url
from redis_core.errors import ConfigError, InvalidKey
from redis_core.keys import (
    FAMILIES,
    WorkspaceKeys,
    cache_address,
    check_part,
    family_of,
    is_rate_key,
    rate_key,
    workspace_of,
)
from tests.fuzz_world import Leak, fuzz, mutated, no_leak

_FAMILY_NAMES = sorted({family.name for family in FAMILIES if family.tenant})
_parts = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("}{:*?[]\\./%_- \n\0aB0é"), max_size=20),
    mutated(st.sampled_from([b"acme", b"other", b"ws:{other}:session:x", b"cache:other:*"])).map(lambda b: b.decode("latin-1")),
)  # fmt: skip


@fuzz(
    "keys of a workspace",
    workspace=_parts,
    family=st.sampled_from(_FAMILY_NAMES),
    parts=st.lists(_parts, max_size=3),
)
def test_a_key_is_its_workspaces_or_is_refused(workspace: str, family: str, parts: list[str]) -> None:
    try:
        key = WorkspaceKeys(workspace).key(family, *parts)
    except InvalidKey:
        return
    if workspace_of(key) != workspace or not WorkspaceKeys(workspace).owns(key):
        raise Leak(f"{key!r} is of {workspace_of(key)!r}, made by {workspace!r}")
    found = family_of(key)
    assert found is not None
    assert found.name == family
    # What hashes a key for a slot sees the workspace, and nothing that a part brought.
    assert key.split("{", 1)[1].split("}", 1)[0] == workspace
    assert all(check_part(part) == part for part in parts)


@fuzz("keys as they are found", key=st.one_of(_parts, mutated(st.sampled_from([b"ws:{acme}:cache:a:b", b"sys:audit", b"rate:u:e"])).map(lambda b: b.decode("latin-1"))))  # fmt: skip
def test_any_key_can_be_asked_whose_it_is(key: str) -> None:
    workspace_of(key)
    family_of(key)
    is_rate_key(key)
    is_rate_key(key.encode("utf-8", "surrogatepass"))
    for form in (key, key.encode("utf-8", "surrogatepass")):
        with contextlib.suppress(InvalidKey):
            cache_address(form)


@fuzz("rate keys", subject=_parts, endpoint=_parts)
def test_a_rate_key_is_nobody_elses(subject: str, endpoint: str) -> None:
    try:
        key = rate_key(subject, endpoint)
    except InvalidKey:
        return
    assert workspace_of(key) is None
    assert is_rate_key(key)


_urls = st.one_of(
    st.text(max_size=60),
    mutated(
        st.sampled_from([
            b"redis://user:geheim@host:6379/0", b"rediss://:geheim@[::1]:1/2", b"unix:///run/redis.sock?db=1",
            b"redis+cluster://u:geheim@a:1,b:2", b"redis+sentinel://u:geheim@a,b/name/1", b"https://x.upstash.io",
        ])
    ).map(lambda data: data.decode("latin-1")),
)  # fmt: skip


@fuzz("store URLs", url=_urls)
def test_a_url_of_any_text_is_an_address_or_a_config_error_that_does_not_show_its_password(url: str) -> None:
    # Not where a mutation has made a host of it.
    intact = ":geheim@" in url and url.count("geheim") == 1
    try:
        shown = str(parse_address("REDIS_URL", url))
    except ConfigError as error:
        shown = str(error)
    if intact:
        no_leak(shown, "geheim")
        no_leak(redact_url(url), "geheim")
