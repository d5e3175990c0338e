from __future__ import annotations

import asyncio

import pytest

from gapless.auth import Identity, Leases
from gapless.auth import leases as leases_module
from gapless.errors import Forbidden, Unauthorized


class Connection:
    def __init__(self) -> None:
        self.ended: asyncio.Future[Unauthorized] = asyncio.get_running_loop().create_future()
        self.changes = 0

    def access_ended(self, error: Unauthorized) -> None:
        self.ended.set_result(error)

    def access_changed(self) -> None:
        self.changes += 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_an_expired_lease_ends_the_connection_and_no_other(clock: Clock) -> None:
    leases, one, other = Leases(clock), Connection(), Connection()
    leases.hold(Identity(user_id="7", expires=1010.0), one)
    leases.hold(Identity(user_id="8", expires=1020.0), other)
    clock.now = 1010.0
    leases.expire()
    assert one.ended.result().details == {"reason": "expired"}
    assert not other.ended.done()
    assert len(leases) == 1
    leases.close()


async def test_the_timer_ends_it_by_itself(clock: Clock) -> None:
    leases, connection = Leases(clock), Connection()
    leases.hold(Identity(expires=1000.0), connection)
    assert (await connection.ended).code == "unauthorized"
    leases.close()


async def test_a_clock_that_was_set_is_noticed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens count by the wall clock, the loop's timers by one that stands still while the machine sleeps."""
    assert leases_module.MAX_SLEEP <= 1.0
    monkeypatch.setattr(leases_module, "MAX_SLEEP", 0.01)
    leases, connection = Leases(clock), Connection()
    leases.hold(Identity(expires=5000.0), connection)
    clock.now = 5000.0
    assert (await connection.ended).code == "unauthorized"
    leases.close()


async def test_a_renewed_lease_lives_on(clock: Clock) -> None:
    leases, connection = Leases(clock), Connection()
    lease = leases.hold(Identity(user_id="7", expires=1010.0), connection)
    lease.renew(Identity(user_id="7", expires=1100.0))
    clock.now = 1050.0
    leases.expire()
    assert not connection.ended.done()
    clock.now = 1100.0
    leases.expire()
    assert connection.ended.done()
    leases.close()


async def test_a_lease_is_not_renewed_by_another_user(clock: Clock) -> None:
    lease = Leases(clock).hold(Identity(user_id="7"), Connection())
    with pytest.raises(Forbidden):
        lease.renew(Identity(user_id="8"))
    assert lease.identity.user_id == "7"


async def test_a_revocation_ends_those_it_names(clock: Clock) -> None:
    leases, one, other = Leases(clock), Connection(), Connection()
    leases.hold(Identity(user_id="7"), one)
    released = leases.hold(Identity(user_id="7"), Connection())
    leases.hold(Identity(user_id="8"), other)
    released.release()
    assert leases.end(lambda identity: identity.user_id == "7", Unauthorized("revoked")) == 1
    assert one.ended.done()
    assert not other.ended.done()
    assert leases.change(lambda identity: True) == 1
    assert other.changes == 1


async def test_stale_ends_are_not_kept(clock: Clock) -> None:
    leases = Leases(clock)
    lease = leases.hold(Identity(expires=1001.0), Connection())
    for number in range(1000):
        lease.renew(Identity(expires=1002.0 + number))
    assert len(leases._ends) <= 65
    leases.close()
