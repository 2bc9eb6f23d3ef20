"""Keys: a tenant is a wall, whatever an id or a part is made of."""

from __future__ import annotations

import binascii
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redis_core.errors import InvalidKey
from redis_core.keys import (
    FAMILIES,
    MAX_PART_BYTES,
    PRE_LOGIN_WORKSPACE,
    WorkspaceKeys,
    check_part,
    check_workspace_id,
    family_of,
    queue_key,
    rate_key,
    workspace_of,
)

TENANT_FAMILIES = sorted({family.name for family in FAMILIES if family.tenant})

workspaces = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?", fullmatch=True)
families = st.sampled_from(TENANT_FAMILIES)
hostile = st.text(max_size=80) | st.text(alphabet=":{}*?[]\\ \n\r\0ws_-aA1é\u0661", max_size=20)
SAFE = "".join(sorted(set(string.printable[:95]) - set(" *:?[\\]{}"))) + "éß漢"
parts = st.text(alphabet=SAFE, min_size=1, max_size=60)


def slot(key: str) -> int:
    """The slot as the Redis Cluster specification has it: CRC16 of what is between the first braces, if anything is."""
    data = key.encode()
    start = data.find(b"{")
    if start >= 0:
        end = data.find(b"}", start + 1)
        if end > start + 1:
            data = data[start + 1 : end]
    return binascii.crc_hqx(data, 0) % 16384


# --- ids ---


@given(workspaces)
def test_good_ids_are_taken_as_they_are(workspace: str) -> None:
    assert check_workspace_id(workspace) == workspace


@given(hostile)
@example("a\n")
@example("\u0661\u0662")
@example("é")
@example("")
@example("a" * 65)
@example("-a")
@example("a_")
@example("a}:session:x")
@example("{a}")
@example("_")
@example("a b")
@example("a\0")
@example("\uff41")
def test_an_id_is_of_the_grammar_or_is_refused(workspace: str) -> None:
    letters = string.ascii_letters + string.digits
    good = (
        1 <= len(workspace) <= 64
        and set(workspace) <= set(letters + "_-")
        and workspace[0] in letters
        and workspace[-1] in letters
    )
    if good:
        assert WorkspaceKeys(workspace).workspace == workspace
    elif workspace != PRE_LOGIN_WORKSPACE:
        with pytest.raises(InvalidKey):
            WorkspaceKeys(workspace)


def test_the_reserved_workspace_is_nobodys_id() -> None:
    with pytest.raises(InvalidKey):
        check_workspace_id(PRE_LOGIN_WORKSPACE)
    assert workspace_of(WorkspaceKeys(PRE_LOGIN_WORKSPACE).key("session", "x")) == PRE_LOGIN_WORKSPACE


def test_a_refusal_shows_a_hostile_id_escaped_and_not_whole() -> None:
    with pytest.raises(InvalidKey) as caught:
        check_workspace_id("\x1b[31m\n" + "é" * 1000)
    message = str(caught.value)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 700


# --- parts ---


@given(hostile)
@example("a\u2028b")
@example("a\u00a0b")
@example("\ud800")
@example("x" * (MAX_PART_BYTES + 1))
@example("é" * (MAX_PART_BYTES // 2 + 1))
def test_a_part_that_is_taken_holds_nothing_that_means_something(part: str) -> None:
    try:
        taken = check_part(part)
    except InvalidKey:
        return
    assert taken == part
    assert 1 <= len(part.encode()) <= MAX_PART_BYTES
    assert not set(part) & set(":{}*?[]\\")
    assert part.isprintable()
    assert not any(character.isspace() for character in part)


@given(parts)
def test_good_parts_are_taken(part: str) -> None:
    assert check_part(part) == part


@pytest.mark.parametrize(
    "part", ["", ":", "a:b", "{", "}", "*", "?", "[a]", "\\", " ", "\n", "\x7f", "\0", "\ud800"]
)
def test_bad_parts_are_refused_before_anything_is_sent(part: str) -> None:
    with pytest.raises(InvalidKey):
        WorkspaceKeys("acme").key("session", part)


# --- keys ---

asked = st.tuples(workspaces, families, st.lists(parts, min_size=1, max_size=3).map(tuple))


@given(asked, asked)
def test_keys_are_equal_only_if_what_they_name_is(
    one: tuple[str, str, tuple[str, ...]], other: tuple[str, str, tuple[str, ...]]
) -> None:
    first = WorkspaceKeys(one[0]).key(one[1], *one[2])
    second = WorkspaceKeys(other[0]).key(other[1], *other[2])
    assert (first == second) == (one == other)


@given(asked)
def test_all_keys_of_a_workspace_share_the_slot_of_its_id(one: tuple[str, str, tuple[str, ...]]) -> None:
    key = WorkspaceKeys(one[0]).key(one[1], *one[2])
    assert slot(key) == slot(one[0])


@given(asked, workspaces)
def test_no_workspace_owns_a_key_of_another(one: tuple[str, str, tuple[str, ...]], other: str) -> None:
    key = WorkspaceKeys(one[0]).key(one[1], *one[2])
    assert WorkspaceKeys(one[0]).owns(key)
    assert WorkspaceKeys(one[0]).owns(key.encode())
    assert WorkspaceKeys(other).owns(key) == (other == one[0])
    assert WorkspaceKeys(other).owns(key.encode()) == (other == one[0])


in_queue = st.sampled_from(["job", "job-result", "job-dead", "queue-wait"])


@given(in_queue, parts, workspaces, st.lists(parts, max_size=2), workspaces)
def test_no_workspace_owns_a_key_of_another_in_a_queue(
    family: str, queue: str, workspace: str, rest: list[str], other: str
) -> None:
    key = queue_key(family, queue, workspace, *rest)
    assert WorkspaceKeys(workspace).owns_in_queue(key)
    assert WorkspaceKeys(workspace).owns_in_queue(key.encode())
    assert WorkspaceKeys(other).owns_in_queue(key) == (other == workspace)
    assert not WorkspaceKeys(workspace).owns(key)


@given(parts, workspaces)
def test_what_a_queue_shares_is_no_workspaces(queue: str, workspace: str) -> None:
    for family in FAMILIES:
        if "{<queue>}" in family.pattern and "<workspace>" not in family.pattern:
            # Whatever follows, such as a worker or task that is called like a workspace.
            for more in ((), (workspace,)):
                assert not WorkspaceKeys(workspace).owns_in_queue(queue_key(family.name, queue, *more))


@given(st.text(max_size=60))
@example("job:{agents:acme:j1")
@example("job:{a}:{agents}:acme:j1")
@example("job:{}:acme:j1")
@example("job:{agents}:acme")
@example("xjob:{agents}:acme:j1")
def test_a_key_of_a_queue_is_of_one_workspace_at_most(key: str) -> None:
    owners = [name for name in ("acme", "globex") if WorkspaceKeys(name).owns_in_queue(key)]
    assert owners == [] or key == f"job:{{agents}}:{owners[0]}"


@given(workspaces, st.text(alphabet="abcAB01_-", max_size=5))
def test_an_id_that_begins_like_another_is_still_another(workspace: str, more: str) -> None:
    longer = workspace[:59] + more
    if longer == workspace or not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?", longer):
        return
    assert not WorkspaceKeys(workspace).owns(WorkspaceKeys(longer).key("session", "x"))
    assert not WorkspaceKeys(longer).owns(WorkspaceKeys(workspace).key("session", "x"))


@given(asked)
def test_a_key_tells_its_workspace_and_family(one: tuple[str, str, tuple[str, ...]]) -> None:
    key = WorkspaceKeys(one[0]).key(one[1], *one[2])
    assert workspace_of(key) == one[0]
    family = family_of(key)
    assert family is not None
    assert family.name == one[1]


@given(st.text(max_size=60))
@example("ws:{a}x:session:1")
@example("ws:{}:session:1")
@example("ws:{a\n}:session:1")
@example("xws:{a}:session:1")
def test_only_keys_of_the_grammar_have_a_workspace(key: str) -> None:
    workspace = workspace_of(key)
    if workspace is not None:
        assert WorkspaceKeys(workspace).owns(key)


@given(parts, st.sampled_from(["/api/v1/agents", "/agents/{id}", "/a/{b}/c/{d}"]))
def test_rate_keys_have_no_hash_tag_and_belong_to_no_workspace(subject: str, endpoint: str) -> None:
    key = rate_key(subject, endpoint)
    assert key.startswith(f"rate:{subject}:")
    assert "{" not in key
    assert workspace_of(key) is None


def test_rate_key_of_the_manual() -> None:
    assert rate_key("u1", "/api/v1/agents") == "rate:u1:/api/v1/agents"
    assert rate_key("u1", "/agents/{id}") == "rate:u1:/agents/<id>"
    for subject in ("", "a:b", "*", "{x}"):
        with pytest.raises(InvalidKey):
            rate_key(subject, "/x")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_is_declared_whole(family: object) -> None:
    for name in ("name", "pattern", "owner", "type", "ttl", "purpose"):
        assert getattr(family, name)


def test_families_have_names_of_their_own() -> None:
    names = [(family.name, family.tenant) for family in FAMILIES]
    assert len(names) == len(set(names))
