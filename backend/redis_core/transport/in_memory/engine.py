"""The memory store's commands: fakeredis', driven below its client, and what it lacks.

`Engine` is one fakeredis connection without sockets, parser or client library: words in, a reply in RESP2's shape out, about
ten microseconds a command. Its table of commands holds what a Redis 7 server has; modules' and other servers' commands,
which fakeredis has too, are unknown here as they are there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, cast

from fakeredis import _commands, _helpers, _msgs
from fakeredis._core import FakeServer
from fakeredis._helpers import NoResponse, SimpleError, SimpleString
from fakeredis.model import get_command_info

from redis_core.clock import SYSTEM_CLOCK, Clock
from redis_core.errors import CommandError, InvalidKey, Outcome, StoreError, error_from_reply
from redis_core.transport.base import Argument, Command, Reply
from redis_core.transport.in_memory.clock import follow
from redis_core.transport.in_memory.corrections import Corrections
from redis_core.transport.in_memory.lua import LuaEngine
from redis_core.transport.in_memory.server import ServerCommands
from redis_core.transport.in_memory.space import KeySpace
from redis_core.transport.resp import format_double

__all__ = ["Engine", "MustWait", "words"]

_LOG: Final = logging.getLogger("redis_core.memory")
_OOM: Final = "OOM command not allowed when used memory > 'maxmemory'."
_PLAIN: Final = frozenset({bytes, int, type(None)})


class MustWait(BaseException):
    """A blocking command has nothing to answer yet. Not an Exception, so that no command's own `except` takes it.

    Args:
        seconds: how long it may wait; 0 is for ever.
        empty: its reply when the time is over.
    """

    def __init__(self, seconds: float, empty: Any) -> None:
        super().__init__()
        self.seconds = seconds
        self.empty = empty


@dataclass(slots=True)
class _Handler:
    """One command of the table."""

    name: str
    """As Redis writes it: `get`, `config|get`."""
    function: Callable[..., Any]
    signature: Any
    grows: bool
    """Whether it may need memory, and so is refused when there is none (Redis' flag `denyoom`)."""
    reads: bool
    """Whether the keys it finds or misses are counted, as Redis counts those of reads."""
    calls: int = 0
    failed: int = 0


class Engine(ServerCommands, Corrections):
    """Runs commands. Its caller holds `lock`.

    Args:
        publish: hands a message to whoever listens; returns how many do.
        max_bytes: where eviction begins.
        clock: what expiry goes by.
    """

    def __init__(
        self, publish: Callable[[bytes, bytes], int], *, max_bytes: int, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        server = FakeServer(version=(7, 2), server_type="redis")
        self.lock = server.lock
        self.space = KeySpace(server.lock)
        server.dbs = {0: self.space}
        Corrections.__init__(self, server, 0, client_class=object)
        self.clock = clock
        self.follow = follow(clock)
        self.publish_message = publish
        self.max_bytes = max_bytes
        self.max_started = max_bytes
        self.commands_done = 0
        self.started = clock.now()
        self.lua = LuaEngine(self._from_script)
        self._in_script = False
        self._script_writes = True
        self.handlers = _table(self)
        self._containers = {name.partition("|")[0] for name in self.handlers if "|" in name}
        self._known: dict[Argument, _Handler] = {
            spelling: handler
            for name, handler in self.handlers.items()
            if name not in self._containers
            for spelling in (name.upper(), name.upper().encode())
        }

    # --- running ---

    def run(self, command: Command) -> Reply:
        """Run one command; what it refuses is a `StoreError` value.

        Raises:
            InvalidKey: an argument is neither text, bytes nor number.
            MustWait: a blocking command has nothing to answer yet.
        """
        self.follow()
        self.space.time = self.clock.now()
        handler, arguments = self._find(command)
        if isinstance(handler, SimpleError):
            return error_from_reply(handler.value)
        return to_reply(self._do(handler, words(arguments)))

    def run_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Run a transaction's commands, none of which waits.

        Raises:
            StoreError: one of them is refused before it runs (unknown, wrong number of arguments): nothing was done.
        """
        for command in commands:
            handler, arguments = self._find(command)
            error = handler if isinstance(handler, SimpleError) else self._misfit(handler, words(arguments))
            if error is not None:
                raise error_from_reply(error.value)
        self._in_transaction = True
        try:
            return [self.run(command) for command in commands]
        finally:
            self._in_transaction = False

    def _find(self, command: Command) -> tuple[_Handler | SimpleError, Sequence[Argument]]:
        handler = self._known.get(command[0])
        if handler is not None:
            return handler, command[1:]
        (first, *rest) = words(command[:2])
        name = _helpers.decode_command_bytes(first)
        if name in self._containers and rest:
            subcommand = _helpers.decode_command_bytes(rest[0])
            handler = self.handlers.get(f"{name}|{subcommand}")
            if handler is None:
                return SimpleError(f"ERR unknown subcommand '{subcommand}'. Try {name.upper()} HELP."), ()
            return handler, command[2:]
        handler = self.handlers.get(name)
        if handler is None:
            return self._unknown(command), ()
        return handler, command[1:]

    def _unknown(self, command: Command) -> SimpleError:
        first, *rest = (_one_line(word) for word in words(command[:21]))
        shown = "".join(f"'{word[:128]}' " for word in rest)
        return SimpleError(f"ERR unknown command '{first[:128]}', with args beginning with: {shown}")

    def _misfit(self, handler: _Handler, arguments: list[bytes]) -> SimpleError | None:
        """Why a command cannot be run: the wrong number of arguments, or no memory for it."""
        signature = handler.signature
        more = len(arguments) - len(signature.fixed)
        if more and (more < 0 or not signature.repeat or more % len(signature.repeat)):
            return SimpleError(f"ERR wrong number of arguments for '{handler.name}' command")
        if handler.grows:
            room = self.max_bytes - sum(map(len, arguments))
            if self.space.used > room and not self.space.evict(room):
                return SimpleError(_OOM)
        return None

    def _do(self, handler: _Handler, arguments: list[bytes], *, from_script: bool = False) -> Any:
        """Run a command; its reply as fakeredis makes it, with errors as values."""
        space = self.space
        handler.calls += 1
        self.commands_done += 1
        space.counting = handler.reads
        result: Any = self._misfit(handler, arguments)
        if result is None:
            try:
                result = self._run_command(handler.function, handler.signature, arguments, from_script)
            except (
                ArithmeticError,
                AssertionError,
                AttributeError,
                LookupError,
                TypeError,
                ValueError,
            ) as error:
                # A fault in fakeredis must not take the other commands of the batch with it.
                _LOG.exception("memory: %s failed", handler.name)
                result = CommandError(
                    f"ERR {handler.name} failed in memory: {error!r}", outcome=Outcome.UNKNOWN
                )
            finally:
                space.settle()
        if isinstance(result, SimpleError | StoreError):
            handler.failed += 1
        return result

    # --- what fakeredis' commands call ---

    def _blocking(
        self, timeout: float | None, func: Callable[[bool], Any], shape: Callable[[Any], Any] | None = None
    ) -> Any:
        found = func(True)  # noqa: FBT003 - fakeredis' interface
        if found is None and not self._in_transaction and not self._in_script:
            raise MustWait(timeout or 0.0, None if shape is None else shape(None))
        return found if shape is None else shape(found)

    def _keyspace_notifications(self, command_items: list[Any], event: bytes) -> None:
        """None are sent, as by a Redis server on its defaults."""

    def _subkey_notifications(self, command_items: list[Any]) -> None:
        """None are sent."""

    # --- scripts ---

    def eval(self, script: bytes, numkeys: int, *keys_and_args: bytes, writes: bool = True) -> Any:
        """EVAL."""
        if numkeys > len(keys_and_args):
            raise SimpleError(_msgs.TOO_MANY_KEYS_MSG)
        if numkeys < 0:
            raise SimpleError(_msgs.NEGATIVE_KEYS_MSG)
        self._server.script_cache[self.lua.check(script)] = script
        transaction = self._in_transaction
        self._in_script, self._script_writes = True, writes
        try:
            return self.lua.run(script, keys_and_args[:numkeys], keys_and_args[numkeys:])
        finally:
            self._in_script, self._in_transaction = False, transaction

    def evalsha(self, sha1: bytes, numkeys: int, *keys_and_args: bytes, writes: bool = True) -> Any:
        """EVALSHA."""
        script = self._server.script_cache.get(sha1.lower())
        if script is None:
            raise SimpleError(_msgs.NO_MATCHING_SCRIPT_MSG)
        return self.eval(script, numkeys, *keys_and_args, writes=writes)

    def eval_ro(self, script: bytes, numkeys: int, *keys_and_args: bytes) -> Any:
        """EVAL_RO."""
        return self.eval(script, numkeys, *keys_and_args, writes=False)

    def evalsha_ro(self, sha1: bytes, numkeys: int, *keys_and_args: bytes) -> Any:
        """EVALSHA_RO."""
        return self.evalsha(sha1, numkeys, *keys_and_args, writes=False)

    def script_load(self, *args: bytes) -> bytes:
        """SCRIPT LOAD."""
        sha = self.lua.check(args[0])
        self._server.script_cache[sha] = args[0]
        return sha

    def script_flush(self, *args: bytes) -> SimpleString:
        """SCRIPT FLUSH [ASYNC|SYNC]."""
        if len(args) > 1 or (args and args[0].lower() not in {b"sync", b"async"}):
            raise SimpleError("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
        self._server.script_cache.clear()
        self.lua.forget()
        return _helpers.OK

    def script_kill(self) -> None:
        """SCRIPT KILL: no script can be running while another command is."""
        raise SimpleError("NOTBUSY No scripts in execution right now.")

    def _from_script(self, command: list[bytes]) -> Any:
        handler, arguments = self._find(tuple(command))
        if isinstance(handler, SimpleError):
            return SimpleError("ERR Unknown Redis command called from script")
        if _msgs.FLAG_NO_SCRIPT in handler.signature.flags:
            return SimpleError("ERR This Redis command is not allowed from script")
        if not self._script_writes and _is_write(handler.name):
            return SimpleError("ERR Write commands are not allowed from read-only scripts.")
        result = self._do(handler, list(words(arguments)), from_script=True)
        # RESP2's shape, but statuses and errors as fakeredis has them: a script tells them from strings.
        if isinstance(result, StoreError):
            return SimpleError(str(result))
        return result if isinstance(result, SimpleString | SimpleError) else to_reply(result)


# --- words in, replies out ---


def words(command: Sequence[Argument]) -> list[bytes]:
    """The words of a command as bytes.

    Raises:
        InvalidKey: one is neither text, bytes nor number, or is text that UTF-8 cannot hold.
    """
    return [word if type(word) is bytes else _word(word) for word in command]


def _word(word: Argument) -> bytes:
    try:
        if isinstance(word, str):
            return word.encode()
        if isinstance(word, bytes):
            return bytes(word)
        if isinstance(word, float):
            return float.__repr__(word).encode()
        if isinstance(word, int) and not isinstance(word, bool):
            return b"%d" % word
    except UnicodeEncodeError as error:
        raise InvalidKey(f"an argument cannot be sent: {error}") from None
    kind = type(word).__name__
    raise InvalidKey(f"an argument cannot be sent: it must be text, bytes or a number, not {kind}")


_LEAVES: Final[dict[type, Callable[[Any], Reply]]] = {
    SimpleString: lambda status: cast("bytes", status.value),
    SimpleError: lambda error: error_from_reply(error.value),
    CommandError: lambda error: cast("CommandError", error),
    float: format_double,
    str: str.encode,
    bool: int,
    NoResponse: lambda _: None,
}


def to_reply(result: Any) -> Reply:
    """What fakeredis' command returned, in RESP2's shape."""
    kind = type(result)
    if kind in _PLAIN:
        return cast("Reply", result)
    if kind is list or kind is tuple:
        return [item if type(item) in _PLAIN else to_reply(item) for item in result]
    if kind is dict:
        return [to_reply(part) for item in result.items() for part in item]
    return _LEAVES[kind](result)


def _one_line(word: bytes) -> str:
    return word.decode("utf-8", "replace").replace("\r", " ").replace("\n", " ")


# --- the table ---

_NOT_REDIS: Final = (
    "fakeredis.stack",
    "fakeredis.server_specific_commands",
    "fakeredis.commands_mixins.array_mixin",
    "fakeredis.commands_mixins.acl_mixin",
    "fakeredis.commands_mixins.connection_mixin",
    "fakeredis.commands_mixins.pubsub_mixin",
    "fakeredis.commands_mixins.transactions_mixin",
)
_TAKEN_OUT: Final = frozenset(
    # Databases there is one of; files there are none; DUMP and RESTORE would unpickle what a caller sends; the rest is what
    # newer servers have, or hands Python to Lua.
    """
    bgsave blmovem command copy dump fcall fcall_ro function lastsave lmovem move restore save script swapdb
    """.split()
)
_ANSWERED_HERE: Final = frozenset({"echo", "ping"})


class _Form(NamedTuple):
    """A command as every engine has it."""

    name: str
    method: str
    signature: Any
    grows: bool
    reads: bool


def _table(engine: Engine) -> dict[str, _Handler]:
    """Every command this store has, by the name Redis gives it."""
    return {
        form.name: _Handler(
            form.name,
            getattr(engine, form.method),
            form.signature,
            form.grows,
            form.reads,
        )
        for form in _forms(type(engine))
    }


@cache
def _forms(engine: type[Engine]) -> tuple[_Form, ...]:
    """The commands of all engines, made once: the first answer of an outage waits for an engine."""
    forms: dict[str, _Form] = {}
    for spelled, signature in _commands.SUPPORTED_COMMANDS.items():
        function = getattr(engine, signature.func_name, None)
        module = getattr(function, "__module__", "")
        name = spelled.replace(" ", "|")
        known = name in _ANSWERED_HERE or not module.startswith(_NOT_REDIS)
        if function is None or not known or "redis" not in signature.server_types or "." in name:
            continue
        if name.partition("|")[0] in _TAKEN_OUT and not name.startswith(("script|", "command|")):
            continue
        forms[name] = _form(name, signature.func_name, signature)
    for name, (method, fixed, repeat, flags) in (engine.ANSWERS | engine.CORRECTED).items():
        signature = _commands.Signature(name, method, cast("Any", fixed), cast("Any", repeat), flags=flags)
        forms[name] = _form(name, method, signature)
    return tuple(forms.values())


def _form(name: str, method: str, signature: Any) -> _Form:
    signature = copy(signature)
    # Replies take RESP2's shape once, in `to_reply`.
    signature.flags = signature.flags | {_msgs.FLAG_SKIP_CONVERT_TO_RESP2}
    info = get_command_info(name.encode())
    flags = info[2] if info is not None else ()
    return _Form(name, method, signature, b"denyoom" in flags, b"readonly" in flags)


def _is_write(name: str) -> bool:
    info = get_command_info(name.encode())
    return name == "publish" or (info is not None and b"write" in info[2])
