"""The API's description at `/openapi.json` (OpenAPI 3.1), written beside the doors it describes."""

from __future__ import annotations

from typing import Any

from gapless import __version__
from gapless.limits import Limits
from gapless.transports.http.admin import NewRevocation, Recheck, RecheckAnswer, RevocationAnswer, RevocationList
from gapless.transports.http.connect import ConnectAnswer
from gapless.transports.http.health import Ready
from gapless.transports.http.options import HttpOptions
from gapless.transports.http.presence import PresenceAnswer
from gapless.transports.http.schemas import (
    EXAMPLE_ID,
    EXAMPLE_POSITION,
    EXAMPLE_TIME,
    AcceptedEvent,
    AcceptedEvents,
    Alive,
    Envelope,
    ErrorAnswer,
    EventPage,
    NewEvent,
    components,
)

Document = dict[str, Any]

NEW_EVENT = {"type": "lead:created", "data": {"leadId": "123", "name": "Acme Corp"}}
ACCEPTED = {
    "id": EXAMPLE_ID,
    "topic": "crm/leads/123/created",
    "type": "lead:created",
    "position": EXAMPLE_POSITION,
    "duplicate": False,
}
ENVELOPE = {
    "id": EXAMPLE_ID,
    "type": "lead:created",
    "topic": "crm/leads/123/created",
    "data": {"leadId": "123", "name": "Acme Corp"},
    "time": EXAMPLE_TIME,
    "userId": "7",
    "position": EXAMPLE_POSITION,
    "leadId": "123",
}

_ERRORS = {
    400: ("The request is not of the form this door takes; the message says where.", "invalid_payload"),
    401: ("The token is missing or wrong.", "unauthorized"),
    403: ("The gate does not let this client do that.", "forbidden"),
    404: ("There is no such thing: no event can be sent to one of the rooms; no keys to revoke.", "unknown_room"),
    413: ("Too many bytes, or too many events.", "payload_too_large"),
    415: ("The body is neither JSON nor NDJSON.", "unsupported_media_type"),
    507: ("It was to be retained, and what is retained fills its bound.", "quota_exceeded"),
    503: ("Nothing was accepted now; send the same again.", "log_unavailable"),
}


def openapi_document(limits: Limits, options: HttpOptions) -> Document:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gapless",
            "version": __version__,
            "summary": "Every application event to every device, once and in order.",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": options.public_url or "/"}],
        "security": [{}, {"bearer": []}],
        "tags": [
            {"name": "Events", "description": "Publish, read history, listen."},
            {"name": "Operation", "description": "For whoever runs the gateway."},
        ],
        "paths": {
            "/api/events": {"post": _publish(limits, options), "get": _poll(options)},
            "/api/stream": {"get": _stream(options)},
            "/api/connect": {"get": _connect(options)},
            "/api/presence": {"get": _presence(options)},
            "/api/admin/revocations": {"post": _revoke(), "get": _revocations()},
            "/api/admin/recheck": {"post": _recheck()},
            "/healthz": {"get": _operation("Alive", "The process answers.", _json("Alive", {"alive": True}))},
            "/readyz": {"get": _readyz()},
            "/metrics": {"get": _metrics()},
        },
        "components": {
            "schemas": components(
                *(
                    NewEvent,
                    AcceptedEvent,
                    AcceptedEvents,
                    Envelope,
                    EventPage,
                    ConnectAnswer,
                    PresenceAnswer,
                    Alive,
                    Ready,
                ),
                *(NewRevocation, RevocationAnswer, RevocationList, Recheck, RecheckAnswer, ErrorAnswer),
            ),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {str(status): _error(text, code) for status, (text, code) in _ERRORS.items()},
        },
    }


_INTRODUCTION = """\
An event is answered `201` once it is in the log, on disk. Every event has a position there,
`epoch:offset`, and the last position that a client processed resumes it on any transport:
as `after` here, as `Last-Event-ID` on the stream, as `after` over Socket.IO.

Every error has the same body: `{"error": {"code", "message", "retryable", "hint", "details"}}`.
"""


def _publish(limits: Limits, options: HttpOptions) -> Document:
    event = {"$ref": "#/components/schemas/NewEvent"}
    several = [NEW_EVENT, {"topic": "crm/notifications/1", "data": {"text": "Hello"}, "id": "order-17-shipped"}]
    return {
        "tags": ["Events"],
        "operationId": "publishEvents",
        "summary": "Publish one event, an array, or one per line",
        "description": (
            "Answered once every event is durable. All or none: where one of several is bad, nothing is accepted "
            "and the error names its `index` or `line`. Sending an `id` again answers the same and stores nothing: "
            f"so a request may be repeated. Limits: {options.body_bytes} bytes a request, "
            f"{limits.batch_events} events, {limits.payload_bytes} bytes of data each."
        ),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [event, {"type": "array", "items": event, "maxItems": limits.batch_events}]},
                    "examples": {
                        "one": {"summary": "One event", "value": NEW_EVENT},
                        "several": {"summary": "Several, all or none", "value": several},
                        "bytes": {
                            "summary": "Binary data",
                            "value": {"topic": "crm/notes/9/collaboration", "data_base64": "AAECAw=="},
                        },
                    },
                },
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "One event per line."},
                    "examples": {
                        "lines": {
                            "summary": "Two lines",
                            "value": '{"type":"lead:created","data":{"leadId":"1"}}\n'
                            '{"type":"lead:created","data":{"leadId":"2"}}\n',
                        }
                    },
                },
            },
        },
        "responses": {
            "201": {
                "description": "In the log: an object for one event, `events` for several.",
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [
                                {"$ref": "#/components/schemas/AcceptedEvent"},
                                {"$ref": "#/components/schemas/AcceptedEvents"},
                            ]
                        },
                        "examples": {
                            "one": {"value": ACCEPTED},
                            "several": {"value": {"events": [ACCEPTED]}},
                        },
                    }
                },
            },
            **_refer(400, 401, 403, 413, 415, 503, 507),
        },
    }


def _poll(options: HttpOptions) -> Document:
    operation = _operation(
        "History and long poll",
        "Events of the rooms after a position, in order. With `wait`, the answer comes as soon as there is one. "
        "Where `complete` is false, events are gone (the log does not keep them any more, or is another log): "
        "load your state anew, then go on from `position`.",
        _json("EventPage", {"position": EXAMPLE_POSITION, "complete": True, "events": [ENVELOPE]}),
        errors=(400, 401, 403, 404, 503),
        tag="Events",
    )
    operation["operationId"] = "pollEvents"
    operation["parameters"] = [
        _rooms(options, required=True),
        _parameter(
            "after",
            "The last position processed; `start` for everything that is kept; absent: from now on.",
            {"type": "string", "examples": [EXAMPLE_POSITION, "start"]},
        ),
        _parameter(
            "limit",
            "Most events of the answer.",
            {"type": "integer", "minimum": 1, "maximum": options.poll_max_limit, "default": options.poll_limit},
        ),
        _parameter(
            "wait",
            "Seconds to wait for an event where there is none.",
            {"type": "number", "minimum": 0, "maximum": options.poll_max_wait, "default": 0},
        ),
    ]
    return operation


def _stream(options: HttpOptions) -> Document:
    example = f"id: {EXAMPLE_POSITION}\ndata: {{…}}\n\n"
    answer = {
        "200": {
            "description": "The stream.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "examples": {"event": {"summary": "One event", "value": example}},
                }
            },
        }
    }
    operation = _operation(
        "Server-sent events",
        "For `EventSource`: each event is a `message` whose data is the envelope and whose id is the position. "
        "`gapless.position` tells the position at the start, and now and then on a quiet stream; "
        "`gapless.incomplete` says that events are gone and where the stream goes on.",
        answer,
        errors=(400, 401, 403, 404, 503),
        tag="Events",
    )
    operation["operationId"] = "streamEvents"
    operation["parameters"] = [
        _rooms(options, required=True),
        _parameter("after", "As for the poll.", {"type": "string"}),
        _parameter(
            "named",
            "1: events carry their type as `event:`, for `addEventListener('lead:created', …)`.",
            {"type": "string", "enum": ["0", "1"], "default": "0"},
        ),
        _parameter(
            "presence",
            "1: also who is in the rooms: `gapless.present` at the start, `gapless.presence` at each change.",
            {"type": "string", "enum": ["0", "1"], "default": "0"},
        ),
        _parameter("token", "The token, where no header can be set.", {"type": "string"}),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The last position received; goes before `after`.",
            "schema": {"type": "string"},
        },
    ]
    return operation


def _connect(options: HttpOptions) -> Document:
    operation = _operation(
        "What a client needs to connect",
        "The transports on offer with their URLs, in the order in which to try them; the MQTT filters of the rooms; "
        "the current position.",
        _json(
            "ConnectAnswer",
            {
                "epoch": "k3x9a2",
                "position": EXAMPLE_POSITION,
                "transports": [{"name": "sse", "url": "http://localhost:8080/api/stream?rooms=lead:123"}],
                "rooms": [
                    {
                        "room": "lead:123",
                        "room_filter": "$room/lead:123",
                        "filters": ["crm/leads/123/created"],
                        "mqtt": False,
                    }
                ],
                "keepalive": {"mqtt_seconds": 60, "sse_heartbeat_seconds": 15.0, "poll_max_wait_seconds": 60.0},
                "mqtt": {"username": "7", "password": "eyJhbGciOi…", "client_id": "phone", "expires": EXAMPLE_TIME},
                "broker": {
                    "urls": ["wss://broker.example.com/mqtt"],
                    "credentials": {
                        "username": "gapless-7~phone",
                        "password": "…",
                        "client_id": "7~phone",
                        "expires": EXAMPLE_TIME,
                    },
                    "filters": ["crm/leads/123/created"],
                    "history_topic": "gapless/history",
                    "replies": "gapless/replies/7",
                },
            },
        ),
        errors=(400, 401, 403, 404),
        tag="Events",
    )
    operation["operationId"] = "connect"
    operation["parameters"] = [
        _rooms(options, required=False),
        _parameter(
            "partial",
            "1: a room that may not be heard, or does not exist, is answered with its `error` beside the others; "
            "else the whole request is refused.",
            {"type": "string", "enum": ["0", "1"], "default": "0"},
        ),
        _parameter(
            "client",
            "What the client calls itself, the same each time: its MQTT client id ends in it. 1 to 64 letters, "
            "digits, '.', '_' and '-'.",
            {"type": "string", "maxLength": 64},
        ),
        _parameter(
            "broker",
            "1: short-lived credentials for the external broker, where there is one.",
            {"type": "string", "enum": ["0", "1"], "default": "0"},
        ),
    ]
    return operation


def _presence(options: HttpOptions) -> Document:
    person = {"userId": "7", "since": EXAMPLE_TIME, "connections": 2}
    room = {"users": [person], "anonymous": 1, "complete": True}
    operation = _operation(
        "Presence: who is in rooms",
        "Users with their open connections by any door, those who came first, first. `connections` is 0 with "
        "`lastSeen` where the last one is just gone and the user may come back. `complete` is false where there "
        "are more users than are listed.",
        _json("PresenceAnswer", {"rooms": {"lead:123": room}}),
        errors=(400, 401, 403, 404),
        tag="Events",
    )
    operation["operationId"] = "presence"
    operation["parameters"] = [{**_rooms(options, required=True), "name": "room"}]
    return operation


def _readyz() -> Document:
    ready = {"ready": True, "components": {"doors": "ok", "log": "ok"}}
    unready = {"ready": False, "components": {"doors": "ok", "log": "the disk is full"}}
    answer = _json("Ready", ready)
    answer["503"] = {**_json("Ready", unready)["200"], "description": "Not ready; the components say why."}
    return _operation("Ready", "The doors are open, the log takes writes, the link (if any) is up.", answer)


def _metrics() -> Document:
    answer = {"200": {"description": "The figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return _operation("Metrics for Prometheus", "In the text format, or OpenMetrics where asked for.", answer)


_REVOKED = {"kind": "user", "subject": "7", "made": EXAMPLE_TIME, "issuedBefore": EXAMPLE_TIME, "until": None}


def _revoke() -> Document:
    answer = _json("RevocationAnswer", {"revocation": _REVOKED, "connectionsEnded": 3})
    operation = _operation(
        "Revoke access",
        "Of one token (`jti`), of a user's tokens made so far, or of an API key (by name). Its connections end "
        "within a second, on every door; a restart does not give it back. For the roles of `auth.admin_roles`.",
        {"201": answer["200"]},
        errors=(400, 401, 403, 404, 503),
    )
    return {**operation, "requestBody": _body("NewRevocation", {"user": "7"})}


def _revocations() -> Document:
    answer = _json("RevocationList", {"revocations": [_REVOKED]})
    text = "Those that still matter, the newest first."
    return _operation("Revocations", text, answer, errors=(401, 403, 404))


def _recheck() -> Document:
    operation = _operation(
        "Recheck rights",
        "Rights changed in the application: it is asked again, and connections give up what they may hear no more.",
        _json("RecheckAnswer", {"connections": 3}),
        errors=(400, 401, 403, 404),
    )
    return {**operation, "requestBody": _body("Recheck", {"user": "7"})}


# --- pieces


def _body(schema: str, example: Any) -> Document:
    examples = {"one": {"summary": "A user's", "value": example}}
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": examples}
    return {"required": True, "content": {"application/json": content}}


def _operation(
    summary: str, description: str, answers: Document, *, errors: tuple[int, ...] = (), tag: str = "Operation"
) -> Document:
    return {
        "tags": [tag],
        "operationId": summary.split(" ")[0].lower(),
        "summary": summary,
        "description": description,
        "responses": {**answers, **_refer(*errors)},
    }


def _json(schema: str, example: Any) -> Document:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"200": {"description": "Success.", "content": {"application/json": content}}}


def _refer(*statuses: int) -> Document:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _error(description: str, code: str) -> Document:
    example = {"error": {"code": code, "message": description, "retryable": code == "log_unavailable"}}
    content = {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}, "example": example}
    return {"description": description, "content": {"application/json": content}}


def _parameter(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _rooms(options: HttpOptions, *, required: bool) -> Document:
    return {
        "name": "rooms",
        "in": "query",
        "required": required,
        "description": f"Up to {options.max_rooms} rooms, with commas; an event in several of them comes once.",
        "style": "form",
        "explode": False,
        "schema": {"type": "array", "items": {"type": "string"}, "maxItems": options.max_rooms},
        "example": ["lead:123", "org:global"],
    }
