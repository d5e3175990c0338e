"""EMQX: HTTP authentication and authorisation.

https://docs.emqx.com/en/emqx/latest/access-control/authn/http.html and …/authz/http.html. The bodies are
templates of whoever sets EMQX up; docs/security.md says which to use. EMQX goes on to its next source at any
status but 200 and 204, and at `ignore`: so every answer is 200 and says `allow` or `deny`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gapless.auth import Acl
from gapless.brokers.asked.question import Answer, encode, optional, text
from gapless.brokers.judge import Judge, Shown
from gapless.errors import GaplessError, InvalidPayload

_DENY = encode({"result": "deny"})
_ALLOW = encode({"result": "allow"})


class Emqx:
    """Answers `authenticate` and `authorize`."""

    calls = frozenset({"authenticate", "authorize"})

    async def answer(self, call: str, fields: Mapping[str, Any], judge: Judge) -> Answer:
        """See `Language.answer`."""
        username = optional(fields, "username") or ""
        client_id = optional(fields, "clientid")
        if call == "authenticate":
            password = optional(fields, "password")
            address = optional(fields, "peerhost")
            identity = await judge.login(
                Shown(username=username, password=password, client_id=client_id, address=address, broker="emqx")
            )
            allowed: dict[str, Any] = {"result": "allow", "is_superuser": False}
            if identity.expires is not None:
                allowed["expire_at"] = int(identity.expires)
            if optional(fields, "acl") != "no":
                allowed["acl"] = acl_claim(judge.rights(identity))
            return Answer(True, encode(allowed))
        topic = text(fields, "topic")
        match text(fields, "action"):
            case "subscribe":
                await judge.check_hear(username, client_id, topic)
            case "publish":
                await judge.check_say(username, client_id, topic)
            case other:
                raise InvalidPayload(f"the action is {other[:40]!r}", hint="publish or subscribe")
        return Answer(True, _ALLOW)

    def refuse(self, call: str, error: GaplessError) -> Answer:
        """See `Language.refuse`."""
        return Answer(False, _DENY)


def acl_claim(acl: Acl, *, limit: int | None = None) -> list[dict[str, str]]:
    """An EMQX list of rights (as answered here, or as the claim `acl` of a token), ending in deny-all.

    EMQX compares a subscription with a rule level by level, and `+` in a rule fits a `#` in the
    subscription: so what a final `+` would let in is denied before it.
    """
    lines = [_line("deny", "all", "$SYS/#")]
    wide = [each for each in _safe(acl.subscribe) if each == "+" or each.endswith("/+")]
    lines += [_line("deny", "subscribe", f"eq {each[:-1]}#") for each in wide]
    lines += [_line("allow", "subscribe", each) for each in _safe(acl.subscribe)]
    lines += [_line("allow", "publish", each) for each in _safe(acl.publish)]
    if limit is not None:
        del lines[max(limit - 1, 0) :]
    return [*lines, _line("deny", "all", "#")]


def _safe(filters: Iterable[str]) -> list[str]:
    """Without those that EMQX would read as something else: `${…}` stands for a name, `eq ` for no pattern."""
    return [each for each in filters if "${" not in each and not each.startswith("eq ")]


def _line(permission: str, action: str, topic: str) -> dict[str, str]:
    return {"permission": permission, "action": action, "topic": topic}
