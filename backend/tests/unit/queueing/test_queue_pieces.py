"""Tasks, their parameters, payloads and backoff: what is decided without a store."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_core.errors import CodecError, ConfigError, InvalidJob, JobCancelled, JobFailed, JobUnknown
from redis_core.queue import Backoff, Depends, JobContext, Retry, task
from redis_core.queueing.job import (
    derived_id,
    level_of,
    new_ids,
    pack,
    pack_result,
    packed_for,
    result_of,
    unpack,
)
from redis_core.worker import Worker


class Point(msgspec.Struct):
    x: int
    y: int = 0


def resource() -> str:
    return "made"


async def plain(a: int, point: Point, *, words: list[str] | None = None) -> Point:
    return Point(a, point.x)


async def injected(ctx: JobContext, a: int, made: Annotated[str, Depends(resource)]) -> None: ...


def test_arguments_travel_and_come_back_typed() -> None:
    parameters = task(plain).parameters
    data = parameters.encode("plain", (1, Point(2)), {"words": ["a"]})
    assert parameters.decode(data) == {"a": 1, "point": Point(2), "words": ["a"]}
    assert parameters.decode(parameters.encode("plain", (), {"a": 1, "point": {"x": 5}})) == {
        "a": 1,
        "point": Point(5),
    }
    assert parameters.result is Point


def test_what_is_injected_is_no_argument() -> None:
    parameters = task(injected).parameters
    assert parameters.context == "ctx"
    assert list(parameters.depends) == ["made"]
    assert parameters.decode(parameters.encode("injected", (3,), {})) == {"a": 3}
    with pytest.raises(InvalidJob, match="unknown made"):
        parameters.encode("injected", (3,), {"made": "x"})


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a, point"),
        ((1,), {}, "missing point"),
        ((1, Point(1), ["a"]), {}, "2 arguments by place"),
        ((1, Point(1)), {"a": 2}, "twice"),
        (("x", Point(1)), {}, "not what the task takes"),
        ((1, {"x": "y"}), {}, "not what the task takes"),
        ((1, Point(1)), {"other": 1}, "unknown other"),
        ((1, object()), {}, "not what the task takes"),
    ],
)
def test_wrong_arguments_are_told(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJob, match=said):
        task(plain).call(*args, **kwargs)


def test_arguments_of_another_version_are_told() -> None:
    with pytest.raises(InvalidJob, match="now"):
        task(plain).parameters.decode(msgspec.msgpack.encode({"b": 1}))


def test_a_function_that_takes_anything_cannot_be_a_task() -> None:
    async def anything(*args: int) -> None: ...

    with pytest.raises(TypeError, match="by name"):
        _ = task(anything).parameters


@pytest.mark.parametrize("wrong", ["", "Agents", "a b", "a:b", "{a}", "a" * 65, "-a"])
def test_a_queue_has_a_plain_name(wrong: str) -> None:
    with pytest.raises(InvalidJob):
        task(queue=wrong)(plain)


def test_a_task_is_still_its_function() -> None:
    @task
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    assert double(4) == 8
    assert double.__doc__ == "Twice."
    assert double.executor == "thread"


@given(st.integers(1, 200))
def test_backoff_grows_to_its_limit(failures: int) -> None:
    backoff = Backoff(base=1.0, most=30.0)
    assert backoff.limit(failures) == min(30.0, 2.0 ** (failures - 1))
    assert 0 <= backoff.delay(failures) <= backoff.limit(failures)


def test_jitter_is_spread_over_the_whole_time() -> None:
    delays = [Backoff(base=10.0).delay(1) for _ in range(200)]
    assert min(delays) < 2 < 8 < max(delays)


def test_retry_is_a_policy_and_a_request() -> None:
    assert (Retry(5).times, task(retries=2)(plain).retries.times) == (5, 2)
    assert (Retry(after=3).after, str(Retry(reason="busy"))) == (3, "busy")


@given(st.integers(0, 4), st.binary(max_size=50))
def test_a_payload_comes_back(level: int, arguments: bytes) -> None:
    data = pack(level, "app.task", "key", msgspec.msgpack.encode(arguments), 17, {"deadline": 3})
    header, envelope = unpack(data)
    assert (header.level, header.task, header.unique) == (level, "app.task", b"key")
    assert msgspec.msgpack.decode(envelope.arguments) == arguments
    assert (envelope.at, envelope.meta) == (17, {"deadline": 3})


@pytest.mark.parametrize("broken", [b"", b"2task", b"2task\n", b"2task\t\n", b"2\xff\t\n\x91"])
def test_what_is_no_payload_is_told(broken: bytes) -> None:
    with pytest.raises(CodecError):
        unpack(broken)


def test_results_come_back_as_they_ended() -> None:
    assert result_of(pack_result("acme", [1, 2]), list[int], "j", "acme") == [1, 2]
    with pytest.raises(JobCancelled, match="why"):
        result_of(b"cwhy", int, "j", "acme")
    with pytest.raises(JobFailed, match="ValueError: no") as caught:
        result_of(b'f{"type":"ValueError","message":"no"}', int, "j", "acme")
    assert caught.value.error_type == "ValueError"
    with pytest.raises(CodecError):
        result_of(pack_result("acme", "x"), int, "j", "acme")
    for other in ("globex", "acm", "acme2", ""):
        with pytest.raises(JobUnknown):
            result_of(pack_result(other, [1]), list[int], "j", "acme")
    with pytest.raises(JobUnknown):
        result_of(b"d", int, "j", "acme")
    assert result_of(packed_for("globex", pack_result("acme", 1)), int, "j", "globex") == 1
    assert packed_for("globex", b"cwhy") == b"cwhy"


def test_ids_are_short_and_different() -> None:
    ids = new_ids(1_000)
    assert len(set(ids)) == 1_000
    assert {len(each) for each in ids} == {16}
    assert derived_id("a", "b") == derived_id("a", "b") != derived_id("ab", "")


def test_priorities_are_few() -> None:
    assert [level_of(priority) for priority in (2, 0, -2)] == [0, 2, 4]
    with pytest.raises(InvalidJob):
        level_of(3)


async def test_two_tasks_of_one_name_are_an_error(memory: object) -> None:
    with pytest.raises(ConfigError, match="same"):
        Worker(memory, [task(name="same")(plain), task(name="same")(plain)])  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Worker(memory, [])  # type: ignore[arg-type]
