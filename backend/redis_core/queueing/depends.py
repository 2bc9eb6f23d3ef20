"""Resources that a task asks for by annotation: `db: Annotated[Database, Depends(open_database)]`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Depends", "Resources"]


@dataclass(frozen=True, slots=True)
class Depends:
    """A resource, made by calling `provider` without arguments.

    What it returns is entered if it is a context manager, awaited if it is awaitable, and else used as it is.
    """

    provider: Callable[[], Any]
    scope: Literal["worker", "job"] = "worker"
    """Whether it is made once a worker, at its first use, or for each job."""


class Resources:
    """The resources of a worker, closed in the reverse of their order."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._made: dict[Depends, Any] = {}
        self._making = asyncio.Lock()

    async def provide(self, wanted: dict[str, Depends], job: AsyncExitStack) -> dict[str, Any]:
        """Each parameter's resource.

        Args:
            wanted: by parameter.
            job: closes what is only this job's.
        """
        given: dict[str, Any] = {}
        for name, depends in wanted.items():
            if depends.scope == "job":
                given[name] = await _make(depends.provider, job)
            else:
                async with self._making:
                    if depends not in self._made:
                        self._made[depends] = await _make(depends.provider, self._stack)
                given[name] = self._made[depends]
        return given

    async def aclose(self) -> None:
        """Close what was made once."""
        self._made.clear()
        await self._stack.aclose()


async def _make(provider: Callable[[], Any], stack: AsyncExitStack) -> Any:
    made = provider()
    if hasattr(made, "__aenter__"):
        return await stack.enter_async_context(made)
    if hasattr(made, "__enter__"):
        return stack.enter_context(made)
    return await made if inspect.isawaitable(made) else made
