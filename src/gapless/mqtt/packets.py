"""The control packets as immutable structs, named and ordered as in the standards (§3).

One set of structs serves 3.1.1 and 5: in 3.1.1 `properties` is None, reason codes are what
their 3.1.1 counterparts mean, and MQTT 5's "Clean Start" is "Clean Session". A packet identifier
of 0 means "none" (the standard never uses 0). Give more than two fields by keyword.

Representations show no payload and no secret.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gapless.mqtt.codes import ProtocolVersion, ReasonCode
from gapless.mqtt.properties import Properties


class Will(msgspec.Struct, frozen=True, gc=False):
    """The will of a CONNECT (MQTT 5 §3.1.2.5, §3.1.3.2 to §3.1.3.4)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None

    def __repr__(self) -> str:
        return (
            f"Will(topic={self.topic!r}, payload=<{len(self.payload)} bytes>, qos={self.qos}, "
            f"retain={self.retain}, properties={self.properties!r})"
        )


class Connect(msgspec.Struct, frozen=True, gc=False):
    """CONNECT (§3.1). `keep_alive` is in seconds, 0 is off. `client_id` may be empty."""

    client_id: str
    version: ProtocolVersion
    clean_start: bool = True
    keep_alive: int = 0
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties | None = None

    def __repr__(self) -> str:
        password = "None" if self.password is None else "'...'"
        return (
            f"Connect(client_id={self.client_id!r}, version={self.version.name}, "
            f"clean_start={self.clean_start}, keep_alive={self.keep_alive}, will={self.will!r}, "
            f"username={self.username!r}, password={password}, properties={self.properties!r})"
        )


class Connack(msgspec.Struct, frozen=True, gc=False):
    """CONNACK (§3.2)."""

    reason_code: ReasonCode = ReasonCode.SUCCESS
    session_present: bool = False
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, gc=False):
    """PUBLISH (§3.3).

    `topic` is empty only in MQTT 5 together with a topic alias. `packet_id` is 0 at QoS 0.
    """

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties | None = None

    @property
    def payload_format_violated(self) -> bool:
        """Whether the payload is announced as UTF-8 and is not (MQTT 5 §3.3.2.3.2).

        The decoder lets such packets through; the session answers with 0x99 where it wants to.
        Decodes the payload at every call.
        """
        if self.properties is None or self.properties.payload_format_indicator != 1:
            return False
        try:
            self.payload.decode("utf-8")
        except UnicodeDecodeError:
            return True
        return False

    def __repr__(self) -> str:
        return (
            f"Publish(topic={self.topic!r}, payload=<{len(self.payload)} bytes>, qos={self.qos}, "
            f"retain={self.retain}, dup={self.dup}, packet_id={self.packet_id}, "
            f"properties={self.properties!r})"
        )


class Puback(msgspec.Struct, frozen=True, gc=False):
    """PUBACK (§3.4)."""

    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class Pubrec(msgspec.Struct, frozen=True, gc=False):
    """PUBREC (§3.5)."""

    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class Pubrel(msgspec.Struct, frozen=True, gc=False):
    """PUBREL (§3.6)."""

    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class Pubcomp(msgspec.Struct, frozen=True, gc=False):
    """PUBCOMP (§3.7)."""

    packet_id: int
    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


class SubscriptionRequest(msgspec.Struct, frozen=True, gc=False):
    """One filter of a SUBSCRIBE with its options (MQTT 5 §3.8.3.1); 3.1.1 knows only `qos`.

    `retain_handling`: 0 send retained messages, 1 only if the subscription is new, 2 do not.
    """

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """SUBSCRIBE (§3.8): one or more requests, in the order of the packet."""

    packet_id: int
    subscriptions: list[SubscriptionRequest]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True, gc=False):
    """SUBACK (§3.9): one code per request, in the same order. 3.1.1 says any failure as 0x80."""

    packet_id: int
    reason_codes: list[ReasonCode]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    """UNSUBSCRIBE (§3.10): one or more filters, in the order of the packet."""

    packet_id: int
    filters: list[str]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True, gc=False):
    """UNSUBACK (§3.11): one code per filter in the same order; 3.1.1 carries none."""

    packet_id: int
    reason_codes: list[ReasonCode] = []
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True, gc=False):
    """PINGREQ (§3.12)."""


class Pingresp(msgspec.Struct, frozen=True, gc=False):
    """PINGRESP (§3.13)."""


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """DISCONNECT (§3.14). In 3.1.1 only a client sends one, without a code."""

    reason_code: ReasonCode = ReasonCode.NORMAL_DISCONNECTION
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    """AUTH (MQTT 5 §3.15)."""

    reason_code: ReasonCode = ReasonCode.SUCCESS
    properties: Properties | None = None


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
