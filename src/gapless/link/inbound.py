"""Messages from the broker, into the log, and only then acknowledged.

Killed at any point:

* before the event is in the log: nothing was acknowledged, the broker sends it again;
* after, before PUBACK or PUBREC: the broker sends it again. With an id it is known by the log.
  Without one, at QoS 2, its packet identifier was stored in the event's own transaction. At
  QoS 1 it is known while this process lives; after a kill it is a second event, as QoS 1 allows;
* QoS 2, between PUBREC and PUBCOMP: the packet identifier stays stored until PUBREL came, and
  is removed, durably, before PUBCOMP.

What the log cannot take ends the connection, but at QoS 0. Nothing that comes after it is stored or
acknowledged either (see the log's contract): the broker sends all of it again, in its order.
"""

from __future__ import annotations

import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from gapless.errors import Forbidden, GaplessError, InvalidPayload, InvalidRequest, QuotaExceeded
from gapless.event import Record
from gapless.eventlog import EventLog, StateKind, StateWrite
from gapless.eventlog.answers import outcome
from gapless.ingress import Ingress, Publication, Reply
from gapless.link.connection import Connection
from gapless.link.errors import LinkError
from gapless.link.incoming import Reader
from gapless.link.replays import Replays, digest_of
from gapless.link.stats import Complaints, LinkStats
from gapless.mqtt import ProtocolVersion, Puback, Pubcomp, Publish, Pubrec, Pubrel, ReasonCode

logger = logging.getLogger("gapless.link.inbound")

_MOST_WAITING = 2000  # messages handed to the log and not answered, before reading stops
_MOST_BYTES = 16 << 20


class _Ack:
    """An acknowledgement that is due, in the order in which the messages came [MQTT-4.6.0-2]."""

    __slots__ = ("packet_id", "qos", "ready")

    def __init__(self, packet_id: int, qos: int) -> None:
        self.packet_id = packet_id
        self.qos = qos
        self.ready = False


class _Message(Reply):
    """A message that is handed to the log.

    Attributes:
        packet: as it came.
        due: what acknowledges it, and where: once more for each time that it came again.
        waits: whether the log has not answered.
        lost: whether the log did not take it.
    """

    __slots__ = ("_inbound", "due", "lost", "packet", "waits")

    def __init__(self, ingress: Ingress, inbound: Inbound, packet: Publish) -> None:
        super().__init__(ingress)
        self._inbound = inbound
        self.packet = packet
        self.due: list[tuple[_Ack, Connection]] = []
        self.waits = True
        self.lost = False

    def accepted(self, record: Record, *, duplicate: bool) -> None:
        """See `Reply`."""
        self.waits = False
        self._inbound.stored(self, duplicate=duplicate)

    def refused(self, error: BaseException) -> None:
        """See `Reply`."""
        self.waits = False
        self.lost = True
        self._inbound.not_stored(self, error)


class _Known(msgspec.Struct):
    """A message by its packet identifier, in case it is sent again.

    Attributes:
        message: None where it was not handed to the log, or before a restart.
        stored: whether its packet identifier is in the log's database.
    """

    digest: bytes
    message: _Message | None
    stored: bool = False


class Inbound:
    """Takes the messages of one connection after another.

    Args:
        name: the link's.
        intercept: takes a message that is no event; whether it did. It is acknowledged all the same.
        end: told, once for a connection, why the broker has to send again what it sent: only a new
            connection makes it. Nothing is taken from the present one any more.
    """

    def __init__(
        self,
        *,
        name: str,
        ingress: Ingress,
        log: EventLog,
        reader: Reader,
        replays: Replays,
        stats: LinkStats,
        intercept: Callable[[Publish], bool],
        end: Callable[[LinkError], None],
    ) -> None:
        self._name = name
        self._intercept = intercept
        self._end = end
        self._ingress = ingress
        self._log = log
        self._reader = reader
        self._replays = replays
        self._stats = stats
        self._complaints = Complaints(name)
        self._connection: Connection | None = None
        self._acks: deque[_Ack] = deque()
        self._unacknowledged: dict[int, _Known] = {}  # QoS 1, no PUBACK sent
        self._unreleased: dict[int, _Known] = {}  # QoS 2, no PUBREL seen
        self._releasing: dict[int, Future[None]] = {}  # QoS 2, being removed from the log's database
        self._must_forget = False
        self._waiting = 0
        self._waiting_bytes = 0
        self._paused = False

    # From start to end

    async def load(self) -> None:
        """Read the packet identifiers of QoS 2 messages that were not released."""
        prefix = self._key("")
        for key, value in (await self._log.all_state(StateKind.LINK_RECEIVED)).items():
            if key.startswith(prefix):
                self._unreleased[int(key[len(prefix) :])] = _Known(value, None, stored=True)

    async def attach(self, connection: Connection, *, session_present: bool) -> None:
        """Answer on this connection from now on.

        Raises:
            LogUnavailable: the log is closed or full.
        """
        if not session_present:  # the broker has forgotten: the same identifiers mean other messages now
            self._must_forget = True  # until it is done: a later connection finds the session of this one
        if self._must_forget:
            self._unacknowledged.clear()
            stored = [packet_id for packet_id, known in self._unreleased.items() if known.stored]
            stored += self._releasing
            if stored:
                writes = [StateWrite(StateKind.LINK_RECEIVED, self._key(packet_id), None) for packet_id in stored]
                await self._log.write_state(writes, durable=True)
            self._unreleased.clear()
            self._releasing.clear()
            self._must_forget = False
        self._acks = deque()
        self._paused = False
        self._connection = connection

    def cease(self) -> None:
        """Take nothing more from a connection that may still say something to others."""
        connection = self._connection
        self.detach()
        if self._paused and connection is not None:
            connection.resume()

    def detach(self) -> None:
        """The connection has ended; what the log answers from now on is remembered, not sent."""
        self._connection = None
        self._acks = deque()

    # Messages

    def publish(self, packet: Publish) -> None:
        """A PUBLISH has come."""
        self._stats.received += 1
        connection = self._connection
        if connection is None:
            self._stats.dropped_qos0 += not packet.qos
            return
        ack = None
        if packet.qos:
            ack = _Ack(packet.packet_id, packet.qos)
            self._acks.append(ack)
            if self._is_resent(packet, ack, connection):
                return
        if self._intercept(packet):
            self._settle(packet, ack)
            return
        try:
            publication = self._reader.read(packet, connection.version)
        except InvalidPayload as error:
            self._reject(packet, ack, error)
            return
        if publication is None:
            self._stats.echoes += 1
            self._settle(packet, ack)
            return
        event_id = publication.envelope.id
        if self._replays.is_replay(packet, event_id):
            self._stats.duplicates += 1
            self._settle(packet, ack)
            return
        if event_id is None:
            self._replays.note(packet)
        self._hand_in(packet, publication, ack, connection)

    def _hand_in(self, packet: Publish, publication: Publication, ack: _Ack | None, connection: Connection) -> None:
        message = _Message(self._ingress, self, packet)
        if ack is not None:
            message.due.append((ack, connection))
        state: Sequence[StateWrite] = ()
        if packet.qos:
            digest = digest_of(packet)
            if packet.qos == 2 and publication.envelope.id is None:
                state = (StateWrite(StateKind.LINK_RECEIVED, self._key(packet.packet_id), digest),)
            self._know(packet, digest, message, stored=bool(state))
        self._wait_for(message, connection)
        try:
            try:
                self._ingress.take(publication, message, state=state)
            except QuotaExceeded as error:  # sent again it would be refused again: at least it is heard
                self._complaints.warn("message not retained", packet.topic, error)
                publication.retain = False
                self._ingress.take(publication, message, state=state)
        except (InvalidRequest, Forbidden) as error:
            self._unacknowledged.pop(packet.packet_id, None)
            self._wait_no_more(message)
            self._reject(packet, ack, error)
        except Exception as error:  # told of what waits for nothing, the broker would wait for ever
            message.refused(error)

    def _know(self, packet: Publish, digest: bytes, message: _Message | None, *, stored: bool = False) -> None:
        """Remember a message by its packet identifier; one that is in the log's database stays there until PUBREL."""
        packet_id = packet.packet_id
        if packet.qos == 1:
            self._unacknowledged[packet_id] = _Known(digest, message)
        elif packet.qos == 2:
            before = self._unreleased.get(packet_id)
            self._unreleased[packet_id] = _Known(digest, message, stored or (before is not None and before.stored))

    def _reject(self, packet: Publish, ack: _Ack | None, error: GaplessError) -> None:
        """It can never be taken: the broker is not to send it again."""
        self._stats.rejected += 1
        self._complaints.warn("message refused", packet.topic, error)
        self._settle(packet, ack)

    def _settle(self, packet: Publish, ack: _Ack | None) -> None:
        """Acknowledge a message that is not handed to the log."""
        if ack is None:
            return
        if packet.qos == 2:
            self._know(packet, digest_of(packet), None)
        self._answered(ack)

    def _is_resent(self, packet: Publish, ack: _Ack, connection: Connection) -> bool:
        """Whether it is a message that we have, and have not acknowledged (§4.4); then it is answered."""
        known = (self._unacknowledged if packet.qos == 1 else self._unreleased).get(packet.packet_id)
        if known is None or known.digest != digest_of(packet) or (packet.qos == 1 and not packet.dup):
            return False
        message = known.message
        if message is not None and message.lost:
            return False
        self._stats.duplicates += 1
        if message is not None and message.waits:
            message.due.append((ack, connection))
        else:
            self._answered(ack)
        return True

    def _wait_for(self, message: _Message, connection: Connection) -> None:
        self._waiting += 1
        self._waiting_bytes += len(message.packet.payload)
        if not self._paused and (self._waiting >= _MOST_WAITING or self._waiting_bytes >= _MOST_BYTES):
            self._paused = True
            connection.pause()

    def _wait_no_more(self, message: _Message) -> None:
        self._waiting -= 1
        self._waiting_bytes -= len(message.packet.payload)
        if self._paused and self._waiting < _MOST_WAITING // 2 and self._waiting_bytes < _MOST_BYTES // 2:
            self._paused = False
            if self._connection is not None:
                self._connection.resume()

    def stored(self, message: _Message, *, duplicate: bool) -> None:
        """The log has it."""
        self._wait_no_more(message)
        if duplicate:
            self._stats.duplicates += 1
        else:
            self._stats.accepted += 1
        for ack, connection in message.due:
            if connection is self._connection:
                self._answered(ack)

    def not_stored(self, message: _Message, error: BaseException) -> None:
        """The log did not take it."""
        self._wait_no_more(message)
        self._replays.forget(message.packet)
        if not message.due:
            self._stats.dropped_qos0 += 1
            if isinstance(error, GaplessError):
                self._complaints.warn("QoS 0 message dropped", message.packet.topic, error)
        elif any(connection is self._connection for _, connection in message.due):
            self._fail(error)

    def _answered(self, ack: _Ack) -> None:
        ack.ready = True
        connection, acks = self._connection, self._acks
        while acks and acks[0].ready and connection is not None:
            first = acks.popleft()
            if first.qos == 1:
                self._unacknowledged.pop(first.packet_id, None)
                connection.send(Puback(first.packet_id))
            else:
                connection.send(Pubrec(first.packet_id))

    def _fail(self, cause: BaseException) -> None:
        """The log takes nothing now: the broker is to send it again later."""
        if not isinstance(cause, GaplessError):
            logger.error("link %s: a message could not be stored", self._name, exc_info=cause)
        reason = cause.message if isinstance(cause, GaplessError) else type(cause).__name__
        hint = "look at the gateway's log and disk"
        self._give_up(LinkError("session", f"the log cannot take messages: {reason}", hint=hint))

    def _give_up(self, error: LinkError) -> None:
        if self._connection is not None:
            self.cease()
            self._end(error)

    # QoS 2, second half

    def release(self, packet: Pubrel) -> None:
        """PUBREL has come: forget the packet identifier, then send PUBCOMP."""
        connection = self._connection
        if connection is None:
            return
        packet_id = packet.packet_id
        done = self._releasing.get(packet_id)  # PUBREL came before, on another connection
        if done is None:
            known = self._unreleased.pop(packet_id, None)
            if known is None:
                v5 = connection.version is ProtocolVersion.V5
                code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if v5 else ReasonCode.SUCCESS
                connection.send(Pubcomp(packet_id, code))
                return
            if not known.stored:
                connection.send(Pubcomp(packet_id))
                return
            write = StateWrite(StateKind.LINK_RECEIVED, self._key(packet_id), None)
            done = self._releasing[packet_id] = self._log.write_state((write,), durable=True)
            done.add_done_callback(partial(self._released, packet_id, known))
        done.add_done_callback(partial(self._complete, packet_id, connection))

    def _released(self, packet_id: int, known: _Known, done: Future[None]) -> None:
        if self._releasing.get(packet_id) is not done:
            return  # the broker has forgotten it meanwhile
        del self._releasing[packet_id]
        if outcome(done) is not None:
            self._unreleased.setdefault(packet_id, known)  # PUBREL comes again, on the next connection

    def _complete(self, packet_id: int, connection: Connection, done: Future[None]) -> None:
        if connection is not self._connection:
            return
        if outcome(done) is None:
            connection.send(Pubcomp(packet_id))
            return
        self._give_up(LinkError("session", "the log cannot take writes", hint="look at the gateway's disk"))

    def _key(self, packet_id: int | str) -> str:
        return f"{self._name}/{packet_id}"
