"""The newest events in memory, indexed by room, from which returning clients are served."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from heapq import merge

from gapless.event import Record
from gapless.eventlog.contract import Page, Selector

SCANNED_AT_ONCE = 4_000
"""Events that one page by filters looks through: a few milliseconds of the event loop at most.
A page may thus be short, or empty, and end before the head, as the log's own pages may."""

OVERHEAD = 600
"""Bytes of an event's objects beyond `Event.size`. Measured: an event with 200 bytes of data takes 1,200, its
envelope 550, its MQTT 5 packet 1,400 to 2,000; one with 2,000 bytes 2,900, 2,400 and 3,200 to 5,600."""


class RecentEvents:
    """A bounded window over the log's end.

    Args:
        max_events: most events kept.
        max_bytes: most bytes kept, about. The newest event is always kept. Each encoding made for clients
            that were live counts as much as the event itself. What clients that come back later need
            beside those comes on top.
        head: offset after which the window begins; events up to it are in the log only.
    """

    def __init__(self, *, max_events: int = 100_000, max_bytes: int = 256 << 20, head: int = 0) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._records: dict[int, Record] = {}  # by offset; a deque is slow in its middle
        self._by_room: dict[str, list[int]] = {}  # rising offsets; the first may be gone, up to half of them
        self._weights: deque[int] = deque()  # of the records, oldest first
        self._bytes = 0
        self.head = head

    def __len__(self) -> int:
        return len(self._records)

    @property
    def bytes(self) -> int:
        """Bytes held, about."""
        return self._bytes

    @property
    def start(self) -> int:
        """Reads after this offset, or a later one, can be answered from here."""
        return self.head - len(self._records)

    def append(self, record: Record) -> None:
        """Add the next event of the log.

        Raises:
            ValueError: its offset does not follow the last one.
        """
        if record.offset != self.head + 1:
            raise ValueError(f"offset {record.offset} does not follow {self.head}")
        if self._records and (forms := self._records[self.head].forms):  # its live deliveries are done
            encodings = self._weights[-1] * len(forms)
            self._weights[-1] += encodings
            self._bytes += encodings
        self.head = record.offset
        self._records[record.offset] = record
        size = record.event.size + OVERHEAD
        self._weights.append(size)
        self._bytes += size
        for room in record.event.rooms:
            offsets = self._by_room.get(room)
            if offsets is None:
                self._by_room[room] = [record.offset]
            else:
                offsets.append(record.offset)
        while len(self._records) > 1 and (len(self._records) > self._max_events or self._bytes > self._max_bytes):
            self._evict()

    def page(self, selector: Selector, after: int, *, limit: int) -> Page | None:
        """Matching events after an offset; None where that lies before the window."""
        if after < self.start:
            return None
        if after >= self.head:
            return Page([], self.head, complete=True)
        if selector.rooms and not selector.filters and not selector.everything:
            return self._page_by_room(selector.rooms, after, limit)
        return self._page_by_scan(selector, after, limit)

    def _page_by_room(self, rooms: frozenset[str], after: int, limit: int) -> Page:
        runs = [run for room in rooms if (run := self._offsets_after(room, after, limit + 1))]
        records: list[Record] = []
        last = 0
        for offset in runs[0] if len(runs) == 1 else merge(*runs):
            if offset == last:
                continue
            if len(records) == limit:
                return Page(records, last, complete=True)
            records.append(self._records[offset])
            last = offset
        return Page(records, self.head, complete=True)

    def _offsets_after(self, room: str, after: int, most: int) -> list[int]:
        offsets = self._by_room.get(room)
        if not offsets or offsets[-1] <= after:
            return []
        first = bisect_right(offsets, after)
        return offsets[first : first + most]

    def _page_by_scan(self, selector: Selector, after: int, limit: int) -> Page:
        records: list[Record] = []
        wanted: dict[str, bool] = {}
        end = min(self.head, after + SCANNED_AT_ONCE)
        for offset in range(after + 1, end + 1):
            record = self._records[offset]
            topic = record.event.topic
            wants = wanted.get(topic)
            if wants is None or selector.rooms:
                wants = wanted[topic] = selector.wants(record.event)
            if wants:
                records.append(record)
                if len(records) == limit:
                    return Page(records, offset, complete=True)
        return Page(records, end, complete=True)

    def _evict(self) -> None:
        record = self._records.pop(self.start + 1)
        self._bytes -= self._weights.popleft()
        for room in record.event.rooms:
            offsets = self._by_room[room]
            if offsets[-1] == record.offset:
                del self._by_room[room]
            elif offsets[len(offsets) // 2] == record.offset:  # half of them are gone
                del offsets[: len(offsets) // 2 + 1]
