from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from redis_core.measuring.histogram import Histogram, bucket_of, upper_bound

durations = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=50)


@given(st.floats(1e-6, 1e4))
def test_a_bucket_holds_what_is_up_to_its_bound_and_above_the_one_before(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound(bucket) * (1 + 1e-12)
    assert bucket == 0 or seconds > upper_bound(bucket - 1) * (1 - 1e-12)


@given(durations, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_at_most_five_percent_off(seconds: list[float], share: float) -> None:
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    told = histogram.quantile(share)
    assert told is not None
    assert abs(told / exact - 1) < 0.05


@given(durations, durations)
def test_histograms_that_are_added_up_are_the_histogram_of_all(
    first: list[float], second: list[float]
) -> None:
    parts = (Histogram(), Histogram(), Histogram())
    for each in first:
        parts[0].add(each)
    for each in second:
        parts[1].add(each)
    for each in first + second:
        parts[2].add(each)
    parts[0].merge(parts[1])
    assert parts[0].buckets == parts[2].buckets
    assert math.isclose(parts[0].sum, parts[2].sum)


def test_an_empty_histogram_has_no_percentile() -> None:
    assert Histogram().quantile(0.5) is None
