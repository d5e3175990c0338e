"""What was published to the broker and is not settled yet: pure, no I/O.

Events are published in log order, and packet identifiers are made from offsets, so that a
process that was killed gives an event the same identifier again. With the broker's session
and this state, QoS 2 is exactly once over kills of either side:

* the position says that everything up to it is settled: acknowledged, or not to be sent;
* `received` names the QoS 2 events behind it that the broker has taken over (PUBREC). It is
  stored before their PUBREL is sent. After a restart those get PUBREL, and all others PUBLISH
  with the identifier that the broker may know already.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import msgspec

from gapless.event import Record
from gapless.link.chain import Previous

PUBLISH_IDS = 65_000
"""Packet identifiers 1 to this are of events; those above are for SUBSCRIBE and the like."""


def packet_id_of(offset: int) -> int:
    """The packet identifier of the event at an offset."""
    return (offset - 1) % PUBLISH_IDS + 1


class Phase(Enum):
    """How far a publication has come (MQTT 5 §4.3)."""

    PUBLISHED = "PUBLISH sent"
    RECEIVED = "PUBREC came"
    STORED = "PUBREC is in our state: PUBREL may go"
    SETTLED = "PUBACK, PUBCOMP or a refusal came"


class Sent:
    """One publication; `size` in bytes."""

    __slots__ = ("offset", "packet_id", "phase", "previous", "qos", "record", "size")

    def __init__(
        self, offset: int, *, qos: int, size: int, record: Record, phase: Phase, previous: Previous = ()
    ) -> None:
        self.offset = offset
        self.packet_id = packet_id_of(offset)
        self.qos = qos
        self.size = size
        self.record = record
        self.phase = phase
        self.previous = previous

    @property
    def is_held(self) -> bool:
        """Whether the broker may not have handed it on, as PUBREL was not sent."""
        return self.qos == 2 and self.phase in (Phase.PUBLISHED, Phase.RECEIVED)


class PumpState(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored: see the module's text.

    Attributes:
        version: of this form.
        epoch: the log's.
        position, received: see the module's text.
        connecting: stored before a CONNECT while there are any `received`, and taken back after
            CONNACK: who finds it does not know whether the broker still has their session.
    """

    version: int = 1
    epoch: str
    position: int
    received: tuple[int, ...] = ()
    connecting: bool = False


class Flight:
    """The publications between the position and the newest event that was looked at.

    Attributes:
        scanned: every event up to it was published or skipped.
    """

    def __init__(self, position: int, received: tuple[int, ...] = ()) -> None:
        self.scanned = position
        self._taken_over = frozenset(received)
        self._entries: deque[Sent] = deque()  # by offset, rising
        self._by_packet: dict[int, Sent] = {}
        self._open: set[int] = set()  # packet ids that this connection owes an answer for
        self._held = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def position(self) -> int:
        """Everything up to this offset is settled."""
        return self._entries[0].offset - 1 if self._entries else self.scanned

    @property
    def open(self) -> int:
        """Publications that this connection owes an answer for (MQTT 5 §4.9)."""
        return len(self._open)

    @property
    def doubtful(self) -> bool:
        """Whether the broker has not said what became of something that it may have handed on.

        That is PUBACK of QoS 1, and PUBCOMP of QoS 2: on the next connection it would be published again,
        the latter where the broker has lost our session.
        """
        return any(not sent.is_held and sent.packet_id in self._open for sent in self._entries)

    def state(self, epoch: str, *, connecting: bool = False) -> PumpState:
        """What to store now."""
        received = [s.offset for s in self._entries if s.qos == 2 and s.phase is not Phase.PUBLISHED]
        received += [offset for offset in self._taken_over if offset > self.scanned]
        return PumpState(epoch=epoch, position=self.position, received=tuple(received), connecting=connecting)

    def takes(self, offset: int, *, window: int, size: int) -> bool:
        """Whether one more event may be published now; `window` in messages, `size` in bytes."""
        if not self._entries:
            return True
        first = self._entries[0].offset
        return (
            len(self._entries) < window
            and len(self._open) < window
            and self.bytes < size
            and offset - first < PUBLISH_IDS
        )

    def holds_back(self, offset: int, *, qos: int) -> bool:
        """Whether an event must wait, so that the broker hands all out in log order.

        A broker may hand a QoS 2 message on at PUBREL only, and a QoS 1 message at once (MQTT 5
        §4.3): one that follows QoS 2 messages waits until PUBREL of all of them was sent.
        """
        if qos == 2 or not self._held:
            return False
        for sent in self._entries:
            if sent.offset >= offset:
                return False
            if sent.is_held:
                return True
        return False

    def was_taken_over(self, offset: int) -> bool:
        """Whether the broker had taken this event over before a restart."""
        return offset in self._taken_over

    def forget_taken_over(self) -> None:
        """The broker's session is gone: what it had taken over is to be published again."""
        self._taken_over = frozenset()

    def skip(self, offset: int) -> None:
        """The event at `offset` is not to be published."""
        self.scanned = offset

    def add(self, record: Record, *, qos: int, size: int, previous: Previous = ()) -> Sent:
        """The event is published now."""
        sent = Sent(record.offset, qos=qos, size=size, record=record, phase=Phase.PUBLISHED, previous=previous)
        self._add(sent)
        return sent

    def add_taken_over(self, record: Record, *, previous: Previous = ()) -> Sent:
        """The event was published before a restart, and only PUBREL is missing."""
        sent = Sent(record.offset, qos=2, size=0, record=record, phase=Phase.STORED, previous=previous)
        self._add(sent)
        return sent

    def _add(self, sent: Sent) -> None:
        self.scanned = sent.offset
        self._entries.append(sent)
        self._by_packet[sent.packet_id] = sent
        self._open.add(sent.packet_id)
        self.bytes += sent.size
        self._held += sent.is_held

    def acknowledged(self, packet_id: int) -> Sent | None:
        """PUBACK came; None where it belongs to nothing of ours."""
        sent = self._by_packet.get(packet_id)
        if sent is None or sent.qos != 1 or sent.phase is not Phase.PUBLISHED:
            return None
        self._settle(sent)
        return sent

    def received(self, packet_id: int) -> Sent | None:
        """PUBREC came; None where no QoS 2 publication waits for one or has had one."""
        sent = self._by_packet.get(packet_id)
        if sent is None or sent.qos != 2 or sent.phase is Phase.SETTLED:
            return None
        if sent.phase is Phase.PUBLISHED:
            sent.phase = Phase.RECEIVED
        return sent

    def stored(self, sent: Sent) -> bool:
        """PUBREC of this publication is in the stored state; whether PUBREL is to be sent now."""
        if sent.phase is not Phase.RECEIVED:
            return False
        self._held -= 1
        sent.phase = Phase.STORED
        return True

    def refused(self, sent: Sent) -> None:
        """PUBREC refused the publication: it needs no PUBREL (MQTT 5 §4.3.3)."""
        self._settle(sent)

    def completed(self, packet_id: int) -> Sent | None:
        """PUBCOMP came; None where it belongs to nothing of ours."""
        sent = self._by_packet.get(packet_id)
        if sent is None or sent.qos != 2 or sent.phase is not Phase.STORED:
            return None
        self._settle(sent)
        return sent

    def _settle(self, sent: Sent) -> None:
        self._held -= sent.is_held
        sent.phase = Phase.SETTLED
        self._open.discard(sent.packet_id)
        entries = self._entries
        while entries and entries[0].phase is Phase.SETTLED:
            first = entries.popleft()
            self.bytes -= first.size
            if self._by_packet.get(first.packet_id) is first:
                del self._by_packet[first.packet_id]

    def to_store(self) -> list[Sent]:
        """Publications whose PUBREC is not in the stored state yet."""
        return [sent for sent in self._entries if sent.phase is Phase.RECEIVED]

    def reconnected(self, *, session_present: bool) -> list[Sent]:
        """Begin a new connection; what is to be sent again, in order (MQTT 5 §4.4).

        Those in phase PUBLISHED are published again, those in phase STORED get PUBREL. Call
        `reopen` with each as it is sent. Without the broker's session all begin anew.
        """
        self._open.clear()
        unsettled = [sent for sent in self._entries if sent.phase is not Phase.SETTLED]
        if not session_present:
            self.forget_taken_over()
            for sent in unsettled:
                sent.phase = Phase.PUBLISHED
            self._held = sum(sent.is_held for sent in unsettled)
        return [sent for sent in unsettled if sent.phase is not Phase.RECEIVED]

    def reopen(self, sent: Sent) -> None:
        """This publication is sent again now."""
        self._open.add(sent.packet_id)
