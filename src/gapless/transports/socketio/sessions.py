"""What a Socket.IO client leaves behind for its return: kept in the log's database.

This is Socket.IO's connection state recovery (a client shows the `pid` of its CONNECT and the
`offset` of the last event): the session knows the rooms; the client knows its position.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable

import msgspec

from gapless.delivery import RoomSubscriptions, Window
from gapless.eventlog import EventLog, StateCache, StateKind, StateWrite
from gapless.transports.socketio.secret import secret_text


class StoredSession(msgspec.Struct, array_like=True):
    """One session.

    Attributes:
        sid: the Socket.IO session id, given again on recovery.
        owner: see `Identity.owner`; nobody else may take it over.
        epoch: the log's epoch.
        start: position at connect: where a client that never got an event goes on.
        since, windows: see `RoomSubscriptions`.
        seen: milliseconds since the Unix epoch, when it was last written.
    """

    sid: str
    owner: str | None
    epoch: str
    start: int
    since: dict[str, int]
    windows: list[Window]
    seen: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredSession).decode


def new_pid() -> str:
    """A private id: whoever shows it may take the session over, so it is a secret."""
    return secret_text()


class SessionStore:
    """Sessions by pid."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._cache = StateCache()

    async def save_all(self, sessions: Iterable[tuple[str, StoredSession]]) -> None:
        """Store sessions by pid; returns once they survive a kill of the process."""
        stored = [(pid, _encode(session)) for pid, session in sessions]
        if not stored:
            return
        for pid, value in stored:
            self._cache.put(pid, value)
        try:
            writes = [StateWrite(StateKind.SOCKETIO_SESSION, pid, value) for pid, value in stored]
            await self._log.write_state(writes, durable=False)
        except BaseException:
            for pid, _ in stored:
                self._cache.drop(pid)
            raise

    async def load(self, pid: str) -> StoredSession | None:
        """A session of this life of the log, or None."""
        value = self._cache.get(pid) or await self._log.read_state(StateKind.SOCKETIO_SESSION, pid)
        if value is None:
            return None
        session = _decode(value)
        return session if session.epoch == self._log.epoch else None

    def forget(self, pid: str) -> Future[None]:
        """Delete a session that its client ended."""
        self._cache.drop(pid)
        return self._log.write_state([StateWrite(StateKind.SOCKETIO_SESSION, pid, None)], durable=False)

    async def purge(self, *, before: int) -> int:
        """Delete sessions last written before a time in milliseconds; says how many."""
        stale = [
            StateWrite(StateKind.SOCKETIO_SESSION, pid, None)
            for pid, value in (await self._log.all_state(StateKind.SOCKETIO_SESSION)).items()
            if _decode(value).seen < before
        ]
        for write in stale:
            self._cache.drop(write.key)
        if stale:
            await self._log.write_state(stale, durable=False)
        return len(stale)


def subscriptions_of(session: StoredSession) -> RoomSubscriptions:
    """The rooms of a stored session."""
    return RoomSubscriptions(dict(session.since), session.windows)
