"""A broker's request, read strictly, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import msgspec

from gapless.brokers.judge import Judge
from gapless.errors import GaplessError, InvalidPayload

JSON = b"application/json"
TEXT = b"text/plain"
_MAX_FIELDS = 100

encode = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(dict[str, Any]).decode


class Answer(NamedTuple):
    """What the broker is told.

    Attributes:
        allowed: for counting; of several things asked at once, all of them.
        max_age: seconds for which the broker may keep it; None says nothing, 0 forbids it.
    """

    allowed: bool
    body: bytes
    content_type: bytes = JSON
    status: int = 200
    max_age: int | None = None


class Language(Protocol):
    """How one kind of broker asks.

    Attributes:
        calls: names of its questions: the last part of the path, or what a header says.
    """

    calls: frozenset[str]

    async def answer(self, call: str, fields: Mapping[str, Any], judge: Judge) -> Answer:
        """Answer a question.

        Raises:
            GaplessError: the answer is no.
        """

    def refuse(self, call: str, error: GaplessError) -> Answer:
        """No, in the broker's language. It must be one that the broker takes for a no, whatever went wrong."""


def read_fields(body: bytes, content_type: str) -> Mapping[str, Any]:
    """The fields of a body: JSON, or a form.

    Raises:
        InvalidPayload: it is neither.
    """
    if not body:
        raise InvalidPayload("the request is empty", hint="send JSON or a form")
    try:
        if "json" in content_type.lower():
            return _decode_json(body)
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"the request cannot be read: {error}", hint="send JSON or a form, in UTF-8") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidPayload("a field stands twice in the request", hint="send each once")
    return fields


def text(fields: Mapping[str, Any], name: str) -> str:
    """A field that must be there.

    Raises:
        InvalidPayload: it is absent, or no text.
    """
    value = fields.get(name)
    if not isinstance(value, str):
        raise InvalidPayload(f"the request has no text {name!r}", hint="see docs/security.md for what to send")
    return value


def optional(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of the fields that is there and holds text; None without one.

    Raises:
        InvalidPayload: it is there and no text.
    """
    for name in names:
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidPayload(f"{name!r} is no text", hint="see docs/security.md for what to send")
        if value:
            return str(value)
    return None
