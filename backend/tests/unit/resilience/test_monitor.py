"""What is an outage, and when it is over: the pure parts, one decision at a time."""

from __future__ import annotations

import random

import pytest

from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    Kind,
    Outcome,
    ProtocolError,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    StoreUnavailable,
    error_from_reply,
)
from redis_core.resilience.breaker import Breaker
from redis_core.resilience.classify import TROUBLE, may_answer_elsewhere, only_reads, trouble_in
from redis_core.resilience.epoch import MARK_SECONDS, Epoch, Seen
from redis_core.resilience.monitor import Monitor
from redis_core.resilience.outage import State
from redis_core.resilience.throttle import Throttle


class TestClassify:
    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            ("LOADING Redis is loading the dataset in memory", Kind.UNREACHABLE),
            ("CLUSTERDOWN The cluster is down", Kind.UNREACHABLE),
            ("MASTERDOWN Link with MASTER is down", Kind.UNREACHABLE),
            ("READONLY You can't write against a read only replica.", Kind.READ_ONLY),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind.READ_ONLY),
            ("NOAUTH Authentication required.", Kind.CREDENTIALS),
            ("WRONGPASS invalid username-password pair", Kind.CREDENTIALS),
            ("ERR max requests limit exceeded", Kind.OVERLOADED),
        ],
    )
    def test_a_reply_of_a_batch_tells_of_the_store(self, reply: str, kind: Kind) -> None:
        found = trouble_in([b"OK", error_from_reply(reply), None])
        assert found is not None
        assert found.kind is kind
        assert type(found) in TROUBLE

    @pytest.mark.parametrize(
        "reply", ["WRONGTYPE no", "NOPERM no", "NOSCRIPT no", "ERR syntax error", "EXECABORT x"]
    )
    def test_a_callers_mistake_tells_nothing(self, reply: str) -> None:
        assert trouble_in([error_from_reply(reply), [b"a"], 1]) is None

    def test_of_several_the_one_that_matters_most_is_told(self) -> None:
        replies = [StoreOverloaded("a"), StoreReadOnly("b"), StoreUnavailable("c")]
        assert trouble_in(replies) is replies[2]
        assert trouble_in([*replies, CredentialsRejected("d")]) is not replies[2]

    def test_only_what_cannot_be_done_twice_is_answered_elsewhere(self) -> None:
        lost = StoreUnavailable("lost", outcome=Outcome.UNKNOWN)
        refused = StoreUnavailable("refused")
        assert may_answer_elsewhere([("INCR", "n")], refused)
        assert may_answer_elsewhere([("get", "n"), ("MGET", "a")], lost)
        assert not may_answer_elsewhere([("GET", "n"), ("INCR", "n")], lost)
        assert only_reads([])
        assert not only_reads([("EVALSHA", "x")])

    @pytest.mark.parametrize("kind", [StoreUnavailable, DeadlineExceeded, ProtocolError])
    def test_every_unreachable_error_is_trouble(self, kind: type[StoreError]) -> None:
        assert kind in TROUBLE
        assert CommandError not in TROUBLE


class TestBreaker:
    def test_three_in_a_row(self) -> None:
        breaker = Breaker()
        assert [breaker.failed(0, 5) for _ in range(3)] == [False, False, True]

    def test_an_answer_between_them_begins_the_row_again(self) -> None:
        breaker = Breaker()
        assert not any(breaker.failed(0, answered) for answered in (1, 1, 2, 2, 9, 9))

    def test_half_of_ten(self) -> None:
        breaker = Breaker()
        told = [breaker.failed(0.1 * n, n) for n in range(6)]  # each failure followed by one answer
        assert told == [False, False, False, False, False, True]

    def test_what_is_older_than_ten_seconds_is_forgotten(self) -> None:
        breaker = Breaker()
        assert not any(breaker.failed(3.0 * n, 2 * n) for n in range(50))

    def test_a_share_below_half_is_none(self) -> None:
        breaker = Breaker()
        assert not any(breaker.failed(0.01 * n, 2 * n) for n in range(100))


def state_of(monitor: Monitor) -> State:
    """Its state, read anew: a type checker takes a property for a constant between two asserts."""
    return monitor.state


class TestMonitor:
    def test_one_failure_and_a_good_probe_is_nothing(self) -> None:
        monitor = Monitor()
        monitor.call_failed(0, 10)
        assert state_of(monitor) is State.SUSPECT
        assert monitor.pause() == 0
        monitor.probed(0, None, 10)
        assert state_of(monitor) is State.HEALTHY
        assert monitor.outages == 0

    def test_a_silent_probe_decides_after_one_failure(self) -> None:
        monitor = Monitor()
        monitor.call_failed(0, 10)
        monitor.probed(0.5, Kind.UNREACHABLE, 10, silent=True)
        assert state_of(monitor) is State.DEGRADED

    def test_refused_probes_decide_together(self) -> None:
        monitor = Monitor()
        monitor.call_failed(0, 10)
        monitor.probed(0.01, Kind.UNREACHABLE, 10)
        assert state_of(monitor) is State.SUSPECT
        assert monitor.pause() < 0.02
        monitor.probed(0.02, Kind.UNREACHABLE, 10)
        assert state_of(monitor) is State.DEGRADED

    def test_a_callers_own_deadline_raises_suspicion_and_no_more(self) -> None:
        monitor = Monitor()
        for _ in range(20):
            monitor.call_failed(0, 10, counts=False)
        assert state_of(monitor) is State.SUSPECT

    @pytest.mark.parametrize("kind", [Kind.OVERLOADED, Kind.READ_ONLY, Kind.CREDENTIALS])
    def test_a_store_that_answers_anything_is_there(self, kind: Kind) -> None:
        monitor = Monitor()
        monitor.call_failed(0, 10)
        monitor.probed(0, kind, 10)
        assert state_of(monitor) is State.HEALTHY

    def test_three_good_probes_in_a_row_bring_it_back(self) -> None:
        monitor = degraded()
        for trouble in (None, None, Kind.UNREACHABLE, None, None):
            monitor.probed(1, trouble, 0)
            assert state_of(monitor) is State.DEGRADED
        monitor.probed(1, None, 0)
        assert state_of(monitor) is State.RECOVERING
        monitor.replayed(2)
        assert state_of(monitor) is State.HEALTHY

    def test_a_rejected_password_does_not_end_an_outage(self) -> None:
        monitor = degraded()
        for _ in range(9):
            monitor.probed(1, Kind.CREDENTIALS, 0)
        assert state_of(monitor) is State.DEGRADED

    def test_a_relapse_is_the_same_outage(self) -> None:
        monitor = degraded()
        began = monitor.began
        for _ in range(3):
            monitor.probed(1, None, 0)
        monitor.call_failed(2, 0)
        assert (monitor.state, monitor.outages, monitor.began) == (State.DEGRADED, 1, began)
        monitor.replayed(3)
        assert state_of(monitor) is State.DEGRADED

    def test_what_an_operator_wants_no_probe_ends(self) -> None:
        monitor = Monitor()
        monitor.force(0, True)
        for _ in range(9):
            monitor.probed(1, None, 0)
        assert state_of(monitor) is State.DEGRADED
        monitor.force(2, False)
        assert state_of(monitor) is State.DEGRADED
        for _ in range(3):
            monitor.probed(3, None, 0)
        assert state_of(monitor) is State.RECOVERING

    def test_pauses_double_with_jitter_and_stay_short(self) -> None:
        monitor = degraded(random.Random(1))
        pauses = []
        for _ in range(20):
            pauses.append(monitor.pause())
            monitor.probed(1, Kind.UNREACHABLE, 0)
        assert 0.1 <= pauses[0] <= 0.2
        assert max(pauses) <= 1.0
        assert len(set(pauses)) == len(pauses)
        assert 0 <= monitor.settle() <= 2


def degraded(draw: random.Random | None = None) -> Monitor:
    monitor = Monitor(draw)
    for _ in range(3):
        monitor.call_failed(0.5, 0)
    assert state_of(monitor) is State.DEGRADED
    assert monitor.outages == 1
    return monitor


class TestEpoch:
    def known(self) -> Epoch:
        epoch = Epoch()
        epoch.confirmed(b"e", 5, 100.0)
        return epoch

    def test_the_first_look_has_nothing_to_compare(self) -> None:
        assert not Epoch().lost(Seen(None, None), 0)

    @pytest.mark.parametrize(
        ("seen", "lost"),
        [
            (Seen(b"e", 5), False),
            (Seen(b"e", 6), False),  # a write whose answer was lost
            (Seen(None, None), True),
            (Seen(b"another", 5), True),
            (Seen(b"e", 4), True),  # an old snapshot
            (Seen(b"e", None), True),
        ],
    )
    def test_what_is_missing_or_older_is_a_loss(self, seen: Seen, lost: bool) -> None:
        assert self.known().lost(seen, 200.0) is lost

    def test_a_mark_that_has_expired_proves_nothing(self) -> None:
        assert not self.known().lost(Seen(b"e", None), 100.0 + MARK_SECONDS)


class TestThrottle:
    def test_it_is_idle_until_something_is_refused(self) -> None:
        throttle = Throttle()
        assert all(throttle.admit(n) for n in range(100))
        assert throttle.idle

    def test_a_store_that_refuses_all_is_asked_less_and_never_not_at_all(self) -> None:
        throttle = Throttle(random.Random(7))
        throttle.refused(0)
        sent = 0
        for n in range(1000):
            if throttle.admit(n * 0.01):
                sent += 1
                throttle.refused(n * 0.01)
        assert 0 < sent < 100

    def test_a_store_that_takes_two_of_three_is_hardly_throttled(self) -> None:
        throttle = Throttle(random.Random(7))
        throttle.refused(0)
        sent = 0
        for n in range(1000):
            if throttle.admit(n * 0.01):
                sent += 1
                (throttle.accepted if sent % 3 else throttle.refused)(n * 0.01)
        assert sent > 850

    def test_two_minutes_later_it_is_forgotten(self) -> None:
        throttle = Throttle()
        throttle.refused(0)
        assert throttle.admit(200.0)
        assert throttle.idle
