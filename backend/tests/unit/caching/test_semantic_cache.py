"""Answers of language models: exact, near, and never another context's."""

from __future__ import annotations

import math

import pytest

from redis_core.client import Client
from redis_core.errors import ConfigError
from redis_core.semantic_cache import Answer, SemanticCache, normalise


class Model:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> Answer:
        self.calls += 1
        return Answer(f"answer {self.calls}", tokens=100)


def turned(degrees: float) -> list[float]:
    """A vector at this angle from the first axis."""
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]


@pytest.fixture
def model() -> Model:
    return Model()


async def test_the_same_question_is_answered_once(memory: Client, model: Model) -> None:
    answers = SemanticCache(memory.workspace("acme"), "opus")
    first = await answers.ask("What is  a cache?", model)
    again = await answers.ask(" what is a CACHE? ", model)
    assert (first.match, again.match, again.answer) == ("none", "exact", first.answer)
    assert model.calls == 1
    assert answers.figures.tokens_saved == 100


async def test_a_near_question_is_answered_from_the_nearest(memory: Client, model: Model) -> None:
    answers = SemanticCache(memory.workspace("acme"), "opus", threshold=0.95)
    await answers.ask("north", model, embedding=turned(0))
    await answers.ask("east", model, embedding=turned(90))
    near = await answers.ask("north by a little", model, embedding=turned(5))
    assert (near.match, near.answer.text) == ("near", "answer 1")
    assert near.similarity == pytest.approx(math.cos(math.radians(5)), abs=1e-4)
    far = await answers.ask("north east", model, embedding=turned(45))
    assert (far.match, model.calls) == ("none", 3)
    assert (answers.figures.near, answers.figures.misses) == (1, 3)


async def test_another_process_finds_what_this_one_asked(memory: Client, model: Model) -> None:
    await SemanticCache(memory.workspace("acme"), "opus").ask("north", model, embedding=turned(0))
    other = SemanticCache(memory.workspace("acme"), "opus")
    assert (await other.ask("nearly north", model, embedding=turned(2))).match == "near"


@pytest.mark.parametrize("other", ["workspace", "model", "context"])
async def test_nothing_is_answered_across(memory: Client, model: Model, other: str) -> None:
    await SemanticCache(memory.workspace("acme"), "opus").ask(
        "north", model, embedding=turned(0), context="a"
    )
    answers = SemanticCache(
        memory.workspace("other" if other == "workspace" else "acme"), "haiku" if other == "model" else "opus"
    )
    reply = await answers.ask("north", model, embedding=turned(0), context="b" if other == "context" else "a")
    assert (reply.match, model.calls) == ("none", 2)


async def test_the_oldest_questions_go(memory: Client, model: Model) -> None:
    answers = SemanticCache(memory.workspace("acme"), "opus", most=3)
    for degrees in (0, 60, 120, 180):
        await answers.ask(f"at {degrees}", model, embedding=turned(degrees))
    assert (await answers.ask("near 180", model, embedding=turned(181))).match == "near"
    assert (await answers.ask("near 0", model, embedding=turned(1))).match == "none"


async def test_another_embedding_model_is_not_compared(memory: Client, model: Model) -> None:
    answers = SemanticCache(memory.workspace("acme"), "opus")
    await answers.ask("north", model, embedding=turned(0))
    assert (await answers.ask("north too", model, embedding=[1.0, 0.0, 0.0, 0.0])).match == "none"


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]], ids=str)
async def test_a_vector_without_a_direction_is_refused(
    memory: Client, model: Model, vector: list[float]
) -> None:
    with pytest.raises(ConfigError, match="embedding"):
        await SemanticCache(memory.workspace("acme"), "opus").ask("x", model, embedding=vector)
    assert model.calls == 0


def test_bad_bounds_are_refused(memory: Client) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        SemanticCache(memory.workspace("acme"), "opus", threshold=1.5)
    with pytest.raises(ConfigError, match="most"):
        SemanticCache(memory.workspace("acme"), "opus", most=0)


def test_prompts_are_compared_without_case_and_spacing() -> None:
    assert normalise("  What\n is\tIT? ") == "what is it?"
