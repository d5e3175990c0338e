"""What a reader has, what it misses, and how history and live events join: pure, no I/O."""

from gapless.delivery.cursor import Cursor
from gapless.delivery.recent import RecentEvents
from gapless.delivery.rooms import RoomSubscriptions, Window
from gapless.delivery.runs import SharedRuns

__all__ = ["Cursor", "RecentEvents", "RoomSubscriptions", "SharedRuns", "Window"]
