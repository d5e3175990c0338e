"""`POST /api/events`: one event, an array, or one per line; answered once they are durable."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from gapless.auth import Gate, Identity
from gapless.envelope import check_nodes, read_envelope
from gapless.errors import GaplessError, InvalidPayload, InvalidRequest, NotDecided, Overloaded, PayloadTooLarge
from gapless.event import Origin
from gapless.ingress import Accepted, Ingress, Publication
from gapless.limits import Visit
from gapless.transports.http.endpoint import encode
from gapless.transports.http.errors import UnsupportedMediaType
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.request import Request

_ORIGIN = Origin("rest")
_MAX_EXPIRES_IN = 2**32 - 1  # MQTT's message expiry interval is a four byte integer of seconds (MQTT 5 §3.3.2.3.3)
_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_BYTE = re.compile(r"\(byte (\d+)\)")
_decode = msgspec.json.Decoder().decode


class RestDoor:
    """The publishers' door.

    Nothing is accepted of a request that is refused; everything is in the log, in the order of
    the request, once it is answered 201. A client that lost the answer sends the same again:
    ids that the log still keeps are not stored twice.
    """

    def __init__(self, *, ingress: Ingress, gate: Gate, options: HttpOptions) -> None:
        self._ingress = ingress
        self._gate = gate
        self._options = options
        self._held = 0

    async def publish(self, request: Request) -> None:
        """Handle `POST /api/events`."""
        ndjson = _media_type(request) in _NDJSON
        await request.identify(self._gate, door="rest")
        visit = request.visit()
        visit.check()
        body = await self._read(request)
        try:
            visit.spend(0, len(body))
            if ndjson:
                answer = encode({"events": await self._accept_lines(body, request, visit)})
            else:
                document = parse_json(body)
                if isinstance(document, list):
                    answer = encode({"events": await self._accept_many(document, request, visit)})
                else:
                    answer = encode(await self._accept_one(document, request))
        finally:
            self._held -= len(body)
        await request.answer(201, answer)

    async def _read(self, request: Request) -> bytes:
        # Only what came counts: what is merely announced would let a few idle connections shut out everybody.
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            if self._held + size > self._options.bodies_bytes:
                raise Overloaded("too many requests are being read", hint="send again after a moment")
            self._held += size
            held += size

        try:
            return await request.body(self._options.body_bytes, timeout=self._options.body_timeout, grow=grow)
        except BaseException:
            self._held -= held
            raise

    async def _accept_one(self, document: Any, request: Request) -> Accepted:
        publication = self._publication(document, request.identity)
        try:
            return await self._ingress.submit(publication)
        except NotDecided:
            await self._ask([publication], request)
            return await self._ingress.submit(publication)

    async def _submit_many(self, publications: Sequence[Publication], request: Request) -> list[Accepted]:
        try:
            return await self._ingress.submit_many(publications)
        except NotDecided:  # nothing was accepted
            await self._ask(publications, request)
            return await self._ingress.submit_many(publications)

    async def _ask(self, publications: Sequence[Publication], request: Request) -> None:
        topics = set()
        for publication in publications:
            with contextlib.suppress(InvalidRequest):  # found again, and told, by the ingress
                topics.add(self._ingress.topic_of(publication))
        await self._gate.prepare(request.identity, topics=topics)
        await request.identify_again()

    async def _accept_many(self, documents: Sequence[Any], request: Request, visit: Visit) -> list[Accepted]:
        self._check_count(len(documents))
        visit.spend(len(documents))
        alone = len(documents) == 1  # the clients send a list then, too
        publications = []
        for index, document in enumerate(documents):
            try:
                publications.append(self._publication(document, request.identity))
            except GaplessError as error:
                error.details["index"] = index
                _refuse_at(error, "" if alone else f"event {index}")
        try:
            return await self._submit_many(publications, request)
        except GaplessError as error:
            if "index" in error.details:
                _refuse_at(error, "" if alone else f"event {error.details['index']}")
            raise

    async def _accept_lines(self, body: bytes, request: Request, visit: Visit) -> list[Accepted]:
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
        self._check_count(len(lines))
        visit.spend(len(lines))
        publications = []
        for number, line in lines:
            try:
                publications.append(self._publication(parse_json(line, first_line=number), request.identity))
            except GaplessError as error:
                error.details["line"] = number
                _refuse_at(error, f"line {number}")
        try:
            return await self._submit_many(publications, request)
        except GaplessError as error:
            index = error.details.pop("index", None)
            if index is not None:
                error.details["line"] = lines[index][0]
                _refuse_at(error, f"line {lines[index][0]}")
            raise

    def _check_count(self, count: int) -> None:
        limit = self._ingress.limits.batch_events
        if count > limit:
            raise PayloadTooLarge(
                f"the request has {count} events, over the limit of {limit}",
                hint="split it",
                size=count,
                limit=limit,
            )

    def _publication(self, document: Any, identity: Identity) -> Publication:
        if not isinstance(document, dict):
            raise InvalidPayload("an event is a JSON object", hint='such as {"type": "lead:created", "data": {…}}')
        envelope = read_envelope(document)
        return Publication(
            envelope=envelope,
            origin=_ORIGIN,
            qos=_qos(document.get("qos")),
            retain=_retain(document.get("retain")),
            user_id=identity.speaker(envelope.user_id),
            nobody=identity.user_id is None and not identity.service,
            expires=_expires(document.get("expires_in"), self._ingress.clock),
            allow=lambda topic: self._gate.check_publish(identity, topic),
        )


def parse_json(text: bytes, *, first_line: int = 1) -> Any:
    """Any JSON document; `first_line` is the number of the text's first line in the request.

    Raises:
        InvalidPayload: naming line and column (both from 1, in bytes) where they are known; or of too many values.
    """
    check_nodes(text)
    try:
        return _decode(text)
    except UnicodeDecodeError as error:
        where = _place(text, error.start, first_line)
        raise InvalidPayload(f"the text is not UTF-8: {error.reason}", hint="send JSON in UTF-8", **where) from error
    except RecursionError as error:
        raise InvalidPayload("the JSON is nested too deep", hint="flatten it") from error
    except msgspec.DecodeError as error:
        reason = str(error)
        match = _BYTE.search(reason)
        at = int(match.group(1)) if match else len(text)
        if "trailing characters" in reason:
            at -= 1  # msgspec has read it by then
        where = _place(text, at, first_line)
        reason = _BYTE.sub("", reason).strip() or "malformed JSON"
        message = f"{reason} (line {where['line']}, column {where['column']})"
        raise InvalidPayload(message, hint="send one JSON document in UTF-8", **where) from error


def _place(text: bytes, at: int, first_line: int) -> dict[str, int]:
    before = text[:at]
    return {"line": before.count(b"\n") + first_line, "column": at - (before.rfind(b"\n") + 1) + 1}


def _refuse_at(error: GaplessError, where: str) -> NoReturn:
    if where:
        error.message = f"{where}: {error.message}"
    raise error


def _media_type(request: Request) -> str:
    """The type of the body, in lower case.

    A body without a type, or with one that a page may send to a foreign origin without asking
    first, is refused: so no page on another origin can publish with the visitor's network.
    """
    if request.header(b"content-encoding") not in (None, "identity"):
        raise UnsupportedMediaType("the body is compressed", hint="send it without Content-Encoding")
    header = request.header(b"content-type") or ""
    media_type, _, parameters = header.partition(";")
    media_type = media_type.strip().lower()
    if media_type != "application/json" and media_type not in _NDJSON:
        raise UnsupportedMediaType(
            f"the Content-Type is {media_type[:80]!r}" if media_type else "the Content-Type is missing",
            hint="send application/json, or application/x-ndjson for one event per line",
        )
    name, _, charset = parameters.strip().lower().partition("=")
    if name == "charset" and charset.strip('"') not in ("utf-8", "utf8"):
        raise UnsupportedMediaType(f"the charset is {charset[:40]!r}", hint="JSON is UTF-8 (RFC 8259 §8.1)")
    return media_type


def _qos(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2):
        return value
    raise InvalidRequest("qos is not 0, 1 or 2", hint="leave it out to take the topic map's")


def _retain(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest("retain is not true or false", hint="leave it out to take the topic map's")


def _expires(value: object, clock: Callable[[], float]) -> int | None:
    if value is None:
        return None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 < number <= _MAX_EXPIRES_IN:
        raise InvalidRequest("expires_in is not a number of seconds above 0", hint="such as 3600 for an hour")
    return int((clock() + number) * 1000)
