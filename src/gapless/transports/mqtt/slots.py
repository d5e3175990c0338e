"""The place of one incoming message among those that are acknowledged in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gapless.event import Record
from gapless.ingress import Ingress, Reply

if TYPE_CHECKING:
    from gapless.transports.mqtt.inbound import Inbound


class Slot(Reply):
    """What becomes of one PUBLISH. It keeps nothing of its connection alive once that is known.

    Attributes:
        qos, packet_id: of the PUBLISH.
        data: its acknowledgement, once it may be sent.
        failed: whether it was refused.
    """

    __slots__ = ("_again", "_inbound", "data", "failed", "packet_id", "qos")

    def __init__(self, ingress: Ingress, inbound: Inbound, qos: int, packet_id: int) -> None:
        self.ingress = ingress
        self._inbound: Inbound | None = inbound
        self._again: list[Slot] | None = None
        self.qos = qos
        self.packet_id = packet_id
        self.data: bytes | None = None
        self.failed = False

    @property
    def waits(self) -> bool:
        """Whether it is not known yet."""
        return self._inbound is not None

    def follow(self, other: Slot) -> None:
        """The other one is the same message, sent again: it becomes of it what becomes of this one."""
        self._again = [*(self._again or ()), other]

    def accepted(self, record: Record | None = None, *, duplicate: bool = False) -> None:
        """See `Reply`."""
        inbound, self._inbound = self._inbound, None
        if inbound is not None:
            inbound.committed(self)
        if self._again is not None:
            again, self._again = self._again, None
            for other in again:
                other.accepted(record, duplicate=True)

    def refused(self, error: BaseException) -> None:
        """See `Reply`."""
        self.failed = True
        inbound, self._inbound = self._inbound, None
        if inbound is not None:
            inbound.not_committed(self, error)
        if self._again is not None:
            again, self._again = self._again, None
            for other in again:
                other.refused(error)
