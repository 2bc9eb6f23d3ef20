"""The exact plan: one Lua script for all policies of a request, or of many requests, by the server's clock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Final

from redis_core.errors import ProtocolError
from redis_core.rate_limiting.policy import Policy
from redis_core.script import Script
from redis_core.transport.base import Reply

__all__ = [
    "NO_LEASE",
    "ExactForm",
    "adjust_script",
    "costs_as_words",
    "figures_of",
    "take_script",
    "words_for",
]

NO_LEASE: Final = b"0" * 16


def _script(name: str) -> Script:
    folder = files("redis_core").joinpath("lua")
    shared = folder.joinpath("rate_value.lua").read_text("utf-8")
    return Script(name, shared + folder.joinpath(f"{name}.lua").read_text("utf-8"), confined=True)


@lru_cache(maxsize=1)
def take_script() -> Script:
    """`rate_take.lua` behind the text that it shares."""
    return _script("rate_take")


@lru_cache(maxsize=1)
def adjust_script() -> Script:
    """`rate_adjust.lua` behind the text that it shares."""
    return _script("rate_adjust")


class ExactForm:
    """The words by which the scripts know the policies of one key.

    Args:
        policies: in their order.
    """

    __slots__ = ("policies", "words")

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self.words = (b"%d" % len(policies), *(word for policy in policies for word in _words(policy)))
        """How many policies, and 7 words for each."""


def _words(policy: Policy) -> tuple[bytes, ...]:
    a, b = {
        "r": (policy.slots, policy.digits),
        "g": (policy.burst, 0),
        "c": (policy.lease_ms, 0),
    }.get(policy.kind, (0, 0))
    words = (policy.mark, policy.kind, policy.limit, policy.window_ms, a, b, int(policy.shadow))
    return tuple(str(word).encode() for word in words)


@lru_cache(maxsize=4096)
def costs_as_words(costs: tuple[int, ...]) -> tuple[bytes, ...]:
    """Costs as a script takes them."""
    return tuple(b"%d" % cost for cost in costs)


Ask = Sequence[tuple[ExactForm, tuple[bytes, ...]]]
"""One request: for each of its keys the form, and a cost for each policy as `costs_as_words` has it."""


def words_for(requests: Sequence[Ask], *, counted: bool = True) -> list[bytes]:
    """The scripts' words from the third on: forms, then requests.

    Args:
        requests: in order.
        counted: whether each request's number of keys stands before it, as `rate_take.lua` has it.
    """
    numbers: dict[int, bytes] = {}
    forms: list[bytes] = []
    asked: list[bytes] = []
    for request in requests:
        if counted:
            asked.append(b"%d" % len(request))
        for form, costs in request:
            number = numbers.get(id(form))
            if number is None:
                number = numbers[id(form)] = b"%d" % (len(numbers) + 1)
                forms += form.words
            asked.append(number)
            asked += costs
    return [b"%d" % len(numbers), *forms, *asked]


def figures_of(reply: Reply, policies: int) -> tuple[int, list[int]]:
    """The time of a decision in ms, and for each policy what remains and the wait.

    Raises:
        ProtocolError: a script of ours did not answer this.
    """
    if not isinstance(reply, list) or len(reply) != 1 + 2 * policies:
        raise ProtocolError(f"rate_take was answered with {reply!r:.80}")
    now, *figures = reply
    return now, figures  # type: ignore[return-value]
