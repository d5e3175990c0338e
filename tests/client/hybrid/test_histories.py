"""The histories of wire/client, which every language's client lives through alike."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gapless.client.connect import TransportName
from gapless.client.hybrid.inbox import Gap, Line
from gapless.client.hybrid.machine import LADDER, Machine
from gapless.client.hybrid.outbox import Entry
from gapless.client.hybrid.process import Later
from tests.client.hybrid.fake_gateway import FakeGateway, FakeWorld, event_of

FOLDER = Path(__file__).parents[3] / "wire" / "client"
HISTORIES = sorted(FOLDER.glob("*.json"))


class Player:
    """An application with a hybrid client, in a world where time moves by `advance` alone."""

    def __init__(self, history: dict[str, Any]) -> None:
        self._now = 1000.0
        self._ladder: list[TransportName] = history.get("ladder", LADDER)
        self._random = history.get("random", 0.5)
        self._gateway = FakeGateway(**history.get("gateway", {}))
        for door, condition in history.get("conditions", {}).items():
            self._gateway.set(door, condition)
        self._rooms: list[str] = history.get("rooms", ["lead:1"])
        stored = history.get("stored", {})
        outbox = {id_: _entry(id_, seq) for seq, id_ in enumerate(stored.get("outbox", []))}
        self._store: dict[str, Any] = {"cursor": stored.get("cursor"), "outbox": outbox}
        self._hold = False
        self._held: set[str] = set()
        self._delivered: list[str] = []
        self._errors: list[str] = []
        self._answers: dict[str, str] = {}
        self._begin()

    def _begin(self) -> None:
        world = FakeWorld(self._gateway, self._store)
        world.errors, world.answers = self._errors, self._answers
        self._lines: dict[str, Line] = {}
        self._held.clear()
        self._machine = Machine(
            world,
            clock=lambda: self._now,
            wall=lambda: self._now,
            random=lambda: self._random,
            ladder=self._ladder,
            cursor=self._store["cursor"],
            leftovers=list(self._store["outbox"].values()),
        )
        self._machine.start()
        for room in self._rooms:
            self._join(room)

    def _join(self, room: str) -> None:
        self._lines[room] = self._machine.subscribe(
            frozenset({room}), lambda: self._machine.scheduler.soon(lambda: self._handle(room))
        )

    def _handle(self, room: str) -> None:
        line = self._lines.get(room)
        while line is not None and room not in self._held and (item := line.take()) is not None:
            match item:
                case Gap():
                    self._delivered.append(f"gap:{item.reason}")
                case _:
                    self._delivered.append(str(item.id))
                    if self._hold:
                        self._held.add(room)

    def play(self, steps: list[dict[str, Any]]) -> None:
        for number, step in enumerate(steps):
            ((name, value),) = step.items()
            try:
                getattr(self, f"_do_{name}")(value)
            except AssertionError as error:
                raise AssertionError(f"step {number}, {json.dumps(step)}: {error}") from error
            self._machine.scheduler.run()
        self._machine.close()
        self._machine.scheduler.run()
        assert self._gateway.connections == [], "connections stay open after the end"
        assert self._machine.scheduler.due is None, "timers stay after the end"

    # --- steps

    def _do_log(self, entries: list[Any]) -> None:
        for entry in entries:
            self._gateway.append(entry)

    def _do_ephemeral(self, identity: str) -> None:
        self._gateway.deliver(event_of(identity, None))

    def _do_repeat(self, identity: str) -> None:
        self._gateway.deliver(self._gateway.find(identity))

    def _do_set(self, conditions: dict[str, str]) -> None:
        for door, condition in conditions.items():
            self._gateway.set(door, condition)

    def _do_cut(self, names: list[str]) -> None:
        self._gateway.cut(names)

    def _do_trim(self, offset: int) -> None:
        self._gateway.oldest = offset + 1

    def _do_epoch(self, epoch: str) -> None:
        self._gateway.replace(epoch)

    def _do_heartbeat(self, _: bool) -> None:
        self._gateway.heartbeat()

    def _do_advance(self, seconds: float) -> None:
        scheduler = self._machine.scheduler
        end = self._now + seconds
        scheduler.run()
        while (due := scheduler.due) is not None and due <= end:
            self._now = max(self._now, due)
            scheduler.run()
        self._now = end

    def _do_device(self, word: str) -> None:
        self._machine.connector.signal(word)

    def _do_deny(self, rooms: list[str]) -> None:
        self._gateway.denied.update(rooms)

    def _do_allow(self, rooms: list[str]) -> None:
        self._gateway.denied.difference_update(rooms)

    def _do_join(self, room: str) -> None:
        self._rooms = [*self._rooms, room]
        self._join(room)

    def _do_leave(self, room: str) -> None:
        self._rooms = [each for each in self._rooms if each != room]
        self._machine.unsubscribe(self._lines.pop(room))

    def _do_publish(self, ids: list[str]) -> None:
        for identity in ids:
            body = json.dumps({"id": identity, "type": "lead:updated"}).encode()
            entry, answer = self._machine.outbox.reserve(identity, body)
            self._store["outbox"][identity] = entry
            answer.then(partial(self._answered, identity))
            self._machine.outbox.flush()

    def _answered(self, identity: str, answer: Later) -> None:
        error = answer.error
        if error is None or error.code != "closed":
            self._answers[identity] = "ok" if error is None else error.code

    def _do_reject(self, codes: dict[str, str]) -> None:
        self._gateway.rejected |= codes

    def _do_token(self, token: str) -> None:
        self._gateway.token = token

    def _do_reconnect(self, _: bool) -> None:
        self._machine.connector.reconnect()

    def _do_close(self, _: bool) -> None:
        self._machine.close()

    def _do_restart(self, _: bool) -> None:
        self._machine.close()
        self._machine.scheduler.run()
        self._begin()

    def _do_hold(self, on: bool) -> None:
        self._hold = on
        if not on:
            held, self._held = self._held, set()
            for room in sorted(held):
                self._handle(room)

    def _do_expect(self, wanted: dict[str, Any]) -> None:
        status = self._machine.status
        gateway = self._gateway
        found: dict[str, Any] = {
            "state": status.connection.value,
            "transport": status.transport,
            "failovers": status.failovers,
            "queue": status.queue_length,
            "reason": status.last_failover.reason if status.last_failover else None,
            "error": status.error.code if status.error else None,
            "delivered": list(self._delivered),
            "published": list(gateway.published),
            "answers": dict(self._answers),
            "errors": list(self._errors),
            "cursor": self._store["cursor"],
            "open": sorted(each.name for each in gateway.connections),
            "attempts": {name: gateway.attempts.get(name, 0) for name in wanted.get("attempts", {})},
        }
        if "delivered" in wanted:
            plain = [index for index, each in enumerate(wanted["delivered"]) if each == "gap"]
            for index in plain:
                if index < len(self._delivered) and self._delivered[index].startswith("gap:"):
                    found["delivered"][index] = "gap"
        assert {name: found[name] for name in wanted} == wanted | (
            {"open": sorted(wanted["open"])} if "open" in wanted else {}
        )
        clearable: tuple[tuple[str, Any], ...] = (
            ("delivered", self._delivered),
            ("published", gateway.published),
            ("answers", self._answers),
            ("errors", self._errors),
            ("attempts", gateway.attempts),
        )
        for name, known in clearable:
            if name in wanted:
                known.clear()


def _entry(identity: str, seq: int) -> Entry:
    return Entry(identity, seq, json.dumps({"id": identity, "type": "lead:updated"}).encode())


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 16


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_history(path: Path) -> None:
    history = json.loads(path.read_bytes())
    Player(history).play(history["steps"])
