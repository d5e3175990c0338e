"""Events for tests of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gapless.event import Event, Origin, Record
from gapless.eventlog import Appended, EventLog, Page, Selector


def make_event(number: int, **changes: Any) -> Event:
    """An event whose id rises with its number; everything else may be changed."""
    fields: dict[str, Any] = {
        "id": f"id-{number:08d}",
        "type": "lead:updated",
        "topic": f"crm/leads/{number}/updated",
        "rooms": (f"lead:{number}", "org:global"),
        "data": b'{"number":%d}' % number,
        "time": 1_700_000_000_000 + number,
        "origin": Origin("rest"),
    }
    return Event(**(fields | changes))


def make_events(count: int, start: int = 1, **changes: Any) -> list[Event]:
    """Events numbered from `start`."""
    return [make_event(number, **changes) for number in range(start, start + count)]


def offsets_of(records: Sequence[Record]) -> list[int]:
    return [record.offset for record in records]


def answers_of(appended: Sequence[Appended]) -> list[tuple[int, bool]]:
    """Offset and whether it is a duplicate, for each answer."""
    return [(record.offset, duplicate) for record, duplicate in appended]


async def read_all(log: EventLog, selector: Selector, after: int = 0, *, limit: int = 1000) -> list[Page]:
    """Pages up to the head, as a reader that is behind asks for them."""
    pages = []
    while True:
        page = await log.read(selector, after, limit=limit)
        assert page.through > after or page.through >= log.head, "a page made no progress"
        pages.append(page)
        after = page.through
        if after >= log.head:
            return pages
