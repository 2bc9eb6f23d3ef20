"""Lua for the memory store: scripts as Redis 7 runs them, in an interpreter that reaches nothing of this process.

fakeredis has scripts too, but hands them Python's `eval`, `os` and `io`, compiles each anew and collects all garbage after
each; a script that came over the gateway could take over the process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from fakeredis._helpers import SimpleError, SimpleString

from redis_core.transport.in_memory.lua_library import libraries, lua

__all__ = ["LuaEngine", "script_sha"]

_SECONDS: Final = 5.0
"""CPU seconds until a script is ended: Redis' `busy-reply-threshold`. There is nobody here who could SCRIPT KILL it."""
_MEMORY: Final = 256 * 1024 * 1024
"""Most bytes that the interpreter may use."""

_PRELUDE: Final = b"""
local call, sha1hex, log, seconds = ...
local pcall, error, type, rawset, setmetatable, clock, sethook = pcall, error, type, rawset, setmetatable, os.clock, debug.sethook

redis = {
    LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
    REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
    REDIS_VERSION = "7.2.0", REDIS_VERSION_NUM = 0x00070200,
    sha1hex = sha1hex,
    log = log,
    call = function(...)
        local reply = call(...)
        if type(reply) == "table" and reply.err ~= nil then error(reply, 0) end
        return reply
    end,
    pcall = call,
    error_reply = function(text)
        if text:sub(1, 1) == "-" then text = text:sub(2) elseif not text:find(" ", 1, true) then text = "ERR " .. text end
        return {err = text}
    end,
    status_reply = function(text) return {ok = text} end,
    replicate_commands = function() return true end,
    set_repl = function() end,
    breakpoint = function() return false end,
    debug = function() end,
    setresp = function(version)
        if version ~= 2 then error({err = "ERR RESP version must be 2 on the memory store."}, 0) end
    end,
}

-- What runs for too long is ended, in coroutines too, and again and again so that no pcall of the script's goes on.
local started = 0
local function watch()
    if clock() - started > seconds then
        sethook(watch, "", 1)
        error("the script ran for too long and was ended", 0)
    end
end
local create, resume = coroutine.create, coroutine.resume
coroutine.create = function(body)
    local thread = create(body)
    sethook(thread, watch, "", 1000000)
    return thread
end
local function passed(ok, ...)
    if not ok then error((...), 0) end
    return ...
end
coroutine.wrap = function(body)
    local thread = coroutine.create(body)
    return function(...) return passed(resume(thread, ...)) end
end

-- Bytecode is not checked by the interpreter and could crash it.
local text_only = loadstring
loadstring = function(text, name)
    if text:byte(1) == 27 then return nil, "attempt to load a binary chunk" end
    return text_only(text, name)
end
load = function(pieces, name)
    local text = {}
    for piece in pieces do
        if piece == "" then break end
        text[#text + 1] = piece
    end
    return loadstring(table.concat(text), name or "=(load)")
end

-- What a script leaves behind would be seen by the next: tables that outlive it are read-only.
local frozen = {}
local function freeze(real)
    local view = {}
    frozen[view] = true
    return setmetatable(view, {
        __index = real,
        __newindex = function() error("Attempt to modify a readonly table", 2) end,
        __metatable = false,
    })
end
getmetatable("").__metatable = false
os = {clock = os.clock}
for _, name in ipairs({"redis", "os", "string", "table", "math", "coroutine", "cjson", "cmsgpack", "bit", "struct"}) do
    _G[name] = freeze(_G[name])
end
server = redis
local base = _G
frozen[base] = true
_G.rawset = function(target, name, value)
    if frozen[target] then error("Attempt to modify a readonly table", 2) end
    return rawset(target, name, value)
end
for _, name in ipairs({"io", "package", "require", "module", "dofile", "loadfile", "debug", "newproxy", "print", "python",
                       "getfenv", "setfenv"}) do
    _G[name] = nil
end
setmetatable(base, {
    __index = function(_, name)
        if name == "debug" then return nil end  -- lupa itself looks for it
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
    __newindex = function() error("Attempt to modify a readonly table", 2) end,
    __metatable = false,
})

return function(script, keys, arguments)
    rawset(base, "KEYS", keys)
    rawset(base, "ARGV", arguments)
    started = clock()
    sethook(watch, "", 1000000)
    local ok, reply = pcall(script)
    sethook()
    return ok, reply
end
"""


def script_sha(script: bytes) -> bytes:
    """The SHA1 that a script is known by."""
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()


class LuaEngine:
    """One interpreter, and the scripts it has compiled.

    Args:
        call: runs a command that a script calls and returns its undecoded reply, errors as values.
    """

    def __init__(self, call: Callable[[list[bytes]], Any]) -> None:
        self._call = call
        self._start()

    def _start(self) -> None:
        self._compiled: dict[bytes, Any] = {}
        self._runtime = lua.LuaRuntime(
            encoding=None,
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_no_attributes,
            max_memory=_MEMORY,
        )
        for name, functions in libraries(self._runtime).items():
            self._runtime.globals()[name] = self._runtime.table_from(functions)
        self._run = self._runtime.compile(_PRELUDE, b"@prelude")(self._redis_call, _sha1hex, _log, _SECONDS)

    def check(self, script: bytes) -> bytes:
        """Compile a script and return its SHA1.

        Raises:
            SimpleError: it is not Lua.
        """
        sha = script_sha(script)
        self._compile(sha, script)
        return sha

    def run(self, script: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """Run a script and return its reply, as fakeredis' commands return theirs.

        Raises:
            SimpleError: it is not Lua, or ended with an error.
        """
        sha = script_sha(script)
        function = self._compile(sha, script)
        table = self._runtime.table_from
        try:
            ok, reply = self._run(function, table(keys), table(arguments))
        except lua.LuaError as error:
            # Ended for running too long: the interpreter still wants to end whatever runs in it.
            self._start()
            raise SimpleError(f"ERR {_text(error)}") from None
        if ok:
            try:
                return _from_lua(reply)
            except RecursionError:
                raise SimpleError("ERR reached lua stack limit") from None
        text = _error_text(reply)
        place = b" script: " + sha + b", on @user_script."
        raise SimpleError((text if place in text else text + place).decode("utf-8", "replace"))

    def forget(self) -> None:
        """Let go of all compiled scripts."""
        self._compiled.clear()

    def _compile(self, sha: bytes, script: bytes) -> Any:
        function = self._compiled.get(sha)
        if function is None:
            source = _without_shebang(script)
            if source.startswith(b"\x1b"):
                raise SimpleError("ERR Error compiling script (new function): bytecode is not accepted")
            try:
                function = self._runtime.compile(source, b"@user_script")
            except lua.LuaError as error:
                raise SimpleError(f"ERR Error compiling script (new function): {_text(error)}") from None
            self._compiled[sha] = function
        return function

    def _redis_call(self, *words: Any) -> Any:
        """What `redis.call` and `redis.pcall` do: run a command, its error as a table."""
        if not words:
            return self._error("ERR Please specify at least one argument for this redis.call")
        command: list[bytes] = []
        for word in words:
            if type(word) is bytes:
                command.append(word)
            elif type(word) is int or type(word) is float:
                command.append(f"{word:.17g}".encode())
            else:
                return self._error("ERR Lua redis lib command arguments must be strings or integers")
        return self._to_lua(self._call(command))

    def _error(self, text: str) -> Any:
        return self._runtime.table_from({b"err": text.encode()})

    def _to_lua(self, reply: Any) -> Any:
        kind = type(reply)
        if kind is bytes or kind is int:
            return reply
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._runtime.table_from([self._to_lua(item) for item in reply])
        if isinstance(reply, SimpleString):
            return self._runtime.table_from({b"ok": reply.value})
        if isinstance(reply, SimpleError):
            return self._error(reply.value)
        raise TypeError(f"a command answered a script with {kind.__name__}")


def _from_lua(reply: Any) -> Any:
    """Redis' conversion of a Lua value: numbers cut to integers, true to 1, false to null, tables up to their first nil."""
    if type(reply) is bytes or type(reply) is int:
        return reply
    if reply is None or reply is False:
        return None
    if reply is True:
        return 1
    if isinstance(reply, float):
        return int(reply) if math.isfinite(reply) and abs(reply) < 2**63 else -(2**63)
    if lua.lua_type(reply) != "table":
        return None
    error = reply[b"err"]
    if isinstance(error, bytes):
        return SimpleError(error.decode("utf-8", "replace"))
    status = reply[b"ok"]
    if isinstance(status, bytes):
        return SimpleString(status)
    items: list[Any] = []
    for place in count(1):
        item = reply[place]
        if item is None:
            return items
        items.append(_from_lua(item))
    raise AssertionError("unreachable")


def _without_shebang(script: bytes) -> bytes:
    """The script without its `#!lua` line, whose line number is kept; flags are Redis 7's, which memory has no use for.

    Raises:
        SimpleError: the line names another engine or a flag that Redis does not know.
    """
    if not script.startswith(b"#!"):
        return script
    line, newline, rest = script.partition(b"\n")
    engine, _, flags = line[2:].strip().partition(b" ")
    if engine != b"lua":
        raise SimpleError(f"ERR Unexpected engine in script shebang: {engine.decode('utf-8', 'replace')}")
    known = {b"no-writes", b"allow-oom", b"allow-stale", b"no-cluster", b"allow-cross-slot-keys", b""}
    for flag in flags.strip().removeprefix(b"flags=").split(b","):
        if flag.strip() not in known:
            raise SimpleError(f"ERR Unexpected flag in script shebang: {flag.decode('utf-8', 'replace')}")
    return newline + rest


def _error_text(raised: Any) -> bytes:
    """The reply to a script that ended with this: text, a table with `err`, or what a library function refused."""
    if isinstance(raised, Exception):
        return b"ERR " + str(raised).encode()
    if isinstance(raised, bytes):
        return b"ERR " + raised
    text = raised[b"err"] if lua.lua_type(raised) == "table" else None
    return text if isinstance(text, bytes) else b"ERR the script raised a value that is no text"


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _sha1hex(text: Any) -> bytes:
    return script_sha(text if isinstance(text, bytes) else str(text).encode())


def _log(*_: object) -> None:
    """What a script logs goes to a Redis server's log; there is none."""


def _no_attributes(_: object, name: object, __: bool) -> object:
    raise AttributeError(f"scripts reach nothing of Python: {name!r}")
