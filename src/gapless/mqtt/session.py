"""The state of one MQTT session, pure: a cursor, subscriptions, and what is in flight.

MQTT 5 §4.1 names what a session is. Ours has no queue of messages: what a client still has to
get is everything in the log after the session's position that its subscriptions want.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gapless.mqtt.filters import matches
from gapless.mqtt.rooms import room_of

SHARE_PREFIX = "$share/"
_TOPIC_CACHE = 512
_MAX_PACKET_ID = 65535


class Subscription(msgspec.Struct, frozen=True, array_like=True):
    """One subscription (MQTT 5 §3.8.3).

    Attributes:
        filter: as the client sent it, with `$share/{name}/` where it is a shared one; `$room/{room}` is that
            of a room.
        qos: the granted quality of service.
        identifier: the subscription identifier; 0 is none.
        bare: the client wants the bare data as payload, not the envelope.
        since: offset in the log; events up to it are not delivered through this subscription.
        retained_due: its retained messages have not all been sent yet.
    """

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int = 0
    bare: bool = False
    since: int = 0
    retained_due: bool = False

    @property
    def shared(self) -> bool:
        """Whether it is a shared subscription (MQTT 5 §4.8.2)."""
        return self.filter.startswith(SHARE_PREFIX)

    @property
    def room(self) -> str | None:
        """The room that it is a subscription to; None where its filter is one of topics."""
        return room_of(self.filter)


class Grant(msgspec.Struct, frozen=True):
    """How one event goes to one client, over all subscriptions that match: once (MQTT 5 §3.3.4).

    Attributes:
        qos: the highest granted QoS.
        retain_as_published: whether the RETAIN flag is passed on.
        identifiers: all subscription identifiers, in rising order.
        bare: whether the payload is the bare data.
    """

    qos: int
    retain_as_published: bool = False
    identifiers: tuple[int, ...] = ()
    bare: bool = False


class Sent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A QoS 1 or 2 PUBLISH that is not acknowledged: what is needed to send it again.

    The payload is in the log at `offset`. One instance serves all clients that got the event
    in the same way.

    Attributes:
        topic: set on retained messages sent at SUBSCRIBE, which may outlive the log's retention.
        share: the shared subscription it was taken from, as `{name}/{filter}`.
    """

    offset: int
    qos: int
    retain: bool = False
    identifiers: tuple[int, ...] = ()
    bare: bool = False
    topic: str | None = None
    share: str | None = None


class DeliveredWindow(msgspec.Struct, frozen=True, array_like=True):
    """What had been delivered when the cursor was taken back to send history.

    Attributes:
        filters: filter, `since` and no-local flag of each subscription of that time.
        upto: everything they wanted up to this offset was delivered.
    """

    filters: tuple[tuple[str, int, bool], ...]
    upto: int

    def covers(self, topic: str, rooms: Sequence[str], offset: int, *, own: bool) -> bool:
        """Whether the event was delivered then; `own`: the client published it itself."""
        return offset <= self.upto and any(
            offset > since and not (own and no_local) and hears(filter_, topic, rooms)
            for filter_, since, no_local in self.filters
        )


def hears(filter_: str, topic: str, rooms: Sequence[str]) -> bool:
    """Whether an event of this topic, in these rooms, is one of those that a filter (without `$share`) brings."""
    room = room_of(filter_)
    return matches(filter_, topic) if room is None else room in rooms


class WillMessage(msgspec.Struct, frozen=True, array_like=True):
    """A will as a session keeps it (MQTT 5 §3.1.2.5); delay and expiry in seconds.

    `author` says whose rights it is judged by when it is due, in the words of the edge.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay: int = 0
    expiry: int | None = None
    payload_format: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    user_id: str | None = None
    author: bytes = b""

    def __repr__(self) -> str:
        return f"WillMessage(topic={self.topic!r}, payload=<{len(self.payload)} bytes>, qos={self.qos})"


def combine(subscriptions: Iterable[Subscription]) -> Grant | None:
    """One delivery for overlapping subscriptions: the highest QoS, all identifiers [MQTT-3.3.4-2]."""
    chosen = tuple(subscriptions)
    if not chosen:
        return None
    return Grant(
        qos=max(sub.qos for sub in chosen),
        retain_as_published=any(sub.retain_as_published for sub in chosen),
        identifiers=tuple(sorted({sub.identifier for sub in chosen if sub.identifier})),
        bare=any(sub.bare for sub in chosen),
    )


class _Match:
    """The subscriptions to a topic and rooms, with the answer for events that no exception concerns."""

    __slots__ = ("grant", "plain", "since", "subscriptions")

    def __init__(self, subscriptions: tuple[Subscription, ...]) -> None:
        self.subscriptions = subscriptions
        self.grant = combine(subscriptions)
        self.since = max((sub.since for sub in subscriptions), default=0)
        self.plain = not any(sub.no_local for sub in subscriptions)


class Session:
    """The state of one client's session. No I/O; the caller stores it where it must be stored.

    Attributes:
        client_id: the client identifier.
        expiry: seconds the session outlives its connection; 0: it ends with it.
        position: offset up to which everything was sent, as of the last `stamp`.
        subscriptions: by filter.
        inflight: packet identifier → the PUBLISH not acknowledged, or None after its PUBREC
            (only PUBREL and PUBCOMP are left), in the order of sending.
        received: identifiers of QoS 2 messages taken in and not yet released by PUBREL.
        windows: see `DeliveredWindow`.
        will: to be published when the connection ends without a DISCONNECT.
        hole: position after which events were already gone, until the client has been told.
        last_packet_id: the packet identifier that `assign` gave out last; 0 before the first.
        owner: whose share of stored sessions it is counted in; empty for nobody's.
    """

    __slots__ = (
        "_cache",
        "client_id",
        "expiry",
        "hole",
        "inflight",
        "last_packet_id",
        "owner",
        "position",
        "received",
        "subscriptions",
        "will",
        "windows",
    )

    def __init__(self, client_id: str, *, position: int, expiry: int = 0) -> None:
        self.client_id = client_id
        self.expiry = expiry
        self.position = position
        self.subscriptions: dict[str, Subscription] = {}
        self.inflight: dict[int, Sent | None] = {}
        self.received: set[int] = set()
        self.windows: list[DeliveredWindow] = []
        self.will: WillMessage | None = None
        self.hole: str | None = None
        self.last_packet_id = 0
        self.owner = ""
        self._cache: dict[tuple[str, tuple[str, ...]], _Match] = {}

    @property
    def persistent(self) -> bool:
        """Whether the session outlives its connection, so that its state is stored."""
        return self.expiry > 0

    # Subscriptions

    @property
    def plain_filters(self) -> tuple[str, ...]:
        """The filters of topics that are not shared ones."""
        return tuple(name for name, sub in self.subscriptions.items() if not sub.shared and sub.room is None)

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that are subscribed to."""
        return frozenset(room for sub in self.subscriptions.values() if (room := sub.room) is not None)

    def subscribe(self, subscription: Subscription, *, position: int, history: bool = False) -> int:
        """Add or replace a subscription; a replaced one keeps its place in the log [MQTT-3.8.4-4].

        Args:
            subscription: with `since` where it begins.
            position: offset up to which the client has everything now.
            history: the client named the beginning itself: it holds for a replaced one too.

        Returns:
            The position to go on from: an older one where history is to be sent.
        """
        old = self.subscriptions.get(subscription.filter)
        if old is not None and (not history or old.since <= subscription.since <= position):
            # What lies between its old beginning and the position was delivered through it.
            subscription = msgspec.structs.replace(subscription, since=old.since)
        elif history and not subscription.shared and subscription.since < position:
            self._remember_delivered(position)
            position = subscription.since
        self.subscriptions[subscription.filter] = subscription
        self._cache.clear()
        return position

    def _remember_delivered(self, position: int) -> None:
        delivered = tuple(
            (sub.filter, sub.since, sub.no_local)
            for sub in self.subscriptions.values()
            if not sub.shared and sub.since < position
        )
        if delivered:
            self.windows.append(DeliveredWindow(delivered, position))

    def unsubscribe(self, filter_: str) -> Subscription | None:
        """Remove a subscription; what is in flight is still completed [MQTT-3.10.4-2]."""
        removed = self.subscriptions.pop(filter_, None)
        if removed is not None:
            self._cache.clear()
        return removed

    def skip_unkept(self, head: int) -> None:
        """At a resume: subscriptions at QoS 0 go on at the head, for QoS 0 is not kept for the absent."""
        for name, sub in self.subscriptions.items():
            if sub.qos == 0 and sub.since < head and not sub.shared:
                self.subscriptions[name] = msgspec.structs.replace(sub, since=head)
        self._cache.clear()

    def retained_sent(self, filter_: str) -> None:
        """The retained messages of a subscription have all been sent."""
        sub = self.subscriptions.get(filter_)
        if sub is not None and sub.retained_due:
            self.subscriptions[filter_] = msgspec.structs.replace(sub, retained_due=False)
            self._cache.clear()

    def start_of_interest(self, position: int) -> int:
        """Nothing between `position` and this offset is wanted: no subscription is that old."""
        oldest = min((sub.since for sub in self.subscriptions.values() if not sub.shared), default=None)
        return position if oldest is None else max(position, oldest)

    def passed(self, position: int) -> None:
        """Forget the windows that the cursor has left behind."""
        if self.windows:
            self.windows = [window for window in self.windows if window.upto > position]

    def grant(self, topic: str, offset: int, *, rooms: tuple[str, ...] = (), own: bool = False) -> Grant | None:
        """How an event of the log goes to this client; None where it does not.

        Args:
            rooms: those that the event is in.
            own: the client published it itself, so No Local applies [MQTT-3.8.3-3].
        """
        match = self._cache.get((topic, rooms))
        if match is None:
            match = self._match(topic, rooms)
        if offset > match.since and (match.plain or not own) and not self.windows:
            return match.grant
        if any(window.covers(topic, rooms, offset, own=own) for window in self.windows):
            return None
        return combine(sub for sub in match.subscriptions if offset > sub.since and not (own and sub.no_local))

    def _match(self, topic: str, rooms: tuple[str, ...]) -> _Match:
        if len(self._cache) >= _TOPIC_CACHE:
            self._cache.clear()
        found = tuple(sub for name, sub in self.subscriptions.items() if not sub.shared and hears(name, topic, rooms))
        match = self._cache[topic, rooms] = _Match(found)
        return match

    # Outgoing messages (MQTT 5 §4.3)

    def assign(self, sent: Sent) -> int:
        """Give a QoS 1 or 2 message a packet identifier that is not in use [MQTT-2.2.1-4].

        Raises:
            OverflowError: all 65,535 are in use; the caller's window is far smaller.
        """
        inflight = self.inflight
        packet_id = self.last_packet_id
        for _ in range(_MAX_PACKET_ID):
            packet_id = packet_id + 1 if packet_id < _MAX_PACKET_ID else 1
            if packet_id not in inflight:
                self.last_packet_id = packet_id
                inflight[packet_id] = sent
                return packet_id
        raise OverflowError("all packet identifiers are in use")

    def puback(self, packet_id: int) -> Sent | None:
        """A PUBACK came; the message that it ends, or None where none awaits one."""
        sent = self.inflight.get(packet_id)
        if sent is None or sent.qos != 1:
            return None
        del self.inflight[packet_id]
        return sent

    def pubrec(self, packet_id: int) -> bool:
        """A PUBREC came: PUBREL is to be sent [MQTT-4.3.3-4]. False where the identifier is unknown."""
        if packet_id not in self.inflight:
            return False
        sent = self.inflight[packet_id]
        if sent is not None and sent.qos != 2:
            return False
        self.inflight[packet_id] = None
        return True

    def refused(self, packet_id: int) -> Sent | None:
        """A PUBACK or PUBREC with a failure came: the message is not sent again [MQTT-4.4.0-2]."""
        sent = self.inflight.get(packet_id)
        if sent is None:
            return None
        del self.inflight[packet_id]
        return sent

    def pubcomp(self, packet_id: int) -> bool:
        """A PUBCOMP came. False where none was awaited."""
        if packet_id in self.inflight and self.inflight[packet_id] is None:
            del self.inflight[packet_id]
            return True
        return False
