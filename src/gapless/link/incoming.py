"""What a message from the broker is: a publication, or one of our own that comes back."""

from __future__ import annotations

import re
import time as _time
from collections.abc import Callable

from gapless.envelope import Envelope, named_user, read_payload
from gapless.errors import Forbidden, InvalidPosition
from gapless.event import MqttMessage, Origin, Position, parse_time
from gapless.hub import Hub
from gapless.ingress import Publication
from gapless.link.echoes import Echoes
from gapless.link.outgoing import ID, OUR_PROPERTIES, POSITION, TIME, TYPE
from gapless.mqtt import Properties, ProtocolVersion, Publish

_POSITION_IN_JSON = re.compile(rb'"position"\s*:\s*"([A-Za-z0-9]{1,32}:[0-9]{1,19})"')


class Reader:
    """Reads messages of one broker.

    Args:
        link: name of the link, the events' origin.
        allow: raises `Forbidden` where the broker's messages may not come in to a topic.
        believe_users: whether a message may name its event's user.
        own_status: whether a message is the link's own `online` or `offline`.
        oldest: offset of the oldest event that the log keeps.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        link: str,
        hub: Hub,
        echoes: Echoes,
        allow: Callable[[str], None],
        believe_users: bool,
        own_status: Callable[[str, Envelope], bool],
        oldest: Callable[[], int],
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self._link = link
        self._hub = hub
        self._echoes = echoes
        self._allow = allow
        self._believe_users = believe_users
        self._own_status = own_status
        self._oldest = oldest
        self._clock = clock

    def read(self, packet: Publish, version: ProtocolVersion) -> Publication | None:
        """The publication that a message is; None for one of our own, known without the log.

        What else is wrong with a message is found by `Ingress`.

        Raises:
            TooComplex: see `read_payload`.
        """
        properties = packet.properties or Properties()
        tags = _tags(properties)
        envelope = read_payload(packet.payload)
        _apply(tags, envelope)
        if self._is_echo(packet, envelope, tags, version):
            return None
        v5 = version is ProtocolVersion.V5
        expiry = properties.message_expiry_interval
        return Publication(
            envelope=envelope,
            origin=Origin("link", self._link, packet.packet_id or None),
            topic=packet.topic,
            qos=packet.qos,
            # 3.1.1 clears the flag on its way to a subscriber, so there the map has to say
            retain=packet.retain if v5 else (packet.retain or None),
            user_id=envelope.user_id,
            expires=None if expiry is None else int(self._clock() * 1000) + expiry * 1000,
            mqtt=_message(packet.payload, envelope, properties, tagged=bool(tags)),
            allow=self._admit if self._believe_users or named_user(envelope) is None else _refuse_user,
        )

    def _admit(self, topic: str) -> None:
        try:
            self._allow(topic)
        except Forbidden as error:
            hint = "let the topic's row say publish = ['role:LINK'], or set link.publish_as"
            raise Forbidden("the link may not bring it in", hint=hint) from error

    def _is_echo(self, packet: Publish, envelope: Envelope, tags: dict[str, str], version: ProtocolVersion) -> bool:
        if envelope.id is not None and self._echoes.has_id(envelope.id):
            return True
        if not packet.payload and version is not ProtocolVersion.V5:
            return self._echoes.take_clearing(packet.topic)
        if self._own_status(packet.topic, envelope):
            return True
        return self._is_before_the_log(packet.payload, envelope, tags)

    def _is_before_the_log(self, payload: bytes, envelope: Envelope, tags: dict[str, str]) -> bool:
        """Whether it is one of our events that retention has removed, so that the log has no id of it.

        A broker keeps retained messages for longer than we keep events.
        """
        text = tags.get(POSITION)
        if text is None and envelope.id is not None and not envelope.foreign:
            match = _POSITION_IN_JSON.search(payload)
            text = match.group(1).decode() if match else None
        if text is None or not text.startswith(f"{self._hub.epoch}:"):
            return False
        try:
            return 0 < Position.parse(text).offset < self._oldest()
        except InvalidPosition:
            return False


def _refuse_user(topic: str) -> None:
    raise Forbidden(
        f"a message to {topic[:120]!r} names a user",
        hint="leave userId out, or set link.believe_users where the broker lets no stranger publish",
    )


def _tags(properties: Properties) -> dict[str, str]:
    """A gateway's user properties; they count only together with an `id`. The first of a name counts."""
    pairs = properties.user_properties
    if not pairs:
        return {}
    tags = {name: value for name, value in reversed(pairs) if name in OUR_PROPERTIES}
    return tags if 0 < len(tags.get(ID, "")) <= 128 else {}


def _apply(tags: dict[str, str], envelope: Envelope) -> None:
    if tags:
        envelope.id = tags[ID]
        if envelope.time is None:
            envelope.time = parse_time(tags.get(TIME))
        if envelope.type is None and 0 < len(tags.get(TYPE, "")) <= 256:
            envelope.type = tags[TYPE]


def _message(payload: bytes, envelope: Envelope, properties: Properties, *, tagged: bool) -> MqttMessage:
    pairs = properties.user_properties
    if tagged:
        pairs = [pair for pair in pairs if pair[0] not in OUR_PROPERTIES]
    return MqttMessage(
        payload=None if payload == envelope.data else payload,
        payload_format=properties.payload_format_indicator,
        content_type=properties.content_type,
        response_topic=properties.response_topic,
        correlation_data=properties.correlation_data,
        user_properties=tuple(pairs),
    )
