"""How far the worst window goes beyond the limit, in virtual time, on traces that are hard on limiters."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from redis_core.rate_limiting.algorithms import counter_for, take
from redis_core.rate_limiting.policy import Algorithm, Rule

LIMIT, WINDOW = 100, 60.0
START = 1_800_000_000.0


def bursty(seed: int = 7, minutes: int = 60) -> Iterator[float]:
    """Ten times the limit's rate for 5 to 20 s, silence for 10 to 50 s."""
    chance, now = random.Random(seed), START
    while now < START + minutes * 60:
        ends = now + chance.uniform(5, 20)
        while now < ends:
            now += chance.expovariate(10 * LIMIT / WINDOW)
            yield now
        now += chance.uniform(10, 50)


def end_burst_then_poll() -> Iterator[float]:
    """All of the limit at the end of one window of the clock, then steady asking: the worst for two-window counters."""
    for n in range(LIMIT):
        yield START + 59.9 + n * 0.0005
    for n in range(6000):
        yield START + 60.05 + n * 0.02


def admitted(
    trace: Iterator[float], algorithm: Algorithm = "sliding", burst: int | None = None
) -> list[float]:
    rate = f"{LIMIT}/min" + (f" burst {burst}" if burst else "")
    policy = Rule("r", rate, algorithm=algorithm).policy()
    counter = counter_for(policy)
    passed: list[float] = []
    for now in trace:
        if not take([counter], [policy], [1], int(now * 1_000_000))[1]:
            passed.append(now)
    return passed


def worst(times: list[float]) -> float:
    """The greatest number in any window, above the limit, in per cent of it."""
    most, first = 0, 0
    for last, now in enumerate(times):
        while times[first] <= now - WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return (most - LIMIT) / LIMIT * 100


def two_windows(trace: Iterator[float]) -> list[float]:
    """Cloudflare's counter: this window of the clock and a part of the one before."""
    passed: list[float] = []
    counts: dict[int, int] = {}
    for now in trace:
        window, inside = divmod(now, WINDOW)
        used = counts.get(int(window), 0) + counts.get(int(window) - 1, 0) * (1 - inside / WINDOW)
        if used + 1 <= LIMIT:
            counts[int(window)] = counts.get(int(window), 0) + 1
            passed.append(now)
    return passed


def test_the_sliding_window_stays_within_a_sixtieth_on_bursts() -> None:
    ours = max(worst(admitted(bursty(seed))) for seed in range(5))
    assert ours <= 100 / 60
    # The trace is a hard one: what others do goes far beyond on it.
    assert max(worst(two_windows(bursty(seed))) for seed in range(5)) > 50


def test_the_sliding_window_stays_within_a_sixtieth_at_a_window_s_end() -> None:
    assert worst(admitted(end_burst_then_poll())) <= 100 / 60
    assert worst(two_windows(end_burst_then_poll())) > 90


def test_the_sliding_window_admits_as_much_as_the_exact_log() -> None:
    log = len(admitted(bursty(), "log"))
    assert 0.97 <= len(admitted(bursty())) / log <= 1.03


def test_the_log_never_exceeds_its_limit() -> None:
    assert worst(admitted(bursty(), "log")) == 0
    assert worst(admitted(end_burst_then_poll(), "log")) == 0


def test_gcra_exceeds_its_limit_by_its_burst_at_most() -> None:
    assert worst(admitted(bursty(), "gcra", burst=25)) <= 26


def test_an_eager_client_is_not_starved() -> None:
    # A limiter that counts what it refuses lets 1 to 3 % of the limit pass.
    flood = [START + n / 25 for n in range(25 * 600)]
    passed = admitted(iter(flood))
    assert len(passed) >= 0.95 * LIMIT * 10


def test_who_keeps_to_the_limit_is_never_refused() -> None:
    below = [START + n * WINDOW / (LIMIT * 0.98) for n in range(LIMIT * 20)]
    assert len(admitted(iter(below))) == len(below)
    # At the very limit, where the next sub-window begins decides.
    even = [START + n * WINDOW / LIMIT for n in range(LIMIT * 20)]
    assert len(admitted(iter(even))) >= 0.99 * len(even)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0, 7.0, 29.0, 58.9, 59.5]), st.integers(1, 30)),
        max_size=60,
    )
)
@settings(deadline=None, derandomize=True)
def test_no_window_ever_takes_more_than_a_sixtieth_above_the_limit(bursts: list[tuple[float, int]]) -> None:
    def trace() -> Iterator[float]:
        now = START
        for gap, count in bursts:
            now += gap
            for n in range(count):
                yield now + n * 0.0001

    assert worst(sorted(admitted(trace()))) <= 100 / 60
