"""The token's grammar: what we made is read, everything else is nothing."""

from __future__ import annotations

import base64
import re

from hypothesis import given
from hypothesis import strategies as st

from redis_core.keys import PRE_LOGIN_WORKSPACE
from redis_core.secret import Secret
from redis_core.sessions.pepper import PepperRing
from redis_core.sessions.token import MAX_TOKEN_CHARS, SECRET_BYTES, mint_token, read_token

RING = PepperRing(Secret("k1:0123456789abcdef0123456789abcdef,k0:fedcba9876543210fedcba9876543210"))
WORKSPACES = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?", fullmatch=True) | st.just(
    PRE_LOGIN_WORKSPACE
)
USERS = st.none() | st.text(min_size=1, max_size=40)


@given(WORKSPACES, USERS)
def test_what_was_minted_is_read(workspace: str, user: str | None) -> None:
    text, token = mint_token(RING, workspace, user)
    assert read_token(RING, text) == token
    assert (token.workspace, token.key_id) == (workspace, "k1")
    assert len(text) <= MAX_TOKEN_CHARS


def test_asvs_7_2_3_a_token_carries_256_bits_of_the_systems_randomness() -> None:
    texts = {mint_token(RING, "acme", "u1")[0] for _ in range(200)}
    secrets = {text.split(".")[4] for text in texts}
    assert len(secrets) == 200
    assert all(len(base64.urlsafe_b64decode(secret + "=")) == SECRET_BYTES == 32 for secret in secrets)


@given(st.text(max_size=300))
def test_arbitrary_text_is_no_token(text: str) -> None:
    assert read_token(RING, text) is None


@given(st.integers(min_value=0), st.characters(codec="utf-8"))
def test_a_token_with_one_character_changed_is_no_token(place: int, character: str) -> None:
    text, _ = mint_token(RING, "acme", "u1")
    place %= len(text)
    changed = text[:place] + character + text[place + 1 :]
    assert changed == text or read_token(RING, changed) is None


def test_a_token_cannot_be_moved_to_another_workspace() -> None:
    text, _ = mint_token(RING, "acme", "u1")
    assert read_token(RING, text.replace(".acme.", ".evil.")) is None


def test_a_trailing_newline_and_an_endless_text_are_no_token() -> None:
    text, _ = mint_token(RING, "acme", "u1")
    assert read_token(RING, text + "\n") is None
    assert read_token(RING, text + "A" * 10_000_000) is None


def test_a_token_of_another_pepper_is_no_token() -> None:
    text, _ = mint_token(PepperRing(Secret("k1:another-secret-of-at-least-32-characters")), "acme", "u1")
    assert read_token(RING, text) is None


def test_an_older_key_of_the_ring_still_reads() -> None:
    old = PepperRing(Secret("k0:fedcba9876543210fedcba9876543210"))
    text, token = mint_token(old, "acme", "u1")
    assert read_token(RING, text) == token
    assert read_token(PepperRing(Secret("k1:0123456789abcdef0123456789abcdef")), text) is None


def test_the_name_in_redis_tells_nothing_of_the_token() -> None:
    text, token = mint_token(RING, "acme", "u1")
    body, secret, check = text, text.split(".")[4], text.split(".")[5]
    assert token.mac not in body
    assert secret not in token.mac
    assert check not in token.mac
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", token.mac)
    assert token.handle == token.mac[:8]


def test_the_tag_is_the_users_and_keyed() -> None:
    _, first = mint_token(RING, "acme", "u1")
    _, second = mint_token(RING, "acme", "u1")
    _, other = mint_token(RING, "acme", "u2")
    _, nobody = mint_token(RING, "acme", None)
    assert first.tag == second.tag != other.tag
    assert nobody.tag == "-"
    assert RING.tag("k0", "u1") != first.tag
