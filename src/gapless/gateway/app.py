"""The composition root: the only module that knows every part.

doors ─► Ingress ─► EventLog ─► Hub ─► transports
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time as _time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from gapless.auth import Ask, DevelopmentGate, Gate, PolicyGate
from gapless.brokers import BROKER_PATH, BrokerAccess
from gapless.config import Settings, check_exposure
from gapless.envelope import read_envelope
from gapless.event import Origin
from gapless.eventlog import EventLog, MemoryLog, SqliteLog
from gapless.gateway.http_server import HttpServer
from gapless.gateway.samples import (
    broker_samples,
    gate_samples,
    limit_samples,
    link_samples,
    mqtt_samples,
    presence_samples,
    socketio_samples,
    tls_samples,
)
from gapless.hub import Hub
from gapless.ingress import Accepted, Ingress, Publication
from gapless.limits import Limiter, Networks
from gapless.link import BrokerLink
from gapless.presence import CRM_TOPIC, Announcer, Presence
from gapless.topicmap import TopicMap, crm_map, load_map
from gapless.transports.broadcast import Broadcast
from gapless.transports.http import Front, HttpDoors, Offers, Paths, Sample
from gapless.transports.listener import bind
from gapless.transports.mqtt import MqttEdge
from gapless.transports.socketio import SocketIoDoor
from gapless.transports.tls import ServerTls

logger = logging.getLogger("gapless.gateway")

TRIM_INTERVAL = 60.0
"""Seconds between two applications of the log's retention."""

_PYTHON = Origin("python")


class Gateway:
    """One gateway: `async with Gateway(settings)`, or `start` and `stop`.

    Args:
        settings: see `Settings`.
        topic_map: the map; None loads `settings.topic_map`, or takes the reference domain's.
        gate: who may do what; None takes the rules of the map with the keys of `settings.auth`, or
            without these the development gate with `settings.token`.
        ask: answers the map's rule `ask`, in place of `settings.auth.ask.url`.
        log: the event log; None opens SQLite in `settings.data`, or keeps it in memory.

    Raises:
        ConfigError: the topic map or a setting is wrong.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        topic_map: TopicMap | None = None,
        gate: Gate | None = None,
        ask: Ask | None = None,
        log: EventLog | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        self.tls = ServerTls(settings.tls) if settings.tls is not None else None
        self.topic_map = topic_map or (load_map(settings.topic_map) if settings.topic_map else crm_map())
        self.log: EventLog = log or _make_log(settings)
        self.hub = Hub(self.log, recent_events=settings.recent_events, recent_bytes=settings.recent_bytes)
        open_to_all = gate is None and settings.auth is None and settings.token is None
        self.gate = gate = gate or _make_gate(settings, self.topic_map, ask)
        own_ids = not isinstance(gate, DevelopmentGate)  # there, users are what clients say of themselves
        self.ingress = Ingress(self.log, self.hub, self.topic_map, limits=settings.limits, own_ids=own_ids)
        self.presence = Presence(settings.presence, gate=gate)
        self._announcer = _make_announcer(self, reference=topic_map is None and settings.topic_map is None)
        self.limiter = Limiter(settings.limits)
        common: dict[str, Any] = {"ingress": self.ingress, "hub": self.hub, "log": self.log, "gate": gate}
        self.broadcast = Broadcast()
        common["presence"], common["broadcast"] = self.presence, self.broadcast
        self.socketio = SocketIoDoor(**common, options=settings.socketio)
        self.mqtt = MqttEdge(**common, options=settings.edge, limiter=self.limiter)
        self.link = _make_link(self, gate) if settings.link is not None else None
        self.brokers = _make_brokers(self, gate)
        self.http = HttpDoors(
            **common,
            topic_map=self.topic_map,
            options=settings.http,
            status=self.status,
            offers=self._offers,
            samples=self._samples,
            broker=None if self.brokers is None else self.brokers.desk,
        )
        self.front = Front(
            self._make_paths(),
            options=settings.http,
            limiter=self.limiter,
            only_local=open_to_all and settings.on_loopback,
        )
        self._server: HttpServer | None = None
        self._running: asyncio.Task[None] | None = None
        self._mqtt_port: int | None = None
        self._mqtts_port: int | None = None
        self._http_port = 0

    def _make_paths(self) -> Paths:
        below: dict[str, Any] = {self.settings.socketio.path: self.socketio.app}
        if self.brokers is not None and self.brokers.door is not None:
            below[BROKER_PATH] = self.brokers.door
        return Paths(self.http.paths, sockets={"/mqtt": self.mqtt.websocket_app}, below=below)

    # --- life

    async def start(self) -> None:
        """Open the log, then the doors.

        Raises:
            LogCorrupt, LogUnavailable: the log cannot be opened; see the message.
            ConfigError: a port is in use.
        """
        if self.settings.data is not None:
            self.settings.data.mkdir(parents=True, exist_ok=True)
        await self.log.open(self.hub.deliver)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.log.close)
            self._open_broadcast()
            undo.callback(self.broadcast.close)
            if isinstance(self.gate, PolicyGate):
                await self.gate.start(self.log)
                undo.push_async_callback(self.gate.stop)
            await self.hub.start()
            undo.push_async_callback(self.presence.stop)
            if self._announcer is not None:
                self._announcer.start()
                undo.push_async_callback(self._announcer.stop)
            undo.push_async_callback(self._stop_http)  # after the doors, which end their polls and streams
            if self.brokers is not None:
                await self.brokers.start()
                undo.push_async_callback(self.brokers.stop)
            if self.link is not None:
                await self.link.start()
                undo.push_async_callback(self.link.stop)
            for part in (self.socketio, self.mqtt, self.http):
                await part.start()
                undo.push_async_callback(part.stop)
            listener = bind(self.settings.host, self.settings.port, "port")
            self._http_port = listener.getsockname()[1]
            await self._listen_for_mqtt()
            await self._serve_http(listener)
            trimming = asyncio.create_task(self._trim_regularly(), name="trim")
            undo.push_async_callback(_cancel, trimming)
            if self.tls is not None:
                watching = asyncio.create_task(self.tls.watch(), name="tls-files")
                undo.push_async_callback(_cancel, watching)
            self._undo = undo.pop_all()

    async def stop(self) -> None:
        """Close the doors, end every connection, commit what was accepted, close the log."""
        await self._undo.aclose()

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _open_broadcast(self) -> None:
        reason = self.broadcast.open() if self.settings.io_uring else "switched off"
        logger.info("fan-out: %s", f"one system call a connection (io_uring: {reason})" if reason else "by io_uring")

    async def _listen_for_mqtt(self) -> None:
        settings = self.settings
        if settings.mqtt_port is not None:
            self._mqtt_port = (await self.mqtt.listen(settings.host, settings.mqtt_port)).port
        if self.tls is not None and settings.mqtts_port is not None:
            server = await self.mqtt.listen(settings.host, settings.mqtts_port, self.tls.context("mqtt"))
            self._mqtts_port = server.port

    async def _serve_http(self, listener: socket.socket) -> None:
        self._server = server = HttpServer(
            self.front,
            limiter=self.limiter,
            proxies=Networks(self.settings.http.trusted_proxies),
            largest_message=max(self.settings.socketio.max_message_bytes, 1 << 20),
            tls=None if self.tls is None else self.tls.context("http/1.1"),
            compression=self.settings.http.compression,
        )
        self._running = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        await server.listening.wait()

    async def _stop_http(self) -> None:
        if self._server is not None and self._running is not None:
            self._server.should_exit = True
            await self._running

    async def _trim_regularly(self) -> None:
        while True:
            await asyncio.sleep(TRIM_INTERVAL)
            try:
                await self._apply_retention()
            except Exception:
                logger.exception("the log's retention could not be applied; trying again")

    async def _apply_retention(self) -> None:
        """What the external broker has not taken yet stays, whatever the retention says."""
        keep_after = self.link.pump.stored_position if self.link is not None else None
        now = _time.time()
        self.hub.retained.drop_expired(int(now * 1000))
        removed, held = await self.log.trim(now=now, keep_after=keep_after)
        if removed:
            logger.info("retention removed %d events", removed)
        if self.link is not None:
            self.link.note_held(held)

    # --- what people and other programs ask

    @property
    def epoch(self) -> str:
        """The log's epoch."""
        return self.log.epoch

    @property
    def http_url(self) -> str:
        """Where the HTTP port is, such as `http://127.0.0.1:8080`; `https` with TLS."""
        return f"{'http' if self.tls is None else 'https'}://{self._host}:{self._http_port}"

    @property
    def mqtt_url(self) -> str | None:
        """Where the MQTT port is, such as `mqtt://127.0.0.1:1883`; None without one."""
        return None if self._mqtt_port is None else f"mqtt://{self._host}:{self._mqtt_port}"

    @property
    def mqtts_url(self) -> str | None:
        """Where the MQTT port with TLS is, such as `mqtts://127.0.0.1:8883`; None without one."""
        return None if self._mqtts_port is None else f"mqtts://{self._host}:{self._mqtts_port}"

    @property
    def _host(self) -> str:
        host = self.settings.host
        return f"[{host}]" if ":" in host else host

    async def publish(
        self,
        *,
        type: str | None = None,  # noqa: A002 the word of the wire format
        topic: str | None = None,
        data: object = None,
        id: str | None = None,  # noqa: A002 the word of the wire format
        user_id: str | None = None,
    ) -> Accepted:
        """Publish from Python. Returns once the event is durable (an ephemeral one: handed out).

        Args:
            type: event type; the topic then comes from the map and the data's captures.
            topic: MQTT topic, in place of or besides the type.
            data: anything JSON can say, or bytes.
            id: makes the call idempotent: the same id again is the same event.

        Raises:
            InvalidRequest: nothing was accepted; see the code.
            LogUnavailable: nothing was accepted; try again.
        """
        document = {"type": type, "topic": topic, "id": id, "userId": user_id, "data": data}
        if isinstance(data, bytes):
            envelope = read_envelope({key: value for key, value in document.items() if key != "data"})
            envelope.data, envelope.binary = data, True
        else:
            envelope = read_envelope(document)
        return await self.ingress.submit(Publication(envelope=envelope, origin=_PYTHON, user_id=user_id))

    def status(self) -> dict[str, str]:
        """State of each part besides the log: `ok`, or what is wrong with it."""
        found = {}
        if isinstance(self.gate, PolicyGate):
            found["keys"] = self.gate.problem or "ok"
        if self.tls is not None:
            found["tls"] = self.tls.status
        if self.brokers is not None and self.brokers.provision is not None:
            found["broker_auth"] = self.brokers.problem or "ok"
        if self.link is not None:
            state = self.link.state
            problem = f"{state.status}: {state.error or 'no failure yet'}"
            found["link"] = "ok" if state.status == "connected" else problem
        return found

    def _offers(self) -> Offers:
        return Offers(
            socketio_path=self.settings.socketio.path.rstrip("/") + "/",
            mqtt_port=self._mqtt_port,
            mqtts_port=self._mqtts_port,
        )

    def _samples(self) -> Iterable[Sample]:
        yield from socketio_samples(self.socketio.counts())
        yield from mqtt_samples(self.mqtt)
        yield from presence_samples(self.presence, self._announcer)
        if isinstance(self.gate, PolicyGate):
            yield from gate_samples(self.gate)
        yield from limit_samples(self.limiter, self.front.refused)
        if self.tls is not None:
            https = 0 if self._server is None else self._server.failed_handshakes
            yield from tls_samples(self.tls, {"https": https, "mqtts": self.mqtt.failed_handshakes})
        if self.brokers is not None:
            yield from broker_samples(self.brokers)
        if self.link is not None:
            yield from link_samples(self.link)


def _make_log(settings: Settings) -> EventLog:
    if settings.data is None:
        return MemoryLog(retention=settings.retention)
    return SqliteLog(settings.data / "events.db", retention=settings.retention)


def _make_gate(settings: Settings, topic_map: TopicMap, ask: Ask | None) -> Gate:
    """Rules where there are keys; else everybody may do everything, which is for loopback only."""
    if settings.auth is not None:
        return PolicyGate(topic_map, settings.auth, ask=ask)
    check_exposure(settings)
    return DevelopmentGate(settings.token)


def _make_announcer(gateway: Gateway, *, reference: bool) -> Announcer | None:
    options = gateway.settings.presence
    options.check()
    template = CRM_TOPIC if options.publish is None and reference else options.publish
    if not template:
        return None
    return Announcer(gateway.presence, template=template, ingress=gateway.ingress, hub=gateway.hub)


def _make_link(gateway: Gateway, gate: Gate) -> BrokerLink:
    assert gateway.settings.link is not None
    return BrokerLink(
        options=gateway.settings.link,
        ingress=gateway.ingress,
        hub=gateway.hub,
        log=gateway.log,
        gate=gate,
        topic_map=gateway.topic_map,
    )


def _make_brokers(gateway: Gateway, gate: Gate) -> BrokerAccess | None:
    settings = gateway.settings
    if settings.broker_auth is None:
        return None
    link = gateway.link
    return BrokerAccess(
        options=settings.broker_auth,
        gate=gate,
        log=gateway.log,
        link=settings.link,
        link_client_id=lambda: None if link is None else link.client_id,
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
