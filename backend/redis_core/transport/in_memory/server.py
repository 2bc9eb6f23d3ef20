"""What a memory store answers about itself: INFO, CONFIG, CLIENT, MEMORY and the like, with real figures or a clear error."""

from __future__ import annotations

import os
import platform
import secrets
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fakeredis._command_args_parsing import Int
from fakeredis._commands import Key
from fakeredis._helpers import OK, SimpleError, SimpleString, compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_core.clock import Clock
    from redis_core.transport.in_memory.space import KeySpace

__all__ = ["ServerCommands"]

_VERSION: Final = "7.2.0"
_RUN_ID: Final = secrets.token_hex(20)

_Answer = tuple[str, tuple[Any, ...], tuple[Any, ...], str]


def _absent(*names: str) -> dict[str, _Answer]:
    """Commands of a server that memory has no figures for."""
    return dict.fromkeys(names, ("not_here", (), (bytes,), "s"))


class ServerCommands:
    """Commands about the server rather than about keys."""

    space: KeySpace
    clock: Clock
    handlers: dict[str, Any]
    max_bytes: int
    started: float
    commands_done: int
    publish_message: Callable[[bytes, bytes], int]
    count_listeners: Callable[[bytes | None], Any]
    blocked: int = 0
    links: int = 1
    links_made: int = 1

    ANSWERS: ClassVar[dict[str, _Answer]] = {
        # name: method, arguments, repeated arguments, fakeredis' flags (s: not from scripts)
        "client|getname": ("client_name", (), (), "s"),
        "client|id": ("client_id", (), (), "s"),
        "client|info": ("client_line", (), (), "s"),
        "client|list": ("client_line", (), (bytes,), "s"),
        "client|setinfo": ("client_set_info", (bytes, bytes), (), "s"),
        "command": ("command_list", (), (), "s"),
        "command|count": ("command_total", (), (), "s"),
        "command|list": ("command_names", (), (), "s"),
        "config|get": ("config_get", (bytes,), (bytes,), "s"),
        "config|resetstat": ("config_resetstat", (), (), "s"),
        "eval_ro": ("eval_ro", (bytes, Int), (bytes,), "s"),
        "evalsha_ro": ("evalsha_ro", (bytes, Int), (bytes,), "s"),
        "flushall": ("flush", (), (bytes,), ""),
        "flushdb": ("flush", (), (bytes,), ""),
        "info": ("info", (), (bytes,), ""),
        "memory|usage": ("memory_usage", (bytes,), (bytes,), ""),
        "publish": ("publish_now", (bytes, bytes), (), ""),
        "pubsub|channels": ("pubsub_names", (), (bytes,), ""),
        "pubsub|numpat": ("pubsub_patterns", (), (), ""),
        "pubsub|numsub": ("pubsub_counts", (), (bytes,), ""),
        "role": ("role", (), (), "s"),
        "script|kill": ("script_kill", (), (), "s"),
        "time": ("server_time", (), (), ""),
        "touch": ("touch_keys", (Key(),), (Key(),), ""),
        "wait": ("wait", (Int, Int), (), "s"),
        **_absent(
            "acl", "bgsave", "client|kill", "client|no-evict", "config|rewrite", "config|set", "copy", "debug", "dump", "fcall",
            "function", "lastsave", "latency", "memory|doctor", "memory|purge", "memory|stats", "move", "object", "restore",
            "save", "shutdown", "slowlog", "swapdb",
        ),
    }  # fmt: skip

    def not_here(self, *_: bytes) -> None:
        """A command that the memory store does not have."""
        raise SimpleError("ERR this command is not available on the memory store")

    # --- server ---

    def server_time(self) -> list[bytes]:
        """TIME."""
        seconds, micros = divmod(int(self.clock.now() * 1_000_000), 1_000_000)
        return [b"%d" % seconds, b"%d" % micros]

    def role(self) -> list[Any]:
        """ROLE: a leader without replicas."""
        return [b"master", 0, []]

    def wait(self, replicas: int, milliseconds: int) -> int:  # noqa: ARG002 - the command's own
        """WAIT: no replica will ever confirm."""
        return 0

    def touch_keys(self, *keys: Any) -> int:
        """TOUCH."""
        return sum(1 for key in keys if key)

    def flush(self, *mode: bytes) -> SimpleString:
        """FLUSHDB and FLUSHALL [ASYNC|SYNC]."""
        if len(mode) > 1 or (mode and mode[0].lower() not in {b"async", b"sync"}):
            raise SimpleError("ERR syntax error")
        self.space.clear()
        return OK

    def memory_usage(self, key: bytes, *options: bytes) -> int | None:
        """MEMORY USAGE key [SAMPLES n]."""
        if options and (len(options) != 2 or options[0].lower() != b"samples"):  # noqa: PLR2004 - name and value
            raise SimpleError("ERR syntax error")
        return self.space.size(key)

    def command_list(self) -> list[Any]:
        """COMMAND: empty, as Upstash answers it."""
        return []

    def command_total(self) -> int:
        """COMMAND COUNT."""
        return len({name.partition("|")[0] for name in self.handlers})

    def command_names(self) -> list[bytes]:
        """COMMAND LIST."""
        return [name.encode() for name in sorted({name.partition("|")[0] for name in self.handlers})]

    def config_get(self, *patterns: bytes) -> list[bytes]:
        """CONFIG GET: the settings that mean something here."""
        settings = {
            b"appendonly": b"no",
            b"databases": b"1",
            b"maxmemory": b"%d" % self.max_bytes,
            b"maxmemory-policy": b"volatile-ttl",
            b"save": b"",
        }
        wanted = [compile_pattern(pattern.lower()) for pattern in patterns]
        return [part for item in settings.items() if any(w.match(item[0]) for w in wanted) for part in item]

    def config_resetstat(self) -> SimpleString:
        """CONFIG RESETSTAT."""
        self.commands_done = 0
        self.space.hits = self.space.misses = self.space.expired_keys = self.space.evicted_keys = 0
        for handler in self.handlers.values():
            handler.calls = handler.failed = 0
        return OK

    # --- clients: callers of this process share one ---

    def client_id(self) -> int:
        """CLIENT ID."""
        return 1

    def client_name(self) -> bytes | None:
        """CLIENT GETNAME."""
        return None

    def client_set_info(self, *_: bytes) -> SimpleString:
        """CLIENT SETINFO: libraries send it unasked."""
        return OK

    def client_line(self, *_: bytes) -> bytes:
        """CLIENT INFO and CLIENT LIST."""
        age = int(self.clock.now() - self.started)
        return b"id=1 addr=memory:%d laddr=memory:0 fd=-1 name= age=%d idle=0 flags=N db=0 resp=2\n" % (
            os.getpid(),
            age,
        )

    # --- messages ---

    def publish_now(self, channel: bytes, payload: bytes) -> int:
        """PUBLISH."""
        return self.publish_message(channel, payload)

    def pubsub_names(self, *patterns: bytes) -> list[bytes]:
        """PUBSUB CHANNELS [pattern]."""
        channels: list[bytes] = self.count_listeners(None)[0]
        return [name for name in channels if not patterns or compile_pattern(patterns[0]).match(name)]

    def pubsub_patterns(self) -> int:
        """PUBSUB NUMPAT."""
        return int(self.count_listeners(None)[1])

    def pubsub_counts(self, *channels: bytes) -> list[Any]:
        """PUBSUB NUMSUB [channel ...]."""
        return [part for channel in channels for part in (channel, self.count_listeners(channel))]

    # --- INFO ---

    def info(self, *sections: bytes) -> bytes:
        """INFO [section ...]."""
        every = {
            "server": self._info_server,
            "clients": self._info_clients,
            "memory": self._info_memory,
            "stats": self._info_stats,
            "replication": lambda: {"role": "master", "connected_slaves": 0},
            "keyspace": self._info_keyspace,
            "commandstats": self._info_commandstats,
        }
        asked = {section.decode("utf-8", "replace").lower() for section in sections}
        if not asked or "default" in asked:
            asked |= every.keys() - {"commandstats"}
        elif asked & {"all", "everything"}:
            asked |= every.keys()
        lines: list[str] = []
        for name, figures in every.items():
            if name in asked:
                lines += [
                    f"# {name.capitalize()}",
                    *(f"{key}:{value}" for key, value in figures().items()),
                    "",
                ]
        return "\r\n".join(lines).encode()

    def _info_server(self) -> dict[str, object]:
        uptime = int(self.clock.now() - self.started)
        return {
            "redis_version": _VERSION,
            "server_name": "raptorflow-memory",
            "redis_mode": "standalone",
            "os": platform.platform(),
            "process_id": os.getpid(),
            "run_id": _RUN_ID,
            "tcp_port": 0,
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86_400,
        }

    def _info_clients(self) -> dict[str, object]:
        return {"connected_clients": self.links, "blocked_clients": self.blocked}

    def _info_memory(self) -> dict[str, object]:
        space = self.space
        return {
            "used_memory": space.used,
            "used_memory_human": _human(space.used),
            "used_memory_peak": space.peak,
            "used_memory_peak_human": _human(space.peak),
            "maxmemory": self.max_bytes,
            "maxmemory_human": _human(self.max_bytes),
            "maxmemory_policy": "volatile-ttl",
            "mem_allocator": "python",
        }

    def _info_stats(self) -> dict[str, object]:
        channels, patterns = self.count_listeners(None)
        return {
            "total_connections_received": self.links_made,
            "total_commands_processed": self.commands_done,
            "rejected_connections": 0,
            "expired_keys": self.space.expired_keys,
            "evicted_keys": self.space.evicted_keys,
            "keyspace_hits": self.space.hits,
            "keyspace_misses": self.space.misses,
            "pubsub_channels": len(channels),
            "pubsub_patterns": patterns,
        }

    def _info_keyspace(self) -> dict[str, object]:
        keys = len(self.space)
        return {"db0": f"keys={keys},expires={self.space.expiring},avg_ttl=0"} if keys else {}

    def _info_commandstats(self) -> dict[str, object]:
        return {
            f"cmdstat_{name}": f"calls={handler.calls},failed_calls={handler.failed}"
            for name, handler in sorted(self.handlers.items())
            if handler.calls
        }


def _human(size: float) -> str:
    for unit in "BKMG":
        if size < 1024 or unit == "G":  # noqa: PLR2004 - binary units
            return f"{size:.0f}B" if unit == "B" else f"{size:.2f}{unit}"
        size /= 1024
    raise AssertionError("unreachable")
