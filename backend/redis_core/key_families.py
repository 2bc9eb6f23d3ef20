"""Every family of keys, declared once: the key audit, the table of docs/keys.md, the users' permissions and the metrics read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FAMILIES", "TENANT_WORD", "Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of key."""

    name: str
    pattern: str
    """Its shape, with `<...>` for the parts that vary."""
    owner: str
    """The module that writes it."""
    type: str
    """Its Redis type: string, hash, list, set, zset or stream; `any` where the application decides."""
    ttl: str
    """The rule for its expiry, or why it has none."""
    purpose: str
    expires: bool = True
    """Whether each of its keys must have an expiry at every moment; False where some may do without."""
    most_bytes: int = 1024 * 1024
    """What one key takes at most where all is well; the key audit tells of larger ones."""

    @property
    def tenant(self) -> bool:
        """Whether keys of this family belong to a workspace."""
        return self.pattern.startswith(_PREFIX)


TENANT_WORD: Final = "ws:"
"""What every key of a workspace begins with, and no other key may."""
_PREFIX: Final = TENANT_WORD + "{"


_SHARED_BYTES: Final = 256 * 1024 * 1024
"""Most bytes of a key that all tenants of a queue, or all processes, write to."""


def _queue_family(
    kind: str, type: str, purpose: str, rest: str = "", ttl: str = "none", *, expires: bool = False
) -> Family:
    """A family of the job queue: the queue's name, with `#n` for its shards, is the hash tag."""
    return Family(kind, f"{kind}:{{<queue>}}{rest}", "queue", type, ttl, purpose, expires, _SHARED_BYTES)


_UNFINISHED: Final = "none; bounded by the unfinished jobs that a workspace may have"
_JOB: Final = ":<workspace>:<id>"
_QUEUE_FAMILIES: Final = (
    _queue_family("queue-jobs", "hash", "payloads of unfinished jobs by workspace and id", ttl=_UNFINISHED),
    _queue_family("queue-wait", "list", "ids that wait, of one workspace and priority", ":<workspace>:<level>", _UNFINISHED),
    _queue_family("queue-ring", "zset", "workspaces with waiting jobs by virtual time", ttl=_UNFINISHED),
    _queue_family("queue-later", "zset", "jobs that are delayed, retried or asleep, by when they are due", ttl=_UNFINISHED),
    _queue_family("queue-blocked", "hash", "how many others each job waits for", ttl=_UNFINISHED),
    _queue_family("queue-after", "hash", "who is told or freed when a job is over", ttl=_UNFINISHED),
    _queue_family("queue-held", "list", "jobs of a task that is paused or has as many running as it may", ":<task>", _UNFINISHED),
    _queue_family("queue-parked", "hash", "workspaces that have as many running as they may", ttl=_UNFINISHED),
    _queue_family("queue-tries", "hash", "runs, failures and deaths of jobs that were claimed before", ttl=_UNFINISHED),
    _queue_family("queue-unique", "hash", "which unfinished job holds a unique key", ttl=_UNFINISHED),
    _queue_family("queue-depth", "hash", "unfinished jobs by workspace", ttl=_UNFINISHED),
    _queue_family("queue-running", "hash", "running jobs: in all, by workspace and by task", ttl=_UNFINISHED),
    _queue_family("queue-leases", "zset", "workers that run jobs, by when their lease ends", ttl="none; one entry a worker"),
    _queue_family("queue-run", "hash", "the jobs that a worker runs", ":<worker>", "none; gone when its lease is reaped"),
    _queue_family("queue-doubts", "string", "how often a worker missed a reply, so that a turn of before does nothing", ":<worker>", "10 minutes", expires=True),
    _queue_family("queue-taken", "string", "which record of a journal was taken in, so that it is not a second time", ":<record>", "a day longer than JOURNAL_MAX_AGE", expires=True),
    _queue_family("queue-bell", "list", "at most one token, for which idle workers wait"),
    _queue_family("queue-info", "hash", "virtual time, limits and pause of the queue"),
    _queue_family("queue-limits", "hash", "weight, limit and pause of single workspaces"),
    _queue_family("queue-gates", "hash", "limit and pause of single tasks"),
    _queue_family("queue-schedules", "hash", "when each schedule last fired"),
    _queue_family(
        "job", "hash", "steps, progress, signals and errors of a job that has any", _JOB,
        "none while it is unfinished; then its result's, or 30 days for a dead letter",
    ),
    _queue_family("job-result", "string", "how a job ended, and what it returned", _JOB, "the task's result_ttl", expires=True),
    _queue_family("job-dead", "zset", "a workspace's dead letters by when they were buried", ":<workspace>", "30 days", expires=True),
)  # fmt: skip

FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        name="session",
        pattern="ws:{<workspace>}:session:<MAC of the token>",
        owner="session",
        type="hash",
        ttl="REDIS_SESSION_TTL and 1/24 of it, at most the session's absolute end and that; 15 s for a pointer",
        purpose="one session: its times, user, device, and a field for each of the application's",
    ),
    Family(
        name="session-once",
        pattern="ws:{<workspace>}:session-once:<MAC of the token>",
        owner="session",
        type="string",
        ttl="as long as the session could live",
        purpose="that a session was stored again after an outage, or ended in one: it is not stored again after that",
    ),
    Family(
        name="session-index",
        pattern="ws:{<workspace>}:session-index:<user>",
        owner="session",
        type="zset",
        ttl="as the session of the user that may live longest",
        purpose="a user's sessions by their end, for the device page, the cap and revocation",
    ),
    Family(
        name="session-epoch",
        pattern="ws:{<workspace>}:session-epoch",
        owner="session",
        type="string",
        ttl="longer than any session that it ends",
        purpose="set when all sessions of the workspace were revoked: those of an older epoch are dead",
    ),
    Family(
        name="cache",
        pattern="ws:{<workspace>}:cache:<region>:<key>",
        owner="cache",
        type="string",
        ttl="the region's TTL and the time it may be served stale",
        purpose="one cached value in its envelope",
    ),
    Family(
        name="cache-lease",
        pattern="ws:{<workspace>}:cache-lease:<region>:<key>",
        owner="cache",
        type="string",
        ttl="the region's lease, renewed while the load runs",
        purpose="who loads this value now; a deletion takes it away, which fences the fill",
    ),
    Family(
        name="cache-index",
        pattern="ws:{<workspace>}:cache-index:<model>",
        owner="cache",
        type="stream",
        ttl="as the answers of the semantic cache it belongs to",
        purpose="embeddings of the questions that were asked of a model lately",
    ),
    Family(
        name="gen",
        pattern="ws:{<workspace>}:gen[:<region>|:tag:<tag>]",
        owner="cache",
        type="string",
        ttl="of a tag 30 days, else none; a value of an unknown generation is a miss",
        purpose="generations: a value of another one than the present is a miss, so a flush is one command",
        expires=False,
    ),
    Family(
        name="rate",
        pattern="rate:<subject>:<endpoint>[:<form>.<period>]",
        owner="rate_limit",
        type="string",
        ttl="until none of its windows counts any more, set by the command that writes it",
        purpose="what a user, address or everyone was admitted at one endpoint; with form and period on the economy plan",
    ),
    Family(
        name="rate",
        pattern="ws:{<workspace>}:rate:<endpoint>[:<form>.<period>]",
        owner="rate_limit",
        type="string",
        ttl="until none of its windows counts any more, set by the command that writes it",
        purpose="what all users of the workspace together were admitted at one endpoint",
    ),
    Family(
        name="lock",
        pattern="ws:{<workspace>}:lock:<name>",
        owner="locks",
        type="string",
        ttl="the lock's, renewed while it is held",
        purpose="who holds the lock, with which fencing token, and whether somebody waits for it",
    ),
    Family(
        name="lock-count",
        pattern="ws:{<workspace>}:lock-count",
        owner="locks",
        type="hash",
        ttl="none; one a workspace",
        purpose="epoch and counter of the last fencing token: tokens only grow",
        expires=False,
    ),
    Family(
        name="lock-line",
        pattern="ws:{<workspace>}:lock-line:<name>",
        owner="locks",
        type="zset",
        ttl="some times as long as a waiter may be silent",
        purpose="who waits for the lock, by arrival",
    ),
    Family(
        name="lock-waiters",
        pattern="ws:{<workspace>}:lock-waiters:<name>",
        owner="locks",
        type="zset",
        ttl="as lock-line",
        purpose="who waits for the lock, by when they are taken for dead",
    ),
    Family(
        name="app",
        pattern="ws:{<workspace>}:app:<...>",
        owner="the application",
        type="any",
        ttl="the application's",
        purpose='what the application keeps itself, through `workspace.keys.key("app", ...)`',
        expires=False,
    ),
    Family(
        name="sys",
        pattern="sys:<canary|epoch|session-epoch>[:<...>]",
        owner="redis_core",
        type="string",
        ttl="seconds; the store's epoch none, a user's longer than any session that it ends",
        purpose="the fleet's own: health canaries, the store's epoch, the epochs of users whose sessions were all revoked",
        expires=False,
    ),
    Family(
        name="sys-metrics",
        pattern="sys:metrics:<minutes|hours>:<time>",
        owner="metrics",
        type="hash",
        ttl="25 h for minutes, 31 days for hours",
        purpose="what each process measured: minutes of one hour, hours of one day",
        most_bytes=_SHARED_BYTES,
    ),
    Family(
        name="sys-presence",
        pattern="sys:presence:<process>",
        owner="pubsub",
        type="string",
        ttl="25 s, renewed every 10 s while the process shows members",
        purpose="that a process lives: members of presence that only dead ones show are taken out",
    ),
    Family(
        name="sys-audit",
        pattern="sys:audit",
        owner="api",
        type="stream",
        ttl="none; about the last 10,000 changes",
        purpose="what operators changed: who, what, when, before and after",
        expires=False,
        most_bytes=_SHARED_BYTES,
    ),
    Family(
        name="sys-cache-bus",
        pattern="sys:cache-bus",
        owner="cache",
        type="stream",
        ttl="none; about the last 10,000 changes",
        purpose="by which processes on Upstash tell one another what they changed in the cache",
        expires=False,
    ),
    Family(
        name="sys-import",
        pattern="sys:import:<what>",
        owner="portability",
        type="string",
        ttl="7 days after the last frame",
        purpose="how far an import or restore has come, so that it goes on there",
    ),
    Family(
        "topic",
        "ws:{<workspace>}:topic:<kind>:<topic>",
        "pubsub",
        "stream",
        "a day after the last update",
        "history of events and of a state's patches",
    ),
    Family(
        "topic-meta",
        "ws:{<workspace>}:topic-meta:<kind>:<topic>",
        "pubsub",
        "hash",
        "two days after the last update; of a state none",
        "a topic's epoch and offset, and a state's document",
        expires=False,
    ),
    Family(
        "topic-text",
        "ws:{<workspace>}:topic-text:append:<topic>",
        "pubsub",
        "string",
        "a day after the last piece",
        "a text that grows",
    ),
    Family(
        "topic-once",
        "ws:{<workspace>}:topic-once:<kind>:<topic>:<id>",
        "pubsub",
        "string",
        "a day",
        "where the update of an idempotency key stands",
    ),
    Family(
        "presence",
        "ws:{<workspace>}:presence:presence:<topic>",
        "pubsub",
        "hash",
        "a day after the last join or leave; a process shows its members again after half of it",
        "who is there, and which process says so",
        expires=False,
    ),
    Family(
        "bus",
        "ws:{<workspace>}:bus",
        "pubsub",
        "string",
        "none",
        "how many messages the workspace has published: a hole in it is a lost message",
        expires=False,
    ),
    Family(
        "usage",
        "ws:{<workspace>}:usage:<month>",
        "usage",
        "hash",
        "400 days after the last report",
        "what the workspace used, a field a day and sum",
    ),
    Family(
        "usage-once",
        "ws:{<workspace>}:usage-once:<marker>",
        "usage",
        "string",
        "a day longer than the journal keeps records",
        "the number of the last report of a process, or an idempotency key",
    ),
    Family(
        "usage-budget",
        "ws:{<workspace>}:usage-budget",
        "usage",
        "hash",
        "none",
        "what the workspace may spend",
        expires=False,
    ),
    *_QUEUE_FAMILIES,
)
