"""The topic map of the reference domain, a CRM: the default."""

from __future__ import annotations

from gapless.topicmap.map import TopicMap
from gapless.topicmap.row import Alias, EphemeralIf, Row
from gapless.topicmap.rules import RoomRule

_MANAGER = "role:MANAGER"
# Of leads, activities and notes a sales person hears those that the token names in its claim `rooms`, or that
# the application grants.
_SALES = (_MANAGER, "role:SALES and rooms", "role:SALES and ask")


def crm_map() -> TopicMap:
    """Leads, activities, presence, notifications, notes and the back end's own status.

    Roles: ADMIN may everything; MANAGER hears and publishes all of the business; SALES hears its
    own leads, writes in their notes, and tells its own presence.
    """
    lead_rooms = ("lead:{leadId}", "org:global")
    return TopicMap(
        [
            Row("crm/leads/{leadId}/created", "lead:created", lead_rooms, publish=(_MANAGER,)),
            Row("crm/leads/{leadId}/updated", "lead:updated", lead_rooms, publish=(_MANAGER,)),
            Row("crm/leads/{leadId}/assigned", "lead:assigned", lead_rooms, publish=(_MANAGER,)),
            Row(
                "crm/activities/{activityId}/created",
                "activity:created",
                ("activity:{activityId}", "lead:{data.leadId}", "org:global"),
                publish=(_MANAGER,),
            ),
            Row(
                "crm/users/{userId}/presence",
                "user:presence",
                ("user:{userId}", "org:global"),
                retain=True,
                publish=("claim:sub={userId}",),
            ),
            # Everybody hears announcements; org:global carries every lead.
            Row(
                "crm/notifications/{notificationId}",
                "notification",
                ("org:global", "org:announcements"),
                publish=(_MANAGER,),
            ),
            Row("crm/users/{userId}/notifications/{notificationId}", "notification", ("user:{userId}",)),
            Row(
                "crm/notes/{noteId}/collaboration",
                "note:collaboration",
                ("note:{noteId}",),
                ephemeral_if=EphemeralIf("kind", "awareness", first_byte=1),
                publish=("room:note:{noteId}",),
            ),
            Row("crm/system/backend/status", "system:status", ("org:global", "org:announcements"), retain=True),
        ],
        aliases=[
            alias
            for name, key in (("lead", "leadId"), ("activity", "activityId"), ("note", "noteId"), ("user", "userId"))
            for alias in (
                Alias(f"{name}:subscribe", f"{name}:{{{key}}}", f"{name}:subscribed"),
                Alias(f"{name}:unsubscribe", f"{name}:{{{key}}}", f"{name}:unsubscribed", "unsubscribe"),
            )
        ],
        rooms=[
            RoomRule("lead:{leadId}", _SALES),
            RoomRule("activity:{activityId}", _SALES),
            RoomRule("note:{noteId}", _SALES),
            RoomRule("user:{userId}", ("claim:sub={userId}",)),
            RoomRule("org:global", (_MANAGER,)),
            RoomRule("org:announcements", ("users",)),
        ],
        everything=("role:ADMIN", "service"),
    )
