"""Defects planted between the hub and the transports, so that the checker can be seen to find them."""

from __future__ import annotations

from collections.abc import Callable

from gapless.event import Record
from gapless.hub import Hub
from gapless.hub.hub import Fanout

EVERY = 100
"""One of so many events of each transport is harmed."""

_FIRST = EVERY // 2


class _Harmed:
    """A transport's live side, behind a defect. Events that are not durable pass."""

    def __init__(self, fanout: Fanout) -> None:
        self.fanout = fanout
        self._count = _FIRST
        self._held: Record | None = None

    def _is_due(self, record: Record) -> bool:
        if record.offset:
            self._count += 1
        return record.offset > 0 and self._count % EVERY == 0

    def drop(self, record: Record) -> None:
        if not self._is_due(record):
            self.fanout.deliver(record)

    def twice(self, record: Record) -> None:
        self.fanout.deliver(record)
        if self._is_due(record):
            self.fanout.deliver(record)

    def swap(self, record: Record) -> None:
        held, self._held = self._held, None
        if held is None and self._is_due(record):
            self._held = record
            return
        self.fanout.deliver(record)
        if held is not None:
            self.fanout.deliver(held)


class _Deliver:
    """A `Fanout` out of a function."""

    def __init__(self, deliver: Callable[[Record], None]) -> None:
        self.deliver = deliver


PLANTS = {"drop": _Harmed.drop, "twice": _Harmed.twice, "swap": _Harmed.swap}


def plant_defect(name: str) -> None:
    """Harm every transport that is registered from now on, in this process.

    Args:
        name: `drop`, `twice` or `swap` (an event with the one that follows).
    """
    harm = PLANTS[name]
    add = Hub.add

    def add_harmed(hub: Hub, fanout: Fanout) -> None:
        harmed = _Harmed(fanout)
        add(hub, _Deliver(lambda record: harm(harmed, record)))

    def remove_harmed(hub: Hub, fanout: Fanout) -> None:
        """Transports are removed at the end only, where it makes no difference."""

    Hub.add = add_harmed  # type: ignore[method-assign,assignment]
    Hub.remove = remove_harmed  # type: ignore[method-assign,assignment]
