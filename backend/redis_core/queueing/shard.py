"""One shard of a queue in the store: each method is one script, which sees the shard as a whole.

A job's name here is its field, `<workspace>:<id>`. Times are milliseconds. All of a shard's keys share a slot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from redis_core.keys import queue_key
from redis_core.script import Script

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.clock import Clock
    from redis_core.transport.base import Argument, Reply

__all__ = [
    "KEEP_DEAD",
    "Acknowledgement",
    "Cancelled",
    "Claim",
    "EnqueueRow",
    "Look",
    "Refusal",
    "Shard",
    "Turn",
    "Watched",
    "queue_script",
]

KEEP_DEAD: Final = 30 * 86_400_000
"""Milliseconds a dead letter is kept."""

Refusal = Literal["known", "full", "dependency"] | str  # noqa: PYI051 - any other text is the id of the job that holds the unique key
_REFUSALS: Final = {0: "known", 1: "full", 2: "dependency"}
Cancelled = Literal[0, 1, 2]
"""0 unknown or over, 1 it will not run, 2 it runs and was asked to end."""


class EnqueueRow(NamedTuple):
    """A job as `queue_enqueue.lua` takes it."""

    id: str
    level: int
    """0 is served first, 4 last."""
    delay: int
    unique: str
    depends_on: str
    """Ids, each with a newline."""
    payload: bytes


class Claim(NamedTuple):
    """A job that a worker has been given."""

    field: bytes
    run: int
    """How often it has been claimed, this time included: what fences its acknowledgement."""
    failures: int
    deaths: int
    payload: bytes


class Acknowledgement(NamedTuple):
    """What a worker tells of a job that it is done with; the kinds are told in `queue_turn.lua`."""

    field: bytes
    run: int
    kind: Literal["d", "c", "x", "r", "l", "w", "b", "h", "k"]
    has_hash: int
    unique: str | bytes
    number: int
    text: str | bytes
    result: str | bytes = b""


class Turn(NamedTuple):
    """What a worker's turn brought."""

    now: int
    event: int
    """Milliseconds until something can happen that nobody rings for; -1 for nothing."""
    lost: bool
    """The lease had ended and others have the jobs."""
    left: bool
    """Work was left behind."""
    refused: list[bytes]
    cancelled: list[bytes]
    claims: list[Claim]


class Look(NamedTuple):
    """Where a job is."""

    state: str
    result: bytes | None
    due: float | None
    hash: dict[bytes, bytes]


class Watched(NamedTuple):
    """Whether a job is over; if not, its end will be published."""

    known: bool
    result: bytes | None


@lru_cache(maxsize=16)
def queue_script(name: str) -> Script:
    """`queue_NAME.lua` behind the text that the queue's scripts share."""
    folder = files("redis_core").joinpath("lua")
    shared = folder.joinpath("queue_core.lua").read_text("utf-8")
    text = shared + folder.joinpath(f"queue_{name}.lua").read_text("utf-8")
    return Script(f"queue_{name}", text, confined=True)


_NEVER_BURY: Final = 2**31 - 1


class Shard:
    """A shard, by the name of its queue and for all but the first its number: `agents`, `agents#1`.

    Args:
        client: the store.
        name: which shard.
        clock: the time; None takes the store's own, so that all processes agree.
    """

    __slots__ = ("_client", "_clock", "_keys", "bell", "control", "done", "later", "leases", "name", "ring")

    def __init__(self, client: Client, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self._client = client
        self._clock = clock
        self._keys = (queue_key("queue-jobs", name),)
        self.bell = queue_key("queue-bell", name)
        """The list on which idle workers wait, and the channel for those that cannot."""
        self.control = queue_key("queue-control", name)
        """The channel on which workers are told of cancellations."""
        self.done = queue_key("queue-done", name)
        """The channel on which the ends of watched jobs are told."""
        self.ring = queue_key("queue-ring", name)
        self.leases = queue_key("queue-leases", name)
        self.later = queue_key("queue-later", name)

    def events(self, field: str) -> str:
        """The channel of one job's progress, log and tokens."""
        return queue_key("job-events", self.name, *field.split(":", 1))

    @property
    def _now(self) -> int | str:
        return 0 if self._clock is None else int(self._clock.now() * 1000)

    async def _run(self, name: str, *args: Argument) -> Reply:
        return await self._client.run(queue_script(name), self._keys, args)

    async def enqueue(
        self,
        workspace: str,
        rows: Sequence[EnqueueRow],
        *,
        most: int,
        check_results: bool = False,
        names: Sequence[str] = (),
        remember: int = 0,
    ) -> tuple[int, dict[int, Refusal]]:
        """Take jobs in; how many were, and for each that was not its place and why.

        Args:
            workspace: whose they are.
            rows: at most 500.
            most: unfinished jobs that the workspace may have.
            check_results: whether a job that is over counts as known.
            names: of the journal's records that the rows are of: one of a name that was taken in before is known.
            remember: milliseconds for which such a name is remembered.
        """
        words: list[Argument] = (
            [word for row, name in zip(rows, names, strict=True) for word in (*row, name)]
            if names
            else [word for row in rows for word in row]
        )
        now = self._now if any(row.delay for row in rows) else "-"
        reply = cast(
            "list[Any]",
            await self._run(
                "enqueue", now, workspace, most, remember if names else int(check_results), *words
            ),
        )
        refused: dict[int, Refusal] = {}
        for place, why in zip(reply[1::2], reply[2::2], strict=True):
            refused[place - 1] = why.decode() if isinstance(why, bytes) else _REFUSALS[why]
        return reply[0], refused

    async def turn(
        self,
        worker: str,
        *,
        lease: int,
        free: int,
        flags: str = "",
        most_deaths: int = _NEVER_BURY,
        keep_result: int = 3_600_000,
        doubts: int = 0,
        acknowledgements: Iterable[Acknowledgement] = (),
    ) -> Turn:
        """A worker's turn, see `queue_turn.lua`.

        Args:
            worker: who, unique over all processes and starts.
            lease: milliseconds after which it is taken for dead.
            free: jobs it can take.
            flags: as the script tells them.
            most_deaths: workers that a job may outlive before it is buried; unless given none is, for who reaps must know.
            keep_result: milliseconds for results that the script makes itself.
            doubts: how often this worker missed a turn's reply.
            acknowledgements: jobs it is done with.
        """
        words: list[Argument] = [word for each in acknowledgements for word in each]
        reply = cast(
            "list[Any]",
            await self._run(
                "turn",
                self._now,
                worker,
                lease,
                free,
                flags,
                most_deaths,
                KEEP_DEAD,
                keep_result,
                doubts,
                *words,
            ),
        )
        now, event, lost, left, refused, cancelled, flat = reply
        claims = [Claim(*flat[at : at + 5]) for at in range(0, len(flat), 5)]
        return Turn(now, event, bool(lost), bool(left), refused, cancelled, claims)

    async def cancel(self, field: str, reason: str, keep: int) -> Cancelled:
        """Cancel a job; its result says why for `keep` milliseconds."""
        return cast("Cancelled", await self._run("cancel", self._now, field, "c" + reason, keep))

    async def signal(self, field: str, name: str, value: bytes) -> int:
        """Answer what a job waits for: 0 there is no such job, 1 given, 2 it had been answered."""
        return cast("int", await self._run("signal", "-", field, name, value))

    async def note(
        self,
        worker: str,
        field: bytes,
        run: int,
        *,
        fields: Sequence[tuple[str, str | bytes]] = (),
        add: Sequence[tuple[str, float]] = (),
        event: bytes = b"",
    ) -> bool:
        """Write to a running job's hash and tell its followers; False if the worker has lost it."""
        words: list[Argument] = [word for pair in fields for word in pair]
        for name, amount in add:
            words += [name, repr(amount)]
        return bool(await self._run("note", "-", worker, field, run, event, len(fields), *words))

    async def look(self, field: str) -> Look:
        """Where a job is, and what its hash holds."""
        state, result, due, flat = cast("list[Any]", await self._run("look", "-", field, 0))
        return Look(
            state.decode(),
            result,
            None if due is None else float(due),
            dict(zip(flat[::2], flat[1::2], strict=True)),
        )

    async def watch(self, field: str) -> Watched:
        """A job's result if it is over; if not, its end is published on `done` once."""
        state, result, _, _ = cast("list[Any]", await self._run("look", "-", field, 1))
        return Watched(state != b"unknown", result)

    async def limit(
        self, what: str, name: str, how: str, most: int | None = None, weight: float | None = None
    ) -> None:
        """Limit, pause or resume; see `queue_limit.lua`."""
        shown = "" if weight is None else repr(weight)
        await self._run("limit", "-", what, name, how, "" if most is None else most, shown)

    async def redrive(self, workspace: str, ids: Sequence[str]) -> int:
        """Send dead letters to the queue again; how many there were."""
        return cast("int", await self._run("redrive", "-", workspace, *ids)) if ids else 0

    async def delete(self, workspace: str, ids: Sequence[str]) -> int:
        """Delete dead letters for good; how many there were."""
        return cast("int", await self._run("delete", "-", workspace, *ids)) if ids else 0

    async def fired(self, schedule: str, at: int | None, begin: int) -> int:
        """When a schedule last fired; `at` notes a firing, `begin` is where a new one starts."""
        return int(cast("bytes", await self._run("fire", "-", schedule, "" if at is None else at, begin)))
