"""Who is in which room, counted per connection and told per user.

`Roster` and `Watches` are pure; `Presence` runs them on the event loop for the doors; `Announcer` tells
the topic map's row.
"""

from gapless.presence.announcer import Announcer
from gapless.presence.covered import CoveredRooms
from gapless.presence.news import RoomNews, Snapshot
from gapless.presence.options import CRM_TOPIC, PresenceOptions
from gapless.presence.presence import Presence
from gapless.presence.roster import EVERYWHERE, Roster
from gapless.presence.watches import Watcher

__all__ = [
    "CRM_TOPIC",
    "EVERYWHERE",
    "Announcer",
    "CoveredRooms",
    "Presence",
    "PresenceOptions",
    "RoomNews",
    "Roster",
    "Snapshot",
    "Watcher",
]
