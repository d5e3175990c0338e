"""Wills become events like any other publish, where their authors may still say them when they are due."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from enum import Enum

import msgspec

from gapless.auth import Gate, Identity
from gapless.envelope import read_payload
from gapless.errors import Forbidden, GaplessError, LogError, NotDecided, Overloaded
from gapless.event import MqttMessage, Origin
from gapless.eventlog import StateWrite
from gapless.ingress import Accepted, Ingress, Publication
from gapless.mqtt import Will
from gapless.mqtt.session import WillMessage
from gapless.transports.mqtt.options import EdgeStats
from gapless.transports.mqtt.tasks import Tasks

logger = logging.getLogger("gapless.mqtt")

RETRIES = 60
"""Times, a second and more apart, that a will is tried while the log takes no writes."""


ATTEMPTS = 3
"""Times that the application is asked about one will, whose answers are forgotten before they are looked at."""

_encode_author = msgspec.msgpack.Encoder().encode
_decode_author = msgspec.msgpack.Decoder(Identity).decode


class Verdict(Enum):
    """Whether a will may be published now."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNDECIDED = "undecided"


def sign_will(will: WillMessage, identity: Identity) -> WillMessage:
    """The will, judged by the rights of this identity from now on."""
    return msgspec.structs.replace(will, author=_encode_author(identity))


def keep_will(will: Will, identity: Identity) -> WillMessage:
    """The will of a CONNECT as the session keeps it (MQTT 5 §3.1.3.2).

    Raises:
        TooComplex: its payload is JSON that no publish may bring.
    """
    author = _encode_author(identity)
    user_id = identity.speaker(read_payload(will.payload).user_id)
    properties = will.properties
    if properties is None:
        return WillMessage(will.topic, will.payload, qos=will.qos, retain=will.retain, user_id=user_id, author=author)
    return WillMessage(
        will.topic,
        will.payload,
        qos=will.qos,
        retain=will.retain,
        delay=properties.will_delay_interval or 0,
        expiry=properties.message_expiry_interval,
        payload_format=properties.payload_format_indicator,
        content_type=properties.content_type,
        response_topic=properties.response_topic,
        correlation_data=properties.correlation_data,
        user_properties=tuple(properties.user_properties),
        user_id=user_id,
        author=author,
    )


class Wills:
    """Judges wills once more when they are due, and publishes them through the ingress."""

    def __init__(self, ingress: Ingress, gate: Gate, stats: EdgeStats, tasks: Tasks) -> None:
        self._ingress = ingress
        self._gate = gate
        self._stats = stats
        self._tasks = tasks

    def judge(self, client_id: str, will: WillMessage) -> Verdict:
        """Whether a will may be published now; one that may not is counted."""
        try:
            self._gate.check_will(_author(will), will.topic)
        except NotDecided:
            return Verdict.UNDECIDED
        except Forbidden as error:
            self._deny(client_id, error.message)
            return Verdict.DENIED
        return Verdict.ALLOWED

    async def may_publish(self, client_id: str, will: WillMessage) -> bool:
        """The same, with the application asked where it decides. Without its answer the will is dropped."""
        for _ in range(ATTEMPTS):
            verdict = self.judge(client_id, will)
            if verdict is not Verdict.UNDECIDED:
                return verdict is Verdict.ALLOWED
            await self._gate.prepare(_author(will), topics=(will.topic,))
        self._deny(client_id, "the application gave no answer")
        return False

    def _deny(self, client_id: str, reason: str) -> None:
        logger.info("the will of %r is dropped: %s", client_id, reason)
        self._stats.denied_wills += 1

    def publish(self, client_id: str, will: WillMessage, state: list[StateWrite]) -> None:
        """Publish a will that may be published, and store state in the same transaction, so that it is published once.

        The state is handed to the log before this returns. Where the log takes no writes now,
        the will is tried again.
        """
        try:
            publication = self._publication(client_id, will)
            stored = self._ingress.submit(publication, state=state)
        except GaplessError as error:
            logger.warning("the will of %r was refused: %s", client_id, error)
            self._stats.refused_publishes += 1
            if state:
                self._tasks.spawn(self._store(state), "mqtt-will-state")
            return
        self._tasks.spawn(self._finish(client_id, will, publication, stored), "mqtt-will")

    async def _store(self, state: list[StateWrite]) -> None:
        await self._ingress.log.write_state(state, durable=False)

    async def _finish(
        self, client_id: str, will: WillMessage, publication: Publication, stored: Future[Accepted]
    ) -> None:
        for attempt in range(RETRIES):
            try:
                await stored
            except (LogError, Overloaded) as error:
                logger.warning("the will of %r could not be stored, trying again: %s", client_id, error)
                await asyncio.sleep(min(30, 1 + attempt))
                if not await self.may_publish(client_id, will):
                    return
                stored = self._ingress.submit(publication)  # the state may be another by now
            else:
                self._stats.wills += 1
                return
        logger.error("the will of %r was given up", client_id)

    def _publication(self, client_id: str, will: WillMessage) -> Publication:
        envelope = read_payload(will.payload)
        for name, value in will.user_properties:
            if name == "id" and 0 < len(value) <= 128:
                envelope.id = value
        expires = None if will.expiry is None else int((self._ingress.clock() + will.expiry) * 1000)
        return Publication(
            envelope=envelope,
            origin=Origin("mqtt", client_id),
            topic=will.topic,
            qos=will.qos,
            retain=will.retain,
            user_id=will.user_id,
            nobody=True,
            expires=expires,
            mqtt=MqttMessage(
                payload=None if will.payload == envelope.data else will.payload,
                payload_format=will.payload_format,
                content_type=will.content_type,
                response_topic=will.response_topic,
                correlation_data=will.correlation_data,
                user_properties=will.user_properties,
            ),
        )


def _author(will: WillMessage) -> Identity:
    """Who left it. Of one that an earlier version stored only the user is known, and no role."""
    return _decode_author(will.author) if will.author else Identity(user_id=will.user_id)
