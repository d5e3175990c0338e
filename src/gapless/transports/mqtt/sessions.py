"""Where sessions live: connected ones in memory, those away in the log's database.

Of a session that is away a few words are in memory: when it ends, when its will is due, which
QoS 2 identifiers it has received, and its shared subscriptions. Everything else is kept as it is
stored, up to a bound, or read back when its client returns.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time as _time
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from gapless.errors import GaplessError
from gapless.eventlog import EventLog, StateCache, StateKind, StateWrite
from gapless.eventlog.answers import outcome
from gapless.hub import Hub
from gapless.limits import Limiter, StoredSessions
from gapless.mqtt.session import Session, WillMessage
from gapless.mqtt.session_state import decode_session, encode_session, received_key, session_key, split_key
from gapless.transports.mqtt.groups import ShareGroups, decode_group, share_key
from gapless.transports.mqtt.options import EdgeOptions, EdgeStats
from gapless.transports.mqtt.reader import Reader
from gapless.transports.mqtt.tasks import Tasks
from gapless.transports.mqtt.wills import Verdict, Wills

logger = logging.getLogger("gapless.mqtt")

FOREVER = 0xFFFFFFFF
_SESSION = StateKind.MQTT_SESSION
_NEVER = float("inf")
_OUTDATED = 1000
_LONGEST_WAIT = 60.0  # the loop's timers do not go on while the machine sleeps


def steady_time() -> float:
    """Seconds by a clock that nobody sets. On Linux it goes on while the machine sleeps."""
    return _time.clock_gettime(_time.CLOCK_BOOTTIME) if hasattr(_time, "CLOCK_BOOTTIME") else _time.monotonic()


class Away(msgspec.Struct):
    """What is known of a session without its client.

    Attributes:
        ended_at: when its connection ended, in seconds since the Unix epoch.
        ends_at: when the session ends, by the steady clock.
        will_at: when its will is published, by the steady clock; None without one.
        received: QoS 2 identifiers taken in and not released.
        shares: keys of its shared subscriptions.
    """

    ended_at: float
    ends_at: float
    will_at: float | None = None
    received: set[int] = msgspec.field(default_factory=set)
    shares: tuple[str, ...] = ()

    @property
    def next_at(self) -> float:
        """When something is due: its will, or its end."""
        return self.ends_at if self.will_at is None else min(self.will_at, self.ends_at)


class SessionStore:
    """All sessions of the edge.

    Attributes:
        shares: whose they are.

    Args:
        wills: publishes those that are due, and still allowed.
        limiter: bounds how many are stored.
        clock: seconds since the Unix epoch: what is stored with a session, for the next start.
        steady: seconds by a clock that nobody sets: what decides, while the process runs, when sessions end
            and wills are due. A clock that is set, even for a moment, ends none.
    """

    def __init__(
        self,
        log: EventLog,
        hub: Hub,
        groups: ShareGroups,
        *,
        options: EdgeOptions,
        stats: EdgeStats,
        tasks: Tasks,
        wills: Wills,
        limiter: Limiter,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._log = log
        self._hub = hub
        self._groups = groups
        self._options = options
        self._stats = stats
        self._tasks = tasks
        self._wills = wills
        self._clock = clock
        self._steady = steady
        self._away: dict[str, Away] = {}
        self._cache = StateCache()  # of sessions that are away
        self._opened: list[tuple[StateWrite, Future[None]]] = []
        self.shares = StoredSessions(limiter, self._is_over)
        self._stored: set[str] = set()  # connected clients with a row
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._due: list[tuple[float, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._dirty: set[Reader] = set()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._writing: Future[None] | None = None
        self._together: Future[None] | None = None
        self._together_durable = False
        self._stopped = False
        groups.on_change = self._flush_soon

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return int(self._clock() * 1000)

    # Start and stop

    async def load(self) -> None:
        """Read what was stored. Clients that were connected then are away since now."""
        stored = await self._log.all_state(_SESSION)
        shares = {key: decode_group(data) for key, data in (await self._log.all_state(StateKind.MQTT_SHARE)).items()}
        now, steady = self._clock(), self._steady()
        received: dict[str, set[int]] = {}
        for key in stored:
            client_id, packet_id = split_key(key)
            if packet_id is not None:
                received.setdefault(client_id, set()).add(packet_id)
        orphans = [
            received_key(name, one) for name, ids in received.items() if session_key(name) not in stored for one in ids
        ]
        ended: list[str] = []
        for key, data in stored.items():
            client_id, packet_id = split_key(key)
            if packet_id is not None:
                continue
            state = decode_session(data)
            ended_at = now if state.connected else state.ended_at
            session = state.restore()
            # A clock that was wrong, then or now, makes nobody go away later than now.
            began = steady - max(0.0, now - ended_at)
            away = self._make_away(session, ended_at=ended_at, began=began, will=session.will)
            away.received = received.get(client_id, set())
            self._away[client_id] = away
            self._cache.put(client_id, data)
            if session.persistent:
                self.shares.take(client_id, session.owner, force=True)
            for share in away.shares:
                kept = shares.get(share)
                shared = self._groups.add(share, position=kept.position if kept else session.position)
                sub = session.subscriptions["$share/" + share]
                shared.enter(client_id, sub, persistent=True)
                shared.restore_assigned(session)
            if away.ends_at <= steady and away.will_at is None:
                ended.append(client_id)
            else:  # a will may have to wait for the application
                self._watch(client_id, away)
        writes = [StateWrite(_SESSION, key, None) for key in orphans]
        for key, kept in shares.items():
            group = self._groups.get(key)
            if group is None:
                writes.append(StateWrite(StateKind.MQTT_SHARE, key, None))
            else:
                group.returned.extend(kept.returned)
        if writes:
            await self._log.write_state(writes, durable=False)
        for client_id in ended:
            await self._end_away(client_id)
        self._count()

    async def stop(self) -> None:
        """Store what changed and stop the clocks. Wills that are due later stay stored."""
        self._stopped = True
        for timer in (self._timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])
        writes = self._take_dirty()
        if writes:
            await self._log.write_state(writes, durable=True)

    # A client comes

    @asynccontextmanager
    async def claim(self, client_id: str) -> AsyncIterator[None]:
        """One at a time for each client id: coming, going, ending."""
        lock, users = self._locks.get(client_id, (asyncio.Lock(), 0))
        self._locks[client_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[client_id]
            if users == 1:
                del self._locks[client_id]
            else:
                self._locks[client_id] = (lock, users - 1)

    async def open(
        self,
        client_id: str,
        *,
        clean: bool,
        expiry: int,
        will: WillMessage | None,
        owner: str,
        review: Callable[[Session], Awaitable[None]],
    ) -> tuple[Session, bool]:
        """The session for a client that connects, under its claim; and whether it was there before.

        One that was there is shown to `review`, which may take subscriptions away, before it is stored.

        It is stored, with the will, before this returns, where it is to outlive the connection
        or has a will that is to outlive the process.

        Args:
            owner: whose share it is counted in, as `shares` names it.

        Raises:
            LogError: it cannot be read or stored; nothing has changed.
            RateLimited: the owner has its share of sessions, and this would be one more.
        """
        away = self._away.get(client_id)
        returns = away is not None and not self._is_over(client_id)
        if away is not None and (clean or not returns):
            await self._end_away(client_id)
            away = None
        if expiry:
            self.shares.take(client_id, owner, force=returns)
        try:
            return await self._open(client_id, away, expiry=expiry, will=will, owner=owner, review=review)
        except BaseException:
            if client_id not in self._away:
                self.shares.drop(client_id)
            raise

    async def _open(
        self,
        client_id: str,
        away: Away | None,
        *,
        expiry: int,
        will: WillMessage | None,
        owner: str,
        review: Callable[[Session], Awaitable[None]],
    ) -> tuple[Session, bool]:
        session = await self._read_away(client_id) if away is not None else None
        present = session is not None
        if session is None:
            session = Session(client_id, position=self._hub.head)
        else:
            assert away is not None
            session.received = away.received
            session.skip_unkept(self._hub.head)
            await review(session)
        session.expiry = expiry
        session.will = will
        session.owner = owner
        if session.persistent or will is not None:
            stored = encode_session(session, epoch=self._hub.epoch, connected=True)
            await self._store_opened(StateWrite(_SESSION, session_key(client_id), stored))
            self._stored.add(client_id)
        elif present:
            await self._log.write_state(self._delete_writes(session), durable=False)
        self._away.pop(client_id, None)
        self._cache.drop(client_id)
        if not session.persistent:
            self.shares.drop(client_id)
        self._count()
        return session, present

    def _store_opened(self, write: StateWrite) -> Future[None]:
        """Store a session together with all that are opened in this step of the loop."""
        loop = asyncio.get_running_loop()
        if not self._opened:
            loop.call_soon(self._write_opened)
        done: Future[None] = loop.create_future()
        self._opened.append((write, done))
        return done

    def _write_opened(self) -> None:
        opened, self._opened = self._opened, []

        def over(stored: Future[None]) -> None:
            error = outcome(stored)
            if error is not None and len(opened) > 1:
                for write, done in opened:  # one that cannot be stored must harm no other
                    self._log.write_state([write], durable=False).add_done_callback(partial(_pass_on, done))
                return
            for _, done in opened:
                _pass_on(done, stored)

        self._log.write_state([write for write, _ in opened], durable=False).add_done_callback(over)

    def _is_over(self, client_id: str) -> bool:
        away = self._away.get(client_id)
        return away is not None and away.ends_at <= self._steady()

    async def _read_stored(self, client_id: str) -> bytes | None:
        """The session of a client that is away, as it is stored."""
        return self._cache.get(client_id) or await self._log.read_state(_SESSION, session_key(client_id))

    async def _read_away(self, client_id: str) -> Session | None:
        data = await self._read_stored(client_id)
        if data is None:
            logger.error("the stored session of %r is gone: it starts anew", client_id)
            return None
        state = decode_session(data)
        session = state.restore()
        if state.epoch != self._hub.epoch:
            session.hole = session.hole or f"{state.epoch}:{state.position}"
            session.inflight.clear()
            session.position = self._hub.head
        return session

    # A client goes

    def detach(self, reader: Reader, *, will: bool) -> None:
        """The connection has ended; `will`: without a DISCONNECT that keeps the will back.

        The session is stored, or ends.
        """
        session = reader.session
        reader.stamp()
        self._dirty.discard(reader)
        now, began = self._clock(), self._steady()
        message = session.will if will else None
        verdict = Verdict.UNDECIDED  # a will that is not due yet is judged when it is
        if message is not None and (not session.persistent or not message.delay):
            verdict = self._wills.judge(session.client_id, message)
            message = None if verdict is Verdict.DENIED else message
        session.will = message
        away = self._make_away(session, ended_at=now, began=began, will=message)
        if not session.persistent:
            self._end(session, away, message, wait=message is not None and verdict is Verdict.UNDECIDED)
            return
        if verdict is Verdict.ALLOWED:
            away.will_at = None
            session.will = None
        self._stored.discard(session.client_id)
        self._away[session.client_id] = away
        data = encode_session(session, epoch=self._hub.epoch, connected=False, ended_at=now)
        self._cache.put(session.client_id, data)
        writes = [StateWrite(_SESSION, session_key(session.client_id), data)]
        if away.shares:
            writes += self._take_dirty()
        if message is not None and away.will_at is None:
            self._wills.publish(session.client_id, message, writes)
        else:
            self._supervise(self._log.write_state(writes, durable=False))
        if not self._stopped:
            self._watch(session.client_id, away)
        self._count()

    def defer(self, reader: Reader) -> None:
        """The server stops: the session is stored, and its will kept for the next start
        (MQTT 5 §3.1.2.5)."""
        session = reader.session
        reader.stamp()
        self._dirty.discard(reader)
        if session.persistent or session.will is not None:
            now = self._clock()
            data = encode_session(session, epoch=self._hub.epoch, connected=False, ended_at=now)
            writes = [StateWrite(_SESSION, session_key(session.client_id), data)]
            self._supervise(self._log.write_state(writes, durable=True))

    def _end(self, session: Session, away: Away, will: WillMessage | None, *, wait: bool) -> None:
        """A session ends with its connection; one whose will waits for the application as if its client were away."""
        self.shares.drop(session.client_id)
        for filter_, sub in session.subscriptions.items():
            if sub.shared:
                self._groups.leave(share_key(filter_), session.client_id, ended=True)
        if wait:  # it is stored, with its will, since CONNECT
            away.shares = ()
            self._stored.discard(session.client_id)
            self._away[session.client_id] = away
            self._count()
            if not self._stopped:
                self._watch(session.client_id, away)
            return
        writes = self._delete_writes(session) if session.client_id in self._stored else []
        self._stored.discard(session.client_id)
        if will is not None:
            self._wills.publish(session.client_id, will, writes)
        elif writes:
            self._supervise(self._log.write_state(writes, durable=False))

    async def _end_away(self, client_id: str) -> None:
        """A session ends while its client is away; its will is published at the latest now."""
        data = await self._read_stored(client_id)
        away = self._away[client_id]
        writes = self._deletions(client_id, away.received)
        will: WillMessage | None = None
        if data is not None:
            will = decode_session(data).will if away.will_at is not None else None
        if will is not None and not await self._wills.may_publish(client_id, will):
            will = None
        for share in away.shares:
            self._groups.leave(share, client_id, ended=True)
        if will is not None:
            self._wills.publish(client_id, will, writes)
        else:
            await self._log.write_state(writes, durable=False)
        self._away.pop(client_id, None)
        self._cache.drop(client_id)
        self.shares.drop(client_id)
        self._count()

    def _delete_writes(self, session: Session) -> list[StateWrite]:
        return self._deletions(session.client_id, session.received)

    @staticmethod
    def _deletions(client_id: str, received: set[int]) -> list[StateWrite]:
        keys = [session_key(client_id), *(received_key(client_id, packet_id) for packet_id in received)]
        return [StateWrite(_SESSION, key, None) for key in keys]

    @staticmethod
    def _make_away(session: Session, *, ended_at: float, began: float, will: WillMessage | None) -> Away:
        """Args: when the connection ended, by the clock and by the steady one."""
        ends_at = _NEVER if session.expiry == FOREVER else began + session.expiry
        return Away(
            ended_at=ended_at,
            ends_at=ends_at,
            will_at=None if will is None else min(began + will.delay, ends_at),
            received=session.received,
            shares=tuple(share_key(name) for name, sub in session.subscriptions.items() if sub.shared),
        )

    def _count(self) -> None:
        self._stats.sessions_away = len(self._away)

    # Ends and wills of those away

    def _watch(self, client_id: str, away: Away) -> None:
        when = away.next_at
        if when != _NEVER:
            heapq.heappush(self._due, (when, client_id))
            self._drop_outdated()
            self._arm()

    def _drop_outdated(self) -> None:
        """Forget the ends of sessions whose clients have come back, once those are most of what is kept.

        Each departure adds one, which would else stay until then: a week, by default.
        """
        if len(self._due) > 2 * len(self._away) + _OUTDATED:
            self._due = [(away.next_at, client_id) for client_id, away in self._away.items() if away.next_at != _NEVER]
            heapq.heapify(self._due)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and not self._stopped:
            wait = min(max(0.0, self._due[0][0] - self._steady()), _LONGEST_WAIT)
            self._timer = asyncio.get_running_loop().call_later(wait + 0.001, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        now = self._steady()
        while self._due and self._due[0][0] <= now:
            _, client_id = heapq.heappop(self._due)
            if client_id in self._away:
                self._tasks.spawn(self._come_due(client_id), "mqtt-session-due")
        self._arm()

    async def _come_due(self, client_id: str) -> None:
        async with self.claim(client_id):
            away = self._away.get(client_id)
            now = self._steady()
            if away is None:
                return
            try:
                if away.ends_at <= now:
                    await self._end_away(client_id)
                    return
                if away.will_at is not None and away.will_at <= now:
                    await self._will_of_away(client_id, away)
            except GaplessError as error:
                logger.warning("the session of %r could not be ended, trying again: %s", client_id, error)
                self._stats.store_failures += 1
                heapq.heappush(self._due, (now + 5.0, client_id))
                self._arm()
                return
            self._watch(client_id, away)

    async def _will_of_away(self, client_id: str, away: Away) -> None:
        data = await self._read_stored(client_id)
        state = None if data is None else decode_session(data)
        if state is None or state.will is None:
            away.will_at = None
            return
        self._cache.drop(client_id)
        will, state.will = state.will, None
        allowed = await self._wills.may_publish(client_id, will)
        data = encode_session(state.restore(), epoch=state.epoch, connected=False, ended_at=away.ended_at)
        write = StateWrite(_SESSION, session_key(client_id), data)
        if allowed:
            self._wills.publish(client_id, will, [write])
        else:
            await self._log.write_state([write], durable=False)
        away.will_at = None

    # Progress of those connected

    def touch(self, reader: Reader) -> None:
        """The session changed: store it soon, together with others."""
        if not reader.closed:
            self._dirty.add(reader)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush_timer is None and not self._stopped:
            self._flush_timer = asyncio.get_running_loop().call_later(self._options.store_interval, self._flush)

    def store(self, reader: Reader, *, durable: bool) -> Future[None]:
        """Store one session as it is now.

        One with shared subscriptions is stored together with all that changed, at the end of
        this step of the loop: a group's position must never be stored without what its
        members have in flight.
        """
        session = reader.session
        if not reader.groups:
            self._dirty.discard(reader)
            reader.stamp()
            self._stored.add(session.client_id)
            return self._log.write_state([self._write_of(session)], durable=durable)
        self._dirty.add(reader)
        self._together_durable = self._together_durable or durable
        if self._together is None:
            loop = asyncio.get_running_loop()
            self._together = loop.create_future()
            loop.call_soon(self._store_together)
        return self._together

    def _store_together(self) -> None:
        together, self._together = self._together, None
        durable, self._together_durable = self._together_durable, False
        assert together is not None
        dirty = set(self._dirty)
        stored = self._log.write_state(self._take_dirty(), durable=durable)
        target = together

        def over(done: Future[None]) -> None:
            error = outcome(done)
            if error is not None:
                self._not_stored(dirty, error)
                target.set_exception(error)
                target.exception()  # those who wait have callbacks of their own
            else:
                target.set_result(None)

        stored.add_done_callback(over)

    def _write_of(self, session: Session) -> StateWrite:
        return StateWrite(
            _SESSION, session_key(session.client_id), encode_session(session, epoch=self._hub.epoch, connected=True)
        )

    def _take_dirty(self) -> list[StateWrite]:
        writes = []
        for reader in self._dirty:
            if reader.persistent:
                reader.stamp()
                writes.append(self._write_of(reader.session))
        self._dirty.clear()
        writes += [
            StateWrite(StateKind.MQTT_SHARE, key, data) for key, data in self._groups.take_writes(self._hub.epoch)
        ]
        return writes

    def _flush(self) -> None:
        self._flush_timer = None
        if self._writing is not None:
            return  # what changes meanwhile is stored when that write is done
        dirty = set(self._dirty)
        writes = self._take_dirty()
        if not writes:
            return
        self._writing = self._log.write_state(writes, durable=False)

        def over(done: Future[None]) -> None:
            self._writing = None
            error = outcome(done)
            if error is not None:
                self._not_stored(dirty, error)
            if self._dirty and self._flush_timer is None and not self._stopped:
                interval = self._options.store_interval if error is None else 1.0
                self._flush_timer = asyncio.get_running_loop().call_later(interval, self._flush)

        self._writing.add_done_callback(over)

    def _not_stored(self, dirty: set[Reader], error: BaseException) -> None:
        self._stats.store_failures += 1
        logger.warning("session state could not be stored, trying again: %s", error)
        self._dirty |= {reader for reader in dirty if not reader.closed}
        self._groups.mark_all_dirty()

    def _supervise(self, stored: Future[None]) -> None:
        def over(done: Future[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self._stats.store_failures += 1
                logger.warning("a session could not be stored: %s", error)

        stored.add_done_callback(over)


def _pass_on(to: Future[None], done: Future[None]) -> None:
    """End one future as another ended."""
    if to.done():  # nobody waits any more
        return
    error = outcome(done)
    if error is None:
        to.set_result(None)
    else:
        to.set_exception(error)
