"""What is published in the demonstration, by which door, and who listens to what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

Door = Literal["REST", "Socket.IO", "MQTT QoS 1", "MQTT QoS 2", "Python"]

CLIENTS = ("socketio", "mqtt", "mqtt-ws", "sse", "poll")
"""The kinds of clients: Socket.IO, MQTT over TCP, MQTT over WebSocket, SSE, long polling."""

ROOMS = ("org:global", "lead:lead-123", "user:sales-rep")
"""What every client hears. Most events are in two of these rooms, and still come once."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the demonstration.

    Attributes:
        title: for people.
        door: by which it goes in.
        topic: its topic; over REST, Socket.IO and Python the map makes it of `type` and `data`.
    """

    title: str
    door: Door
    id: str
    type: str
    topic: str
    data: dict[str, Any]


def scenario(new_id: Callable[[], str]) -> tuple[Step, ...]:
    """The five events, with fresh ids."""
    return (
        Step(
            title="Lead created: Acme Corp",
            door="REST",
            id=new_id(),
            type="lead:created",
            topic="crm/leads/lead-123/created",
            data={"leadId": "lead-123", "company": "Acme Corp", "status": "new"},
        ),
        Step(
            title="Lead assigned: Acme Corp → Sales Rep",
            door="Socket.IO",
            id=new_id(),
            type="lead:assigned",
            topic="crm/leads/lead-123/assigned",
            data={"leadId": "lead-123", "company": "Acme Corp", "assignedTo": "Sales Rep"},
        ),
        Step(
            title="Activity created: CALL for lead-123",
            door="MQTT QoS 1",
            id=new_id(),
            type="activity:created",
            topic="crm/activities/activity-456/created",
            data={"activityId": "activity-456", "kind": "CALL", "leadId": "lead-123"},
        ),
        Step(
            title="User presence: Sales Rep is online",
            door="MQTT QoS 2",
            id=new_id(),
            type="user:presence",
            topic="crm/users/sales-rep/presence",
            data={"userId": "sales-rep", "name": "Sales Rep", "status": "online"},
        ),
        Step(
            title="Notification: New Lead Assignment",
            door="Python",
            id=new_id(),
            type="notification",
            topic="crm/users/sales-rep/notifications/notification-789",
            data={"notificationId": "notification-789", "userId": "sales-rep", "title": "New Lead Assignment"},
        ),
    )
