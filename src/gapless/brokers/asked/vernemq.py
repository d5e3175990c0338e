"""VerneMQ: webhooks `auth_on_register`, `auth_on_publish`, `auth_on_subscribe` and their MQTT 5 forms (`…_m5`).

https://docs.vernemq.com/plugin-development/webhookplugins. The hook is named by the header `vernemq-hook`, the
body is JSON, and a yes may be kept for the `max-age` of `cache-control`. `{"result": "next"}` would ask
the next plug-in: it is never answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapless.brokers.asked.question import Answer, encode, optional, text
from gapless.brokers.judge import Judge, Shown
from gapless.errors import Forbidden, GaplessError, InvalidPayload, InvalidTopic

_OK = encode({"result": "ok"})
REFUSED = 128
"""The QoS that refuses one topic of a subscription (MQTT 3.1.1 §3.9.3)."""


class VerneMq:
    """Answers the hooks.

    Args:
        cache_seconds: how long a yes may be kept.
    """

    calls = frozenset(f"auth_on_{name}{form}" for name in ("register", "publish", "subscribe") for form in ("", "_m5"))

    def __init__(self, cache_seconds: int) -> None:
        self._cache = cache_seconds

    async def answer(self, call: str, fields: Mapping[str, Any], judge: Judge) -> Answer:
        """See `Language.answer`."""
        username = optional(fields, "username") or ""
        client_id = text(fields, "client_id")
        match call.removesuffix("_m5"):
            case "auth_on_register":
                password = optional(fields, "password")
                address = optional(fields, "peer_addr")
                await judge.login(
                    Shown(username=username, password=password, client_id=client_id, address=address, broker="vernemq")
                )
                return Answer(True, _OK, max_age=0)
            case "auth_on_publish":
                await judge.check_say(username, client_id, text(fields, "topic"))
                return Answer(True, _OK, max_age=self._cache)
            case _:
                return await self._subscribe(call, fields, judge, username, client_id)

    async def _subscribe(
        self, call: str, fields: Mapping[str, Any], judge: Judge, username: str, client_id: str
    ) -> Answer:
        judge.check_known(username, client_id)
        wanted = _topics(fields)
        found = []
        for topic, qos in wanted:
            try:
                await judge.check_hear(username, client_id, topic)
            except (Forbidden, InvalidTopic):
                qos = REFUSED
            found.append({"topic": topic, "qos": qos})
        if all(each["qos"] != REFUSED for each in found):
            return Answer(True, _OK, max_age=self._cache)
        body = {"modifiers": {"topics": found}} if call.endswith("_m5") else {"topics": found}
        return Answer(False, encode({"result": "ok", **body}), max_age=0)

    def refuse(self, call: str, error: GaplessError) -> Answer:
        """See `Language.refuse`."""
        return Answer(False, encode({"result": {"error": error.message}}), max_age=0)


def _topics(fields: Mapping[str, Any]) -> list[tuple[str, int]]:
    topics = fields.get("topics")
    if not isinstance(topics, list) or not topics:
        raise InvalidPayload("the request has no list 'topics'", hint="as VerneMQ's webhooks send it")
    found = []
    for each in topics:
        topic, qos = (each.get("topic"), each.get("qos")) if isinstance(each, dict) else (None, None)
        if not isinstance(topic, str) or isinstance(qos, bool) or not isinstance(qos, int):
            raise InvalidPayload("a topic of the request is not of the form", hint='{"topic": "a/b", "qos": 1}')
        found.append((topic, qos))
    return found
