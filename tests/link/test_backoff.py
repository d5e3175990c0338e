from hypothesis import given
from hypothesis import strategies as st

from gapless.link.backoff import Backoff


def test_bounds_double_up_to_the_limit() -> None:
    backoff = Backoff(0.5, 30, lambda: 1.0)
    assert [backoff.next() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert backoff.next() == 0.5


@given(st.floats(0, 10), st.floats(0, 100), st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_every_wait_lies_between_zero_and_the_limit(first: float, limit: float, attempts: int, drawn: float) -> None:
    backoff = Backoff(first, limit, lambda: drawn)
    backoff.attempts = attempts
    assert 0 <= backoff.next() <= limit


def test_full_jitter_draws_from_zero() -> None:
    assert Backoff(10, 30, lambda: 0.0).next() == 0.0
