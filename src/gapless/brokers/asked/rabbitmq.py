"""RabbitMQ: `rabbitmq-auth-backend-http`, as the MQTT plugin of RabbitMQ 3.10 and later asks.

https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_auth_backend_http. Forms by POST to four
paths; the answer is the text `allow` or `deny`. A subscription is a queue `mqtt-subscription-<client id>qos<n>`,
bound to the exchange `amq.topic`, with the topic filter as routing key: `.` for `/`, `*` for `+`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gapless.brokers.asked.question import TEXT, Answer, optional, text
from gapless.brokers.judge import Judge, Shown
from gapless.errors import Forbidden, GaplessError, InvalidPayload

_EXCHANGE = "amq.topic"
_QUEUE = re.compile(r"mqtt-(?:subscription|will)-(?P<client_id>.*?)(?:qos[012])?", re.DOTALL)


class RabbitMq:
    """Answers `user`, `vhost`, `resource` and `topic`."""

    calls = frozenset({"user", "vhost", "resource", "topic"})

    async def answer(self, call: str, fields: Mapping[str, Any], judge: Judge) -> Answer:
        """See `Language.answer`."""
        username = text(fields, "username")
        client_id = optional(fields, "client_id", "variable_map.client_id")
        match call:
            case "user":
                password = optional(fields, "password")
                await judge.login(
                    Shown(username=username, password=password, client_id=client_id, address=None, broker="rabbitmq")
                )
            case "vhost":
                judge.check_known(username, client_id)
            case "resource":
                self._check_resource(fields, judge, username, client_id)
            case _:
                await self._check_topic(fields, judge, username, client_id)
        return Answer(True, b"allow", TEXT)

    @staticmethod
    def _check_resource(fields: Mapping[str, Any], judge: Judge, username: str, client_id: str | None) -> None:
        """The exchange of MQTT, whose topics are asked about one by one; and queues of the own client ids."""
        kind, name = text(fields, "resource"), text(fields, "name")
        permission = text(fields, "permission")
        judge.check_known(username, client_id)
        if kind == "exchange" and name == _EXCHANGE and permission in ("read", "write"):
            return
        queue = _QUEUE.fullmatch(name)
        if kind != "queue" or queue is None:
            raise Forbidden("MQTT has no use for it", hint="this back end serves MQTT clients alone")
        if client_id is None or queue["client_id"] != client_id:
            judge.check_client_id(username, queue["client_id"])

    @staticmethod
    async def _check_topic(fields: Mapping[str, Any], judge: Judge, username: str, client_id: str | None) -> None:
        if text(fields, "name") != _EXCHANGE:
            raise Forbidden("MQTT has no use for it", hint="this back end serves MQTT clients alone")
        key = text(fields, "routing_key").replace(".", "/")
        match text(fields, "permission"):
            case "read":
                await judge.check_hear(username, client_id, _filter(key))
            case "write":
                await judge.check_say(username, client_id, key)
            case other:
                raise InvalidPayload(f"the permission is {other[:40]!r}", hint="read or write")

    def refuse(self, call: str, error: GaplessError) -> Answer:
        """See `Language.refuse`."""
        return Answer(False, b"deny", TEXT)


def _filter(key: str) -> str:
    return "/".join("+" if level == "*" else level for level in key.split("/"))
