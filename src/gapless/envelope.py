"""The JSON envelope, both ways: what publishers send, and what clients are sent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any, TypeGuard

import msgspec

from gapless.errors import InvalidPayload, TooComplex
from gapless.event import Event, Record, format_time, parse_time

MAX_DEPTH = 64
"""Deepest nesting of JSON data that is taken in."""

MAX_NODES = 500_000
"""Most values of one JSON text: each costs up to a hundred times its bytes once it is decoded."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # matches wherever a quote is: no text takes long
_OBJECT = re.compile(rb"[\x00\s\xef\xbb\xbf\xff\xfe]*+\{")  # in any encoding, with or without a byte order mark
_decode_json = msgspec.json.Decoder().decode
_skip_json = msgspec.json.Decoder(msgspec.Raw).decode  # reads it and makes nothing of it
_decode_carelessly = json.JSONDecoder(strict=False, parse_int=float).raw_decode
_encode_json = msgspec.json.Encoder().encode
_ID_BYTES = 128
_MOST_CAPTURES = 2_000
# By their identity, which is no other's as long as they are kept here.
_captures: dict[int, tuple[list[bytes], bytes, dict[str, str]]] = {}


class Envelope(msgspec.Struct, kw_only=True, gc=False):
    """What a payload says of itself; None where it is silent.

    Attributes:
        data: JSON text in UTF-8, or bytes where `binary`.
        decoded: the data, decoded, where it is JSON.
        foreign: the payload was not an envelope: all of it is the data.
    """

    data: bytes
    decoded: Any = None
    binary: bool = False
    id: str | None = None
    type: str | None = None
    topic: str | None = None
    time: int | None = None
    user_id: str | None = None
    foreign: bool = False


def read_envelope(document: dict[str, Any]) -> Envelope:
    """An event as a publisher wrote it: `{id?, type?, topic?, data | data_base64, time?, userId?}`.

    `timestamp`, of the older form, is read as `time`.

    Raises:
        InvalidPayload: a field has the wrong type, or both kinds of data are there.
    """
    envelope = Envelope(
        data=b"null",
        id=_text(document, "id", _ID_BYTES),
        type=_text(document, "type", 256),
        topic=_text(document, "topic", 65535),
        time=_time(document),
        user_id=_text(document, "userId", 256),
    )
    if "data_base64" in document:
        if "data" in document:
            raise InvalidPayload("the event has both data and data_base64", hint="send one of them")
        envelope.binary = True
        envelope.data = _base64(document["data_base64"])
    else:
        envelope.decoded = document.get("data")
        envelope.data = _encode_checked(envelope.decoded)
    return envelope


def read_payload(payload: bytes) -> Envelope:
    """An MQTT payload: our envelope, the older one, any JSON, or bytes.

    A JSON object is an envelope where it has `data` or `data_base64`, and a `type` or an `id`.
    An empty payload is the JSON value null. What looks like an envelope but is not well
    formed is taken as foreign JSON.

    Raises:
        TooComplex: JSON of too many values, or nested too deep. Nothing else is an error.
    """
    if not payload:
        return Envelope(data=b"null", foreign=True)
    try:
        if len(payload) > MAX_NODES:  # less cannot be too many values
            _skip_json(payload)
            check_nodes(payload)
        document = _decode_json(payload)
    except RecursionError as error:
        raise _too_deep(MAX_DEPTH) from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Envelope(data=payload, binary=True, foreign=True)
    deep = _brackets(payload) > MAX_DEPTH  # else it cannot be nested deeper
    if _looks_like_envelope(document):
        try:
            envelope = read_envelope(document)
        except InvalidPayload:
            pass  # not an envelope after all: foreign JSON, delivered whole
        else:
            if deep:
                check_depth(document, MAX_DEPTH + 1)  # the envelope around the data is a level of its own
            return envelope
    if deep:
        check_depth(document)
    data = payload.strip()
    if b"\n" in data or b"\r" in data:  # one line, as server-sent events need it
        data = msgspec.json.format(data, indent=-1)
    return Envelope(data=data, decoded=document, time=_foreign_time(document), foreign=True)


def read_received(payload: bytes) -> Envelope:
    """The same for who receives a message, which is there whatever it is like: what is too complex is bytes."""
    try:
        return read_payload(payload)
    except TooComplex:
        return Envelope(data=payload, binary=True, foreign=True)


def named_user(envelope: Envelope) -> str | None:
    """The user that a payload names, as a careless reader would take it: also where it is not quite an envelope.

    Raises:
        TooComplex: it is not quite JSON either, and too much of it.
    """
    if envelope.user_id is not None or not envelope.foreign:
        return envelope.user_id
    document = _read_carelessly(envelope.data) if envelope.binary else envelope.decoded
    if not isinstance(document, dict) or "userId" not in document:
        return None
    named = document["userId"] if _looks_like_envelope(document) else None
    return named if isinstance(named, str) else None


def _read_carelessly(payload: bytes) -> object:
    """An object that some JSON parser finds in what the standard's does not take.

    Such are a byte order mark, UTF-16, bytes that are not UTF-8, half a surrogate pair, NaN, numbers that
    are too large, and what stands behind the object.
    """
    if _OBJECT.match(payload) is None:
        return None
    check_nodes(payload)
    text = payload.decode(json.detect_encoding(payload), "replace").lstrip("\ufeff \t\r\n")
    try:
        return _decode_carelessly(text)[0]
    except RecursionError as error:
        raise _too_deep(MAX_DEPTH) from error
    except ValueError:
        return None


def content_id(topic: str, payload: bytes) -> str:
    """The id of a message that has none but tells its time: the same on every way it comes.

    SHA-256 over topic, a zero byte and payload; the first 128 bits, in hex, after `h-`.
    """
    return "h-" + hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()[:32]


def envelope_json(record: Record) -> bytes:
    """The envelope as MQTT payload, and in the answers of REST, SSE and polling; made once."""
    form: bytes | None = record.forms.get("envelope")
    if form is None:
        form = record.forms["envelope"] = _envelope(record)
    return form


def _envelope(record: Record) -> bytes:
    event = record.event
    head: dict[str, Any] = {"id": event.id, "type": event.type, "topic": event.topic}
    tail: dict[str, Any] = {"time": format_time(event.time), "userId": event.user_id}
    tail["position"] = record.position
    tail |= {name: value for name, value in event.captures.items() if name != "userId" or event.user_id is None}
    if event.binary:
        key, data = b',"data_base64":', b'"' + base64.b64encode(event.data) + b'"'
    else:
        key, data = b',"data":', event.data
    return b"".join((_encode_json(head)[:-1], key, data, b",", _encode_json(tail)[1:]))


def data_with_captures(event: Event) -> bytes:
    """JSON data as Socket.IO handlers get it: an object with the captures, its own keys first."""
    if event.binary or not event.captures or event.data[:1] != b"{":
        return event.data
    captures = event.captures
    names, prefix = _encoded_captures(captures)
    data = event.data
    for name in names:
        if name in data:
            present = _decode_json(data)
            captures = {name: value for name, value in captures.items() if name not in present}
            if not captures:
                return data
            prefix = _encode_json(captures)[:-1] + b","
            break
    return prefix[:-1] + b"}" if data == b"{}" else prefix + data[1:]


def _encoded_captures(captures: dict[str, str]) -> tuple[list[bytes], bytes]:
    """Their names as JSON, and they as the beginning of an object; made once for a topic, whose events share them."""
    known = _captures.get(id(captures))
    if known is None:
        if len(_captures) >= _MOST_CAPTURES:
            _captures.clear()
        known = [_encode_json(name) for name in captures], _encode_json(captures)[:-1] + b",", captures
        _captures[id(captures)] = known
    return known[0], known[1]


def _encode_checked(document: object) -> bytes:
    try:
        data = _encode_json(document)
    except RecursionError:
        check_depth(document)
        raise
    except UnicodeEncodeError as error:
        raise InvalidPayload("the data has half of a surrogate pair, which is no character") from error
    if _brackets(data) > MAX_DEPTH:  # else it cannot be nested deeper
        check_depth(document)
    return data


def _brackets(data: bytes) -> int:
    return data.count(b"{") + data.count(b"[")


def check_nodes(text: bytes, limit: int = MAX_NODES) -> None:
    """Refuse JSON of too many values, before it is decoded.

    Raises:
        TooComplex: with `limit`.
    """
    if len(text) <= limit or _separators(text) <= limit:
        return
    if _separators(_STRING.sub(b"", text)) > limit:  # what stands in strings is no separator
        raise TooComplex(f"the JSON has more than {limit} values", hint="send less at once", limit=limit)


def _separators(text: bytes) -> int:
    return text.count(b",") + _brackets(text)


def check_depth(document: object, limit: int = MAX_DEPTH) -> None:
    """Refuse JSON that is nested too deep.

    Raises:
        TooComplex: with `limit`.
    """
    level: list[object] = [document]
    for _ in range(limit):
        nested: list[object] = []
        for value in level:
            if isinstance(value, dict):
                nested += [item for item in value.values() if isinstance(item, dict | list)]
            elif isinstance(value, list):
                nested += [item for item in value if isinstance(item, dict | list)]
        if not nested:
            return
        level = nested
    raise _too_deep(limit)


def _too_deep(limit: int) -> TooComplex:
    return TooComplex(f"the data is nested more than {limit} levels deep", hint="flatten it", limit=limit)


def _looks_like_envelope(document: object) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(document, dict)
        and ("data" in document or "data_base64" in document)
        and (isinstance(document.get("type"), str) or isinstance(document.get("id"), str))
    )


def _text(document: dict[str, Any], name: str, limit: int) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidPayload(f"{name} is not a string", hint=f"send {name} as text, or leave it out")
    if not 0 < len(value) <= limit or "\0" in value:
        raise InvalidPayload(f"{name} has {len(value)} characters", hint=f"use 1 to {limit}", limit=limit)
    return value


def _time(document: dict[str, Any]) -> int | None:
    value = document.get("time", document.get("timestamp"))
    if value is None:
        return None
    time = parse_time(value)
    if time is None:
        raise InvalidPayload("time is not a time", hint="use RFC 3339, such as 2026-01-31T09:30:00.125Z")
    return time


def _foreign_time(document: object) -> int | None:
    if not isinstance(document, dict):
        return None
    value = document.get("time", document.get("timestamp"))
    return None if value is None else parse_time(value)


def _base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidPayload("data_base64 is not a string", hint="send the bytes in base64 (RFC 4648 §4)")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidPayload("data_base64 is not base64", hint="use the alphabet of RFC 4648 §4") from error
