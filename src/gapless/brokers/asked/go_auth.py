"""Mosquitto with the plug-in mosquitto-go-auth: its HTTP back end.

https://github.com/iegomez/mosquitto-go-auth#http. Three paths, JSON or forms; answered by the status and by
`{"Ok", "Error"}` at once, so that `response_mode` may be `status` or `json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gapless.brokers.asked.question import Answer, encode, optional, text
from gapless.brokers.judge import Judge, Shown
from gapless.errors import Forbidden, GaplessError, InvalidPayload

_OK = encode({"Ok": True, "Error": ""})


class GoAuth:
    """Answers `user`, `superuser` and `acl`."""

    calls = frozenset({"user", "superuser", "acl"})

    async def answer(self, call: str, fields: Mapping[str, Any], judge: Judge) -> Answer:
        """See `Language.answer`."""
        username = text(fields, "username")
        client_id = optional(fields, "clientid")
        match call:
            case "user":
                password = optional(fields, "password")
                await judge.login(
                    Shown(username=username, password=password, client_id=client_id, address=None, broker="go-auth")
                )
            case "superuser":
                raise Forbidden("nobody is above the rules")
            case _:
                await self._check(fields, judge, username, client_id)
        return Answer(True, _OK)

    @staticmethod
    async def _check(fields: Mapping[str, Any], judge: Judge, username: str, client_id: str | None) -> None:
        topic = text(fields, "topic")
        access = fields.get("acc")
        access = str(access) if isinstance(access, int) and not isinstance(access, bool) else access
        match access:
            case "1" | "4":
                await judge.check_hear(username, client_id, topic)
            case "2":
                await judge.check_say(username, client_id, topic)
            case "3":
                await judge.check_hear(username, client_id, topic)
                await judge.check_say(username, client_id, topic)
            case _:
                raise InvalidPayload("acc is none of 1, 2, 3 and 4", hint="as mosquitto-go-auth sends it")

    def refuse(self, call: str, error: GaplessError) -> Answer:
        """See `Language.refuse`. A status from 400 to 499 is a no; from 500 on it would be a failure."""
        return Answer(False, encode({"Ok": False, "Error": error.message}), status=403)
