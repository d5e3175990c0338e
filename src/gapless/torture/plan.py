"""What a seed stands for: who takes part, and which faults happen when. Pure."""

from __future__ import annotations

from enum import StrEnum
from random import Random

import msgspec

from gapless.torture.content import EVERYTHING, LEADS
from gapless.torture.kinds import DOORS, KINDS, Kind, doors_for, kinds_for

_GAP = 0.7
"""Mean seconds between two faults."""

_BREATH = 3.0
"""Seconds between two faults of a server: a restart takes a second or two, and then there has to be work to harm."""

_QUIET_START = 0.5
"""Seconds without faults at the beginning."""


class FaultKind(StrEnum):
    """What goes wrong. See `injector` for how each is done."""

    gateway_kill = "gateway-kill"
    gateway_pause = "gateway-pause"
    disk_full = "disk-full"
    clock_jump = "clock-jump"
    client_kill = "client-kill"
    client_pause = "client-pause"
    publisher_kill = "publisher-kill"
    publisher_pause = "publisher-pause"
    link_cut = "link-cut"
    link_blackhole = "link-blackhole"
    link_delay = "link-delay"
    link_slow = "link-slow"
    link_refuse = "link-refuse"
    slow_reader = "slow-reader"
    change_transport = "change-transport"
    broker_kill = "broker-kill"
    broker_pause = "broker-pause"
    broker_link_cut = "broker-link-cut"
    broker_link_blackhole = "broker-link-blackhole"


_F = FaultKind
_WEIGHTS = {
    _F.gateway_kill: 3,
    _F.gateway_pause: 2,
    _F.disk_full: 2,
    _F.clock_jump: 2,
    _F.client_kill: 4,
    _F.client_pause: 3,
    _F.publisher_kill: 2,
    _F.publisher_pause: 1,
    _F.link_cut: 5,
    _F.link_blackhole: 4,
    _F.link_delay: 3,
    _F.link_slow: 2,
    _F.link_refuse: 2,
    _F.slow_reader: 3,
    _F.change_transport: 4,
}
_BROKER_WEIGHTS = {_F.broker_kill: 3, _F.broker_pause: 2, _F.broker_link_cut: 2, _F.broker_link_blackhole: 2}
_CLOCK = "clock"
_TRANSPORTS = ("socketio", "mqtt", "sse", "poll")


class ClientPlan(msgspec.Struct, frozen=True):
    """A client: its name, its kind, and the rooms it is in."""

    name: str
    kind: str
    rooms: tuple[str, ...]


class PublisherPlan(msgspec.Struct, frozen=True):
    """A publisher: its door (which is its name), how many events it publishes, and how many a second."""

    name: str
    events: int
    rate: float


class Fault(msgspec.Struct, frozen=True):
    """One fault.

    Attributes:
        at: seconds after the start.
        kind: what.
        target: the client, publisher or group of publishers it is done to; `gateway`, `broker` or `clock`.
        seconds: until it is healed.
        amount: seconds of a delay or of the clock's jump; bytes a second of a slow link.
        word: the new transport; how a link ends (`rst`, `fin`), or a blackhole (`restore`, `cut`).
    """

    at: float
    kind: FaultKind
    target: str
    seconds: float = 0.0
    amount: float = 0.0
    word: str = ""

    def __str__(self) -> str:
        extra = f" {self.amount:+.0f} s" if self.kind is FaultKind.clock_jump else ""
        extra += f" {self.word}" if self.word else ""
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:5.1f} s  {self.kind.value} {self.target}{extra}{lasting}"


class Plan(msgspec.Struct, frozen=True):
    """A whole run. The same arguments of `make_plan` give the same plan."""

    seed: int
    seconds: float
    broker: bool
    clients: tuple[ClientPlan, ...]
    publishers: tuple[PublisherPlan, ...]
    faults: tuple[Fault, ...]

    @property
    def events(self) -> int:
        """How many events are to be published."""
        return sum(publisher.events for publisher in self.publishers)


def make_plan(
    seed: int,
    *,
    seconds: float,
    clients: int,
    events: int,
    js: bool = True,
    sdk: bool = True,
    broker: bool = False,
    faults: bool = True,
) -> Plan:
    """Draw a plan.

    Args:
        seed: the same seed and arguments give the same plan.
        seconds: how long events are published and faults happen.
        clients: how many; from 16 on (14 without a broker) every kind is there.
        events: how many are published, by all doors together, evenly over the time.
        js: whether stock JavaScript clients can run.
        sdk: whether the TypeScript client can run.
        broker: whether an external broker takes part.
        faults: False is a calm run.
    """
    random = Random(seed)
    roster = _clients(random, clients, kinds_for(js=js, broker=broker, sdk=sdk))
    doors = doors_for(js=js, broker=broker)
    share = [events // len(doors) + (index < events % len(doors)) for index in range(len(doors))]
    publishers = tuple(
        PublisherPlan(door.name, count, count / seconds) for door, count in zip(doors, share, strict=True) if count
    )
    drawn = _Drawing(random, seconds, roster, publishers, broker=broker).draw() if faults else ()
    return Plan(seed, seconds, broker, roster, publishers, drawn)


def _clients(random: Random, count: int, kinds: tuple[Kind, ...]) -> tuple[ClientPlan, ...]:
    rooms = [f"lead:{lead}" for lead in range(1, LEADS + 1)]
    order = random.sample(kinds, len(kinds))
    chosen: list[ClientPlan] = []
    for index in range(count):
        kind = order[index % len(order)]
        match random.randrange(4):
            case 0 | 1:
                wanted: tuple[str, ...] = (EVERYTHING,)
            case 2:
                wanted = (EVERYTHING, *random.sample(rooms, 2))  # overlapping: still once
            case _:
                wanted = tuple(random.sample(rooms, 3))
        chosen.append(ClientPlan(f"{kind.name}-{index}", kind.name, wanted))
    return tuple(chosen)


class _Drawing:
    """Draws faults one after the other; what would overlap on one target is left out."""

    def __init__(
        self,
        random: Random,
        seconds: float,
        clients: tuple[ClientPlan, ...],
        publishers: tuple[PublisherPlan, ...],
        *,
        broker: bool,
    ) -> None:
        self._random = random
        self._seconds = seconds
        self._clients = clients
        self._publishers = publishers
        self._weights = {**_WEIGHTS, **(_BROKER_WEIGHTS if broker else {})}
        self._busy: dict[str, float] = {}

    def draw(self) -> tuple[Fault, ...]:
        faults: list[Fault] = []
        at = _QUIET_START
        while (at := at + self._random.expovariate(1 / _GAP)) < self._seconds:
            kind = self._random.choices(list(self._weights), list(self._weights.values()))[0]
            fault = self._fault(round(at, 2), kind)
            if fault is None:
                continue
            end = fault.at + fault.seconds
            if end <= self._seconds and self._busy.get(_place(fault), 0.0) <= fault.at:
                self._busy[_place(fault)] = end + (_BREATH if fault.target in ("gateway", "broker") else 0.0)
                faults.append(fault)
        return tuple(faults)

    def _fault(self, at: float, kind: FaultKind) -> Fault | None:
        random = self._random
        target = self._target(kind)
        if target is None:
            return None
        seconds = round(random.uniform(1, 6), 2)
        match kind:
            case _F.gateway_kill | _F.client_kill | _F.publisher_kill | _F.broker_kill:
                return Fault(at, kind, target, round(random.uniform(0, 2), 2))
            case _F.link_cut | _F.broker_link_cut:
                return Fault(at, kind, target, word=random.choice(("rst", "fin")))
            case _F.link_blackhole | _F.broker_link_blackhole:
                return Fault(at, kind, target, seconds, word=random.choice(("restore", "cut")))
            case _F.link_delay:
                return Fault(at, kind, target, seconds, amount=round(random.uniform(0.05, 1.5), 3))
            case _F.link_slow | _F.slow_reader:
                return Fault(at, kind, target, seconds, amount=round(random.uniform(500, 8000)))
            case _F.clock_jump:
                amount = random.choice((-1, 1)) * random.choice((5.0, 3600.0, 3 * 86400.0))
                return Fault(at, kind, target, seconds, amount=amount)
            case _F.change_transport:
                return Fault(at, kind, target, word=random.choice(_TRANSPORTS))
            case _:
                return Fault(at, kind, target, seconds)

    def _target(self, kind: FaultKind) -> str | None:
        match kind:
            case _F.gateway_kill | _F.gateway_pause | _F.disk_full:
                return "gateway"
            case _F.broker_kill | _F.broker_pause | _F.broker_link_cut | _F.broker_link_blackhole:
                return "broker"
            case _F.clock_jump:
                return _CLOCK
            case _F.publisher_kill | _F.publisher_pause:
                groups = sorted({DOORS[publisher.name].group for publisher in self._publishers})
                if kind is _F.publisher_kill:
                    groups = [group for group in groups if _is_killable(group)]
                return self._choose(groups)
            case _F.client_kill:
                return self._choose([each.name for each in self._clients if KINDS[each.kind].killable])
            case _F.change_transport:
                return self._choose([each.name for each in self._clients if each.kind == "roaming"])
            case _F.client_pause | _F.slow_reader:
                return self._choose([each.name for each in self._clients])
            case _:
                return self._choose([*(each.name for each in self._clients), *(each.name for each in self._publishers)])

    def _choose(self, names: list[str]) -> str | None:
        return self._random.choice(names) if names else None


def _is_killable(group: str) -> bool:
    return all(door.has_ids for door in DOORS.values() if door.group == group)


def _place(fault: Fault) -> str:
    """What a fault occupies: a process or a link."""
    if fault.kind.startswith("link-") or fault.kind is _F.slow_reader:
        return f"link of {fault.target}"
    return "link of the broker" if fault.kind.startswith("broker-link-") else fault.target
