"""Histories of runs that never were: correct ones, and the tools to spoil them."""

from __future__ import annotations

import copy
from typing import Any

from gapless.torture.checker import FaultDone, History, LogRow
from gapless.torture.content import data_of, fingerprint, key_of, rooms_of
from gapless.torture.kinds import DOORS, KINDS, Promise
from gapless.torture.plan import ClientPlan, make_plan

EPOCH = "k3x9"


def correct(
    seed: int, *, clients: int = 4, events: int = 30, clients_are: tuple[ClientPlan, ...] = (), broker: bool = False
) -> History:
    """A run in which all went well: publishers take turns, clients hear all of their rooms."""
    plan = make_plan(seed, seconds=5, clients=clients, events=events, broker=broker, faults=False)
    if clients_are:
        plan = type(plan)(plan.seed, plan.seconds, plan.broker, clients_are, plan.publishers, ())
    log: list[LogRow] = []
    publishers: dict[str, list[dict[str, Any]]] = {each.name: [] for each in plan.publishers}
    numbers = [(n, each.name) for each in plan.publishers for n in range(each.events)]
    for n, name in sorted(numbers):
        key, offset = key_of(name, n), len(log) + 1
        event_id = key if DOORS[name].has_ids else f"made-{offset}"
        log.append(LogRow(offset, event_id, key, fingerprint(data_of(name, n))))
        publishers[name].append({"t": float(offset), "is": "attempt", "first": n, "upto": n})
        publishers[name].append({"t": offset + 0.5, "is": "ack", "n": n, "pos": f"{EPOCH}:{offset}"})
    for lines in publishers.values():
        lines.append({"t": 1000.0, "is": "done"})
    heard = {client.name: _heard(client, log) for client in plan.clients}
    return History(plan, EPOCH, heard, publishers, log, [])


def _heard(client: ClientPlan, log: list[LogRow]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"t": 0.0, "is": "connection"}, {"t": 0.1, "is": "connected"}]
    promise = KINDS[client.kind].promise
    for row in log:
        name, _, n = row.key.rpartition("/")
        if not set(client.rooms) & set(rooms_of(data_of(name, int(n)))):
            continue
        line = {"t": row.offset + 0.6, "is": "event", "key": row.key, "sha": row.sha, "id": row.id}
        line["pos"] = f"{EPOCH}:{row.offset}"
        if promise is not Promise.once:
            line |= {"qos": 2 if promise is Promise.qos2 else 1, "dup": False}
        lines.append(line)
    return lines


def spoilt(history: History, client: str) -> tuple[History, list[dict[str, Any]]]:
    """A copy whose journal of one client may be changed, and that journal."""
    mine = copy.deepcopy(history)
    lines = mine.clients[client]
    assert isinstance(lines, list)
    return mine, lines


def events_of(lines: list[dict[str, Any]]) -> list[int]:
    """Where the events are in a journal."""
    return [index for index, line in enumerate(lines) if line["is"] == "event"]


def fault(kind: str, target: str, began: float, healed: float) -> FaultDone:
    """A fault that happened."""
    return FaultDone(began, healed, kind, target, f"{kind} {target}")
