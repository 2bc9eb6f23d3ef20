"""Scripts: what is sent for them, and that each file of `lua/` is one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import redis_core
from redis_core.client import Client
from redis_core.script import Script, load_script

_LUA = sorted((Path(redis_core.__file__).parent / "lua").glob("*.lua"))
_HEADER = "#!lua flags=allow-key-locking\n"
_ECHO = "return {KEYS[1], ARGV[1]}"


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def test_it_is_sent_by_the_sha1_of_its_text() -> None:
    assert Script("echo", _ECHO).evalsha("", ["k"], ["v", 2]) == ("EVALSHA", sha1(_ECHO), 1, "k", "v", 2)


def test_it_is_sent_in_full_as_it_was_written() -> None:
    assert Script("echo", _ECHO).eval("", ["k", "l"], []) == ("EVAL", _ECHO, 2, "k", "l")


def test_a_stores_header_is_part_of_text_and_sha1() -> None:
    script = Script("echo", _ECHO)
    assert script.evalsha(_HEADER, [], []) == ("EVALSHA", sha1(_HEADER + _ECHO), 0)
    assert script.eval(_HEADER, [], []) == ("EVAL", _HEADER + _ECHO, 0)
    assert script.evalsha("", [], []) == ("EVALSHA", sha1(_ECHO), 0)


def test_a_text_beyond_ascii_has_the_sha1_of_its_utf8() -> None:
    text = "return 'é'"
    assert Script("accent", text).evalsha("", [], [])[1] == sha1(text)


def test_it_shows_its_name_and_not_its_text() -> None:
    assert repr(Script("echo", _ECHO)) == "Script('echo')"


def test_a_file_is_read_once() -> None:
    name = _LUA[0].stem
    assert load_script(name) is load_script(name)
    assert load_script(name).text == _LUA[0].read_text("utf-8")
    assert load_script(name).name == name


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        load_script("no_such_script")


each_file = pytest.mark.parametrize("path", _LUA, ids=lambda path: path.stem)
# What other files begin with is not a script of its own: it answers nothing.
each_script = pytest.mark.parametrize(
    "path",
    [path for path in _LUA if "\nreturn" in path.read_text("utf-8")],
    ids=lambda path: path.stem,
)


@each_script
def test_each_script_states_keys_arguments_reply_and_cost(path: Path) -> None:
    header = path.read_text("utf-8").split("\n\n", 1)[0]
    comment = "\n".join(line for line in path.read_text("utf-8").splitlines() if line.startswith("--"))
    assert header.startswith("-- "), "begin with what it does"
    for word in ("KEYS", "ARGV", "Reply", "Cost"):
        assert f"\n-- {word}" in comment, f"the header tells no {word}"


@each_file
def test_each_file_carries_no_stores_header_line(path: Path) -> None:
    assert not path.read_text("utf-8").startswith("#!")


@each_file
async def test_each_file_compiles_on_a_real_server(path: Path, valkey: Client) -> None:
    text = path.read_text("utf-8")
    assert await valkey.execute("SCRIPT", "LOAD", text) == sha1(text).encode()


async def test_a_store_that_does_not_know_it_is_sent_the_text_once(valkey: Client) -> None:
    script = Script("echo", _ECHO)
    before = valkey.stats.commands
    assert await valkey.run(script, ["k"], ["v"]) == [b"k", b"v"]
    assert valkey.stats.commands - before == 2
    assert await valkey.run(script, ["k"], ["v"]) == [b"k", b"v"]
    assert valkey.stats.commands - before == 3


async def test_a_pipeline_sends_only_the_unknown_script_again(valkey: Client) -> None:
    known, unknown = Script("known", "return 1"), Script("unknown", "return redis.call('INCR', KEYS[1])")
    await valkey.run(known)
    before = valkey.stats.commands
    async with valkey.pipeline() as batch:
        first, second, third = batch.run(known), batch.run(unknown, ["n"]), batch.incr("m")
    assert (await first, await second, await third) == (1, 1, 1)
    assert valkey.stats.commands - before == 4
