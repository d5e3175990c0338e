"""SUBSCRIBE and UNSUBSCRIBE: what is granted, from where in the log, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gapless.errors import Forbidden, GaplessError, InvalidPosition, InvalidTopic, NotDecided, RateLimited, UnknownRoom
from gapless.event import Position, Record
from gapless.mqtt import (
    Properties,
    ProtocolVersion,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    check_room_filter,
    is_room_filter,
    validate_filter,
)
from gapless.mqtt.session import Subscription
from gapless.transports.mqtt.access import check_hear, heard_by, review_filters
from gapless.transports.mqtt.forms import INCOMPLETE
from gapless.transports.mqtt.groups import share_key
from gapless.transports.mqtt.output import encode_fitting

if TYPE_CHECKING:
    from gapless.transports.mqtt.connection import Connection

PAYLOAD = "gapless-payload"
"""User property of CONNECT or SUBSCRIBE: `data` asks for the bare data as payload."""
START = "gapless-start"
"""User property of SUBSCRIBE: the position after which the subscription begins."""
POSITION = "gapless-position"
"""User property of SUBACK: up to this position the client has, or did not ask for, all that its
filters match; what comes later is delivered. From here it can go on elsewhere, also where it
heard nothing. Absent where that is not known: shared subscriptions, and while messages of an
earlier connection are still to be sent again."""


DENIAL = 10
"""As how many requests a filter counts that is denied: the gate looks at all that it covers, and keeps nothing."""


class _Wish(NamedTuple):
    """What the user properties of a SUBSCRIBE ask for.

    Attributes:
        start: offset to begin after; None begins now.
        hole: the position that was asked for, where not all after it is in the log.
    """

    bare: bool
    start: int | None
    hole: str | None


class _NotSupported(Exception):
    """A filter asks for what there is not for rooms."""

    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def wants_bare(properties: Properties | None) -> bool:
    """Whether a CONNECT or SUBSCRIBE asks for the bare data."""
    return properties is not None and (PAYLOAD, "data") in properties.user_properties


def subscribe(connection: Connection, packet: Subscribe) -> None:
    """Take a SUBSCRIBE; SUBACK goes out once a persistent session is stored, then what it gets.

    Raises:
        NotDecided: the application must be asked about a filter first; nothing was done.
    """
    reader, hub = connection.reader, connection.edge.hub
    denied: dict[str, Forbidden] | None = None
    if not connection.inbound.final:
        filters = dict.fromkeys(heard_by(request.filter) for request in packet.subscriptions)
        denied = {}
        if review_filters(connection.edge.gate, connection.identity, filters, errors=denied).undecided:
            raise NotDecided("the application is to be asked first")
    try:
        wish = _wish(connection, packet.properties)
    except InvalidPosition as error:
        codes = [ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR] * len(packet.subscriptions)
        suback = _encode_suback(connection, packet, codes, Properties(reason_string=error.message))
        _answer(connection, suback)
        return
    identifier = 0
    if packet.properties is not None and packet.properties.subscription_identifiers:
        identifier = packet.properties.subscription_identifiers[0]
    codes = []
    refusals: list[str] = []
    retained: dict[str, list[Record]] = {}  # of a filter that is named twice, once
    position = reader.where
    place = hub.head if wish.start is None else wish.start
    begins: int | None = None
    for request in packet.subscriptions:
        code, refusal = _check(connection, request, denied)
        codes.append(code)
        if code.is_failure:
            refusals += [refusal] if refusal else []
            continue
        subscription = Subscription(
            filter=request.filter,
            qos=request.qos,
            no_local=request.no_local,
            retain_as_published=request.retain_as_published,
            identifier=identifier,
            bare=wish.bare or connection.bare,
            since=place,
        )
        if not subscription.shared:
            replaced = wish.start is None and request.filter in reader.session.subscriptions
            begins = min(place if begins is None else begins, reader.where if replaced else place)
        position = _add(connection, subscription, request, position, retained, history=wish.start is not None)
    connection.visit.spend(DENIAL * codes.count(ReasonCode.NOT_AUTHORIZED))
    granted_filters = [
        request.filter for request, code in zip(packet.subscriptions, codes, strict=True) if not code.is_failure
    ]
    connection.edge.subscriptions_changed(connection, granted_filters)
    reader.step_back(position)
    hole = [(INCOMPLETE, wish.hole)] if wish.hole is not None else []
    known = [(POSITION, hub.position(begins))] if begins is not None and not reader.sending_again else []
    offers = [Properties(user_properties=pairs) for pairs in (hole + known, hole) if pairs]
    if refusals:
        told = Properties(reason_string="; ".join(refusals)[:500], user_properties=hole + known)
        offers.insert(0, told)
    suback = _encode_suback(connection, packet, codes, *offers)
    if wish.hole is not None and INCOMPLETE.encode() not in suback and reader.session.hole is None:
        reader.session.hole = wish.hole  # told with the next PUBLISH instead

    batches = [(reader.session.subscriptions[filter_], records) for filter_, records in retained.items()]

    def granted() -> None:
        _answer(connection, suback)
        for subscription, records in batches:
            reader.add_retained(subscription, records, place=place)

    _store_then(connection, granted)


def _encode_suback(connection: Connection, packet: Subscribe, codes: list[ReasonCode], *offers: Properties) -> bytes:
    """SUBACK with the first of the offered properties that fits: with none where the client wants none
    [MQTT-3.1.2-29] or could not take so large a packet [MQTT-3.9.2-1, MQTT-3.9.2-2]."""
    answers = [Suback(packet.packet_id, codes, each) for each in offers] if connection.explain else []
    return encode_fitting([*answers, Suback(packet.packet_id, codes)], connection.version, connection.reader.max_packet)


def _answer(connection: Connection, answer: bytes) -> None:
    """Send SUBACK or UNSUBACK; a client that cannot take even the reason codes is disconnected [MQTT-3.1.2-24]."""
    if answer:
        connection.output.send(answer)
    else:
        connection.close_with(ReasonCode.PACKET_TOO_LARGE)


def _store_then(connection: Connection, then: Callable[[], None]) -> None:
    reader = connection.reader
    if reader.session.persistent:
        reader.hold(connection.edge.sessions.store(reader, durable=False), then)
    else:
        then()
        reader.go_on()


def _wish(connection: Connection, properties: Properties | None) -> _Wish:
    if properties is None or connection.version is not ProtocolVersion.V5:
        return _Wish(False, None, None)
    asked = next((value for name, value in properties.user_properties if name == START), None)
    if asked is None:
        return _Wish(wants_bare(properties), None, None)
    hub = connection.edge.hub
    cursor = hub.cursor_at(Position.parse(asked))
    if cursor.complete:
        return _Wish(wants_bare(properties), min(cursor.position, hub.head), None)
    connection.edge.stats.incomplete += 1
    oldest = min(connection.edge.log.oldest - 1, hub.head)
    return _Wish(wants_bare(properties), max(cursor.position, oldest), asked)


def _check(
    connection: Connection, request: SubscriptionRequest, denied: dict[str, Forbidden] | None
) -> tuple[ReasonCode, str]:
    """What is granted; where that is nothing, perhaps why. The gate is asked where `denied` does not tell all."""
    options = connection.edge.options
    subscriptions = connection.reader.session.subscriptions
    plain = heard_by(request.filter)
    try:
        if is_room_filter(plain):
            _check_room(connection, request.filter, plain)
        else:
            validate_filter(plain, max_levels=options.topic_levels, max_bytes=options.topic_bytes)
        if denied is None:
            check_hear(connection.edge.gate, connection.identity, plain)
        elif plain in denied:
            raise denied[plain]
    except _NotSupported as error:
        return error.reason, str(error)
    except InvalidTopic:
        return ReasonCode.TOPIC_FILTER_INVALID, ""
    except UnknownRoom as error:
        return ReasonCode.TOPIC_FILTER_INVALID, error.explained
    except GaplessError as error:
        return ReasonCode.NOT_AUTHORIZED, error.explained
    if request.filter not in subscriptions:
        if len(subscriptions) >= options.max_subscriptions:
            return ReasonCode.QUOTA_EXCEEDED, ""
        try:
            connection.visit.hold(len(subscriptions) + 1)
        except RateLimited:
            return ReasonCode.QUOTA_EXCEEDED, ""
    return ReasonCode(request.qos), ""


def _check_room(connection: Connection, filter_: str, plain: str) -> None:
    """Refuse a room's filter that stands for no room, or for more than one, or is shared.

    Raises:
        _NotSupported, InvalidTopic, UnknownRoom: see there.
    """
    if plain is not filter_:
        text = "rooms are not shared: share topic filters"
        raise _NotSupported(ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, text)
    if "+" in plain.split("/") or plain.endswith("/#"):
        text = "a filter stands for one room: '+' and '#' in its name are written %2B and %23"
        raise _NotSupported(ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED, text)
    connection.edge.ingress.topic_map.check_room(check_room_filter(plain))


def _add(
    connection: Connection,
    subscription: Subscription,
    request: SubscriptionRequest,
    position: int,
    retained: dict[str, list[Record]],
    *,
    history: bool,
) -> int:
    """Add one, and the retained messages to be sent for it; gives the position to go on from."""
    edge, reader = connection.edge, connection.reader
    session = reader.session
    new = subscription.filter not in session.subscriptions
    if not subscription.shared and (request.retain_handling == 0 or (request.retain_handling == 1 and new)):
        records = retained.get(request.filter)
        if records is None:
            records = retained[request.filter] = [
                record
                for record in reader.retained_of(subscription)
                if not history or record.offset <= subscription.since
            ]
        subscription = msgspec.structs.replace(subscription, retained_due=bool(records))
    position = session.subscribe(subscription, position=position, history=history)
    if subscription.shared:
        key = share_key(subscription.filter)
        group = edge.groups.add(key, position=subscription.since)
        group.enter(session.client_id, subscription, persistent=session.persistent)
        group.connect(reader)
        if group not in reader.groups:
            reader.groups += (group,)
    else:
        edge.fanout.add(reader, session.subscriptions[subscription.filter])
    return position


def unsubscribe(connection: Connection, packet: Unsubscribe) -> None:
    """Take an UNSUBSCRIBE; UNSUBACK goes out once a persistent session is stored."""
    reader, edge = connection.reader, connection.edge
    codes = []
    for filter_ in packet.filters:
        removed = reader.session.unsubscribe(filter_)
        codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED if removed is None else ReasonCode.SUCCESS)
        if removed is None:
            continue
        if removed.shared:
            key = share_key(filter_)
            edge.groups.leave(key, reader.client_id, ended=False)
            reader.groups = tuple(group for group in reader.groups if group.key != key)
        else:
            edge.fanout.remove(reader, filter_)
            reader.drop_retained(filter_)
    edge.subscriptions_changed(connection, packet.filters)
    connection.visit.hold(len(reader.session.subscriptions))
    reader.step_back(reader.where)
    unsuback = encode_fitting([Unsuback(packet.packet_id, codes)], connection.version, reader.max_packet)
    _store_then(connection, lambda: _answer(connection, unsuback))
