"""The door for brokers: `POST /broker-auth/[secret/]<broker>[/<call>]`, an ASGI application of its own.

It fails closed. Whatever is wrong (another secret, a malformed body, a full disk, a defect of ours), a broker is
answered no in its own language, with the status that it takes for a no: several of them take an error for
"ask somebody else".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections import Counter
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from gapless.brokers.asked.emqx import Emqx
from gapless.brokers.asked.go_auth import GoAuth
from gapless.brokers.asked.question import Answer, Language, encode, read_fields
from gapless.brokers.asked.rabbitmq import RabbitMq
from gapless.brokers.asked.vernemq import VerneMq
from gapless.brokers.judge import Judge
from gapless.brokers.options import BrokerAuthOptions
from gapless.errors import GaplessError, InvalidPayload, InvalidRequest, PayloadTooLarge, Unauthorized

logger = logging.getLogger("gapless.brokers")

BROKER_PATH = "/broker-auth"
BODY_BYTES = 128 << 10
BODY_SECONDS = 5.0
_HOOK = "vernemq-hook"


class BrokerDoor:
    """Answers brokers.

    Attributes:
        answers: how often each was answered: by broker, call and outcome (`allow`, `deny`, `malformed`, `stranger` for
            a wrong secret, `failed` for a defect).
    """

    def __init__(self, *, judge: Judge, options: BrokerAuthOptions) -> None:
        self._judge = judge
        self._secret = (options.secret or "").encode()
        self._languages: dict[str, Language] = {
            "emqx": Emqx(),
            "rabbitmq": RabbitMq(),
            "vernemq": VerneMq(options.cache_seconds),
            "go-auth": GoAuth(),
        }
        self.answers: Counter[tuple[str, str, str]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parts = [part for part in scope["path"].removeprefix(BROKER_PATH).split("/") if part]
        known = self._is_known(headers)
        if parts and hmac.compare_digest(parts[0].encode("utf-8", "surrogateescape"), self._secret):
            known = bool(self._secret)
            parts = parts[1:]
        elif len(parts) > 2 or (parts and parts[0] not in self._languages):
            parts = parts[1:]  # another secret
        language = self._languages.get(parts[0]) if parts else None
        call = headers.get(_HOOK, "") if parts == ["vernemq"] else parts[1] if len(parts) == 2 else ""
        if language is None or call not in language.calls:
            await _send(send, Answer(False, encode(_UNKNOWN), status=404))
            return
        answer, outcome, reason = await self._answer(language, call, scope, receive, headers, known=known)
        self.answers[parts[0], call, outcome] += 1
        if outcome == "stranger":
            self._complain(parts[0], call)
        logger.debug("broker %s: %s: %s%s", parts[0], call, outcome, f": {reason}" if reason else "")
        await _send(send, answer, reason)

    async def _answer(
        self,
        language: Language,
        call: str,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        *,
        known: bool,
    ) -> tuple[Answer, str, str]:
        try:
            if not known:
                raise Unauthorized("the broker's secret is missing or wrong", hint="see broker_auth.secret")
            if scope["method"] != "POST":
                raise InvalidRequest("only POST is taken: passwords have no place in a query")
            body = await _body(receive)
            fields = read_fields(body, headers.get("content-type", ""))
            answer = await language.answer(call, fields, self._judge)
        except InvalidRequest as error:
            return language.refuse(call, error), "malformed", error.message
        except Unauthorized as error:
            return language.refuse(call, error), "deny" if known else "stranger", error.message
        except GaplessError as error:
            return language.refuse(call, error), "deny", error.message
        except Exception:
            logger.exception("a broker's question (%s) could not be answered: denied", call)
            failure = GaplessError("the gateway failed on this request", hint="its log says why")
            return language.refuse(call, failure), "failed", failure.message
        return answer, "allow" if answer.allowed else "deny", ""

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        given = shown.strip().encode("latin-1")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return bool(self._secret) and hmac.compare_digest(given, self._secret)

    def _complain(self, broker: str, call: str) -> None:
        count = sum(number for (_, _, outcome), number in self.answers.items() if outcome == "stranger")
        if count & (count - 1) == 0:  # 1, 2, 4, 8, …
            logger.warning(
                "%d questions of brokers without the secret were denied (%s, %s): compare broker_auth.secret",
                *(count, broker, call),
            )


_UNKNOWN = {
    "error": {
        "code": "not_found",
        "message": "no such question of a broker",
        "retryable": False,
        "hint": "see docs/security.md for the paths",
    }
}


async def _body(receive: Receive) -> bytes:
    """The body, bounded in bytes and time.

    Raises:
        PayloadTooLarge, InvalidPayload: it is not.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise InvalidPayload("the connection was closed within the body")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > BODY_BYTES:
                    raise PayloadTooLarge("the request is too large", size=size, limit=BODY_BYTES)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise InvalidPayload(f"the body did not come within {BODY_SECONDS:g} s") from error


async def _send(send: Send, answer: Answer, reason: str = "") -> None:
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
    cache = b"no-store" if not answer.max_age else b"max-age=%d" % answer.max_age
    headers.append((b"cache-control", cache))
    if reason:
        headers.append((b"x-gapless-reason", reason.encode("ascii", "replace")[:200].replace(b"\n", b" ")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
