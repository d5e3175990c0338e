"""What waits for handlers: bounded by events and by bytes, given back where it was not handed over."""

from __future__ import annotations

import pytest

from gapless.client import ClientEvent
from gapless.client.hybrid import inbox as inbox_module
from gapless.client.hybrid.inbox import Inbox
from gapless.client.hybrid.rooms import RoomDescription, RoomMatcher, Source


class Stage:
    def __init__(self) -> None:
        self.cursors: list[str] = []
        self.drained = 0
        self.inbox = Inbox("e:0", self.cursors.append, self._drained)
        match = (Source("crm/leads/{leadId}/updated", "lead:{leadId}"),)
        self.inbox.matcher = RoomMatcher([RoomDescription(room="lead:1", match=match)])
        self.line = self.inbox.line(frozenset({"lead:1"}), lambda: None)

    def _drained(self) -> None:
        self.drained += 1

    def add(self, offset: int, data: object = None) -> None:
        self.inbox.event(
            ClientEvent(id=str(offset), type="t", topic="crm/leads/1/updated", data=data, position=f"e:{offset}")
        )

    def take(self) -> str | None:
        item = self.line.take()
        return item.id if isinstance(item, ClientEvent) else None


@pytest.mark.parametrize("data", [{"text": "x" * 600}, "x" * 600, b"x" * 600])
def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch, data: object) -> None:
    monkeypatch.setattr(inbox_module, "MOST_BYTES", 2000)
    stage = Stage()
    for offset in range(1, 4):
        stage.add(offset, data)
    assert (stage.inbox.is_full, stage.inbox.has_room) == (False, False)
    stage.add(4, data)
    assert (stage.inbox.is_full, stage.inbox.has_room) == (True, False)
    taken = []
    while stage.drained < 1:
        taken.append(stage.take())
    assert taken == ["1", "2", "3"]
    assert stage.inbox.has_room
    stage.take()
    assert (stage.inbox._waiting, stage.inbox._bytes) == (0, 0)


def test_a_subscription_that_ends_holds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MOST_BYTES", 2000)
    stage = Stage()
    other = stage.inbox.line(frozenset({"lead:1"}), lambda: None)
    for offset in range(1, 4):
        stage.add(offset, "x" * 600)
    assert stage.inbox.is_full  # both have each of them
    stage.take()
    stage.inbox.end(stage.line)
    stage.inbox.end(other)
    assert (stage.inbox._waiting, stage.inbox._bytes) == (0, 0)
    assert stage.inbox.cursor == "e:3"


def test_what_is_given_back_is_next_and_holds_the_cursor() -> None:
    stage = Stage()
    stage.add(1, "a")
    stage.add(2, "b")
    assert stage.take() == "1"
    stage.line.give_back()
    assert (len(stage.line), stage.inbox._bytes) == (2, 2)
    stage.line.finish()
    assert stage.cursors == []
    assert [stage.take(), stage.take()] == ["1", "2"]
    assert stage.cursors == ["e:1"]
    stage.line.give_back()
    stage.line.give_back()  # nothing is in hand
    assert len(stage.line) == 1


def test_two_places_in_one_log_are_two_events_also_with_one_id() -> None:
    def event(position: str | None) -> ClientEvent:
        return ClientEvent(id="same", type="t", topic="crm/leads/1/updated", data=None, position=position)

    box = Stage().inbox
    assert [box.event(event(position)) for position in ("e:1", "e:2", "e:2", None)] == [True, True, False, False]
    assert not box.event(event("another:1"))  # published anew after the log was lost
    other = Stage().inbox
    assert [other.event(event(position)) for position in (None, None, "e:1")] == [True, False, False]
