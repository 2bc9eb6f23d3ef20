"""Answers of language models without the store: exact ones from memory, no near ones, and the place in the stream is not lost."""

from __future__ import annotations

from redis_core.semantic_cache import Answer, SemanticCache
from tests.outage_world import OutageWorld, outage_world

__all__ = ["outage_world"]

NORTH, NEARLY_NORTH, EAST = [1.0, 0.0], [0.999, 0.01], [0.0, 1.0]


async def test_near_questions_are_misses_meanwhile_and_found_again_afterwards(
    outage_world: OutageWorld,
) -> None:
    one, other = await outage_world.process(), await outage_world.process()
    here = SemanticCache(one.client.workspace("acme"), "opus")
    there = SemanticCache(other.client.workspace("acme"), "opus")
    calls = 0

    async def model() -> Answer:
        nonlocal calls
        calls += 1
        return Answer(f"answer {calls}")

    await here.ask("north", model, embedding=NORTH)
    await one.cut_off()
    assert (await here.ask("north", model)).match == "exact"
    assert (await here.ask("nearly north", model, embedding=NEARLY_NORTH)).match == "none"
    assert calls == 2
    # Asked elsewhere meanwhile: a place that memory had moved would skip it.
    await there.ask("east", model, embedding=EAST)
    await one.heal()
    assert (await here.ask("as good as north", model, embedding=NEARLY_NORTH)).match == "near"
    assert (await here.ask("as good as east", model, embedding=[0.01, 0.999])).match == "near"
    assert calls == 3


async def test_a_store_that_comes_back_empty_is_asked_on(outage_world: OutageWorld) -> None:
    one = await outage_world.process()
    here = SemanticCache(one.client.workspace("acme"), "opus")
    calls = 0

    async def model() -> Answer:
        nonlocal calls
        calls += 1
        return Answer(f"answer {calls}")

    await here.ask("north", model, embedding=NORTH)
    await outage_world.empty()
    await one.seen_loss()
    await one.heal()
    await here.ask("east", model, embedding=EAST)
    assert (await here.ask("as good as east", model, embedding=[0.01, 0.999])).match == "near"
    assert calls == 2
