"""The application's HTTP endpoint for the rule `ask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from gapless.auth.ask import Answer, AskFailed
from gapless.auth.fetch import FetchFailed, fetch
from gapless.auth.gate import Identity
from gapless.auth.options import AskOptions
from gapless.auth.policy import Question

_ANSWER_BYTES = 4096
"""Of one answer; most of it is room for what an application says besides."""


class _Answers(msgspec.Struct, frozen=True):
    answers: list[Answer]


_encode = msgspec.json.Encoder().encode
_decode_one = msgspec.json.Decoder(Answer).decode
_decode_many = msgspec.json.Decoder(_Answers).decode


class HttpAsk:
    """Asks by `POST`: `{"action", "room" or "topic", "user", "roles", "claims"}` → `{"allow", "ttl"?}`.

    With `batch` above 1: `{"questions": [{"action", "room" or "topic"}, …], "user", "roles", "claims"}` →
    `{"answers": [{"allow", "ttl"?}, …]}`.
    """

    def __init__(self, options: AskOptions) -> None:
        assert options.url is not None
        self._url = options.url
        self._batch = options.batch > 1
        headers = {"content-type": "application/json"}
        if options.token is not None:
            headers["authorization"] = f"Bearer {options.token}"
        limits = httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
        # Claims go to the address in the settings, not to a proxy that the environment names.
        self._client = httpx.AsyncClient(headers=headers, timeout=options.timeout, limits=limits, trust_env=False)

    async def __call__(self, identity: Identity, questions: Sequence[Question]) -> Sequence[bool | Answer]:
        """See `AskMany`.

        Raises:
            AskFailed: no answer, or none that can be understood.
        """
        whom: dict[str, Any] = {"user": identity.user_id, "roles": sorted(identity.roles), "claims": identity.claims}
        if identity.service:
            whom["service"] = identity.token_id
        if self._batch:
            body = _encode({"questions": [_asked(question) for question in questions], **whom})
        else:
            body = _encode({**_asked(questions[0]), **whom})
        try:
            answer = await fetch(
                self._client, "POST", self._url, content=body, limit=_ANSWER_BYTES * (len(questions) + 1)
            )
            return _decode_many(answer.body).answers if self._batch else [_decode_one(answer.body)]
        except (FetchFailed, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise AskFailed(str(error)) from error

    async def stop(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _asked(question: Question) -> dict[str, str]:
    return {"action": question.action, question.kind: question.subject}
