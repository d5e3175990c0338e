"""Hypothesis strategies for every packet, in both versions, as either side may send it."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
    codes,
)
from gapless.mqtt.properties import ALLOWED, FIELDS, PropertyContext

V5 = ProtocolVersion.V5

#: For every property test here: the same examples in every run, and no deadline on a busy machine.
repeatable = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
strings = st.text(characters, max_size=12)
binaries = st.binary(max_size=20)
packet_ids = st.integers(1, 0xFFFF)
qualities = st.integers(0, 2)
levels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#/"), max_size=4)
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(bool)


@st.composite
def plain_filters(draw: st.DrawFn) -> str:
    """A valid filter without `$share`."""
    parts = draw(st.lists(st.one_of(levels, st.just("+")), min_size=1, max_size=5))
    if draw(st.booleans()):
        parts.append("#")
    joined = "/".join(parts)
    return "x" if not joined or joined.startswith("$share") else joined


filters = st.one_of(
    plain_filters(),
    st.builds(lambda group, inner: f"$share/{group or 'g'}/{inner}", levels, plain_filters()),
)

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "payload_format_indicator": st.integers(0, 1),
    "message_expiry_interval": st.integers(0, 0xFFFFFFFF),
    "content_type": strings,
    "response_topic": topics,
    "correlation_data": binaries,
    "session_expiry_interval": st.integers(0, 0xFFFFFFFF),
    "assigned_client_identifier": strings,
    "server_keep_alive": st.integers(0, 0xFFFF),
    "authentication_method": strings,
    "authentication_data": binaries,
    "request_problem_information": st.booleans(),
    "will_delay_interval": st.integers(0, 0xFFFFFFFF),
    "request_response_information": st.booleans(),
    "response_information": strings,
    "server_reference": strings,
    "reason_string": strings,
    "receive_maximum": st.integers(1, 0xFFFF),
    "topic_alias_maximum": st.integers(0, 0xFFFF),
    "topic_alias": st.integers(1, 0xFFFF),
    "maximum_qos": st.integers(0, 1),
    "retain_available": st.booleans(),
    "user_properties": st.lists(st.tuples(strings, strings), min_size=1, max_size=3),
    "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
    "wildcard_subscription_available": st.booleans(),
    "subscription_identifier_available": st.booleans(),
    "shared_subscription_available": st.booleans(),
}


def property_names(context: PropertyContext) -> list[str]:
    """The fields that packets of `context` may have, by the table of §2.2.2.2."""
    return [FIELDS[identifier][0] for identifier in sorted(ALLOWED[context])]


@st.composite
def properties(draw: st.DrawFn, context: PropertyContext) -> Properties | None:
    """None, or properties that packets of `context` may have; never empty."""
    names = draw(st.lists(st.sampled_from(property_names(context)), unique=True, max_size=6))
    values: dict[str, Any] = {}
    for name in names:
        if name == "subscription_identifiers":
            most = 1 if context is PropertyContext.SUBSCRIBE else 3
            values[name] = draw(st.lists(st.integers(1, 268_435_455), min_size=1, max_size=most))
        else:
            values[name] = draw(_VALUES[name])
    if "authentication_data" in values:
        values.setdefault("authentication_method", "SCRAM-SHA-256")
    return Properties(**values) if values else None


def _properties(version: ProtocolVersion, context: PropertyContext) -> st.SearchStrategy[Properties | None]:
    return properties(context) if version is V5 else st.none()


def _codes(table: dict[int, ReasonCode]) -> st.SearchStrategy[ReasonCode]:
    return st.sampled_from(sorted(table.values()))


def wills(version: ProtocolVersion) -> st.SearchStrategy[Will]:
    return st.builds(
        Will,
        topic=topics,
        payload=binaries,
        qos=qualities,
        retain=st.booleans(),
        properties=_properties(version, PropertyContext.WILL),
    )


@st.composite
def connects(draw: st.DrawFn, version: ProtocolVersion) -> Connect:
    username = draw(st.none() | strings)
    client_id = draw(strings)
    return Connect(
        client_id=client_id,
        version=version,
        clean_start=True if not client_id else draw(st.booleans()),
        keep_alive=draw(st.integers(0, 0xFFFF)),
        will=draw(st.none() | wills(version)),
        username=username,
        password=draw(st.none() | binaries) if version is V5 or username is not None else None,
        properties=draw(_properties(version, PropertyContext.CONNECT)),
    )


@st.composite
def publishes(draw: st.DrawFn, version: ProtocolVersion, context: PropertyContext) -> Publish:
    qos = draw(qualities)
    carried = draw(_properties(version, context))
    with_alias = carried is not None and carried.topic_alias is not None
    return Publish(
        topic=draw(topics | st.just("")) if with_alias else draw(topics),
        payload=draw(st.binary(max_size=300)),
        qos=qos,
        retain=draw(st.booleans()),
        dup=bool(qos) and draw(st.booleans()),
        packet_id=draw(packet_ids) if qos else 0,
        properties=carried,
    )


@st.composite
def subscriptions(draw: st.DrawFn, version: ProtocolVersion) -> SubscriptionRequest:
    name = draw(filters)
    if version is not V5:
        return SubscriptionRequest(name, draw(qualities))
    return SubscriptionRequest(
        filter=name,
        qos=draw(qualities),
        no_local=not name.startswith("$share/") and draw(st.booleans()),
        retain_as_published=draw(st.booleans()),
        retain_handling=draw(qualities),
    )


def acks(version: ProtocolVersion) -> st.SearchStrategy[Packet]:
    success = {0: ReasonCode.SUCCESS}
    received = codes.PUBACK_CODES if version is V5 else success
    released = codes.PUBREL_CODES if version is V5 else success
    return st.one_of(
        *(
            st.builds(kind, packet_ids, _codes(table), _properties(version, context))
            for kind, table, context in (
                (Puback, received, PropertyContext.PUBACK),
                (Pubrec, received, PropertyContext.PUBREC),
                (Pubrel, released, PropertyContext.PUBREL),
                (Pubcomp, released, PropertyContext.PUBCOMP),
            )
        )
    )


@st.composite
def auths(draw: st.DrawFn, *, by_client: bool) -> Auth:
    carried = draw(properties(PropertyContext.AUTH))
    table = codes.CLIENT_AUTH_CODES if by_client else codes.SERVER_AUTH_CODES
    code = draw(_codes(table))
    if code is not ReasonCode.SUCCESS and (carried is None or carried.authentication_method is None):
        carried = Properties(authentication_method="SCRAM-SHA-256")
    return Auth(code, carried)


def disconnects(version: ProtocolVersion, *, by_client: bool) -> st.SearchStrategy[Disconnect]:
    if version is not V5:
        return st.just(Disconnect())
    if by_client:
        context, table = PropertyContext.DISCONNECT_BY_CLIENT, codes.CLIENT_DISCONNECT_CODES
    else:
        context, table = PropertyContext.DISCONNECT_BY_SERVER, codes.SERVER_DISCONNECT_CODES
    return st.builds(Disconnect, _codes(table), properties(context))


def client_packets(version: ProtocolVersion) -> st.SearchStrategy[Packet]:
    """What a client sends after its CONNECT."""
    kinds: list[st.SearchStrategy[Packet]] = [
        publishes(version, PropertyContext.PUBLISH_BY_CLIENT),
        acks(version),
        st.builds(
            Subscribe,
            packet_ids,
            st.lists(subscriptions(version), min_size=1, max_size=3),
            _properties(version, PropertyContext.SUBSCRIBE),
        ),
        st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(filters, min_size=1, max_size=3),
            _properties(version, PropertyContext.UNSUBSCRIBE),
        ),
        st.just(Pingreq()),
        disconnects(version, by_client=True),
    ]
    return st.one_of(*kinds, auths(by_client=True)) if version is V5 else st.one_of(*kinds)


@st.composite
def connacks(draw: st.DrawFn, version: ProtocolVersion) -> Connack:
    table = codes.CONNACK_CODES if version is V5 else codes.REASON_OF_RETURN_CODE_311
    code = draw(_codes(table))
    present = code is ReasonCode.SUCCESS and draw(st.booleans())
    return Connack(code, present, draw(_properties(version, PropertyContext.CONNACK)))


def server_packets(version: ProtocolVersion) -> st.SearchStrategy[Packet]:
    """What a server sends after its CONNACK."""
    granted = codes.SUBACK_CODES if version is V5 else codes.SUBACK_CODES_311
    done = st.lists(_codes(codes.UNSUBACK_CODES), min_size=1, max_size=3)
    kinds: list[st.SearchStrategy[Packet]] = [
        publishes(version, PropertyContext.PUBLISH_BY_SERVER),
        acks(version),
        st.builds(
            Suback,
            packet_ids,
            st.lists(_codes(granted), min_size=1, max_size=3),
            _properties(version, PropertyContext.SUBACK),
        ),
        st.builds(
            Unsuback,
            packet_ids,
            done if version is V5 else st.just([]),
            _properties(version, PropertyContext.UNSUBACK),
        ),
        st.just(Pingresp()),
    ]
    if version is V5:
        kinds += [disconnects(version, by_client=False), auths(by_client=False)]
    return st.one_of(*kinds)


def conversations(version: ProtocolVersion, role: Literal["server", "client"]) -> st.SearchStrategy[list[Packet]]:
    """A handshake packet and up to five more, as the listener in `role` hears them."""
    first: st.SearchStrategy[Packet] = connects(version) if role == "server" else connacks(version)
    rest = client_packets(version) if role == "server" else server_packets(version)
    return st.builds(lambda head, tail: [head, *tail], first, st.lists(rest, max_size=5))
