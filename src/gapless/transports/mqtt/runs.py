"""The first messages that a client gets when it comes back: the same bytes for all that come back to the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gapless.eventlog import Selector
from gapless.hub import Hub
from gapless.mqtt import ProtocolVersion
from gapless.mqtt.session import Sent, Session
from gapless.transports.mqtt.forms import plain_key, plain_of

_MOST_SUBSCRIPTIONS = 16
"""Clients with more are not likely to be alike."""
_RUN_BYTES = 64 * 1024
"""Bytes of a run at most, beside one message."""


class Run(NamedTuple):
    """Messages of the log at QoS 0 and 1, none of which expires.

    Attributes:
        data: the packets.
        sent: those at QoS 1, by packet identifier (see `Plain`).
        at_qos0: how many are not.
        through: offset up to which nothing else is wanted.
        largest: bytes of the largest packet.
        kept: whether a session has to remember that they were sent.
    """

    data: bytes
    sent: dict[int, Sent]
    at_qos0: int
    through: int
    largest: int
    kept: bool


def run_after(
    hub: Hub, session: Session, version: ProtocolVersion, position: int, *, selector: Callable[[], Selector], most: int
) -> Run | None:
    """What the session's client is to get next, `most` messages at most; None where that is its own affair.

    So it is where it depends on more than what is subscribed to, and how: on what the client published itself, on when
    it subscribed, on what it has left open; or where memory does not have the events.

    Args:
        selector: makes what to read, where nobody was at this place before.
    """
    signature = _signature_of(session, position)
    if signature is None:
        return None
    key = ("mqtt", version, signature, position, most)
    run: Run | None = hub.runs.get(key)
    if run is None and (run := _make(hub, session, version, position, selector=selector(), most=most)) is not None:
        hub.runs.put(key, run, len(run.data))
    return run


def _signature_of(session: Session, position: int) -> tuple[object, ...] | None:
    """All that says how an event after the position goes to this session's client."""
    if session.windows or session.hole is not None or not 0 < len(session.subscriptions) <= _MOST_SUBSCRIPTIONS:
        return None
    parts: list[object] = []
    for name, sub in session.subscriptions.items():
        if sub.since > position or sub.no_local or sub.shared:
            return None
        parts.append((name, sub.qos, sub.retain_as_published, sub.identifier, sub.bare))
    return tuple(parts)


def _make(
    hub: Hub, session: Session, version: ProtocolVersion, position: int, *, selector: Selector, most: int
) -> Run | None:
    page = hub.page_now(selector, position, limit=most)
    if page is None or not page.complete:
        return None
    parts: list[bytes] = []
    sent: dict[int, Sent] = {}
    at_qos0 = size = largest = 0
    kept = False
    for record in page.records:
        event = record.event
        grant = session.grant(event.topic, record.offset, rooms=event.rooms)
        if grant is None:
            continue
        if event.expires is not None:
            break
        key = plain_key(version, grant)
        plain = record.forms.get(key) or plain_of(record, grant, version, key)
        if plain.qos > 1 or plain.packet_id in sent or (parts and size + plain.size > _RUN_BYTES):
            break
        if plain.qos:
            sent[plain.packet_id] = plain.sent
        else:
            at_qos0 += 1
        kept = kept or grant.qos > 0
        parts += plain.parts
        size += plain.size
        largest = max(largest, plain.size)
        position = record.offset
    else:
        position = page.through
    return Run(b"".join(parts), sent, at_qos0, position, largest, kept)
