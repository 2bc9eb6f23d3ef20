"""What the fuzzing tests share: how many inputs, what counts as a crash and as a leak, and bytes that are nearly right.

A test of `tests/fuzz` tries the same few dozen inputs each time: fast, and no surprise in somebody else's change. `make fuzz` sets
`FUZZ_EXAMPLES`, and each target gets as many new ones.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

__all__ = ["EXAMPLES", "TRIED", "Leak", "fuzz", "mutated", "no_leak"]

EXAMPLES: Final = int(os.environ["FUZZ_EXAMPLES"]) if os.environ.get("FUZZ_EXAMPLES") else None
"""Inputs of each target in a long run; None in an ordinary one."""
_FEW: Final = 60


class Leak(AssertionError):
    """An answer, or the store, shows what this caller must not see."""


@dataclass
class Figures:
    """What came of a target."""

    inputs: int = 0
    crashes: int = 0
    leaks: int = 0


TRIED: Final[defaultdict[str, Figures]] = defaultdict(Figures)


def fuzz(target: str, *, share: float = 1.0, **strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """A test that is run with many inputs, and counted.

    Args:
        target: its line in the table.
        share: of the inputs that others get; less for a target that is slow.
        strategies: the inputs, by the test's argument.
    """
    most = max(int((EXAMPLES or _FEW) * share), 5)

    def decorate(test: Any) -> Any:
        figures = TRIED[target]

        def count(error: BaseException | None) -> None:
            figures.inputs += 1
            if isinstance(error, Leak):
                figures.leaks += 1
            elif error is not None:
                figures.crashes += 1

        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def counted(*args: Any, **kwargs: Any) -> None:
                try:
                    await test(*args, **kwargs)
                except Exception as error:
                    count(error)
                    raise
                count(None)

        else:

            @functools.wraps(test)
            def counted(*args: Any, **kwargs: Any) -> None:
                try:
                    test(*args, **kwargs)
                except Exception as error:
                    count(error)
                    raise
                count(None)

        tuned = settings(
            max_examples=most,
            deadline=None,
            derandomize=EXAMPLES is None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return tuned(given(**strategies)(counted))

    return decorate


def no_leak(seen: bytes | str, *secrets: str) -> None:
    """Holds that none of these is in what somebody sees.

    Raises:
        Leak: one is.
    """
    text = seen.decode("utf-8", "replace") if isinstance(seen, bytes) else seen
    for secret in secrets:
        if secret in text:
            raise Leak(f"{secret!r} shows in {text!r}")


@st.composite
def mutated(draw: st.DrawFn, seeds: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were right before a few of them were changed, cut out, doubled, or put in."""
    data = bytearray(draw(seeds))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("change", "cut", "double", "insert", "end"))):
            case "change" if place < len(data):
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 8))]
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 16))]
            case "insert":
                data[place:place] = draw(st.sampled_from(_NASTY))
            case "end":
                del data[place:]
            case _:
                pass
    return bytes(data)


_NASTY: Final = (
    b"\x00", b"\r\n", b"\n", b"\xff\xfe", b"\xed\xa0\x80", b"}:", b"{", b'"', b"-1", b"9" * 20, b"%00", b"%2e%2e", b"..", b"*",
    b"\xe2\x80\xae", b"null", b"[" * 64, b":", b",", b"=", b" ", b"$-1\r\n", b"*2147483647\r\n", b"1e999", b"NaN",
)  # fmt: skip
"""What parsers stumble over."""
