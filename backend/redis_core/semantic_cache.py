"""A cache for answers of language models: the same question, or one that means the same, is answered from what was said before.

Exact matches go by the normalised prompt, at the price of any cached value. Near matches go by embeddings that the caller
supplies: a workspace's recent questions are in one capped stream in the store, of which each process keeps a copy and asks only for
what is new; the nearest one above the threshold answers. Some thousand vectors are searched exhaustively (about a millisecond);
beyond that a vector database is the tool. Needs the extra `semantic` (numpy).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from redis_core.cache import CacheRegion
from redis_core.errors import ConfigError, StoreError
from redis_core.log import get_logger

if TYPE_CHECKING:
    from redis_core.workspace import Workspace

__all__ = ["Answer", "Reply", "SemanticCache", "SemanticFigures", "normalise"]

Vector = npt.NDArray[np.float32]

_SPACES: Final = re.compile(r"\s+")
_PAGE: Final = 256
"""Questions read at once: 1.5 MB of vectors of 1,536 numbers."""

_LOG: Final = get_logger("redis_core.cache")


class Answer(msgspec.Struct, frozen=True):
    """What a model said, and what it cost."""

    text: str
    tokens: int = 0
    """Tokens that the call used: what a hit saves."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and how it was found."""

    answer: Answer
    match: Literal["exact", "near", "none"]
    similarity: float = 1.0
    """Cosine similarity of the question that was asked before."""


class SemanticFigures(msgspec.Struct):
    """What happened in this process."""

    exact: int = 0
    near: int = 0
    misses: int = 0
    tokens_saved: int = 0


def normalise(prompt: str) -> str:
    """A prompt as exact matching sees it: lower case, runs of white space as one, none at the ends."""
    return _SPACES.sub(" ", prompt).strip().casefold()


class SemanticCache:
    """Answers of one model in one workspace.

    Args:
        workspace: whose answers.
        model: a key part; answers of one model, prompt version and temperature belong together.
        ttl: seconds an answer lives.
        threshold: least cosine similarity of a near match, 0 to 1.
        most: most questions kept for near matches; the oldest go.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        workspace: Workspace,
        model: str,
        *,
        ttl: float = 86_400,
        threshold: float = 0.95,
        most: int = 2_000,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(
                "SemanticCache.threshold", str(threshold), "give a similarity above 0, at most 1"
            )
        if most < 1:
            raise ConfigError("SemanticCache.most", str(most), "keep one question at least")
        self.figures = SemanticFigures()
        self._workspace = workspace
        self._region = _region(model, ttl)
        self._stream = workspace.keys.key("cache-index", model)
        self._seen = ""
        self._reading = asyncio.Lock()
        self._index = _Index(most)
        self._ttl = ttl
        self._threshold = threshold
        self._most = most

    async def ask(
        self,
        prompt: str,
        call: Callable[[], Awaitable[Answer]],
        *,
        embedding: Sequence[float] | None = None,
        context: str = "",
    ) -> Reply:
        """The answer to a prompt: known, known for a near one, or from the model.

        Budget: exact as `Cache.get`; near 2 commands more; a call as `Cache.get_or_load` and 3 more. While the store is away only
        exact matches in memory count.

        Args:
            prompt: the question.
            call: asks the model.
            embedding: the prompt's vector; without it only exact matches count.
            context: whatever else the answer depends on (system prompt, user's role, documents): part of the match.
        """
        scope = hashlib.sha256(context.encode()).hexdigest()[:16]
        key = scope + "-" + hashlib.sha256(normalise(prompt).encode()).hexdigest()[:32]
        cache = self._workspace.cache
        known = await cache.get(self._region, key)
        if known is not None:
            self.figures.exact += 1
            self.figures.tokens_saved += known.tokens
            return Reply(known, "exact")
        vector = _unit(embedding) if embedding is not None else None
        if vector is not None:
            near = await self._nearest(scope, vector)
            if near is not None:
                self.figures.near += 1
                self.figures.tokens_saved += near.answer.tokens
                return near
        called = False

        async def load(_: str) -> Answer:
            nonlocal called
            called = True
            return await call()

        answer = await cache.get_or_load(self._region, key, load)
        if not called:
            # Somebody else was asking the same at this moment.
            self.figures.exact += 1
            self.figures.tokens_saved += answer.tokens
            return Reply(answer, "exact")
        self.figures.misses += 1
        if vector is not None:
            await self._remember(key, vector)
        return Reply(answer, "none", 0.0)

    async def _nearest(self, scope: str, vector: Vector) -> Reply | None:
        try:
            async with self._reading:
                await self._read_on()
        except StoreError as error:
            _LOG.warning("semantic cache not read", workspace=self._workspace.id, error=str(error))
            return None
        key, similarity = self._index.nearest(scope, vector)
        if similarity < self._threshold:
            return None
        answer = await self._workspace.cache.get(self._region, key)
        return None if answer is None else Reply(answer, "near", similarity)

    async def _read_on(self) -> None:
        """Take over what was asked since the last look, here or elsewhere."""
        while True:
            since = f"({self._seen}" if self._seen else "-"
            entries = await self._workspace.redis.xrange(self._stream, since, count=_PAGE)
            for entry_id, fields in entries:
                self._seen = entry_id.decode()
                self._index.add(fields[b"k"].decode(), np.frombuffer(fields[b"v"], dtype="<f4"))
            if len(entries) < _PAGE:
                return

    async def _remember(self, key: str, vector: Vector) -> None:
        try:
            async with self._workspace.redis.pipeline() as batch:
                batch.xadd(self._stream, {"k": key, "v": vector.tobytes()}, max_length=self._most)
                batch.expire(self._stream, math.ceil(self._ttl))
        except StoreError as error:
            _LOG.warning("semantic cache not written", workspace=self._workspace.id, error=str(error))


@lru_cache(maxsize=1024)
def _region(model: str, ttl: float) -> CacheRegion[Answer]:
    """One region for all who ask for the same, be the object made anew for every request."""
    return CacheRegion(f"llm-{model}", Answer, ttl=ttl, jitter=0)


class _Index:
    """The latest questions of this process' copy: their keys, and their unit vectors as the rows of one matrix.

    Args:
        most: rows; the oldest is overwritten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: list[str] = []
        self._rows: Vector = np.zeros((0, 0), dtype=np.float32)
        self._next = 0

    def add(self, key: str, vector: Vector) -> None:
        """Keep one more."""
        if self._rows.shape[1] != len(vector):
            # The first one, or another embedding model: what was kept cannot be compared.
            self._rows = np.zeros((self._most, len(vector)), dtype=np.float32)
            self._keys = []
            self._next = 0
        place = self._next % self._most
        self._rows[place] = vector
        self._keys[place : place + 1] = [key]
        self._next += 1

    def nearest(self, scope: str, vector: Vector) -> tuple[str, float]:
        """The key of the most similar question of this scope, and its cosine similarity; `("", -1)` if there is none."""
        if self._rows.shape[1] != len(vector) or not self._keys:
            return "", -1.0
        similarities = self._rows[: len(self._keys)] @ vector
        for place in np.argsort(similarities)[::-1]:
            if self._keys[place].startswith(scope):
                return self._keys[place], float(similarities[place])
        return "", -1.0


def _unit(embedding: Sequence[float]) -> Vector:
    """The vector at length 1, so that a dot product is the cosine."""
    vector = np.asarray(embedding, dtype=np.float32)
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not length or not math.isfinite(length):
        raise ConfigError("embedding", f"{len(embedding)} numbers", "give a vector of finite length above 0")
    return vector / np.float32(length)
