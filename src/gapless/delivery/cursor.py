"""One reader's place in the log, and the rule that joins history with live events.

Every event is in the log before anybody sees it, so no live event needs a buffer while
history is read: a reader that is behind ignores live events and reads pages until nothing
lies between it and the head; then it turns live, in the same step of the event loop in
which the head was compared. A reader that is live and can take no more (a full socket, a
used-up receive maximum) falls behind again, at the position it reached.
"""

from __future__ import annotations

from collections.abc import Iterator

from gapless.event import Record
from gapless.eventlog.contract import Page


class Cursor:
    """Where one reader stands.

    Attributes:
        position: offset up to which the reader has everything, while it is behind. A live
            reader has everything up to the hub's head, which it need not note each time.
        live: whether live events are handed to it.
        complete: False once a page said that events it should have had are gone.
    """

    __slots__ = ("complete", "live", "position")

    def __init__(self, position: int, *, live: bool = False) -> None:
        self.position = position
        self.live = live
        self.complete = True

    def offer(self, offset: int) -> bool:
        """Whether a live event with this offset is to be delivered now, exactly this once."""
        if not self.live or offset <= self.position:
            return False
        self.position = offset
        return True

    def fall_behind(self, position: int) -> None:
        """Take no more live events; everything up to `position` was delivered."""
        if self.live:
            self.live = False
            self.position = max(self.position, position)

    def take(self, page: Page) -> Iterator[Record]:
        """The records of a page that are still missing, moving the position with each.

        The position ends at the page's `through`. Stop iterating where the reader can take
        no more: the position then is that of the last record taken.
        """
        if not page.complete:
            self.complete = False
        for record in page.records:
            if record.offset > self.position:
                self.position = record.offset
                yield record
        self.position = max(self.position, page.through)

    def join(self, head: int) -> bool:
        """Turn live if nothing lies between the position and the head; says whether it is live.

        Call it in the same step of the event loop in which `head` was read.
        """
        if not self.live and self.position >= head:
            self.live = True
        return self.live
