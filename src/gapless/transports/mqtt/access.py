"""What the gate's decisions mean to MQTT clients: whose sessions are whose, rights that shrink, access that ends.

MQTT has no packet by which a server takes one subscription away. A client that loses one is therefore
disconnected (MQTT 5: 0x87, naming the filter), with the subscription gone from its session: it
comes back, goes on where it was, and finds by its SUBACK what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from gapless.auth import Gate, Identity, Verdict, review
from gapless.errors import Forbidden, Unauthorized
from gapless.event import Event
from gapless.mqtt import (
    Auth,
    MqttProtocolError,
    Packet,
    Properties,
    Publish,
    ReasonCode,
    Subscribe,
    encode,
    room_filter,
    room_of,
)
from gapless.mqtt.session import SHARE_PREFIX, Session, hears
from gapless.transports.mqtt.groups import share_key

if TYPE_CHECKING:
    from gapless.transports.mqtt.connection import Connection
    from gapless.transports.mqtt.edge import MqttEdge

logger = logging.getLogger("gapless.mqtt")

METHOD = "gapless-token"
"""The authentication method (MQTT 5 §4.12): the authentication data is the token."""
REVOKED = "gapless-revoked"
"""User property of CONNACK and DISCONNECT: a filter of the session that its client may hear no more."""
ATTEMPTS = 3
"""Times that the application is asked about one packet, whose answers are forgotten before they are looked at."""


def session_name(identity: Identity, client_id: str) -> str:
    """The name under which a client's session is kept.

    Each user has client identifiers of its own: two users may use the same one, neither takes over, resumes
    or even learns of the other's session. Anonymous clients share theirs, as the standard has it.
    """
    owner = identity.owner  # holds no "/" and no "@"
    if owner:
        return f"@{owner}/{client_id}"
    return f"@/{client_id}" if client_id.startswith("@") else client_id


def heard_by(filter_: str) -> str:
    """The filter that rights are checked for: of a shared subscription the one within."""
    return share_key(filter_).partition("/")[2] if filter_.startswith(SHARE_PREFIX) else filter_


def check_hear(gate: Gate, identity: Identity, filter_: str) -> None:
    """Whether the identity may hear what a filter (without `$share`) brings: a room, or topics.

    Raises:
        Forbidden, NotDecided: see `Gate`.
    """
    room = room_of(filter_)
    if room is None:
        gate.check_subscribe_filter(identity, filter_)
    else:
        gate.check_subscribe_room(identity, room)


def review_filters(
    gate: Gate, identity: Identity, filters: Iterable[str], *, errors: dict[str, Forbidden] | None = None
) -> Verdict:
    """What of these filters the identity may not hear, and what the application must be asked about."""
    return review(partial(check_hear, gate), identity, filters, errors=errors)


async def prepare(gate: Gate, identity: Identity, filters: Iterable[str], topics: Iterable[str] = ()) -> None:
    """Get the application's decisions on filters to hear, and on topics to publish to."""
    rooms, of_topics = [], []
    for each in filters:
        room = room_of(each)
        if room is None:
            of_topics.append(each)
        else:
            rooms.append(room)
    await gate.prepare(identity, rooms=rooms, filters=of_topics, topics=topics)


# A session that is taken up again


async def review_session(edge: MqttEdge, identity: Identity, session: Session) -> list[str]:
    """Drop from a stored session what the identity may hear no more; returns the filters."""
    filters = list(dict.fromkeys(heard_by(name) for name in session.subscriptions))
    await prepare(edge.gate, identity, filters)
    denied, undecided = review_filters(edge.gate, identity, filters)
    lost = {*denied, *undecided}
    names = [name for name in session.subscriptions if heard_by(name) in lost]
    _drop(edge, session, names)
    return names


def _drop(edge: MqttEdge, session: Session, names: Iterable[str]) -> None:
    for name in names:
        session.unsubscribe(name)
        if not name.startswith(SHARE_PREFIX):
            continue
        key = share_key(name)
        edge.groups.leave(key, session.client_id, ended=True)  # what it had not acknowledged goes to others
        for packet_id, sent in list(session.inflight.items()):
            if sent is not None and sent.share == key:
                del session.inflight[packet_id]


def may_hear_again(connection: Connection, event: Event) -> bool:
    """Whether a message that was in flight may be sent again.

    It may where a filter of the session, all of which were looked at, covers it. Its client may also have
    unsubscribed since [MQTT-3.10.4-2]: then its topic and its rooms are looked at by themselves.
    """
    if any(hears(heard_by(name), event.topic, event.rooms) for name in connection.reader.session.subscriptions):
        return True
    gate, ways = connection.edge.gate, (event.topic, *map(room_filter, event.rooms))
    denied, undecided = review_filters(gate, connection.identity, ways)
    return len(denied) + len(undecided) < len(ways)


# A connected client


def review_connection(connection: Connection) -> None:
    """Look again at what a connected client hears.

    Where the application must be asked, the client is sent nothing until it has answered.
    """
    denied, undecided = _review(connection)
    if denied:
        _revoke(connection, denied)
    elif undecided and not connection.reviewing:
        connection.reviewing = True
        connection.reader.pause()
        connection.edge.tasks.spawn(_ask(connection), "mqtt-review")


def _review(connection: Connection) -> Verdict:
    return review_filters(connection.edge.gate, connection.identity, _heard(connection))


def _heard(connection: Connection) -> list[str]:
    return list(dict.fromkeys(heard_by(name) for name in connection.reader.session.subscriptions))


async def _ask(connection: Connection) -> None:
    identity = None
    while identity is not connection.identity:  # a fresh token may have come meanwhile, of which others are asked
        identity = connection.identity
        await prepare(connection.edge.gate, identity, _heard(connection))
    connection.reviewing = False
    if not connection.is_open:
        return
    denied, undecided = _review(connection)
    if denied or undecided:
        _revoke(connection, denied + undecided)
    else:
        connection.review_passed()


def _revoke(connection: Connection, filters: list[str]) -> None:
    edge, reader = connection.edge, connection.reader
    lost = set(filters)
    names = [name for name in reader.session.subscriptions if heard_by(name) in lost]
    for name in names:
        if name.startswith(SHARE_PREFIX):
            reader.groups = tuple(group for group in reader.groups if group.key != share_key(name))
        else:
            edge.fanout.remove(reader, name)
    _drop(edge, reader.session, names)
    edge.stats.revoked += len(names)
    logger.info("client %r may hear %d of its filters no more", connection.client_id, len(names))
    text = "you may hear no more what you are subscribed to"
    connection.end(ReasonCode.NOT_AUTHORIZED, text, [(REVOKED, name) for name in names])


def end_access(connection: Connection, error: Unauthorized) -> None:
    """The token has ended: say so and close. A persistent session stays for a fresh one.

    0xA0 (Maximum connect time) says that a token has expired, 0x87 that it was revoked (§3.14.2.1). The will
    is published where the token has merely expired; who was shut out does not speak once more.
    """
    expired = error.details.get("reason") == "expired"
    reason = ReasonCode.MAXIMUM_CONNECT_TIME if expired else ReasonCode.NOT_AUTHORIZED
    connection.end(reason, error.message, will=expired)


# A fresh token on a live connection (MQTT 5 §4.12.1)


def reauthenticate(connection: Connection, packet: Auth) -> None:
    """Take an AUTH.

    Raises:
        MqttProtocolError: no method was agreed at CONNECT, or it is another one, or out of turn.
    """
    properties = packet.properties or Properties()
    if connection.method is None:
        raise MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "no authentication method was agreed")
    if packet.reason_code is not ReasonCode.REAUTHENTICATE or connection.authenticating:
        raise MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "an AUTH out of turn: this method takes one step")
    if properties.authentication_method != connection.method:
        raise MqttProtocolError(ReasonCode.PROTOCOL_ERROR, "another authentication method than in CONNECT")
    connection.authenticating = True
    connection.edge.tasks.spawn(_renew(connection, properties.authentication_data), "mqtt-reauthenticate")


async def _renew(connection: Connection, data: bytes | None) -> None:
    try:
        identity = await connection.edge.gate.authenticate(connection.credentials(data))
        if not connection.is_open:
            return
        connection.renew(identity)
    except (Unauthorized, Forbidden) as error:  # [MQTT-4.12.1-2]
        if connection.is_open:
            connection.end(ReasonCode.NOT_AUTHORIZED, error.message)
        return
    finally:
        connection.authenticating = False
    answer = Auth(ReasonCode.SUCCESS, Properties(authentication_method=connection.method))
    connection.output.send(encode(answer, connection.version))
    review_connection(connection)


# Packets that wait for the application


async def decide(connection: Connection, packets: Iterable[Packet]) -> None:
    """Get the application's decisions on packets that wait."""
    topics: dict[str, None] = {}
    filters: dict[str, None] = {}
    for packet in packets:
        match packet:
            case Publish():
                topics[connection.inbound.known_topic(packet)] = None
            case Subscribe():
                filters.update((heard_by(request.filter), None) for request in packet.subscriptions)
            case _:
                pass
    await prepare(connection.edge.gate, connection.identity, filters, [name for name in topics if name])
