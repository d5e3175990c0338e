from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import ConfigError, RateLimited
from gapless.limits import FREE, AddressShares, Limiter, Limits, Rates, Shares


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


NOBODY: tuple[str, ...] = ()


def limiter(clock: Clock | None = None, **options: Any) -> Limiter:
    return Limiter(Limits(exempt=NOBODY, **options), clock=clock or Clock())


def test_a_rate_takes_a_burst_and_then_its_pace() -> None:
    clock = Clock()
    visit = limiter(clock, burst_seconds=2, connection=Rates(requests_per_second=10)).visit("192.0.2.1")
    for _ in range(20):  # two seconds' worth
        visit.check()
        visit.spend(1)
    visit.spend(1)
    with pytest.raises(RateLimited) as caught:
        visit.check()
    assert caught.value.details == {"limit_of": "connection", "retry_after": 1}
    clock.now += 0.11
    visit.check()
    clock.now += 3600
    assert visit.spend(20) == 0


def test_a_batch_beyond_the_burst_is_taken_and_waited_for_afterwards() -> None:
    clock = Clock()
    visit = limiter(clock, burst_seconds=1, connection=Rates(requests_per_second=10)).visit("192.0.2.1")
    visit.check()
    assert visit.spend(1000) == pytest.approx(99)
    clock.now += 99
    visit.check()


def test_bytes_count_beside_requests() -> None:
    visit = limiter(burst_seconds=1, connection=Rates(bytes_per_second=1000)).visit("192.0.2.1")
    assert visit.spend(1, 3000) == pytest.approx(2)
    with pytest.raises(RateLimited, match="bytes per second"):
        visit.check()


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), max_size=60))
def test_no_more_than_the_rate_and_a_burst_are_taken_in_any_time(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    visit = limiter(clock, burst_seconds=1, connection=Rates(requests_per_second=10)).visit("192.0.2.1")
    taken = 0
    for pause, count in steps:
        clock.now += pause
        try:
            visit.check()
        except RateLimited:
            continue
        visit.spend(count)
        taken += count
        # what has been taken at any moment: the time's worth, a burst, and the last batch
        assert taken <= 10 * (clock.now - 1000) + 10 + count + 1e-6


def test_users_and_addresses_share() -> None:
    rooms = limiter(user=Shares(requests_per_second=1, connections=2), burst_seconds=1)
    one, two = rooms.visit("192.0.2.1").of("ann"), rooms.visit("192.0.2.2").of("ann")
    one.spend(5)
    with pytest.raises(RateLimited) as caught:
        two.check()
    assert caught.value.details["limit_of"] == "user"
    rooms.visit("192.0.2.2").of("bob").check()


def test_connections_of_a_user() -> None:
    rooms = limiter(user=Shares(connections=2))
    visits = [rooms.visit(f"192.0.2.{number}") for number in range(3)]
    visits[0].stay("ann")
    visits[0].stay("ann")
    visits[1].stay("ann")
    with pytest.raises(RateLimited, match="connections for one user"):
        visits[2].stay("ann")
    visits[2].stay(None)
    visits[0].leave()
    visits[0].leave()
    visits[2].stay("ann")


def test_connections_of_an_address_are_answered_up_to_a_point() -> None:
    rooms = limiter(address=AddressShares(connections=2))
    visits = [rooms.visit(f"2001:db8::{number:x}") for number in range(100)]  # one /64
    entered = [visit.enter() for visit in visits]
    assert entered == [True] * 66 + [False] * 34
    with pytest.raises(RateLimited, match="connections for one address"):
        visits[2].admit()
    assert rooms.visit("2001:db8:0:1::1").enter()
    for visit in visits:
        visit.leave()
    again = rooms.visit("2001:db8::9")
    assert again.enter()
    again.admit()
    assert rooms.refusals["address", "connections"] == 35


def test_subscriptions_are_shared_and_given_back() -> None:
    rooms = limiter(user=Shares(subscriptions=10), address=AddressShares(subscriptions=15))
    one, two, other = (rooms.visit("192.0.2.1") for _ in range(3))
    one.stay("ann")
    two.stay("ann")
    one.hold(6)
    with pytest.raises(RateLimited, match="subscriptions for one user"):
        two.hold(5)
    assert two.subscriptions == 0
    two.hold(4)
    other.hold(5)
    with pytest.raises(RateLimited, match="subscriptions for one address"):
        other.hold(6)
    one.hold(1)
    two.leave()
    other.hold(14)


def test_the_exempt_are_free() -> None:
    rooms = Limiter(Limits(connection=Rates(requests_per_second=1)))
    assert rooms.visit("127.0.0.1") is FREE
    assert rooms.visit("::ffff:127.0.0.1") is FREE
    assert rooms.visit(None) is FREE
    assert rooms.visit("10.0.0.1") is not FREE
    assert FREE.spend(1e9, 1e9) == 0
    FREE.check()
    FREE.hold(10**9)
    assert FREE.of("ann") is FREE


def test_what_is_remembered_is_bounded_but_for_who_is_here() -> None:
    rooms = limiter(remembered=10)
    here = [rooms.visit(f"192.0.2.{number}") for number in range(5)]
    for visit in here:
        visit.enter()
    for number in range(1000):
        rooms.visit(f"198.51.100.{number % 256}").spend(1)
    assert len(rooms) == 10
    assert [rooms.party("address", f"192.0.2.{number}").connections for number in range(5)] == [1] * 5
    for visit in here:
        visit.leave()
    for number in range(1000):
        rooms.party("user", str(number))
    assert len(rooms) == 10


@pytest.mark.parametrize(
    "options",
    [{"exempt": ("nonsense",)}, {"user": Shares(connections=-1)}, {"burst_seconds": 0}, {"remembered": 0}],
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Limits(**options).check()
