"""A stored value opens to what was sealed, under its own key only; anything else is a CodecError, never another value."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from redis_core.caching.envelope import Envelope, EnvelopeKeys, open_envelope, seal_envelope
from redis_core.errors import CodecError, ConfigError
from redis_core.secret import Secret

NAME = "ws:{acme}:cache:profile:42"
ENVELOPE = Envelope(
    created=1_790_000_000_000, load=12, fresh=60_000, kept=120_000, version=1, generations=(b"1790", b"1791")
)
# As the first release wrote it: it must open for ever.
FORMAT_1 = "0100 92 96 cf000001a0c4506c00 0c cdea60 ce0001d4c0 01 92 c40431373930 c40431373931 c403616263"
KEYS = EnvelopeKeys({7: Secret("00" * 32)})


@given(
    payload=st.none() | st.binary(max_size=5_000),
    above=st.integers(0, 4_000),
    encrypted=st.booleans(),
    generations=st.lists(st.binary(max_size=20), max_size=4),
)
def test_what_is_sealed_opens(
    payload: bytes | None, above: int, encrypted: bool, generations: list[bytes]
) -> None:
    envelope = Envelope(1, 2, 3, 4, 5, tuple(generations))
    keys = KEYS if encrypted else None
    sealed = seal_envelope(envelope, payload, NAME, compress_above=above, keys=keys)
    assert open_envelope(sealed, NAME, keys=keys) == (envelope, payload)


@given(payload=st.none() | st.binary(max_size=2_000), cut=st.integers(0, 3_000))
def test_what_was_cut_off_does_not_open(payload: bytes | None, cut: int) -> None:
    sealed = seal_envelope(ENVELOPE, payload, NAME, compress_above=1024, keys=None)
    with pytest.raises(CodecError):
        open_envelope(sealed[: cut % len(sealed)], NAME, keys=None)


def test_a_long_payload_is_compressed_and_a_short_one_is_not() -> None:
    long = seal_envelope(ENVELOPE, b"x" * 10_000, NAME, compress_above=1024, keys=None)
    short = seal_envelope(ENVELOPE, b"x" * 100, NAME, compress_above=1024, keys=None)
    assert len(long) < 200 < len(b"x" * 10_000)
    assert b"x" * 100 in short


def test_what_the_first_release_stored_still_opens() -> None:
    envelope, payload = open_envelope(bytes.fromhex(FORMAT_1), NAME, keys=None)
    assert (envelope, payload) == (ENVELOPE, b"abc")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_error_of_ours(data: bytes) -> None:
    try:
        open_envelope(data, NAME, keys=KEYS)
    except CodecError:
        return
    assert data[:1] == b"\x01"


@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_value_that_was_changed_opens_or_is_an_error_of_ours(changes: list[tuple[int, int]]) -> None:
    envelope = msgspec.structs.replace(ENVELOPE, workspace="acme")
    sealed = bytearray(seal_envelope(envelope, b"abc" * 500, NAME, compress_above=1024, keys=None))
    for place, byte in changes:
        sealed[place % len(sealed)] = byte
    with contextlib.suppress(CodecError):
        open_envelope(bytes(sealed), NAME, keys=None)


def test_a_name_that_is_no_text_is_an_error_of_ours() -> None:
    envelope = msgspec.structs.replace(ENVELOPE, workspace="acme")
    sealed = seal_envelope(envelope, b"abc", NAME, compress_above=1024, keys=None)
    with pytest.raises(CodecError, match="not a cache entry"):
        open_envelope(sealed.replace(b"acme", b"ac\xff\xfe"), NAME, keys=None)


def test_what_is_too_long_to_be_unpacked_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_core.caching.envelope._MAX_PAYLOAD", 10_000)
    for payload in (b"x" * 10_000, b"x" * 10_001):
        sealed = seal_envelope(ENVELOPE, payload, NAME, compress_above=1024, keys=None)
        assert open_envelope(sealed, NAME, keys=None)[1] == payload
    assert len(sealed) > 10_000


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_an_encrypted_value_that_was_changed_does_not_open(place: int, bit: int) -> None:
    sealed = bytearray(seal_envelope(ENVELOPE, b"secret", NAME, compress_above=1024, keys=KEYS))
    place = len(sealed) - 1 - place % 34  # the nonce, the ciphertext and its tag
    sealed[place] ^= 1 << bit
    with pytest.raises(CodecError):
        open_envelope(bytes(sealed), NAME, keys=KEYS)


def test_an_encrypted_value_opens_under_its_own_key_only() -> None:
    sealed = seal_envelope(ENVELOPE, b"secret", NAME, compress_above=1024, keys=KEYS)
    assert b"secret" not in sealed
    with pytest.raises(CodecError, match="does not open"):
        open_envelope(sealed, NAME.replace("acme", "other"), keys=KEYS)
    with pytest.raises(CodecError, match="its region is not"):
        open_envelope(sealed, NAME, keys=None)


@pytest.mark.parametrize("payload", [b"secret", None])
def test_an_encrypted_value_opens_with_its_own_envelope_only(payload: bytes | None) -> None:
    sealed = seal_envelope(ENVELOPE, payload, NAME, compress_above=1024, keys=KEYS)
    _, body = msgspec.msgpack.decode(sealed[2:], type=tuple[Envelope, bytes])
    newer = msgspec.structs.replace(ENVELOPE, created=ENVELOPE.created + 1)
    with pytest.raises(CodecError, match="does not open"):
        open_envelope(sealed[:2] + msgspec.msgpack.encode((newer, body)), NAME, keys=KEYS)
    with pytest.raises(CodecError, match="does not open"):
        open_envelope(sealed[:1] + bytes([sealed[1] ^ 4]) + sealed[2:], NAME, keys=KEYS)


def test_a_region_that_encrypts_opens_nothing_else() -> None:
    for payload in (b"forged", None):
        plain = seal_envelope(ENVELOPE, payload, NAME, compress_above=1024, keys=None)
        with pytest.raises(CodecError, match="not encrypted"):
            open_envelope(plain, NAME, keys=KEYS)


def test_the_setting_names_keys_by_id() -> None:
    keys = EnvelopeKeys.parse(Secret(f"2:{'22' * 32}, 1:{'11' * 32}"))
    old = seal_envelope(ENVELOPE, b"v", NAME, compress_above=1024, keys=EnvelopeKeys({1: Secret("11" * 32)}))
    assert open_envelope(old, NAME, keys=keys)[1] == b"v"


@pytest.mark.parametrize(
    "text", ["", "x", "1", "256:" + "00" * 32, "-1:" + "00" * 32, f"1:{'00' * 32},1:{'11' * 32}", "1:00"]
)
def test_a_malformed_setting_is_an_error_that_does_not_show_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EnvelopeKeys.parse(Secret(text))
    assert "00" * 16 not in str(caught.value)


def test_no_setting_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="CACHE_KEYS"):
        EnvelopeKeys.parse(None)


def test_the_first_key_seals_and_all_open() -> None:
    old, new = Secret("11" * 32), Secret("22" * 32)
    before = seal_envelope(ENVELOPE, b"v", NAME, compress_above=1024, keys=EnvelopeKeys({1: old}))
    rotated = EnvelopeKeys({2: new, 1: old})
    assert open_envelope(before, NAME, keys=rotated)[1] == b"v"
    after = seal_envelope(ENVELOPE, b"v", NAME, compress_above=1024, keys=rotated)
    assert open_envelope(after, NAME, keys=EnvelopeKeys({2: new}))[1] == b"v"
    with pytest.raises(CodecError, match="not known here"):
        open_envelope(before, NAME, keys=EnvelopeKeys({2: new}))


@pytest.mark.parametrize("key", ["", "zz", "00" * 31])
def test_a_malformed_key_is_an_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ConfigError, match=r"cache key 1 is '\*\*\*'") as caught:
        EnvelopeKeys({1: Secret(key)})
    assert not key or key not in str(caught.value)


def test_no_key_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one key"):
        EnvelopeKeys({})


def test_a_value_that_would_unpack_to_too_much_is_refused() -> None:
    sealed = bytearray(seal_envelope(ENVELOPE, b"x", NAME, compress_above=1024, keys=None))
    bomb = zstandard.ZstdCompressor().compress(b"\0" * (65 * 1024 * 1024))
    body = msgspec.msgpack.encode((ENVELOPE, bomb))
    with pytest.raises(CodecError, match="unpack to more than"):
        open_envelope(bytes(sealed[:1]) + b"\x01" + body, NAME, keys=None)
