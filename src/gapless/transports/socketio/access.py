"""What the gate's decisions mean to a connected client: asked first, looked at again, ended, renewed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from gapless.auth import Gate, review
from gapless.errors import GaplessError, NotDecided, Overloaded, Unauthorized
from gapless.transports.socketio.client import REVOKED, Client, encode_event
from gapless.transports.socketio.fanout import RoomFanout
from gapless.transports.socketio.server import Server

logger = logging.getLogger("gapless.socketio")

T = TypeVar("T")

UNAUTHORIZED = "gapless:unauthorized"
"""Event by which a client is told, last, why its access ended."""
MOST_WAITING = 256
"""Requests of one client that may wait for the application's decisions."""


class Access:
    """The gate, seen from the connected clients of this door.

    Args:
        fanout: which a client that is cut off leaves at once.
        save: stores a client's session.
    """

    def __init__(
        self, gate: Gate, *, server: Server, fanout: RoomFanout, save: Callable[[Client], Coroutine[Any, Any, None]]
    ) -> None:
        self._gate = gate
        self._server = server
        self._fanout = fanout
        self._save = save
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- requests

    async def decided(
        self, client: Client, step: Callable[[], T], *, rooms: Iterable[str] = (), topics: Iterable[str] = ()
    ) -> T:
        """Run a step that checks and acts at once.

        Where the application must be asked first, this client's later requests wait for their turn, so that
        they take effect in the order in which they came.

        Raises:
            Unauthorized: the access ended meanwhile.
            Overloaded: too many of the client's requests wait.
            GaplessError: whatever the step raises.
        """
        if client.asking is None:
            try:
                return step()
            except NotDecided:
                client.asking = asyncio.Lock()
        if client.waiting >= MOST_WAITING:
            raise Overloaded("too many requests wait for the application's decision", hint="wait for the answers")
        client.waiting += 1
        try:
            async with client.asking:
                await self._gate.prepare(client.identity, rooms=rooms, topics=topics)
                self.check(client)
                return step()
        finally:
            client.waiting -= 1

    @staticmethod
    def check(client: Client) -> None:
        """Raises `Unauthorized` where the client's access has ended, or its connection."""
        if client.lease.released:
            raise client.ended or Unauthorized("the connection is closing", hint="connect again")

    # --- the end of access

    def end(self, client: Client) -> None:
        """Deliver nothing more, say why, and end the connection. The session stays, for a fresh token."""
        error = client.ended
        if error is None or not client.started:
            return  # it is connecting: told once it is in
        unread = client.queue.held
        self._silence(client)
        if unread:
            self._spawn(self._cut(client), "socketio-cut")
            return
        reason = {"code": error.code, "message": error.message, **error.details}
        client.queue.send(encode_event(UNAUTHORIZED, reason))
        self._spawn(self._disconnect(client), "socketio-unauthorized")

    async def _disconnect(self, client: Client) -> None:
        await self._server.disconnect(client.sid)
        await self._server.eio.end(client.eio_sid)

    async def _cut(self, client: Client) -> None:
        await self._server.eio.drop(client.eio_sid, self._server.reason.TRANSPORT_ERROR)

    def _silence(self, client: Client) -> None:
        client.close()
        self._fanout.leave(client, tuple(client.subscriptions.since))

    # --- rights that may have shrunk

    def review(self, client: Client) -> None:
        """Look again at what the client hears.

        A room that is not allowed is left at once. Where the application must be asked, the client gets
        nothing until it has answered; then it is fed from the log.
        """
        if not client.started:  # it is connecting: looked at once it is in
            client.undecided = True
            return
        denied, undecided = review(self._gate.check_subscribe_room, client.identity, client.subscriptions.since)
        if undecided and not client.undecided:
            client.undecided = True
            client.fall_behind(client.hub.head)
            self._spawn(self._ask(client), "socketio-review")
        self._leave(client, denied)

    async def _ask(self, client: Client) -> None:
        identity = None
        while identity is not client.identity:  # a fresh token may have come meanwhile
            identity = client.identity
            await self._gate.prepare(identity, rooms=tuple(client.subscriptions.since))
        client.undecided = False
        verdict = review(self._gate.check_subscribe_room, client.identity, client.subscriptions.since)
        self._leave(client, verdict.denied + verdict.undecided)
        client.feed()

    def _leave(self, client: Client, denied: list[str]) -> None:
        if not denied or not client.started:
            return
        if client.queue.held:
            # Events of these rooms may wait for its socket, or for its next poll. It comes back without them, and
            # is told then.
            self._silence(client)
            self._spawn(self._cut(client), "socketio-cut")
            return
        self.leave(client, denied)
        client.queue.send(encode_event(REVOKED, {"rooms": denied}))
        self._spawn(self._save(client), "socketio-save")

    def leave(self, client: Client, rooms: Iterable[str]) -> None:
        """The client hears these rooms no more."""
        client.subscriptions.unsubscribe(rooms, position=client.where)
        client.visit.hold(len(client.subscriptions.since))
        self._fanout.leave(client, rooms)

    # --- tasks

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, GaplessError):
            logger.warning("%s: %s", task.get_name(), error)
        elif error is not None:
            logger.error("task %s failed", task.get_name(), exc_info=error)
