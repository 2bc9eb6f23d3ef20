"""The bytes of one cached value in the store.

::

    byte 0      format, 1
    byte 1      flags: 1 compressed, 2 encrypted, 4 None (a remembered absence)
    then        msgpack array: [created ms, load ms, fresh for ms, kept for ms, schema version, generations, workspace]
    then        the payload

What does not open, for whatever reason, is a miss: a cache never fails its caller. An encrypted value opens only under the key
it was written for and with the envelope it was written with, so that one moved to another tenant's key, or made to look newer,
stays shut; and a region that encrypts opens nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import zstandard

from redis_core.errors import CodecError, ConfigError
from redis_core.secret import Secret

__all__ = ["Envelope", "EnvelopeKeys", "open_envelope", "seal_envelope"]

FORMAT: Final = 1
COMPRESSED: Final = 1
ENCRYPTED: Final = 2
ABSENT: Final = 4

_MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Most bytes a payload may unpack to: a bomb is a miss."""

_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_MAX_KEY_ID: Final = 255


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a cached value besides the value."""

    created: int
    """Unix milliseconds at which it was loaded."""
    load: int
    """Milliseconds its load took, for early refresh."""
    fresh: int
    """Milliseconds it is fresh, from `created`."""
    kept: int
    """Milliseconds it is kept, stale at the end, from `created`."""
    version: int
    """The region's schema version."""
    generations: tuple[bytes, ...]
    """Of the workspace, the region and its tags, as they were before the load began."""
    workspace: str = ""
    """Whose it is: under another's key it is a miss."""


class EnvelopeKeys:
    """AES-256-GCM keys by id: the first one seals, all of them open.

    Args:
        keys: 32 bytes in hex by a one-byte id (0 to 255).

    Raises:
        ConfigError: a key is malformed, or the `encryption` extra is not installed.
    """

    def __init__(self, keys: Mapping[int, Secret]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError(
                "CacheRegion.encrypt", "True", "install raptorflow-redis[encryption] to encrypt cached values"
            ) from None
        self._ciphers: dict[int, Any] = {}
        for key_id, key in keys.items():
            try:
                raw = bytes.fromhex(key.reveal())
                if len(raw) != _KEY_BYTES:
                    raise ValueError(f"not {len(raw)} bytes")  # noqa: TRY301 - said once, below
                self._ciphers[bytes([key_id])[0]] = AESGCM(raw)
            except ValueError as error:
                raise ConfigError(
                    f"cache key {key_id}", "***", f"give 32 bytes as 64 hex digits ({error})"
                ) from None
        if not self._ciphers:
            raise ConfigError("cache keys", None, "give at least one key to encrypt with")
        self._current = next(iter(self._ciphers))

    @classmethod
    def parse(cls, text: Secret | None) -> EnvelopeKeys:
        """The keys of the setting `CACHE_KEYS`: `id:hex,id:hex`.

        Raises:
            ConfigError: there is none, or one is malformed. The message never shows a key.
        """
        keys: dict[int, Secret] = {}
        for entry in text.reveal().split(",") if text is not None else ():
            key_id, _, key = entry.strip().partition(":")
            if (
                not (key_id.isascii() and key_id.isdigit() and int(key_id) <= _MAX_KEY_ID)
                or int(key_id) in keys
            ):
                raise ConfigError("CACHE_KEYS", "***", "give id:hex,id:hex with ids of 0 to 255, each once")
            keys[int(key_id)] = Secret(key)
        if not keys:
            raise ConfigError(
                "CACHE_KEYS",
                None,
                "a region encrypts: set it to id:hex, for example 1:$(openssl rand -hex 32)",
            )
        return cls(keys)

    def seal(self, data: bytes, bound_to: bytes) -> bytes:
        """Key id, nonce, ciphertext, which opens only with the same `bound_to`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self._current].encrypt(nonce, data, bound_to)
        return bytes([self._current]) + nonce + sealed

    def open(self, data: bytes, bound_to: bytes) -> bytes:
        """The plaintext.

        Raises:
            CodecError: the key is unknown, or the bytes were changed or moved.
        """
        cipher = self._ciphers.get(data[0]) if data else None
        if cipher is None:
            raise CodecError("a cached value is encrypted with a key that is not known here")
        try:
            plain: bytes = cipher.decrypt(data[1 : 1 + _NONCE_BYTES], data[1 + _NONCE_BYTES :], bound_to)
        except Exception as error:  # the library raises InvalidTag, or ValueError for what is too short
            raise CodecError(f"a cached value does not open: {type(error).__name__}") from error
        return plain


_TOLD: Final = 6
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Envelope, bytes])


def seal_envelope(
    envelope: Envelope, payload: bytes | None, name: str, *, compress_above: int, keys: EnvelopeKeys | None
) -> bytes:
    """The stored form of a value.

    Args:
        envelope: its times and generations.
        payload: the encoded value; None for a remembered absence.
        name: the key it is stored under.
        compress_above: bytes from which it is compressed.
        keys: to encrypt with; None does not.
    """
    flags = 0
    data = payload or b""
    if payload is None:
        flags |= ABSENT
    elif compress_above <= len(data) <= _MAX_PAYLOAD:  # a longer one would not be unpacked
        packed = zstandard.ZstdCompressor(level=1).compress(data)
        if len(packed) < len(data):
            flags |= COMPRESSED
            data = packed
    if keys is not None:
        flags |= ENCRYPTED
        data = keys.seal(data, _bound_to(name, flags, envelope))
    return bytes((FORMAT, flags)) + _ENCODER.encode((envelope, data))


def open_envelope(data: bytes, name: str, *, keys: EnvelopeKeys | None) -> tuple[Envelope, bytes | None]:
    """What `seal_envelope` stored: the envelope, and the payload or None for a remembered absence.

    Args:
        data: the stored form.
        name: the key it was found under.
        keys: of a region that encrypts: then nothing else opens; None opens only what is not encrypted.

    Raises:
        CodecError: these bytes are not that, or not for this key.
    """
    if len(data) < 2 or data[0] != FORMAT:  # noqa: PLR2004 - the two bytes of the head
        raise CodecError(f"{len(data)} stored bytes are not a cache entry of format {FORMAT}")
    flags = data[1]
    try:
        envelope, payload = _DECODER.decode(memoryview(data)[2:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"{len(data)} stored bytes are not a cache entry: {error}") from error
    if flags & ENCRYPTED:
        if keys is None:
            raise CodecError("a cached value is encrypted and its region is not")
        payload = keys.open(payload, _bound_to(name, flags, envelope))
    elif keys is not None:
        raise CodecError("a cached value is not encrypted and its region is")
    if flags & ABSENT:
        return envelope, None
    if flags & COMPRESSED:
        try:
            if zstandard.frame_content_size(payload) > _MAX_PAYLOAD:
                raise CodecError(f"a cached value would unpack to more than {_MAX_PAYLOAD} bytes")
            payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=_MAX_PAYLOAD)
        except zstandard.ZstdError as error:
            raise CodecError(f"a cached value does not unpack: {error}") from error
    return envelope, payload


def _bound_to(name: str, flags: int, envelope: Envelope) -> bytes:
    """What an encrypted payload is authenticated together with: its place, and everything that is told of it in the clear."""
    # Without the workspace, which the name tells: so what was stored before that was part of the envelope still opens.
    told = msgspec.structs.astuple(envelope)[:_TOLD]
    return _ENCODER.encode((name, FORMAT, flags, told))
