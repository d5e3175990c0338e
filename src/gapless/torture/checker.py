"""The offline checker: what every journal says, against the log and what was acknowledged. Pure."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import msgspec

from gapless.torture.content import data_of, fingerprint, key_of, rooms_of
from gapless.torture.journal import Line
from gapless.torture.kinds import DOORS, KINDS, Promise
from gapless.torture.plan import ClientPlan, Plan

LOG = "the log"
"""Stands for a client where the log itself is at fault."""


_FORGETTING = {
    "gateway": {"gateway-kill": "a kill of the gateway", "disk-full": "a full disk"},
    "broker": {
        "broker-kill": "a kill of the broker",
        "broker-link-cut": "a cut of the link",
        "broker-link-blackhole": "a cut of the link",
        "gateway-kill": "a kill of the gateway",
    },
}
"""Faults that may take along acknowledgements at QoS 1, by the server that a client talks to. A client at the
external broker may hear again what the link could not know to have arrived there."""

_UNLINKING = ("gateway-kill", "broker-kill", "broker-link-cut", "broker-link-blackhole", "disk-full")
"""Faults after which the link has to connect anew. A gateway killed meanwhile does not know what the broker knows."""

_LATE = 15.0
"""Seconds that a client at the broker, paused or on a slow link, may journal a message after the link sent it."""

BROKER_WINDOW = 100
"""Most messages of the link that a broker may take along at its kill, having acknowledged them before it saved."""


class Violation(StrEnum):
    """What can be wrong.

    Attributes:
        lost: acknowledged and not in the log, or in the log and not heard by a client of its rooms.
        duplicated: heard, or stored, twice where the client's promise allows one.
        reordered: heard after an event that comes later in the log; or stored before an event that was
            acknowledged before this one was tried.
        invented: heard, or stored, though nobody tried it; or heard by a client that is in none of its rooms.
        altered: other data, another id or another position than it has.
        incomplete: the gateway said that events are gone, though nothing was removed from the log.
        forgotten: a session was not there when its client came back to it.
        refused: a client was refused for good what it had a right to.
        stuck: a publisher was not done, though all faults were healed.
        ended: a process ended by itself.
    """

    lost = "lost"
    duplicated = "duplicated"
    reordered = "reordered"
    invented = "invented"
    altered = "altered"
    incomplete = "incomplete"
    forgotten = "forgotten"
    refused = "refused"
    stuck = "stuck"
    ended = "ended"


class FaultDone(msgspec.Struct, frozen=True):
    """A fault as it happened: when it began and was healed (seconds since the Unix epoch), on whom, in words."""

    began: float
    healed: float
    kind: str
    target: str
    text: str


class LogRow(msgspec.Struct, frozen=True):
    """An event in the log: its offset, its id, its key and the fingerprint of its data."""

    offset: int
    id: str
    key: str
    sha: str


class Finding(msgspec.Struct, frozen=True):
    """One violation.

    Attributes:
        client: who saw it; `LOG` or `publisher X` else.
        event: the event's key, where it is about one.
        position: its offset in the log, where it has one.
        text: in words.
        fault: the last fault before it that touched the client or what it depends on; empty for none.
    """

    kind: Violation
    client: str
    event: str
    position: int | None
    text: str
    fault: str

    def __str__(self) -> str:
        where = f" at offset {self.position}" if self.position is not None else ""
        what = f" {self.event}{where}" if self.event else ""
        after = f"; the fault before: {self.fault}" if self.fault else "; no fault before"
        return f"{self.kind.value}{what}, {self.client}: {self.text}{after}"


class History(msgspec.Struct, frozen=True):
    """All that is known of a run.

    Attributes:
        epoch: of the log.
        clients, publishers: their journals, by name.
        log: every event stored, in order.
        faults: as they happened.
        ended: processes that ended by themselves, and what they said.
    """

    plan: Plan
    epoch: str
    clients: Mapping[str, Sequence[Line]]
    publishers: Mapping[str, Sequence[Line]]
    log: Sequence[LogRow]
    faults: Sequence[FaultDone]
    ended: Mapping[str, str] = {}


class Report(msgspec.Struct, frozen=True):
    """What the checker found.

    Attributes:
        acknowledged: events that were acknowledged to their publishers.
        stored: events in the log.
        checked: deliveries compared.
        allowed: what was exempt, by reason. Nothing else is.
        findings: every violation; none: all is well.
    """

    acknowledged: int
    stored: int
    checked: int
    allowed: dict[str, int]
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """Violations by kind, all kinds."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind.value: found[kind] for kind in Violation}


def check(history: History) -> Report:
    """Compare the journals of a run with its log and its acknowledgements."""
    return _Checker(history).check()


class _Event(msgspec.Struct, frozen=True):
    """What is true of an event that somebody tried to publish."""

    sha: str
    rooms: tuple[str, str]
    id: str | None


class _Checker:
    def __init__(self, history: History) -> None:
        self._history = history
        self._findings: list[Finding] = []
        self._allowed: Counter[str] = Counter()
        self._checked = 0
        self._acknowledged = 0
        self._tried: dict[str, _Event] = {}
        self._offsets: dict[str, int] = {}

    def check(self) -> Report:
        history = self._history
        for name, lines in history.publishers.items():
            self._collect_tried(name, lines)
        self._check_log()
        for name, lines in history.publishers.items():
            self._check_publisher(name, lines)
        for client in history.plan.clients:
            self._check_client(client, history.clients.get(client.name, ()))
        for name, said in history.ended.items():
            self._find(Violation.ended, name, text=f"the process ended by itself: {said}", at=None)
        return Report(self._acknowledged, len(history.log), self._checked, dict(self._allowed), tuple(self._findings))

    def _find(
        self, kind: Violation, client: str, key: str = "", *, text: str, at: float | None, target: str = ""
    ) -> None:
        fault = self._fault_before(target or client, at)
        self._findings.append(Finding(kind, client, key, self._offsets.get(key), text, fault))

    def _fault_before(self, client: str, at: float | None) -> str:
        touching = {client, "gateway", "broker", "clock"}
        if client in DOORS:
            touching.add(DOORS[client].group)
        before = [
            fault
            for fault in self._history.faults
            if (at is None or fault.began <= at) and (client == LOG or fault.target in touching)
        ]
        return before[-1].text if before else ""

    # --- publishers and the log

    def _collect_tried(self, publisher: str, lines: Sequence[Line]) -> None:
        has_ids = publisher not in DOORS or DOORS[publisher].has_ids
        for line in lines:
            if line["is"] == "attempt":
                for n in range(line["first"], line["upto"] + 1):
                    key = key_of(publisher, n)
                    if key not in self._tried:
                        data = data_of(publisher, n)
                        self._tried[key] = _Event(fingerprint(data), rooms_of(data), key if has_ids else None)

    def _check_log(self) -> None:
        for row in self._history.log:
            event = self._tried.get(row.key)
            if event is None:
                self._find(Violation.invented, LOG, row.key, text=f"offset {row.offset}: nobody tried it", at=None)
                continue
            if row.key in self._offsets:
                self._find(Violation.duplicated, LOG, row.key, text=f"stored again at offset {row.offset}", at=None)
                continue
            self._offsets[row.key] = row.offset
            if row.sha != event.sha:
                self._find(Violation.altered, LOG, row.key, text="its data is not what was published", at=None)
            if event.id is not None and row.id != event.id:
                self._find(Violation.altered, LOG, row.key, text=f"its id became {row.id!r}", at=None)

    def _check_publisher(self, publisher: str, lines: Sequence[Line]) -> None:
        """Acknowledged is stored, where the door said; and in the order of publishing."""
        who = f"publisher {publisher}"
        behind = 0  # the highest offset acknowledged
        acknowledged: set[int] = set()
        tried: set[int] = set()
        for line in lines:
            match line["is"]:
                case "attempt":
                    self._check_order(publisher, line, tried, behind)
                    tried.update(range(line["first"], line["upto"] + 1))
                case "ack":
                    n, key = line["n"], key_of(publisher, line["n"])
                    acknowledged.add(n)
                    offset = self._offsets.get(key)
                    if offset is None:
                        text = f"acknowledged to {who}, and not stored"
                        self._find(Violation.lost, LOG, key, text=text, at=line["t"])
                        continue
                    behind = max(behind, offset)
                    if line["pos"] is not None and line["pos"] != f"{self._history.epoch}:{offset}":
                        text = f"acknowledged at {line['pos']}"
                        self._find(Violation.altered, who, key, text=text, at=line["t"], target=publisher)
        self._acknowledged += len(acknowledged)
        if tried - acknowledged or not any(line["is"] == "done" for line in lines):  # its client may go on to complain
            text = f"{len(tried - acknowledged)} events were tried and not acknowledged"
            self._find(Violation.stuck, who, text=text, at=None, target=publisher)

    def _check_order(self, publisher: str, line: Line, tried: set[int], behind: int) -> None:
        for n in range(line["first"], line["upto"] + 1):
            offset = self._offsets.get(key := key_of(publisher, n))
            if n not in tried and offset is not None and offset < behind:
                text = f"stored before offset {behind}, which was acknowledged before this one was tried"
                self._find(Violation.reordered, LOG, key, text=text, at=line["t"])

    # --- clients

    def _check_client(self, client: ClientPlan, lines: Sequence[Line]) -> None:
        heard = _Heard(client)
        for line in lines:
            match line["is"]:
                case "event":
                    self._checked += 1
                    self._check_event(heard, line)
                case "started" | "lost" | "connection" | "connected":
                    heard.note_connection(line)
                    self._check_connection(client, line)
                case "hole":
                    text = f"told that events are gone, up to {line['pos']}"
                    self._find(Violation.incomplete, client.name, text=text, at=line["t"])
                case "refused":
                    self._find(Violation.refused, client.name, text=line["why"], at=line["t"])
        self._check_whole(heard)

    def _check_connection(self, client: ClientPlan, line: Line) -> None:
        if line.get("recovered") is False or line.get("session") is False:
            text = "came back, and its session was not there"
            self._find(Violation.forgotten, client.name, text=text, at=line["t"])

    def _check_event(self, heard: _Heard, line: Line) -> None:
        name, key = heard.client.name, line["key"]
        event, offset = self._tried.get(key), self._offsets.get(key)
        if event is not None and heard.at_broker and _is_from_broker(key):
            self._allowed["published at the broker, heard at the broker: not checked"] += 1
            return
        if event is None or offset is None:
            text = "nobody tried it" if event is None else "heard, and not in the log"
            self._find(Violation.invented, name, key, text=text, at=line["t"])
            return
        if not set(heard.client.rooms) & set(event.rooms):
            self._find(Violation.invented, name, key, text="the client is not in its rooms", at=line["t"])
        if line["sha"] != event.sha:
            self._find(Violation.altered, name, key, text="its data is not what was published", at=line["t"])
        if line.get("id") is not None and event.id is not None and line["id"] != event.id:
            self._find(Violation.altered, name, key, text=f"it came with the id {line['id']!r}", at=line["t"])
        if line.get("pos") is not None and line["pos"] != f"{self._history.epoch}:{offset}":
            self._find(Violation.altered, name, key, text=f"it came with position {line['pos']}", at=line["t"])
        if key in heard.first:
            self._check_repeat(heard, key, line)
            return
        qos = line.get("qos")
        heard.first[key] = _First(offset, heard.since, qos, line["t"])
        reached = heard.reached.get(qos, 0)
        if offset < reached:
            text = f"it came after offset {reached}"
            self._find(Violation.reordered, name, key, text=text, at=line["t"])
        heard.reached[qos] = max(reached, offset)

    def _check_repeat(self, heard: _Heard, key: str, line: Line) -> None:
        reason = self._reason_to_repeat(heard, heard.first[key], line)
        if reason is not None:
            self._allowed[f"again at QoS {line['qos']}, {reason}"] += 1
            return
        text = f"it came again, at QoS {line['qos']}" if "qos" in line else "it came again"
        self._find(Violation.duplicated, heard.client.name, key, text=text, at=line["t"])

    def _reason_to_repeat(self, heard: _Heard, first: _First, line: Line) -> str | None:
        """Why the client's promise allows this copy; None: it does not."""
        if KINDS[heard.client.kind].promise is Promise.once or first.qos != line.get("qos"):
            return None
        qos1 = first.qos == 1
        if qos1 and line.get("dup"):
            return "flagged DUP"
        # A session forgets from one connection to the next; the link repeats itself on any.
        start = first.at - _LATE if heard.at_broker else first.since
        end = line["t"] if heard.at_broker else heard.since
        names = _FORGETTING["broker" if heard.at_broker else "gateway"]
        for fault in self._history.faults:
            may_forget = fault.kind in names and (qos1 or fault.kind == "broker-kill")
            if may_forget and start <= fault.healed and fault.began <= end:
                return f"after {names[fault.kind]}"
        if heard.at_broker and not qos1 and self._was_killed_connecting(start, end):
            return "after a kill of the gateway before its link was connected"
        return None

    def _was_killed_connecting(self, start: float, end: float) -> bool:
        """Whether the gateway was killed while its link was not connected, and nothing had come by it since it was."""
        faults = [fault for fault in self._history.faults if fault.kind in _UNLINKING]
        for before, kill in pairwise(faults):
            heard_between = any(before.healed < at < kill.began for at, _ in self._heard_at_broker)
            within = start <= before.healed and kill.began <= end
            if kill.kind == "gateway-kill" and within and not heard_between:
                return True
        return False

    def _highest_at_broker(self, until: float) -> int:
        """The highest offset that a client at the broker had heard by then."""
        return max((offset for at, offset in self._heard_at_broker if at <= until), default=0)

    @cached_property
    def _heard_at_broker(self) -> list[tuple[float, int]]:
        """When clients at the broker heard something of the gateway, and its offset; by time."""
        names = [each.name for each in self._history.plan.clients if KINDS[each.kind].port == "broker"]
        return sorted(
            (line["t"], self._offsets.get(line["key"], 0))
            for name in names
            for line in self._history.clients.get(name, ())
            if line["is"] == "event" and not _is_from_broker(line["key"])
        )

    def _check_whole(self, heard: _Heard) -> None:
        """Everything stored in its rooms was heard."""
        rooms = set(heard.client.rooms)
        missing = sorted(
            (offset, key)
            for key, offset in self._offsets.items()
            if key not in heard.first
            and rooms & set(self._tried[key].rooms)
            and not (heard.at_broker and _is_from_broker(key))
        )
        at_kill: Counter[float] = Counter()
        for offset, key in missing:
            at = heard.next_after(offset, key)
            kill = self._broker_kill_near(offset, at) if heard.at_broker else None
            if kill is not None and at_kill[kill] < BROKER_WINDOW:
                at_kill[kill] += 1
                self._allowed["acknowledged to the link by the broker, and lost there at its kill"] += 1
                continue
            text = "never heard" if at is not None else "never heard, nor anything after it"
            self._find(Violation.lost, heard.client.name, key, text=text, at=at)

    def _broker_kill_near(self, offset: int, after: float | None) -> float | None:
        """The kill of the broker that may have taken this message along.

        It was on its way there then: near the last that any client had heard before, and what follows at its QoS came
        after.
        """
        for fault in self._history.faults:
            if fault.kind != "broker-kill" or after is None or fault.began > after:
                continue
            if abs(offset - self._highest_at_broker(fault.began)) <= 2 * BROKER_WINDOW:
                return fault.began
        return None


def _publisher_of(key: str) -> str:
    return key.rpartition("/")[0]


def _is_from_broker(key: str) -> bool:
    """Whether the event was published at the external broker, whose own subscribers it reaches without us."""
    door = DOORS.get(_publisher_of(key))
    return door is not None and door.port == "broker"


class _First(NamedTuple):
    """An event's first arrival: its offset, when the connection began, at which QoS, and when it came."""

    offset: int
    since: float
    qos: int | None
    at: float


class _Heard:
    """What a client has heard so far.

    Attributes:
        at_broker: whether it talks to the external broker.
        first: each event's first arrival, by key.
        reached: the highest offset by QoS (None where there is no such thing).
        since: when the connection began.
    """

    def __init__(self, client: ClientPlan) -> None:
        self.client = client
        self.at_broker = KINDS[client.kind].port == "broker"
        self.first: dict[str, _First] = {}
        self.reached: dict[int | None, int] = {}
        self.since = 0.0

    # Once all are noted

    def next_after(self, offset: int, key: str) -> float | None:
        """When the next event after one that is missing came: at the same QoS, whose order is kept (MQTT 5 §4.6)."""
        qos = self._qos_of.get(_publisher_of(key))
        later = self._in_order[bisect([each.offset for each in self._in_order], offset) :]
        alike = [each.at for each in later if each.qos == qos or qos is None]
        return alike[0] if alike else max((each.at for each in later), default=None)

    @cached_property
    def _in_order(self) -> list[_First]:
        return sorted(self.first.values())

    @cached_property
    def _qos_of(self) -> dict[str, int | None]:
        """At which QoS a publisher's events come."""
        return {_publisher_of(key): first.qos for key, first in self.first.items()}

    def note_connection(self, line: Line) -> None:
        if line["is"] == "connection":
            self.since = line["t"]
