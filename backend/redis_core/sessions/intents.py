"""What is to be done to sessions in the store when it is back, as the journal keeps it. Each may be carried out more than once."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["Begun", "Ended", "EpochBegun", "Intent", "Written", "decode_intent", "encode_intent"]


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """These sessions of one user are over."""

    workspace: str
    user_id: str | None
    macs: tuple[str, ...]


class EpochBegun(msgspec.Struct, frozen=True, array_like=True, tag="epoch"):
    """All sessions of a user, or of a workspace, that began before this epoch are over."""

    names: tuple[str, ...]
    """The epoch's keys."""
    least: int
    ttl: int
    """Milliseconds to keep it."""


class Begun(msgspec.Struct, frozen=True, array_like=True, tag="begun"):
    """A session began; stored once, and never again after it was ended. Times in milliseconds."""

    workspace: str
    user_id: str | None
    mac: str
    fields: dict[str, bytes]
    end: int
    lag: int
    """How much longer than the session the store keeps it."""
    index_ttl: int


class Written(msgspec.Struct, frozen=True, array_like=True, tag="written"):
    """A session was changed or used: each field with what it held before and holds now, None for its absence."""

    workspace: str
    user_id: str | None
    mac: str
    changes: tuple[tuple[str, bytes | None, bytes | None], ...]
    touched: int
    """When it was used, in milliseconds; 0 if only changed."""
    end: int
    lag: int


Intent = Ended | EpochBegun | Begun | Written

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Intent]] = msgspec.msgpack.Decoder(Intent)


def encode_intent(intent: Intent) -> bytes:
    """As the journal keeps it."""
    return _ENCODER.encode(intent)


def decode_intent(payload: bytes) -> Intent:
    """What the journal kept."""
    return _DECODER.decode(payload)
