"""Each name that `keys.py` makes is of its family's pattern, and what is beside it is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_core.errors import InvalidKey
from redis_core.key_grammar import Fault, judge_name, shown_key
from redis_core.keys import (
    FAMILIES,
    PRE_LOGIN_WORKSPACE,
    Family,
    WorkspaceKeys,
    check_part,
    queue_key,
    rate_key,
)

PLACES = {"<workspace>": "acme", "<minutes|hours>": "hours", "<kind>": "events"}


def allowed(part: str) -> bool:
    try:
        check_part(part)
    except InvalidKey:
        return False
    return True


parts = st.text(min_size=1, max_size=20).filter(allowed)
workspaces = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,10}[A-Za-z0-9])?", fullmatch=True)


@settings(deadline=None)
@given(workspaces, parts, parts)
def test_names_that_keys_makes_have_no_fault(workspace: str, one: str, two: str) -> None:
    made = WorkspaceKeys(workspace)
    names = [
        *(made.key(family, one) for family in ("session", "session-index", "lock", "lock-line", "app")),
        *(made.key(family, one, two) for family in ("cache", "cache-lease", "topic", "topic-meta", "app")),
        made.key("gen"), made.key("gen", one), made.key("gen", "tag", one), made.key("session-epoch"),
        made.key("topic-once", "events", one, two, "id"), rate_key(one, two), f"{rate_key(one, two)}:fixed.60",
        queue_key("queue-jobs", one), queue_key("queue-wait", one, workspace, "0"), queue_key("job", one, workspace, two),
    ]  # fmt: skip
    for name in names:
        family, fault = judge_name(name.encode())
        assert (fault, family is not None) == (None, True), name


@settings(deadline=None)
@given(st.binary(max_size=60) | st.builds(lambda text: f"ws:{{acme}}:{text}".encode(), st.text()))
def test_any_bytes_are_judged(key: bytes) -> None:
    family, fault = judge_name(key)
    assert family is not None or fault is not None


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_a_key_is_shown_in_plain_ascii(key: bytes) -> None:
    shown = shown_key(key)
    assert shown.isascii()
    assert shown == "" or shown.isprintable()
    assert len(shown) <= 4 * 160 + 3


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.pattern)
def test_every_pattern_has_names_and_a_longer_one_is_malformed(family: Family) -> None:
    import re

    plain = re.sub(r"\[.*\]", "", family.pattern)
    name = re.sub(
        r"<[^>]*>", lambda place: PLACES.get(place[0], place[0][1:-1].split("|")[0].replace(" ", "-")), plain
    ).replace("...", "x")
    assert judge_name(name.encode()) == (family, None)
    _, fault = judge_name(f"{name}:*".encode())
    assert fault is not None


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (b"", Fault.OWNERLESS),
        (b"session:abc", Fault.OWNERLESS),
        (b"acme:cache:x", Fault.OWNERLESS),
        (b"ws:", Fault.FOREIGN_WORKSPACE),
        (b"ws:{acme}", Fault.FOREIGN_WORKSPACE),
        (b"ws:{-acme}:cache:r:k", Fault.FOREIGN_WORKSPACE),
        (b"ws:{acme\n}:cache:r:k", Fault.FOREIGN_WORKSPACE),
        (b"ws:{a}{b}:cache:r:k", Fault.FOREIGN_WORKSPACE),
        (b"job:{q#0}:-acme:j1", Fault.FOREIGN_WORKSPACE),
        (b"ws:{acme}:", Fault.UNKNOWN_FAMILY),
        (b"ws:{acme}:queue-jobs:x", Fault.UNKNOWN_FAMILY),
        (b"sys:", Fault.UNKNOWN_FAMILY),
        (b"sys:epochs", Fault.UNKNOWN_FAMILY),
        (b"sys:audit:2", Fault.MALFORMED),
        (b"ws:{acme}:cache:r:", Fault.MALFORMED),
        (b"ws:{acme}:cache:r:a{b}", Fault.MALFORMED),
        (b"ws:{acme}:session:\xff", Fault.MALFORMED),
        (b"rate:u1:/x:fixed", Fault.MALFORMED),
    ],
)
def test_what_is_beside_a_pattern_is_told(key: bytes, fault: Fault) -> None:
    assert judge_name(key)[1] is fault


def test_the_workspace_before_login_is_one() -> None:
    assert judge_name(WorkspaceKeys(PRE_LOGIN_WORKSPACE).key("session", "mac").encode())[1] is None
