"""The blocking API, against a real Valkey over a unix socket."""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import redis_core
from redis_core import sync
from redis_core.cache import CacheRegion, cached
from redis_core.config import Settings
from redis_core.errors import ConfigError, IsolationError, StoreUnavailable, WrongType
from redis_core.script import Script

if TYPE_CHECKING:
    from redis_core.sync import Client, Workspace

_ROOT = Path(redis_core.__file__).parents[2]
_ADD = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")


def settings_for(socket: str, *, failover: bool = True) -> Settings:
    # Generous deadlines: no test here is about time.
    return Settings(  # type: ignore[call-arg]  # pydantic-settings' own argument
        _env_file=None,
        redis_url=f"unix://{socket}",
        redis_command_timeout=20,
        redis_connect_timeout=20,
        redis_failover=failover,
    )


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "redis-core-sync"]


@pytest.fixture
def settings(valkey_socket: str) -> Settings:
    return settings_for(valkey_socket)


@pytest.fixture
def redis(settings: Settings) -> Iterator[Client]:
    with sync.connect(settings) as client:
        client.flushdb()
        yield client


# --- the same API ---


def test_commands_return_decoded_values(redis: Client) -> None:
    assert redis.set("greeting", "hello", ex=60) is True
    assert redis.get("greeting") == b"hello"
    assert redis.get("nothing") is None
    assert redis.incr("visits", 3) == 3
    assert redis.hset("user", {"name": "Ada", "born": 1815}) == 2
    assert redis.hgetall("user") == {b"name": b"Ada", b"born": b"1815"}
    assert redis.execute("OBJECT", "ENCODING", "visits") == b"int"


def test_a_commands_error_is_raised_where_it_was_called(redis: Client) -> None:
    redis.set("text", "a")
    with pytest.raises(WrongType):
        redis.lpush("text", "b")
    assert redis.get("text") == b"a"


def test_a_pipelines_results_are_there_after_its_block(redis: Client) -> None:
    before = redis.stats.trips
    with redis.pipeline() as batch:
        batch.set("a", 1)
        visits = batch.incr("a")
        wrong = batch.lpush("a", "x")
        assert len(batch) == 3
        with pytest.raises(RuntimeError, match="has not been executed"):
            visits.result()
    assert visits.result() == 2
    with pytest.raises(WrongType):
        wrong.result()
    assert redis.stats.trips == before + 1


def test_a_pipeline_whose_block_fails_sends_nothing(redis: Client) -> None:
    with pytest.raises(ZeroDivisionError), redis.pipeline() as batch:
        batch.set("a", 1)
        raise ZeroDivisionError
    assert redis.exists("a") == 0


def test_a_pipeline_can_be_sent_by_hand(redis: Client) -> None:
    batch = redis.pipeline()
    batch.set("a", 1)
    batch.get("a")
    assert batch.send() == [True, b"1"]
    assert batch.send() == []


def test_a_transaction_is_done_as_a_whole(redis: Client) -> None:
    with redis.transaction() as both:
        first = both.incr("a")
        second = both.run(_ADD, ["a"], [10])
    assert (first.result(), second.result()) == (1, 11)


def test_a_script_runs_also_where_the_store_does_not_know_it(redis: Client) -> None:
    redis.execute("SCRIPT", "FLUSH")
    assert redis.run(_ADD, ["n"], [2]) == 2
    assert redis.run(_ADD, ["n"], [3]) == 5


def test_another_deadline_is_another_face_of_the_same_client(redis: Client) -> None:
    patient = redis.within(20)
    assert patient.set("a", "b") is True
    assert patient.stats is redis.stats


def test_a_workspaces_client_and_cache_are_blocking_too(redis: Client) -> None:
    acme = redis.workspace("acme")
    assert acme.id == "acme"
    assert acme.client.set(acme.keys.key("app", "greeting"), "hello") is True
    assert redis.dbsize() == 1
    region = CacheRegion("profile", str, ttl=60)
    acme.cache.set(region, "u1", "Ada")
    assert acme.cache.get(region, "u1") == "Ada"


class Loading:
    """A loader that is an object, and asks the store itself."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self.threads: list[str] = []

    def __call__(self, key: str) -> str:
        self.threads.append(threading.current_thread().name)
        return f"{key} {self.redis.exists('x')}"

    def many(self, keys: Sequence[str]) -> dict[str, str]:
        return {key: self(key) for key in keys}


def test_a_loader_runs_in_a_thread_however_it_is_given(redis: Client) -> None:
    cache, loading, region = redis.workspace("acme").cache, Loading(redis), CacheRegion("row", str, ttl=60)
    assert cache.get_or_load(region, "a", loading) == "a 0"
    assert cache.get_or_load(region, "b", load=loading.__call__) == "b 0"
    assert cache.get_entry_or_load(region, "c", functools.partial(loading)).value == "c 0"
    assert cache.get_many(region, ["d"], load_many=loading.many) == {"d": "d 0"}
    assert cache.get_many(region, ["e"], loading.many) == {"e": "e 0"}
    assert len(loading.threads) == 5
    assert "redis-core-sync" not in loading.threads

    async def load(key: str) -> str:
        return key

    assert cache.get_or_load(region, "f", load=load) == "f"
    assert cache.get_or_load(region, "g", lambda key: load(key)) == "g"


def test_a_function_is_cached_in_a_blocking_workspace(redis: Client) -> None:
    calls: list[str] = []

    @cached(CacheRegion("shout", str, ttl=60))
    def shout(workspace: Workspace, word: str) -> str:
        calls.append(word)
        return f"{word.upper()} at {workspace.id}"

    acme, other = redis.workspace("acme"), redis.workspace("other")
    assert [shout(acme, "hey"), shout(acme, word="hey"), shout(other, "hey")] == [
        "HEY at acme", "HEY at acme", "HEY at other",
    ]  # fmt: skip
    assert calls == ["hey", "hey"]


def test_topics_are_published_and_listened_to(redis: Client) -> None:
    acme = redis.workspace("acme")
    topic, document, text, presence = (
        acme.topic("news"), acme.state("doc"), acme.text("answer"), acme.presence("room"),
    )  # fmt: skip
    first = topic.publish({"n": 1})
    topic.publish({"n": 2})
    for position, update in topic.listen(after=first):  # type: ignore[misc]  # no gap here
        assert (position.offset, bytes(update.data)) == (2, b'{"n":2}')
        break
    document.set({"title": "Spring"})
    document.patch({"budget": 500})
    assert document.get()[1] == {"title": "Spring", "budget": 500}
    with text.writer() as out:
        out.write("one ")
        out.write("two")
    presence.join("ada", {"at": "home"})
    assert presence.members() == {"ada": {"at": "home"}}
    presence.leave("ada")
    assert presence.members() == {}
    assert acme.usage.add(cost=1.5).day == 1.5


def test_messages_are_iterated(redis: Client) -> None:
    with redis.subscribe("news", patterns=["w*"]) as messages:
        redis.publish("news", "one")
        redis.publish("weather", "two")
        received = [next(iter(messages)) for _ in range(2)]
    assert [(item.channel, item.payload, item.pattern) for item in received] == [
        (b"news", b"one", None),
        (b"weather", b"two", b"w*"),
    ]


def test_closing_a_subscription_ends_the_iteration(redis: Client) -> None:
    messages = redis.subscribe("news")
    messages.close()
    assert list(messages) == []


# --- loops and threads ---


async def test_it_works_inside_a_running_loop(redis: Client) -> None:
    assert asyncio.get_running_loop().is_running()
    redis.set("a", "b")
    assert redis.get("a") == b"b"
    assert await asyncio.to_thread(redis.get, "a") == b"b"


def test_a_call_in_its_own_loop_is_an_error_not_a_deadlock(redis: Client) -> None:
    seen: list[BaseException] = []

    async def misuse() -> None:
        try:
            redis.get("a")
        except RuntimeError as error:
            seen.append(error)

    redis._thread.wait(misuse())  # type: ignore[attr-defined]  # white-box: nothing else runs in that loop
    assert "wait for itself" in str(seen[0])


def test_threads_that_call_together_are_batched(redis: Client) -> None:
    threads, each = 32, 25
    begin = threading.Barrier(threads)
    wrong: list[object] = []

    def caller(name: str) -> None:
        begin.wait(20)
        for number in range(each):
            redis.set(name, number)
            value = redis.get(name)
            if value != str(number).encode():
                wrong.append((name, number, value))

    commands, trips = redis.stats.commands, redis.stats.trips
    workers = [threading.Thread(target=caller, args=(f"k{number}",)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert wrong == []
    assert redis.stats.commands - commands == threads * each * 2
    assert redis.stats.trips - trips < threads * each * 2


def test_each_client_has_one_thread_and_ends_it(settings: Settings) -> None:
    before = own_threads()
    first, second = sync.connect(settings), sync.connect(settings)
    first.ping()
    second.ping()
    assert len(own_threads()) == len(before) + 2
    first.close()
    assert len(own_threads()) == len(before) + 1
    assert second.ping() is True
    second.close()
    assert own_threads() == before


def test_nothing_is_left_to_the_garbage_collector(settings: Settings) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            with sync.connect(settings) as client:
                client.set("a", "b")
                with client.subscribe("news"):
                    client.publish("news", "one")
        del client
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


# --- the end ---


def test_closing_twice_is_closing_once(settings: Settings) -> None:
    client = sync.connect(settings)
    client.close()
    client.close()
    client.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="closed"):
        client.ping()


def test_a_closed_client_says_so(settings: Settings) -> None:
    client = sync.connect(settings)
    batch = client.pipeline()
    batch.get("a")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("a")
    with pytest.raises(RuntimeError, match="closed"):
        batch.send()


def test_a_call_that_races_with_closing_ends(settings: Settings) -> None:
    for _ in range(20):
        client = sync.connect(settings)
        begin = threading.Barrier(9)

        def caller(client: Client = client, begin: threading.Barrier = begin) -> None:
            begin.wait(20)
            while True:
                try:
                    client.get("a")
                except (RuntimeError, StoreUnavailable):
                    return

        workers = [threading.Thread(target=caller, daemon=True) for _ in range(8)]
        for worker in workers:
            worker.start()
        begin.wait(20)
        client.close()
        for worker in workers:
            worker.join(20)
        assert not any(worker.is_alive() for worker in workers)


_FORKED = """
import os, sys
from redis_core import sync
from redis_core.config import Settings

redis = sync.connect(Settings(_env_file=None, redis_url=sys.argv[1], redis_command_timeout=20))
redis.set("forked", "parent")
child = os.fork()
if child == 0:
    try:
        redis.get("forked")
    except RuntimeError as error:
        redis.close()
        os._exit(7 if "fork" in str(error) else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), redis.get("forked"))
redis.close()
"""


def test_a_fork_is_told_to_connect_itself_and_leaves_the_parent_alone(valkey_socket: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FORKED, f"unix://{valkey_socket}"],
        check=False, capture_output=True, text=True, timeout=50, cwd=_ROOT / "backend",
    )  # fmt: skip
    assert ended.stdout.strip() == "7 b'parent'", ended.stderr


def test_a_store_that_is_away_is_an_error_and_no_thread_is_left(tmp_path: Path) -> None:
    before = own_threads()
    with (
        sync.connect(settings_for(f"{tmp_path}/none", failover=False)) as client,
        pytest.raises(StoreUnavailable),
    ):
        client.get("a")
    assert own_threads() == before


def test_a_failed_connect_leaves_no_thread() -> None:
    before = own_threads()
    with pytest.raises(ConfigError):
        sync.connect(redis_url="nonsense://x")
    assert own_threads() == before


_INTERRUPTED = """
import os, signal, sys, threading, time
from redis_core import sync
from redis_core.config import Settings

settings = Settings(_env_file=None, redis_url=sys.argv[1], redis_command_timeout=20, redis_connect_timeout=20)
with sync.connect(settings) as redis, sync.connect(settings) as watch:
    def blocked():
        return int(watch.info("clients")["blocked_clients"])

    def until(count):
        deadline = time.monotonic() + 20
        while blocked() != count:
            assert time.monotonic() < deadline, (count, blocked())
            time.sleep(0.01)

    def interrupt():
        until(1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        redis.execute("BLPOP", "interrupted:empty", 0)
    except KeyboardInterrupt:
        print("interrupted")
    until(0)
    print("cancelled in the store")
    print(redis.echo("still works").decode())
"""


def test_an_interrupt_cancels_the_call_that_waits(valkey_socket: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", _INTERRUPTED, f"unix://{valkey_socket}"],
        check=False, capture_output=True, text=True, timeout=50, cwd=_ROOT / "backend",
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["interrupted", "cancelled in the store", "still works"], ended.stderr
    assert ended.returncode == 0


# --- its types ---


def test_the_stub_is_what_the_generator_writes() -> None:
    checked = subprocess.run(
        [sys.executable, str(_ROOT / "scripts" / "sync_stub.py"), "--check"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


_TYPED = textwrap.dedent(
    """
    from typing import assert_type

    from redis_core.pipeline import Pending
    from redis_core.sync import Client, connect

    with connect(redis_url="redis://127.0.0.1") as redis:
        assert_type(redis, Client)
        assert_type(redis.get("a"), bytes | None)
        assert_type(redis.incr("a"), int)
        assert_type(redis.hgetall("a"), dict[bytes, bytes])
        with redis.pipeline() as batch:
            assert_type(batch.get("a"), Pending[bytes | None])
        assert_type(batch.incr("n").result(), int)
        for message in redis.subscribe("news"):
            assert_type(message.payload, bytes)

        redis.get(1)  # wrong: arg-type
        redis.set("a", "b", ex="60")  # wrong: arg-type
        redis.set("a", "b", only_if="never")  # wrong: arg-type
        redis.get("a").decode()  # wrong: union-attr
        redis.no_such_command("a")  # wrong: attr-defined
        redis.workspace(7)  # wrong: arg-type
        text: str = redis.getdel("a")  # wrong: assignment
    """
)


def test_right_types_pass_and_wrong_ones_do_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_TYPED, encoding="utf-8")
    wanted = {
        (number, found[1])
        for number, line in enumerate(_TYPED.splitlines(), 1)
        if (found := re.search(r"# wrong: (\S+)", line))
    }
    checked = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "--no-error-summary",
            f"--cache-dir={_ROOT / '.mypy_cache' / 'test_sync'}", str(program),
        ],
        check=False, capture_output=True, text=True, timeout=55,
        env={"MYPYPATH": str(_ROOT / "backend"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    errors = re.findall(r"program\.py:(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE)
    assert {(int(number), code) for number, code in errors} == wanted, checked.stdout + checked.stderr


def test_commands_of_a_workspace_stay_in_it() -> None:
    with sync.connect(Settings(_env_file=None, mock_redis=True)) as redis:  # type: ignore[call-arg]  # pydantic-settings' own
        acme = redis.workspace("acme")
        assert acme.redis.set(acme.keys.key("app", "plan"), "pro")
        with acme.redis.pipeline() as batch:
            plan = batch.get(acme.keys.key("app", "plan"))
        assert plan.result() == b"pro"
        with pytest.raises(IsolationError):
            acme.redis.get("ws:{globex}:app:plan")
