from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gapless.client.single import Backoff


@given(
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=80),
    first=st.floats(0.01, 5),
    limit=st.floats(0.01, 60),
)
def test_each_delay_lies_between_zero_and_a_bound_that_doubles_up_to_the_limit(
    draws: list[float], first: float, limit: float
) -> None:
    numbers = iter(draws)
    backoff = Backoff(first=first, limit=limit, random=lambda: next(numbers))
    for attempt, draw in enumerate(draws):
        bound = min(limit, first * 2.0 ** min(attempt, 32))
        assert backoff.next() == bound * draw


def test_begins_again_after_a_reset() -> None:
    backoff = Backoff(first=1, limit=100, random=lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert backoff.next() == 1
