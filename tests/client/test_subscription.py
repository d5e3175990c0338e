from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from gapless.client import (
    ClientEvent,
)
from gapless.client.single import (
    Backoff,
    ConnectionLost,
    Heard,
    Hole,
    Moved,
    Reconnecting,
    Refused,
    Signal,
    Subscribed,
    Subscription,
    follow,
)


def event(position: str | None, *, retained: bool = False) -> ClientEvent:
    return ClientEvent(type="t", topic="a/b", data=None, id=f"id-{position}", position=position, retained=retained)


class Scripted:
    """A connection that hands out one script after the other; each ends with its exception."""

    def __init__(self, *scripts: Sequence[Heard | Exception]) -> None:
        self.scripts = list(scripts)
        self.after: list[str | None] = []
        self.closed = 0

    async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
        self.after.append(after)
        try:
            for item in self.scripts.pop(0):
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed += 1


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        return self.now


LOST = ConnectionLost("cut")
END = Refused("enough")


async def run(connection: Scripted, *, state: Subscription | None = None, time: Time | None = None) -> list[Signal]:
    time = time or Time()
    seen: list[Signal] = []
    backoff = Backoff(first=1, limit=8, random=lambda: 1.0)
    with pytest.raises(Refused):
        async with aclosing(
            follow(connection, subscription=state, backoff=backoff, sleep=time.sleep, clock=time.clock)
        ) as signals:
            async for signal in signals:
                seen.append(signal)  # noqa: PERF401 what was seen before the exception counts
    return seen


async def test_comes_back_and_resumes_after_the_last_event() -> None:
    connection = Scripted([Subscribed("e:5"), event("e:6"), event("e:7"), LOST], [Subscribed("e:7"), event("e:8"), END])
    seen = await run(connection)
    assert connection.after == [None, "e:7"]
    assert [s.position for s in seen if isinstance(s, ClientEvent)] == ["e:6", "e:7", "e:8"]
    assert Reconnecting("cut", 1.0) in seen
    assert connection.closed == 2


async def test_a_connection_that_ends_without_a_reason_is_made_anew() -> None:
    connection = Scripted([Subscribed("e:5")], [END])
    assert any(isinstance(signal, Reconnecting) for signal in await run(connection))


async def test_before_any_event_it_resumes_where_the_subscription_began() -> None:
    connection = Scripted([Subscribed("e:5"), LOST], [END])
    await run(connection)
    assert connection.after == [None, "e:5"]


async def test_the_server_may_move_the_cursor_past_events_of_others() -> None:
    connection = Scripted([Subscribed("e:5"), Moved("e:90"), LOST], [END])
    await run(connection)
    assert connection.after == [None, "e:90"]


async def test_what_came_before_is_not_handed_out_again() -> None:
    state = Subscription("e:5")
    connection = Scripted([Subscribed("e:5"), event("e:5"), event("e:6"), event("e:6"), event("e:7"), END])
    seen = await run(connection, state=state)
    assert [s.position for s in seen if isinstance(s, ClientEvent)] == ["e:6", "e:7"]
    assert state.repeats == 2


async def test_one_who_counts_gets_every_copy() -> None:
    state = Subscription("e:5", drop_repeats=False)
    seen = await run(Scripted([Subscribed(), event("e:6"), event("e:6"), END]), state=state)
    assert len([s for s in seen if isinstance(s, ClientEvent)]) == 2
    assert state.repeats == 1


async def test_retained_and_ephemeral_events_stand_outside_the_order() -> None:
    state = Subscription("e:5")
    connection = Scripted([Subscribed("e:5"), event("e:2", retained=True), event(None), LOST], [END])
    seen = await run(connection, state=state)
    assert len([s for s in seen if isinstance(s, ClientEvent)]) == 2
    assert connection.after == ["e:5", "e:5"]


async def test_events_of_another_epoch_are_new_whatever_their_offset() -> None:
    connection = Scripted([Subscribed(), Hole("f:1"), event("f:2"), END])
    seen = await run(connection, state=Subscription("e:500"))
    assert Hole("f:1") in seen
    assert [s.position for s in seen if isinstance(s, ClientEvent)] == ["f:2"]


async def test_an_event_whose_processing_was_cut_short_is_not_behind_the_cursor() -> None:
    state = Subscription("e:5")
    signals = follow(Scripted([event("e:6"), event("e:7")]), subscription=state)
    await anext(signals)
    assert state.cursor == "e:5"
    await anext(signals)
    assert state.cursor == "e:6"
    await signals.aclose()
    assert state.cursor == "e:6"


async def test_delays_grow_until_a_connection_has_stood() -> None:
    time = Time()
    scripts: list[list[Heard | Exception]] = [[LOST], [Subscribed(), LOST], [Subscribed(), Moved("e:1"), LOST], [LOST]]

    class Standing(Scripted):
        async def listen(self, after: str | None) -> AsyncGenerator[Heard, None]:
            async with aclosing(super().listen(after)) as heard:
                async for item in heard:
                    yield item
                    if isinstance(item, Moved):
                        time.now += 60

    # The third connection's clock has to move before it is lost, so the move is on `Moved`.
    await run(Standing(*scripts, [END]), time=time)
    assert time.slept == [1, 2, 1, 2]


async def test_where_something_may_be_missing_only_the_connection_moves_the_cursor() -> None:
    unordered = [ClientEvent(type="t", topic="t", data=n, position=f"e:{n}", ordered=False) for n in (9, 7, 8)]
    connection = Scripted([Subscribed("e:5"), *unordered, Moved("e:6"), LOST], [END])
    state = Subscription("e:7")
    seen = await run(connection, state=state)
    assert [s.data for s in seen if isinstance(s, ClientEvent)] == [9, 7, 8]
    assert connection.after == ["e:7", "e:6"]
    assert state.repeats == 0
