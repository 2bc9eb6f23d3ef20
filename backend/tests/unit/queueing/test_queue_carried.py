"""What goes with a job besides its arguments, and where it goes."""

from __future__ import annotations

import sys

import pytest
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from redis_core.client import Client
from redis_core.config import Settings
from redis_core.queue import JobContext, task
from redis_core.queueing.engine import QueueEngine
from redis_core.transport.memory import MockRedisClient
from redis_core.worker import Worker


class _Fixed(TextMapPropagator):
    """A propagator that always carries the same, and notes what it is handed."""

    handed: list[str]

    def __init__(self) -> None:
        self.handed = []

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        setter.set(carrier, "traceparent", "00-aa-bb-01")

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        self.handed += getter.get(carrier, "traceparent") or []
        return context or Context()

    @property
    def fields(self) -> set[str]:
        return {"traceparent"}


@task(name="traced")
async def traced(ctx: JobContext) -> int:
    return ctx.run


async def test_a_trace_goes_on_in_the_worker(memory: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trace.__name__ in sys.modules
    fixed = _Fixed()
    monkeypatch.setattr(propagate, "propagator", fixed)
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", fixed, raising=False)
    job = await memory.workspace("acme").queue.enqueue(traced)
    await Worker(memory, [traced]).drain()
    assert await job.result(5) == 1
    assert fixed.handed == ["00-aa-bb-01"]


async def test_a_workspace_keeps_to_its_shard_and_a_worker_takes_all() -> None:
    settings = Settings(_env_file=None, mock_redis=True, queue_shards={"default": 3})  # type: ignore[call-arg]
    async with Client(MockRedisClient(), settings) as client:
        jobs = [await client.workspace(f"w{n}").queue.enqueue(traced) for n in range(12)]
        again = [await client.workspace(f"w{n}").queue.enqueue(traced) for n in range(12)]
        assert {job.shard for job in jobs} == {"default", "default#1", "default#2"}
        assert [job.shard for job in jobs] == [job.shard for job in again]
        assert [shard.name for shard in client.service(QueueEngine).shards("default")] == [
            "default",
            "default#1",
            "default#2",
        ]
        await Worker(client, [traced]).drain()
        assert [await job.result(5) for job in jobs + again] == [1] * 24
