"""What is cached, and how: a region is declared once, typed, with its times and its behaviour when things fail.

The times of one entry, from the moment it was loaded::

    loaded        ttl (soft)              ttl + stale_while_revalidate      ttl + fail_safe (hard)
      |--- fresh ---|--- served at once, renewed behind ---|--- served only if loading fails ---| gone

"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from redis_core.caching.weight import Weight
from redis_core.codec import Codec, codec_for
from redis_core.errors import CodecError, ConfigError, InvalidKey
from redis_core.keys import check_part

__all__ = [
    "MOST_SECONDS",
    "TTL",
    "CacheEntry",
    "CacheRegion",
    "Fresh",
    "RegionFigures",
    "is_immutable",
    "several",
]

T = TypeVar("T")

MOST_SECONDS: Final = 100 * 365 * 86_400
"""A hundred years: what is longer, or no number, has no place in an envelope."""
_STORED: Final = frozenset({"ttl", "stale_while_revalidate", "fail_safe", "negative_ttl", "lease"})


class TTL:
    """How long the manual's classes of data live, in seconds."""

    STATIC_CONFIG: Final = 86_400
    USER_PROFILE: Final = 1_800
    CAMPAIGN: Final = 900
    LIVE_ANALYTICS: Final = 300


class RegionFigures(msgspec.Struct):
    """What happened in one region in this process, over all workspaces."""

    memory_hits: int = 0
    store_hits: int = 0
    stale_hits: int = 0
    misses: int = 0
    coalesced: int = 0
    """Callers that waited for a load somebody else had begun."""
    loads: int = 0
    load_errors: int = 0
    load_seconds: float = 0.0
    refused_fills: int = 0
    """Loaded values that were not stored, because the key was deleted meanwhile."""
    corrupt: int = 0
    """Stored values that did not open."""
    store_errors: int = 0


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """What a loader returns when it decides itself how long its value lives."""

    value: T
    ttl: float
    """Seconds; 0 does not cache it at all."""

    def __post_init__(self) -> None:
        if not self.ttl <= MOST_SECONDS:
            raise ConfigError("Fresh.ttl", str(self.ttl), f"give seconds, at most {MOST_SECONDS:,}")


class CacheEntry(msgspec.Struct, Generic[T], frozen=True):
    """A value and where it came from."""

    value: T
    tier: str
    """`memory`, `store` or `loader`."""
    age: float
    """Seconds since it was loaded."""
    stale: bool
    """Whether it is past its TTL, served while it is renewed or because it could not be; or from memory while the store is away."""


@dataclass(frozen=True, eq=False)
class CacheRegion(Generic[T]):
    """One kind of cached value; declare it once, as a module's constant. All times in seconds.

    ::

        profiles = CacheRegion("profile", Profile, ttl=TTL.USER_PROFILE, fail_safe=3600)

    Raises:
        InvalidKey: the name may not stand in a key.
        ConfigError: an option is out of range.
    """

    name: str
    """A key part: what the values are."""
    type: type[T]
    """What they are in Python: anything msgspec encodes. If it is immutable through and through (a frozen Struct of immutable
    fields, str, int, tuple, ...) memory shares one object with all callers; otherwise memory keeps bytes, and every caller
    gets a copy of its own, so that nobody can corrupt what the others see."""
    _: KW_ONLY
    ttl: float | None = None
    """How long a value is fresh; None takes `REDIS_DEFAULT_TTL`."""
    jitter: float = 0.1
    """Part of the TTL that is taken off at random, so that what was loaded together does not expire together."""
    stale_while_revalidate: float = 0
    """How long after its TTL a value is still served at once while a new one is loaded behind it."""
    fail_safe: float = 0
    """How long after its TTL a value is still served when loading a new one fails."""
    fail_safe_throttle: float = 5
    """How long after a failed load the stale value is served without trying again."""
    negative_ttl: float = 0
    """How long a loader's None is remembered; 0 does not cache it."""
    memory_ttl: float = 60
    """Longest time a value is served from this process' memory; 0 keeps nothing there."""
    early_refresh: float = 1
    """XFetch's beta (Vattani et al. 2015): above 1 refreshes earlier, 0 never before the TTL."""
    soft_timeout: float | None = None
    """How long a caller waits for a load when there is a stale value to serve instead; None waits for the load."""
    hard_timeout: float = 30
    """How long a load may take at all."""
    lease: float = 2
    """How long the lease of a load lasts without being renewed: what the death of its holder costs the others."""
    version: int = 1
    """The value's schema: entries of another version are misses."""
    compress_above: int = 1024
    """Bytes from which a value is compressed (zstd); below, it gains nothing."""
    encrypt: bool = False
    """Whether the store only sees AES-GCM, with the keys that the cache was given."""
    figures: RegionFigures = field(init=False, repr=False, default_factory=RegionFigures)
    """Counted as it is used."""
    weight: Weight = field(init=False, repr=False, default_factory=Weight)
    """What its values take in memory."""
    codec: Codec[T] = field(init=False, repr=False)
    shared: bool = field(init=False, repr=False)
    """Whether memory shares its objects with callers."""

    def __post_init__(self) -> None:
        check_part(self.name)
        for option in fields(self):
            value = getattr(self, option.name, None)
            if not isinstance(value, int | float):
                continue
            if not value >= 0:
                raise ConfigError(
                    f"CacheRegion({self.name!r}).{option.name}", str(value), "give a number from 0 up"
                )
            if option.name in _STORED and value > MOST_SECONDS:
                raise ConfigError(
                    f"CacheRegion({self.name!r}).{option.name}",
                    str(value),
                    f"give seconds, at most {MOST_SECONDS:,}",
                )
        if self.ttl == 0:
            raise ConfigError(
                f"CacheRegion({self.name!r}).ttl",
                "0",
                "give seconds above 0, or None for REDIS_DEFAULT_TTL; a loader's Fresh(value, ttl=0) is not cached",
            )
        if not 0 <= self.jitter < 1:
            raise ConfigError(
                f"CacheRegion({self.name!r}).jitter", str(self.jitter), "give a part of 1, below it"
            )
        if not self.lease:
            raise ConfigError(
                f"CacheRegion({self.name!r}).lease", "0", "give the seconds that a dead loader may cost"
            )
        object.__setattr__(self, "codec", codec_for(self.type))
        object.__setattr__(self, "shared", is_immutable(self.type))

    def take_in(self, value: T | None) -> tuple[T | None, bytes | None]:
        """A value as all who ask will get it, and its bytes; None for both if it is an absence.

        It is read back: so it is of the region's type, and nothing of it is the caller's, who may change what is his.

        Raises:
            CodecError: it cannot be stored, or is of another type.
        """
        if value is None:
            return None, None
        payload = self.codec.encode(value)
        try:
            return self.codec.decode(payload), payload
        except CodecError as error:
            raise CodecError(
                f"a {type(value).__name__} is not what cache region {self.name} holds: {error.__cause__}"
            ) from error

    @property
    def stale_for(self) -> float:
        """Seconds after its TTL that a value is kept at all."""
        return max(self.stale_while_revalidate, self.fail_safe)

    def with_jitter(self, ttl: float) -> float:
        """This TTL, less a random part of it."""
        return ttl * (1 - self.jitter * _RANDOM.random()) if self.jitter else ttl


_RANDOM: Final = random.Random()  # noqa: S311 - jitter is no secret

_ATOMS: Final = frozenset(
    {str, bytes, int, float, bool, complex, type(None), datetime, date, time, timedelta, Decimal, UUID}
)


def several(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Names that a caller gives, as they are now: what he does with his list later is his.

    Raises:
        InvalidKey: they are one text, which would be taken for its letters.
    """
    if isinstance(names, str):
        raise InvalidKey(f"{what} are several: give a list, not one text")
    return tuple(names)


def is_immutable(type_: object) -> bool:
    """Whether nothing reachable from a value of this type can be changed; unknown types can."""
    return _is_immutable(type_, set())


def _is_immutable(type_: object, above: set[type]) -> bool:
    """As `is_immutable`, within types that hold this one: where they come up again, they are as their other parts are."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in {tuple, frozenset, Union, UnionType, Literal}:
        return origin is Literal or all(item is Ellipsis or _is_immutable(item, above) for item in arguments)
    if not isinstance(type_, type):
        return False
    if type_ in _ATOMS or type_ in above or issubclass(type_, Enum):
        return True
    if issubclass(type_, msgspec.Struct):
        frozen, parts = type_.__struct_config__.frozen, [f.type for f in msgspec.structs.fields(type_)]
    elif is_dataclass(type_):
        frozen = type_.__dataclass_params__.frozen  # type: ignore[attr-defined]
        parts = list(get_type_hints(type_).values())
    else:
        return False
    return frozen and all(_is_immutable(part, above | {type_}) for part in parts)
