"""The key of a decorated function's call: the same arguments are the same key, others never."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.cache import CacheRegion, cached
from redis_core.caching.call_key import key_of_call
from redis_core.client import Client
from redis_core.errors import InvalidKey
from redis_core.workspace import Workspace


def plain(workspace: object, a: str, b: str = "b", *, only: str = "o") -> None: ...
def variable(workspace: object, a: str = "a", *more: str, only: str = "o", **others: str) -> None: ...


def key(function: Any, *args: Any, **kwargs: Any) -> str:
    return key_of_call(inspect.signature(function), args, kwargs)


TEXTS = st.text("ab|%=0", max_size=4)
NAMES = st.dictionaries(st.sampled_from(["only", "x", "y", "x=", "x|y", "%x"]), TEXTS, max_size=3)
CALLS = st.tuples(st.lists(TEXTS, max_size=3), NAMES)


@given(CALLS, CALLS)
def test_other_arguments_are_another_key(
    one: tuple[list[str], dict[str, str]], two: tuple[list[str], dict[str, str]]
) -> None:
    same = key(variable, *one[0], **one[1]) == key(variable, *two[0], **two[1])
    assert same == (one == two)


def test_how_an_argument_is_given_means_nothing() -> None:
    assert key(plain, "1", "2") == key(plain, "1", b="2") == key(plain, b="2", a="1") == "1|2"
    assert key(plain, "1", only="2") == "1|%only=2"
    assert key(plain, 7) == key(plain, "7") == "7"


def test_text_that_looks_like_more_is_told_from_it() -> None:
    keys = [
        key(plain, "a|b"), key(plain, "a", "b"), key(plain, "a", only="b"), key(plain, "a|%only=b"), key(plain, "a%7Cb"),
        key(variable), key(variable, ""), key(variable, "%"), key(variable, "%0"), key(variable, only=""),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert all(keys)


@pytest.mark.parametrize("value", [None, True, 1.5, ["a"], b"a"], ids=str)
def test_what_is_neither_text_nor_a_number_makes_no_key(value: object) -> None:
    with pytest.raises(InvalidKey, match="makes no cache key"):
        key(plain, value)


async def test_arguments_that_differ_never_share_a_value(memory: Client) -> None:
    region: CacheRegion[str] = CacheRegion("said", str, ttl=60)

    @cached(region)
    async def said(_: Workspace, who: str = "nobody", what: str = "nothing") -> str:
        return f"{who} said {what}"

    acme = memory.workspace("acme")
    assert await said(acme, what="Ada") == "nobody said Ada"
    assert await said(acme, "Ada") == "Ada said nothing"
    assert await said(acme, "Ada|x", "y") == "Ada|x said y"
    assert await said(acme, "Ada", "x|y") == "Ada said x|y"
    assert await said(acme, "Ada|x") == "Ada|x said nothing"
    assert await said(acme, "Ada", "x") == "Ada said x"
    assert await said(acme) == "nobody said nothing"


async def test_a_key_may_be_made_by_the_caller(memory: Client) -> None:
    @cached(CacheRegion("sum", int, ttl=60), key=lambda numbers: "-".join(map(str, numbers)))
    async def total(_: Workspace, numbers: list[int]) -> int:
        return sum(numbers)

    acme = memory.workspace("acme")
    assert (await total(acme, [1, 2]), await total(acme, [12])) == (3, 12)
    assert await acme.cache.get(CacheRegion("sum", int, ttl=60), "1-2") == 3


async def test_a_function_that_is_called_wrongly_says_so_itself(memory: Client) -> None:
    @cached(CacheRegion("one", int, ttl=60))
    async def one(_: Workspace, number: int) -> int:
        return number

    with pytest.raises(TypeError, match="number"):
        await one(memory.workspace("acme"), numbr=1)  # type: ignore[call-arg]
