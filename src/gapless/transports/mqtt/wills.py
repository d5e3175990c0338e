"""Wills become events like any other publish."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future

from gapless.auth import Identity
from gapless.envelope import read_payload
from gapless.errors import GaplessError, LogError, Overloaded
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


def keep_will(will: Will, identity: Identity) -> WillMessage:
    """The will of a CONNECT as the session keeps it (MQTT 5 §3.1.3.2)."""
    user_id = identity.speaker(read_payload(will.payload).user_id)
    properties = will.properties
    if properties is None:
        return WillMessage(will.topic, will.payload, qos=will.qos, retain=will.retain, user_id=user_id)
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
    )


class Wills:
    """Publishes wills through the ingress."""

    def __init__(self, ingress: Ingress, stats: EdgeStats, tasks: Tasks) -> None:
        self._ingress = ingress
        self._stats = stats
        self._tasks = tasks

    def publish(self, client_id: str, will: WillMessage, state: list[StateWrite]) -> None:
        """Publish a will, and store state in the same transaction, so that it is published once.

        The state is handed to the log before this returns. Where the log takes no writes now,
        the will is tried again.
        """
        publication = self._publication(client_id, will)
        try:
            stored = self._ingress.submit(publication, state=state)
        except GaplessError as error:
            logger.warning("the will of %r was refused: %s", client_id, error)
            self._stats.refused_publishes += 1
            if state:
                self._tasks.spawn(self._store(state), "mqtt-will-state")
            return
        self._tasks.spawn(self._finish(client_id, publication, stored), "mqtt-will")

    async def _store(self, state: list[StateWrite]) -> None:
        await self._ingress.log.write_state(state, durable=False)

    async def _finish(self, client_id: str, publication: Publication, stored: Future[Accepted]) -> None:
        for attempt in range(RETRIES):
            try:
                await stored
            except (LogError, Overloaded) as error:
                logger.warning("the will of %r could not be stored, trying again: %s", client_id, error)
                await asyncio.sleep(min(30, 1 + attempt))
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
