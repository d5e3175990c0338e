"""The shapes of requests and answers, from which the API's description is made."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

EXAMPLE_POSITION = "k3x9a2:42"
EXAMPLE_ID = "0199f3c2-5f1e-7a51-9b7e-5a0c8f5d2e11"
EXAMPLE_TIME = "2026-01-31T09:30:00.125Z"

Position = Annotated[
    str, Meta(description="Place in the log, `epoch:offset`. Use it as it was given.", examples=[EXAMPLE_POSITION])
]


class NewEvent(Struct, kw_only=True):
    """An event to publish: a `type` of the topic map, or a `topic`, and its data."""

    type: Annotated[str, Meta(description="Event type; the map then gives the topic.")] | UnsetType = UNSET
    topic: Annotated[str, Meta(description="MQTT topic, in place of or besides the type.")] | UnsetType = UNSET
    data: Annotated[Any, Meta(description="Any JSON value.")] = UNSET
    data_base64: Annotated[str, Meta(description="Bytes in base64, in place of `data`.")] | UnsetType = UNSET
    id: (
        Annotated[str, Meta(max_length=128, description="Makes the request safe to repeat: an id is stored once.")]
        | UnsetType
    ) = UNSET
    time: Annotated[str, Meta(description="RFC 3339; default: now.", examples=[EXAMPLE_TIME])] | UnsetType = UNSET
    userId: Annotated[str, Meta(max_length=256, description="Who caused it.")] | UnsetType = UNSET
    qos: Annotated[int, Meta(ge=0, le=2, description="Quality of service; default: the map's.")] | UnsetType = UNSET
    retain: Annotated[bool, Meta(description="Keep it as its topic's last value; default: the map's.")] | UnsetType = (
        UNSET
    )
    expires_in: (
        Annotated[float, Meta(gt=0, description="Seconds after which it is not delivered any more.")] | UnsetType
    ) = UNSET


class AcceptedEvent(Struct, kw_only=True):
    """Where an accepted event stands. It is durable (an ephemeral one has no position)."""

    id: Annotated[str, Meta(examples=[EXAMPLE_ID])]
    topic: Annotated[str, Meta(examples=["crm/leads/123/created"])]
    type: Annotated[str, Meta(examples=["lead:created"])]
    position: Position | None
    duplicate: Annotated[bool, Meta(description="An event with this id was there: this is its place.")] = False


class AcceptedEvents(Struct):
    """The answers to several events, in their order."""

    events: list[AcceptedEvent]


class Envelope(Struct, kw_only=True):
    """An event as every subscriber gets it. What the topic captured (`leadId`, …) stands beside these."""

    id: str
    type: str
    topic: str
    data: Annotated[Any, Meta(description="JSON data.")] = UNSET
    data_base64: Annotated[str, Meta(description="Binary data, in base64.")] | UnsetType = UNSET
    time: Annotated[str, Meta(description="RFC 3339, UTC, milliseconds.")]
    userId: str | None
    position: Position | None


class EventPage(Struct, kw_only=True):
    """The answer of a poll."""

    position: Annotated[str, Meta(description="Pass it as `after` next time.", examples=[EXAMPLE_POSITION])]
    complete: Annotated[
        bool,
        Meta(description="False: events after the asked position are gone."),
    ]
    events: list[Envelope]


class Alive(Struct):
    """The process answers."""

    alive: bool


class ErrorBody(Struct, kw_only=True):
    """What went wrong. Decide by `code` and `retryable`, never by `message`."""

    code: Annotated[str, Meta(description="Stable.", examples=["invalid_payload"])]
    message: Annotated[str, Meta(description="For people.")]
    retryable: Annotated[bool, Meta(description="The same request may succeed later, unchanged.")]
    hint: Annotated[str, Meta(description="How to mend it.")] | UnsetType = UNSET
    details: Annotated[dict[str, Any], Meta(description="`size`, `limit`, `line`, `index`, …")] | UnsetType = UNSET


class ErrorAnswer(Struct):
    """Every answer from 400 on."""

    error: ErrorBody


def components(*types: type) -> dict[str, Any]:
    """JSON Schemas by name, for `#/components/schemas/`."""
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return schemas
