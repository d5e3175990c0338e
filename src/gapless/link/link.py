"""The link: our connection, as an MQTT client, to a broker that a team already has."""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time as _time
from collections.abc import Callable
from functools import partial
from typing import Any

from gapless.auth import Gate, Identity, Source
from gapless.errors import GaplessError
from gapless.eventlog import EventLog
from gapless.hub import Hub
from gapless.ingress import Ingress
from gapless.link.backoff import Backoff
from gapless.link.connection import Connection
from gapless.link.dialer import Dialer
from gapless.link.echoes import Echoes
from gapless.link.errors import LinkError
from gapless.link.flight import PUBLISH_IDS
from gapless.link.heartbeat import Heartbeats, Sleep
from gapless.link.history import History
from gapless.link.inbound import Inbound
from gapless.link.incoming import Reader
from gapless.link.options import LinkOptions
from gapless.link.pump import Pump
from gapless.link.replays import Replays
from gapless.link.stats import LinkState, LinkStats
from gapless.link.status import StatusMessages
from gapless.link.subscriptions import Answers, Subscriptions
from gapless.mqtt import (
    Packet,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
    matches,
)
from gapless.topicmap import TopicMap

logger = logging.getLogger("gapless.link")

_ONLINE_ID = PUBLISH_IDS + 3
_OFFLINE_ID = PUBLISH_IDS + 4
_LAST_ANSWERS = 10.0  # seconds for PUBACKs to come, where we end a connection and would publish again on the next
_GOODBYE = 2.0  # seconds for the broker to acknowledge the last events, and then `offline`, at the stop
_OVERHEAD = 64 * 1024  # bytes that topic, properties and envelope may add to a payload


class BrokerLink:
    """Both directions of one link, and the connection under it, kept up for ever.

    Start it after the hub and before the doors open: its first start stores where in the log it
    begins. Events reach the broker at least once and in log order (QoS 2: once, over kills of
    either side, as long as the broker keeps our session, and unless the gateway is killed between
    CONNECT and CONNACK: see `PumpState.connecting`); messages of the broker are acknowledged once
    they are in the log.

    Args:
        gate: asked who may read history over the broker.
        random: draws from 0 (included) to 1, for the back-off.
        clock: seconds since the Unix epoch.
        sleep: waits between heartbeats.

    Attributes:
        options: as given.
        state: how it is doing now.
        stats: counters.
        pump: the way out; `pump.behind` tells how many events the broker has not taken yet.
        held: events past the log's retention that are kept for the broker; see `note_held`.

    Raises:
        ConfigError: a certificate or key file cannot be used.
    """

    def __init__(
        self,
        *,
        options: LinkOptions,
        ingress: Ingress,
        hub: Hub,
        log: EventLog,
        gate: Gate,
        topic_map: TopicMap,
        clock: Callable[[], float] = _time.time,
        random: Callable[[], float] = _random.random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        options.tls_context()  # wrong files stop the start, not each attempt
        self.options = options
        self.stats = LinkStats()
        self.held = 0
        self.state = LinkState()
        self._hub = hub
        self._log = log
        self._clock = clock
        self._largest_packet = 2 * ingress.limits.payload_bytes + _OVERHEAD  # base64 adds a third
        self._backoff = Backoff(options.reconnect_min, options.reconnect_max, random)
        self._answers = Answers()
        self._echoes = Echoes()
        self._status = StatusMessages(options.status_topic, "", clock=clock)
        self._subscriptions = Subscriptions(options=options, topic_map=topic_map, log=log, answers=self._answers)
        self.pump = Pump(
            options=options,
            hub=hub,
            log=log,
            topic_map=topic_map,
            stats=self.stats,
            echoes=self._echoes,
            hears=self._subscriptions.hear,
            clock=clock,
        )
        self._replays = Replays(hub, self.pump.owes)
        identity = Identity(
            roles=frozenset(options.publish_as),
            service=True,
            token_id=f"link {options.name}",
            source=Source(door="link"),
        )
        self._inbound = Inbound(
            name=options.name,
            ingress=ingress,
            log=log,
            reader=Reader(
                link=options.name,
                hub=hub,
                echoes=self._echoes,
                allow=partial(gate.check_publish, identity),
                believe_users=options.believe_users,
                own_status=lambda topic, envelope: self._status.is_own(topic, envelope),
                oldest=lambda: log.oldest,
                clock=clock,
            ),
            replays=self._replays,
            stats=self.stats,
            intercept=self._take_own,
            end=self.on_closed,
        )
        self._heartbeats = Heartbeats(options=options, pump=self.pump, epoch=lambda: log.epoch, sleep=sleep)
        self._history = History(
            options=options, hub=hub, log=log, gate=gate, topic_map=topic_map, stats=self.stats, clock=clock
        )
        self._dialer: Dialer | None = None
        self._connection: Connection | None = None
        self._lost: asyncio.Future[LinkError] | None = None
        self._leaving = False
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def client_id(self) -> str:
        """The MQTT client identifier; the default is known once the log is open."""
        if self.options.client_id is not None:
            return self.options.client_id
        suffix = "" if self.options.name == "broker" else f"-{self.options.name}"
        return f"gapless-{self._log.epoch}{suffix}"

    # Start and stop

    async def start(self) -> None:
        """Load the state, and begin to connect in the background. The broker may be away.

        Raises:
            LogUnavailable: the state cannot be read or written.
        """
        if self._task is not None or self._leaving:
            raise RuntimeError("a link is started once")
        self._status = StatusMessages(self.options.status_topic, self.client_id, clock=self._clock)
        self._dialer = Dialer(
            self.options,
            client_id=self.client_id,
            status=self._status,
            largest_packet=self._largest_packet,
            log=self._log,
            before_connect=self.pump.before_connect,
        )
        await self._dialer.load()
        await self.pump.load()
        await self._inbound.load()
        await self._subscriptions.load()
        self._hub.add(self.pump)
        self._set(LinkState(status="connecting"))
        self._task = asyncio.create_task(self._run(self._dialer), name=f"link {self.options.name}")

    async def stop(self) -> None:
        """Publish `offline`, disconnect, store the position; a few seconds at most, if the broker
        does not answer. The broker keeps our session."""
        if self._task is None:
            return
        self._leaving = True
        self._hub.remove(self.pump)
        if self._connection is not None and not self._connection.closed:
            await self._say_goodbye(self._connection)
        task, self._task = self._task, None
        task.cancel()
        await asyncio.wait([task])
        self._let_go()
        try:
            await self.pump.close()
        except GaplessError as error:
            logger.error("link %s: the last position was not stored: %s", self.options.name, error)
        self._set(LinkState())

    async def wait_connected(self) -> None:
        """Wait until the link is connected and subscribed; `asyncio.timeout` bounds it."""
        while self.state.status != "connected":
            await self._changed.wait()

    async def wait_disconnected(self) -> LinkState:
        """Wait until the link is not connected; the state then."""
        while self.state.status == "connected":
            await self._changed.wait()
        return self.state

    def note_held(self, events: int) -> None:
        """Say how many events only this link keeps from being removed by the retention.

        Without a bound: none is dropped however long the broker is away. Logged as it begins and ends.
        """
        if events and not self.held:
            logger.warning(
                "link %s: the broker is so far behind that the log keeps events for longer than its retention "
                "says (%d now): mend the broker, or take the link out of the configuration to let them go",
                *(self.options.name, events),
            )
        elif self.held and not events:
            logger.info("link %s: the log keeps nothing beyond its retention any more", self.options.name)
        self.held = events

    # The connection, again and again

    async def _run(self, dialer: Dialer) -> None:
        while True:
            wait = await self._one_connection(dialer)
            if self._leaving:
                if self._connection is None or self._connection.closed:
                    self._let_go()  # else `stop` says goodbye over it
                return
            self._let_go()
            await asyncio.sleep(wait)

    def _let_go(self) -> None:
        """Forget the connection; end it where it has not ended."""
        self.pump.detach()
        self._inbound.detach()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.detach()
            connection.abort()

    async def _one_connection(self, dialer: Dialer) -> float:
        """Connect, serve until the end, and say how long to wait before the next. `_let_go` is due after it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._lost = loop.create_future()
        try:
            self._connection = await dialer.connect(self)
            error: GaplessError = await self._serve(self._connection, self._lost)
        except GaplessError as failure:
            error = failure
        except Exception as failure:  # a defect must not end the link for ever
            logger.exception("link %s: the connection failed", self.options.name)
            error = LinkError("session", f"{type(failure).__name__} in the gateway", hint="see the gateway's log")
        wait = self._note_failed(error, lasted=loop.time() - began)
        await self._take_last_answers()
        return wait

    def _note_failed(self, error: GaplessError, *, lasted: float) -> float:
        """Say so, and how long to wait before the next attempt."""
        if self.state.status == "connected" and lasted >= self.options.stable_after:
            self._backoff.reset()
        wait = self._backoff.next()
        self.stats.failures += 1
        self._complain(error, wait)
        attempts = self._backoff.attempts
        self._set(LinkState(status="connecting", error=error.message, hint=error.hint, attempts=attempts))
        return wait

    async def _serve(self, connection: Connection, lost: asyncio.Future[LinkError]) -> GaplessError:
        """Everything between CONNACK and the end; how the connection ended."""
        present = connection.connack.session_present
        if not present:
            self._echoes.forget_clearing()
        self._replays.connected(connection.version, fresh=not present or self._subscriptions.are_new)
        await self._inbound.attach(connection, session_present=present)
        await self.pump.attach(connection, session_present=present)
        connection.start()
        works = {"pump": self._work(connection), "history": self._history.run(connection)}
        if self.options.heartbeat_topic is not None:
            works["heartbeat"] = self._heartbeats.run(connection, self.options.heartbeat_topic)
        tasks = [asyncio.create_task(work, name=f"link {self.options.name} {name}") for name, work in works.items()]
        try:
            either: list[asyncio.Future[Any]] = [*tasks, lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    await task  # it failed
            return await lost
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # a failure was raised above

    async def _take_last_answers(self) -> None:
        """Where it is we who end a connection: let the broker say what it has got, so that it is not sent twice."""
        self._inbound.cease()
        try:
            async with asyncio.timeout(_LAST_ANSWERS):
                await self.pump.wait_certain()
        except TimeoutError:
            logger.warning("link %s: the broker did not acknowledge in time: events go out again", self.options.name)

    async def _work(self, connection: Connection) -> None:
        """Subscribe, then publish for as long as the connection lasts."""
        refused = await self._subscriptions.make(connection, session_present=connection.connack.session_present)
        if self._leaving:
            return  # nothing may follow `offline`
        online = self._status.publish("online", packet_id=_ONLINE_ID, version=connection.version)
        if online is not None:
            connection.send(online)
        self._note_connected(connection, refused)
        await self.pump.feed()
        await asyncio.get_running_loop().create_future()  # the stop ends it

    def _take_own(self, packet: Publish) -> bool:
        """Take a message of the link's own topics, which are no events: requests, and what comes back."""
        options = self.options
        if packet.topic == options.history_topic:
            if not packet.retain:  # a request that is kept would be answered at each reconnect
                self._history.take(packet)
            return True
        return packet.topic == options.heartbeat_topic or matches(options.history_replies, packet.topic)

    def _note_connected(self, connection: Connection, refused: list[LinkError]) -> None:
        version = "5" if connection.version is ProtocolVersion.V5 else "3.1.1"
        self.stats.connections += 1
        error, hint = (refused[0].message, refused[0].hint) if refused else ("", "")
        self._set(LinkState(status="connected", version=version, error=error, hint=hint))
        logger.info(
            "link %s: connected to %s with MQTT %s as %s, session %s, %d events behind",
            *(self.options.name, self.options.address, version, self.client_id),
            *("resumed" if connection.connack.session_present else "new", self.pump.behind),
        )

    def _complain(self, error: GaplessError, wait: float) -> None:
        attempt = self._backoff.attempts
        again = error.message == self.state.error
        level = logging.DEBUG if again and attempt & (attempt - 1) else logging.WARNING  # 1, 2, 4, 8, …
        logger.log(
            level,
            "link %s to %s: %s; attempt %d, next in %.1f s%s",
            *(self.options.name, self.options.address, error.message, attempt, wait),
            f" ({error.hint})" if error.hint else "",
        )

    def _set(self, state: LinkState) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _say_goodbye(self, connection: Connection) -> None:
        """Let what is under way be answered, publish `offline`, DISCONNECT; all within a bound."""
        try:
            async with asyncio.timeout(_GOODBYE):
                await self.pump.drain()
        except TimeoutError:
            logger.warning("link %s: the broker did not acknowledge the last events in time", self.options.name)
        offline = self._status.publish("offline", packet_id=_OFFLINE_ID, version=connection.version)
        if offline is not None and not connection.closed:
            connection.send(offline)
            try:
                await self._answers.wait(_OFFLINE_ID, seconds=_GOODBYE)
            except TimeoutError:
                logger.warning("link %s: the broker did not acknowledge `offline`", self.options.name)
        connection.disconnect()

    # What the connection calls (its Handler)

    def on_packet(self, packet: Packet) -> None:
        """A packet of the current connection."""
        match packet:
            case Publish():
                self._inbound.publish(packet)
            case Pubrel():
                self._inbound.release(packet)
            case Puback() | Pubrec() | Pubcomp() if packet.packet_id <= PUBLISH_IDS:
                self.pump.on_answer(packet)
            case Suback() | Unsuback() | Puback():
                self._answers.put(packet.packet_id, packet)
            case _:
                raise LinkError("session", f"the broker sent {type(packet).__name__.upper()}, which it may not")

    def on_writable(self) -> None:
        """The connection takes data again."""
        self.pump.wake()
        self._history.wake()

    def on_closed(self, error: LinkError) -> None:
        """The connection has ended, or has to."""
        self.pump.look_again()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)
