"""The topic map of the reference domain, a CRM: the default."""

from __future__ import annotations

from gapless.topicmap.map import TopicMap
from gapless.topicmap.row import Alias, EphemeralIf, Row


def crm_map() -> TopicMap:
    """Leads, activities, presence, notifications, notes and the back end's own status."""
    lead_rooms = ("lead:{leadId}", "org:global")
    return TopicMap(
        [
            Row("crm/leads/{leadId}/created", "lead:created", lead_rooms),
            Row("crm/leads/{leadId}/updated", "lead:updated", lead_rooms),
            Row("crm/leads/{leadId}/assigned", "lead:assigned", lead_rooms),
            Row(
                "crm/activities/{activityId}/created",
                "activity:created",
                ("activity:{activityId}", "lead:{data.leadId}", "org:global"),
            ),
            Row("crm/users/{userId}/presence", "user:presence", ("user:{userId}", "org:global"), retain=True),
            Row("crm/notifications/{notificationId}", "notification", ("org:global",)),
            Row("crm/users/{userId}/notifications/{notificationId}", "notification", ("user:{userId}",)),
            Row(
                "crm/notes/{noteId}/collaboration",
                "note:collaboration",
                ("note:{noteId}",),
                ephemeral_if=EphemeralIf("kind", "awareness", first_byte=1),
            ),
            Row("crm/system/backend/status", "system:status", ("org:global",), retain=True),
        ],
        aliases=[
            alias
            for name, key in (("lead", "leadId"), ("activity", "activityId"), ("note", "noteId"), ("user", "userId"))
            for alias in (
                Alias(f"{name}:subscribe", f"{name}:{{{key}}}", f"{name}:subscribed"),
                Alias(f"{name}:unsubscribe", f"{name}:{{{key}}}", f"{name}:unsubscribed", "unsubscribe"),
            )
        ],
    )
