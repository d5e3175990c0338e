"""What an event and a delivery may cost on the hot paths, in calls, writes and memory: the same on every machine.

Budgets lie slightly above what was counted on Python 3.11 (later versions call less). Times are measured by
`python -m bench`; what these tests find is a change that nobody measured.
"""

from __future__ import annotations

import pytest

from gapless.transports.broadcast import Lane
from tests.guard import scenarios
from tests.guard.counting import Budget, Scenario, cost_of

NOTHING = Budget(calls=0, blocks=0.1)

# A counting socket is in the figures with its own `write`. Those of clients that come back have some slack: sessions
# are stored when their time has come, so not in each round.
BUDGETS: dict[type[Scenario], tuple[Budget, Budget]] = {
    # scenario: (one more delivery, an event besides its deliveries)
    scenarios.Middle: (NOTHING, Budget(calls=140, blocks=10)),
    scenarios.Burst: (NOTHING, Budget(calls=572, blocks=80)),
    scenarios.RestPublisher: (NOTHING, Budget(calls=405, writes=1, blocks=16)),
    scenarios.MqttPublisher: (Budget(calls=107, blocks=13), Budget(calls=108, writes=1, blocks=10)),
    scenarios.RuledMqttPublisher: (Budget(calls=113, blocks=13), Budget(calls=108, writes=1, blocks=10)),
    scenarios.SocketIoPublisher: (Budget(calls=116, blocks=12), Budget(calls=97, writes=1, blocks=6)),
    scenarios.SocketIoReaders: (Budget(calls=1, writes=1, blocks=0.1), Budget(calls=168, blocks=16)),
    scenarios.SocketIoByRing: (Budget(calls=2.1, blocks=0.1), Budget(calls=186, blocks=16)),
    scenarios.SocketIoBurst: (Budget(calls=1, writes=1, blocks=0.1), Budget(calls=750, blocks=140)),
    scenarios.MqttReaders: (Budget(calls=1, writes=1, blocks=0.1), Budget(calls=180, blocks=21)),
    scenarios.MqttQos1Readers: (Budget(calls=2, writes=1, blocks=0.1), Budget(calls=182, blocks=24)),
    scenarios.MqttRoomReaders: (Budget(calls=2, writes=1, blocks=0.1), Budget(calls=184, blocks=24)),
    scenarios.SocketIoReturners: (Budget(calls=824, writes=4, blocks=6), Budget(calls=240, blocks=130)),
    scenarios.MqttReturners: (Budget(calls=609, writes=1, blocks=2), Budget(calls=5060, blocks=1400)),
    scenarios.MqttComingBack: (Budget(calls=800, writes=1, blocks=65), Budget(calls=400, blocks=200)),
    scenarios.MqttAcknowledgements: (Budget(calls=10, blocks=0.1), Budget(calls=29, blocks=5)),
    scenarios.SseReaders: (Budget(calls=39, writes=1, blocks=0.2), Budget(calls=166, blocks=16)),
}


@pytest.mark.parametrize("scenario", BUDGETS, ids=lambda scenario: scenario.__name__)
async def test_within_the_budget(scenario: type[Scenario]) -> None:
    delivery, event = await cost_of(scenario)
    what = scenario.__name__
    BUDGETS[scenario][0].check(f"{what}, each delivery", delivery)
    BUDGETS[scenario][1].check(f"{what}, each event besides its deliveries", event)


async def test_counts_are_the_same_every_time() -> None:
    first, second = await cost_of(scenarios.SocketIoReaders), await cost_of(scenarios.SocketIoReaders)
    assert [cost.calls for cost in first] == [cost.calls for cost in second]


class Slower(scenarios.SocketIoReaders):
    """One call more for each client, as a careless change would bring."""

    async def connect(self, readers: int) -> None:
        await super().connect(readers)
        for client in self.clients:
            assert client.lane is not None
            client.lane = Lane(self.through(client.lane.write))

    @staticmethod
    def through(write: scenarios.Write) -> scenarios.Write:
        def planted(data: bytes) -> None:
            write(data)

        return planted


class Chattier(scenarios.SocketIoReaders):
    """Two writes for each client."""

    async def event(self) -> None:
        await super().event()
        for client in self.clients:
            assert client._lane is not None
            client._lane.write(b"")


class Hoarder(scenarios.SocketIoReaders):
    """Something kept for each client and event."""

    async def connect(self, readers: int) -> None:
        self.kept: list[object] = []
        await super().connect(readers)

    async def event(self) -> None:
        await super().event()
        self.kept += [[client] for client in self.clients]


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        (Slower, r"2\.00 calls, the budget is 1(?s:.*) 1\.00 Python   Slower\.through\.<locals>\.planted"),
        (Chattier, r"2\.00 calls, the budget is 1(?s:.*) 2\.00 Python   CountingSocket\.write"),
        (Hoarder, r"\d\.\d\d blocks, the budget is 0\.1"),
    ],
)
async def test_it_finds_what_is_planted(planted: type[Scenario], complaint: str) -> None:
    delivery, _ = await cost_of(planted)
    with pytest.raises(AssertionError, match=complaint):
        BUDGETS[scenarios.SocketIoReaders][0].check("planted, each delivery", delivery)
