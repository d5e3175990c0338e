"""Whose stored sessions are whose, and how many each may have."""

from __future__ import annotations

import pytest

from gapless.errors import RateLimited
from gapless.limits import AddressShares, Limiter, Limits, Shares, StoredSessions

LIMITS = Limits(exempt=("10.0.0.0/8",), user=Shares(sessions=2), address=AddressShares(sessions=3))
over: set[str] = set()


@pytest.fixture
def limiter() -> Limiter:
    over.clear()
    return Limiter(LIMITS)


@pytest.fixture
def sessions(limiter: Limiter) -> StoredSessions:
    return StoredSessions(limiter, over.__contains__)


def test_users_are_counted_by_name_and_others_by_their_address(sessions: StoredSessions) -> None:
    assert sessions.owner("7", "192.0.2.1") == sessions.owner("7", "192.0.2.2")
    assert sessions.owner(None, "192.0.2.1") != sessions.owner(None, "192.0.2.2")
    assert sessions.owner(None, "2001:db8::1") == sessions.owner(None, "2001:db8::ffff:1")
    assert sessions.owner("192.0.2.1", "192.0.2.1") != sessions.owner(None, "192.0.2.1")
    assert sessions.owner(None, "10.1.2.3") == sessions.owner("7", "10.1.2.3") == sessions.owner(None, None) == ""


def test_one_more_than_the_share_is_refused_and_counted(limiter: Limiter, sessions: StoredSessions) -> None:
    for owner, scope, limit in (
        (sessions.owner("7", "1.1.1.1"), "user", 2),
        (sessions.owner(None, "1.1.1.1"), "address", 3),
    ):
        for number in range(limit):
            sessions.take(f"{scope}-{number}", owner)
        with pytest.raises(RateLimited) as caught:
            sessions.take("more", owner)
        assert caught.value.details == {"limit_of": scope, "limit": limit}
        assert sessions.count(owner) == limit
    assert limiter.refusals == {("user", "sessions"): 1, ("address", "sessions"): 1}
    sessions.take("more", "user/8")
    for number in range(9):
        sessions.take(f"nobody-{number}", "")


def test_what_has_ended_does_not_count(sessions: StoredSessions) -> None:
    sessions.take("a", "user/7")
    sessions.take("b", "user/7")
    over.add("a")  # and nobody has cleared it away yet
    sessions.take("c", "user/7")
    over.clear()
    sessions.drop("b")
    sessions.drop("b")
    assert sessions.count("user/7") == 2
    with pytest.raises(RateLimited):
        sessions.take("d", "user/7")


def test_one_that_was_there_is_never_refused_and_goes_with_its_client(sessions: StoredSessions) -> None:
    home, away = sessions.owner(None, "192.0.2.1"), sessions.owner(None, "192.0.2.2")
    for number in range(3):
        sessions.take(f"other-{number}", away)
    sessions.take("phone", home)
    sessions.take("phone", away, force=True)
    assert (sessions.count(home), sessions.count(away)) == (0, 4)
    sessions.take("phone", "", force=True)
    assert sessions.count(away) == 3


def test_0_is_no_limit() -> None:
    sessions = StoredSessions(Limiter(Limits(user=Shares(sessions=0))), over.__contains__)
    for number in range(1000):
        sessions.take(str(number), "user/7")
