"""The newest events in memory, indexed by room and topic, from which returning clients are served."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from heapq import merge

from gapless.event import Record
from gapless.eventlog.contract import Page, Selector
from gapless.mqtt.topic_tree import TopicTree

SCANNED_AT_ONCE = 4_000
"""Events that one page by filters looks through: a few milliseconds of the event loop at most.
A page may thus be short, or empty, and end before the head, as the log's own pages may."""

MOST_RUNS = 200
"""Rooms and topics whose events a page puts together; for more it looks through all events."""

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
        self._by_topic: dict[str, list[int]] = {}  # the same
        self._topics: TopicTree[list[int]] = TopicTree()  # the same lists
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
        offset, event, records = record.offset, record.event, self._records
        if offset != self.head + 1:
            raise ValueError(f"offset {offset} does not follow {self.head}")
        size = event.size + OVERHEAD
        if records and (forms := records[self.head].forms):  # its live deliveries are done
            encodings = self._weights[-1] * len(forms)
            self._weights[-1] += encodings
            self._bytes += encodings
        self.head = offset
        records[offset] = record
        self._weights.append(size)
        self._bytes += size
        for room in event.rooms:
            offsets = self._by_room.get(room)
            if offsets is None:
                self._by_room[room] = [offset]
            else:
                offsets.append(offset)
        topic = event.topic
        offsets = self._by_topic.get(topic)
        if offsets is None:
            self._by_topic[topic] = offsets = [offset]
            self._topics.put(topic, offsets)
        else:
            offsets.append(offset)
        while (self._bytes > self._max_bytes or len(records) > self._max_events) and len(records) > 1:
            self._evict()

    def page(self, selector: Selector, after: int, *, limit: int) -> Page | None:
        """Matching events after an offset; None where that lies before the window."""
        if after < self.start:
            return None
        if after >= self.head:
            return Page([], self.head, complete=True)
        found = None if selector.everything else self._find(selector)
        return self._page_by_scan(selector, after, limit) if found is None else self._page_of(found, after, limit)

    def _find(self, selector: Selector) -> list[list[int]] | None:
        """The offsets of each room and topic wanted; None where these are too many topics."""
        found = [offsets for room in selector.rooms if (offsets := self._by_room.get(room)) is not None]
        for wanted in selector.filters:
            if "+" in wanted or "#" in wanted:
                topics = self._topics.few_matching(wanted, MOST_RUNS)
                if topics is None or len(found) + len(topics) > MOST_RUNS:
                    return None
                found += topics
            elif (offsets := self._by_topic.get(wanted)) is not None:
                found.append(offsets)
        return found

    def _page_of(self, found: list[list[int]], after: int, limit: int) -> Page:
        runs = [run for offsets in found if (run := _after(offsets, after, limit + 1))]
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
            if _forget(self._by_room[room], record.offset):
                del self._by_room[room]
        topic = record.event.topic
        if _forget(self._by_topic[topic], record.offset):
            del self._by_topic[topic]
            self._topics.remove(topic)


def _after(offsets: list[int], after: int, most: int) -> list[int]:
    if offsets[-1] <= after:
        return []
    first = bisect_right(offsets, after)
    return offsets[first : first + most]


def _forget(offsets: list[int], through: int) -> bool:
    """Offsets through this one are gone, and are removed now and then; says whether these were all."""
    half = len(offsets) // 2
    if offsets[half] == through:
        del offsets[: half + 1]
    return not offsets or offsets[-1] == through
