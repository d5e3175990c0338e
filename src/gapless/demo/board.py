"""Who received what, when and how many times: pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gapless.demo.scenario import Step

_OTHERS = 8


class Fault(msgspec.Struct, frozen=True):
    """What one client did not hear exactly once, or not in order."""

    client: str
    text: str

    def __str__(self) -> str:
        return f"{self.client} {self.text}"


class Row(msgspec.Struct, kw_only=True):
    """One event on the board.

    Attributes:
        published: when its publishing began, in seconds of any steady clock; None not yet.
        position: where it stands in the log, once known.
        received: for each client the delays after `published`, in seconds, one for each copy.
    """

    title: str
    door: str
    id: str
    type: str
    topic: str
    published: float | None = None
    position: str | None = None
    received: dict[str, list[float]]


class Board:
    """The table of the demonstration.

    Args:
        steps: the events that are expected.
        clients: who is to hear them.
    """

    def __init__(self, steps: Sequence[Step], clients: Sequence[str]) -> None:
        self.clients = tuple(clients)
        self.rows = [self._row(step.title, step.door, step.id, step.type, step.topic) for step in steps]
        self.others: list[Row] = []
        self._by_id = {row.id: row for row in self.rows}
        self._heard: dict[str, list[str]] = {client: [] for client in clients}

    def _row(self, title: str, door: str, event_id: str, event_type: str, topic: str) -> Row:
        received: dict[str, list[float]] = {client: [] for client in self.clients}
        return Row(title=title, door=door, id=event_id, type=event_type, topic=topic, received=received)

    def published(self, event_id: str, at: float) -> None:
        """Its publishing begins now."""
        self._by_id[event_id].published = at

    def received(self, client: str, event_id: str | None, at: float, *, position: str | None = None) -> bool:
        """A copy came to a client; False where the event is not one of those expected."""
        row = self._by_id.get(event_id or "")
        if row is None:
            return False
        row.received[client].append(at - (row.published if row.published is not None else at))
        row.position = row.position or position
        self._heard[client].append(row.id)
        return True

    def other(self, client: str, row: Row, delay: float) -> None:
        """A copy of an event that somebody else published; the last few are kept."""
        known = next((other for other in self.others if other.id == row.id), None)
        if known is None:
            known = self._row(row.title, row.door, row.id, row.type, row.topic)
            self.others = [*self.others[1 - _OTHERS :], known]
        known.received[client].append(delay)

    def faults(self) -> list[Fault]:
        """Everything that is not exactly once and in order."""
        found: list[Fault] = []
        for row in self.rows:
            for client, copies in row.received.items():
                if not copies:
                    found.append(Fault(client, f"did not receive {row.title!r}"))
                elif len(copies) > 1:
                    found.append(Fault(client, f"received {row.title!r} {len(copies)} times"))
        order = {row.id: index for index, row in enumerate(self.rows)}
        for client, heard in self._heard.items():
            first = [order[event_id] for event_id in dict.fromkeys(heard)]
            if first != sorted(first):
                found.append(Fault(client, "received the events in another order than they were published"))
        return found
