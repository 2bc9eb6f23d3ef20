"""The economy plan: one plain command for an allowed decision, where a store bills every command of a script.

One `BITFIELD` adds the cost to every window of a key and reads every window back; this process then judges. What is refused
was counted for the length of a round trip and is given back by a second command, after which refusals are answered from
memory. So never more than the limit is admitted, but a request that arrives during that round trip may be refused in error.

The windows of a key that differ little in length share a *deck*: one Redis string, in which each window has a column of
counters, one a sub-window. The string's name ends in the number of the period it covers, so no counter is ever used twice
and nothing stale has to be cleared; what a window still needs of the period before is read once by each process.

A sliding window has up to 12 sub-windows here (60 on the exact plan), so bursts are judged less finely.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import floor
from typing import Final

from redis_core.errors import ProtocolError
from redis_core.rate_limiting.algorithms import ring_look
from redis_core.rate_limiting.policy import Policy
from redis_core.transport.base import Argument, Command, Reply

__all__ = ["Deck", "DeckTake", "KnownDecks", "make_decks"]

_PERIODS: Final = (16, 8, 4, 2)
"""How many of its longest window a deck covers: the more, the rarer a new name with its expiry and its look back."""
_MOST_SLOTS: Final = 12
_MOST_FINE_SLOTS: Final = 1024
_MOST_COARSE_SLOTS: Final = 7200
"""Counters of one column; bounds a key's size at 14 KB, for a second and an hour together."""
_LONGEST_DECK: Final = 62 * 86_400_000
_SLACK: Final = 60_000
"""Milliseconds a deck lives longer than it is needed: more than clocks differ."""
_BEGINS: Final = 8
"""Bits before the first column: a byte that is 0 only while the key has just been made."""


class Column:
    """One policy's counters in a deck."""

    __slots__ = ("bits", "form", "offset", "policy", "reads", "slot", "slots")

    def __init__(self, policy: Policy, slots: int, bits: int, offset: int) -> None:
        self.policy = policy
        self.slots = slots
        """Sub-windows of its window."""
        self.slot = policy.window_ms // slots
        self.bits = bits
        self.form = f"u{bits}"
        self.offset = offset
        self.reads: dict[tuple[int, int], tuple[tuple[Argument, ...], tuple[int, ...]]] = {}

    def at(self, place: int) -> int:
        """The bit at which a sub-window's counter begins."""
        return self.offset + place * self.bits

    def read(self, start: int, stop: int) -> tuple[tuple[Argument, ...], tuple[int, ...]]:
        """The words that read counters from start up to stop, and how many each GET brings: several share one integer."""
        known = self.reads.get((start, stop))
        if known is not None:
            return known
        words: list[Argument] = []
        lanes: list[int] = []
        most = max(64 // self.bits, 1)
        place = start
        while place < stop:
            count = min(most, stop - place)
            width = count * self.bits
            words += ("GET", f"u{width}" if width < 64 else "i64", str(self.at(place)))  # noqa: PLR2004 - Redis has no u64
            lanes.append(count)
            place += count
        known = tuple(words), tuple(lanes)
        if len(self.reads) >= _MOST_FINE_SLOTS:
            self.reads.clear()
        self.reads[start, stop] = known
        return known

    def unpack(self, values: Sequence[Reply], lanes: Sequence[int]) -> list[int]:
        """The counters that these integers carry, oldest first."""
        mask, counters = (1 << self.bits) - 1, list[int]()
        for value, count in zip(values, lanes, strict=True):
            whole = _integer(value)
            counters += [whole >> self.bits * lane & mask for lane in range(count - 1, -1, -1)]
        return counters


class Deck:
    """Windows that share a string.

    Args:
        columns: their counters.
        period: milliseconds that one string covers.
        places: each column's place among the policies of its set.
    """

    __slots__ = ("columns", "longest", "mark", "period", "places")

    def __init__(self, columns: Sequence[Column], period: int, places: Sequence[int]) -> None:
        self.columns = tuple(columns)
        self.period = period
        self.places = tuple(places)
        self.longest = max(column.policy.window_ms for column in columns)
        shape = ";".join(f"{c.policy.mark}{c.slots},{c.bits},{c.offset}" for c in columns)
        self.mark = f"{zlib.crc32(f'{period} {shape}'.encode()):08x}"
        """Names the deck's form: another form is another key."""

    def name(self, key: str, now: int, back: int = 0) -> str:
        """The string that covers this time (ms), or one `back` periods earlier."""
        return f"{key}:{self.mark}.{now // self.period - back}"

    def names(self, key: str, now: int) -> tuple[str, str]:
        """The strings that hold what still counts: what a reset removes."""
        return self.name(key, now), self.name(key, now, 1)

    def expires_at(self, now: int) -> int:
        """When the string that covers this time is of no more use, in ms since the epoch."""
        return (now // self.period + 1) * self.period + self.longest + _SLACK


def make_decks(policies: Sequence[Policy]) -> tuple[Deck, ...]:
    """Decks for these sliding and fixed windows: as few as hold them, since each costs a command."""
    open_: list[tuple[int, list[int]]] = []
    order = sorted(range(len(policies)), key=lambda place: -policies[place].window_ms)
    for place in order:
        for number, (longest, members) in enumerate(open_):
            period = _period(longest, [policies[member] for member in (*members, place)])
            if period:
                open_[number][1].append(place)
                break
        else:
            open_.append((policies[place].window_ms, [place]))
    return tuple(_deck(longest, members, policies) for longest, members in open_)


def _deck(longest: int, members: Sequence[int], policies: Sequence[Policy]) -> Deck:
    period = _period(longest, [policies[member] for member in members])
    columns: list[Column] = []
    offset = _BEGINS
    # Long windows first: their few counters keep the string short until the short windows' have come.
    for member in members:
        policy = policies[member]
        bits = next(bits for bits in (16, 32, 40) if policy.limit * 2 < 1 << bits)
        slots = _slots(policy, period)
        columns.append(Column(policy, slots, bits, offset))
        offset += slots * (period // policy.window_ms) * bits
    return Deck(columns, period, members)


def _period(longest: int, policies: Sequence[Policy]) -> int:
    """Milliseconds that a deck of these policies covers, 0 if they cannot share one."""
    for times in _PERIODS:
        period = longest * times
        if all(
            period % policy.window_ms == 0 and period // policy.window_ms <= _MOST_COARSE_SLOTS
            for policy in policies
        ):
            return period
    return 0


def _slots(policy: Policy, period: int) -> int:
    if policy.kind == "f":
        return 1
    windows = period // policy.window_ms
    most = max(min(_MOST_SLOTS, _MOST_FINE_SLOTS // windows), 1)
    return next(count for count in range(most, 0, -1) if policy.window_ms % count == 0)


class Known:
    """What this process knows of one string."""

    __slots__ = ("before",)

    def __init__(self, before: tuple[tuple[int, ...], ...]) -> None:
        self.before = before
        """For each column the last counters of the period before."""


class KnownDecks:
    """The strings whose expiry this process has set and whose past it has read, the last used ones of them.

    Args:
        most: how many.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._known: dict[str, Known] = {}

    def get(self, name: str) -> Known | None:
        """What is known of a string."""
        return self._known.get(name)

    def learn(self, name: str, known: Known) -> None:
        """Its expiry is set, and this is its past."""
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[name] = known

    def forget(self, name: str) -> None:
        """It was removed."""
        self._known.pop(name, None)

    def __len__(self) -> int:
        return len(self._known)


class DeckTake:
    """One decision on one string: its commands, and what the replies mean.

    Args:
        deck: the form.
        key: the subject's and endpoint's key.
        costs: for each policy of the set.
        now: ms since the epoch, by the store's clock.
        known: what this process knows of strings.
        peek: count nothing.
    """

    __slots__ = (
        "_costs",
        "_deck",
        "_key",
        "_known",
        "_lanes",
        "_needs_past",
        "_new",
        "_now",
        "_peek",
        "_taken",
        "looks",
        "name",
    )

    def __init__(
        self, deck: Deck, key: str, costs: Sequence[int], now: int, known: KnownDecks, *, peek: bool = False
    ) -> None:
        self._deck = deck
        self._key = key
        self._costs = [costs[place] for place in deck.places]
        self._now = now
        self._known = known
        self._peek = peek
        self.name = deck.name(key, now)
        self._new = known.get(self.name) is None
        inside = now % deck.period
        self._needs_past = any(inside // column.slot < _behind(column) for column in deck.columns)
        self._lanes: list[tuple[int, ...]] = []
        self._taken = [False] * len(deck.columns)
        self.looks: list[tuple[float, int]] = []
        """For each column what is used, and milliseconds to wait."""

    def commands(self) -> list[Command]:
        """What to send: one command, and for a string that is new to this process its expiry and the one before."""
        words: list[Argument] = ["BITFIELD", self.name]
        if not self._peek:
            words += ("OVERFLOW", "FAIL", "SET", "u8", "0", "1")
        inside = self._now % self._deck.period
        for column, cost in zip(self._deck.columns, self._costs, strict=True):
            place = inside // column.slot
            if cost and not self._peek:
                words += ("INCRBY", column.form, str(column.at(place)), str(cost))
            else:
                words += ("GET", column.form, str(column.at(place)))
            reads, lanes = column.read(max(place - _behind(column), 0), place)
            words += reads
            self._lanes.append(lanes)
        batch: list[Command] = [tuple(words)]
        if self._new:
            if not self._peek:
                batch.append(self._expiry())
            if self._needs_past:
                batch.append(self._look_back())
        return batch

    def _look_back(self) -> Command:
        words: list[Argument] = ["BITFIELD", self._deck.name(self._key, self._now, 1)]
        for column in self._deck.columns:
            end = self._deck.period // column.slot
            words += column.read(end - _behind(column), end)[0]
        return tuple(words)

    def _expiry(self) -> Command:
        return ("PEXPIREAT", self.name, str(self._deck.expires_at(self._now)))

    def read(self, replies: Sequence[Reply]) -> list[Command]:
        """Judge the replies to `commands()`; what must be sent after it, which is nothing but for a key removed meanwhile."""
        values = _list(replies[0])
        after: list[Command] = []
        at = 0
        if not self._peek:
            if values[0] == 0 and not self._new:
                # Someone removed the key, so its expiry is gone.
                after.append(self._expiry())
            at = 1
        known = self._known.get(self.name)
        if known is None:
            known = self._past(_list(replies[-1]) if self._needs_past else [])
            if not self._peek:
                self._known.learn(self.name, known)
        inside = self._now % self._deck.period
        self._taken = []
        columns = zip(self._deck.columns, self._costs, self._lanes, known.before, strict=True)
        for column, cost, lanes, before in columns:
            value = values[at]
            earlier = column.unpack(values[at + 1 : at + 1 + len(lanes)], lanes)
            at += 1 + len(lanes)
            counted = bool(cost) and not self._peek
            self._taken.append(counted and value is not None)
            # A counter that would overflow its bits is not counted, and far beyond any limit.
            newest = column.policy.limit if value is None else _integer(value) - (cost if counted else 0)
            self.looks.append(self._look(column, cost, inside, newest, earlier, before))
        return after

    def _past(self, values: Sequence[Reply]) -> Known:
        past: list[tuple[int, ...]] = []
        at = 0
        for column in self._deck.columns:
            lanes = column.read(
                self._deck.period // column.slot - _behind(column), self._deck.period // column.slot
            )[1]
            read = column.unpack(values[at : at + len(lanes)], lanes) if values else [0] * _behind(column)
            past.append(tuple(read))
            at += len(lanes)
        return Known(tuple(past))

    def _look(
        self, column: Column, cost: int, inside: int, newest: int, earlier: list[int], before: tuple[int, ...]
    ) -> tuple[float, int]:
        policy, elapsed = column.policy, inside % column.slot
        if policy.kind == "f":
            return newest, column.slot - elapsed if cost and newest + cost > policy.limit else 0
        missing = column.slots - len(earlier)
        ring = [*before[len(before) - missing :], *earlier, newest] if missing else [*earlier, newest]
        used, wait = ring_look(ring, sum(ring) - ring[0], elapsed, column.slot, cost, policy.limit)
        return used, wait if cost else 0

    def refused(self) -> bool:
        """Whether a policy that is not only watched refuses."""
        return any(
            wait and not column.policy.shadow
            for column, (_, wait) in zip(self._deck.columns, self.looks, strict=True)
        )

    def figures(self, *, passed: bool) -> list[tuple[int, int, int]]:
        """For each column its place in the set, what remains, and milliseconds to wait."""
        rows: list[tuple[int, int, int]] = []
        columns = zip(self._deck.places, self._deck.columns, self._costs, self.looks, strict=True)
        for place, column, cost, (used, wait) in columns:
            counted = cost if passed and not wait and not self._peek else 0
            rows.append((place, max(floor(column.policy.limit - used - counted + 0.000001), 0), wait))
        return rows

    def give_back(self, *, passed: bool) -> list[Command]:
        """What undoes the counting of what did not pass: all of it, or only of the policies that are watched and refused."""
        changes = [
            -cost if taken and (wait or not passed) else 0
            for cost, taken, (_, wait) in zip(self._costs, self._taken, self.looks, strict=True)
        ]
        return self.change(changes) if any(changes) else []

    def change(self, changes: Sequence[int]) -> list[Command]:
        """Correct what this decision counted, one change for each column; nothing where its period is long over.

        Sets the expiry again: the key may have been removed meanwhile, and is then made anew.
        """
        inside = self._now % self._deck.period
        words: list[Argument] = ["BITFIELD", self.name, "SET", "u8", "0", "1"]
        for column, change in zip(self._deck.columns, changes, strict=True):
            if change:
                # More than a counter can hold counts as much as it can; taking away what is not there takes nothing.
                words += ("OVERFLOW", "SAT" if change > 0 else "FAIL")
                words += ("INCRBY", column.form, str(column.at(inside // column.slot)), str(change))
        return [tuple(words)]

    def settle(self, changes: Sequence[int], now: int) -> list[Command]:
        """As `change`, later and for changes by place in the set: skips what has left its window, and sets the expiry again."""
        # What cost nothing at first may cost something after all; what overflowed was not counted and is not corrected.
        columns = zip(self._deck.places, self._deck.columns, self._costs, self._taken, strict=True)
        mine = [
            changes[place]
            if now - self._now < column.policy.window_ms + column.slot and (taken or not cost)
            else 0
            for place, column, cost, taken in columns
        ]
        return [*self.change(mine), self._expiry()] if any(mine) else []

    def removed_meanwhile(self, reply: Reply) -> list[Command]:
        """What must follow a `give_back` whose reply tells that the key was gone: the new one needs its expiry."""
        return [self._expiry()] if isinstance(reply, list) and reply[0] == 0 else []


def _behind(column: Column) -> int:
    """How many sub-windows before the present one count."""
    return 0 if column.policy.kind == "f" else column.slots


def _list(reply: Reply) -> list[Reply]:
    if not isinstance(reply, list):
        raise ProtocolError(f"BITFIELD was answered with {reply!r:.80}")
    return reply


def _integer(reply: Reply) -> int:
    if not isinstance(reply, int):
        raise ProtocolError(f"BITFIELD was answered with {reply!r:.80}")
    return reply
