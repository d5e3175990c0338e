"""Telling the topic map's row who is online: for MQTT, the external broker, and everybody who hears the row."""

from __future__ import annotations

import asyncio
import logging
import re
import time as _time
from collections.abc import Callable, Iterable

import msgspec

from gapless.envelope import Envelope
from gapless.errors import GaplessError, InvalidRequest
from gapless.event import Origin, Record, format_time
from gapless.hub import Hub
from gapless.ingress import Ingress, Publication
from gapless.mqtt.filters import validate_topic
from gapless.presence.presence import Presence

logger = logging.getLogger("gapless.presence")

_SYSTEM = Origin("system")
_BATCH = 500
"""Users told in one transaction."""
_RETRY = 1.0
"""Seconds until what the log did not take is tried again."""


class Announcer:
    """Publishes `{"online", "time"}` for each user who came online or went offline, retained.

    The retained message is what counts: where it says already what is so, nothing is published. After a restart
    those who come back in time cause no event, and those who do not are told to be offline.

    Args:
        template: the topic, with the level `{userId}`.
        wall: seconds since the Unix epoch.

    Attributes:
        published: events published.
        unfit: times that a user id could not stand in a topic, so that nothing was published.
    """

    def __init__(
        self,
        presence: Presence,
        *,
        template: str,
        ingress: Ingress,
        hub: Hub,
        wall: Callable[[], float] = _time.time,
    ) -> None:
        self._presence = presence
        self._template = template
        self._ingress = ingress
        self._hub = hub
        self._wall = wall
        self._pending: dict[str, None] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.published = 0
        self.unfit = 0

    def start(self) -> None:
        """Expect those who were online, and begin. Call it once the hub was started.

        Raises:
            UnknownTopic: the map does not admit the topic.
        """
        self._ingress.topic_map.admit(self._topic("0"))
        self._presence.announce(self.announce)
        self._presence.expect(self._online_before())
        self._task = asyncio.create_task(self._run(), name="presence-announcer")

    async def stop(self) -> None:
        """Publish nothing more. Who is online now is looked at again at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def announce(self, users: Iterable[str]) -> None:
        """Their presence may have changed."""
        for user_id in users:
            self._pending[user_id] = None
        self._wanted.set()

    def _online_before(self) -> list[str]:
        literal = [re.escape(part) for part in self._template.split("{userId}")]
        pattern = re.compile("([^/]+)".join(literal))
        now = int(self._wall() * 1000)
        found = []
        for record in self._hub.retained.matching(self._template.replace("{userId}", "+"), now=now):
            match = pattern.fullmatch(record.event.topic)
            if match is not None and _says_online(record):
                found.append(match.group(1))
        return found

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._pending:
                users = list(self._pending)[:_BATCH]
                for user_id in users:
                    del self._pending[user_id]
                try:
                    await self._publish(users)
                except GaplessError as error:
                    if not error.retryable:
                        logger.error("presence of %d users could not be published: %s", len(users), error)
                        continue
                    logger.warning("presence of %d users could not be published, trying again: %s", len(users), error)
                    self._pending |= dict.fromkeys(users)
                    await asyncio.sleep(_RETRY)

    async def _publish(self, users: list[str]) -> None:
        publications = []
        for user_id in users:
            topic = self._topic(user_id)
            try:
                self._check(user_id, topic)
            except InvalidRequest:
                self.unfit += 1
                continue
            online = self._presence.is_online(user_id)
            if online != _says_online(self._hub.retained.get(topic)):
                publications.append(self._publication(topic, user_id, online=online))
        if publications:
            await self._ingress.submit_many(publications)
            self.published += len(publications)

    def _check(self, user_id: str, topic: str) -> None:
        validate_topic(topic)
        if "/" in user_id or len(topic.encode("utf-8", "surrogatepass")) > self._ingress.limits.topic_bytes:
            raise InvalidRequest("the user id does not fit into a topic")

    def _topic(self, user_id: str) -> str:
        return self._template.replace("{userId}", user_id)

    def _publication(self, topic: str, user_id: str, *, online: bool) -> Publication:
        now = int(self._wall() * 1000)
        data = {"online": online, "time": format_time(now)}
        envelope = Envelope(data=msgspec.json.encode(data), decoded=data, time=now)
        return Publication(envelope=envelope, origin=_SYSTEM, topic=topic, retain=True, user_id=user_id)


def _says_online(record: Record | None) -> bool:
    if record is None or record.event.binary:
        return False
    try:
        document = msgspec.json.decode(record.event.data)
    except msgspec.DecodeError:
        return False
    return isinstance(document, dict) and document.get("online") is True
