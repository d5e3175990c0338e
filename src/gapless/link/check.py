"""The engine of `gapless check URL`: tests a broker connection step by step.

    async for step in check_broker(LinkOptions(url="mqtts://broker.example")):
        print("✓" if step.ok else "✗", step.name, step.detail, step.hint)

Topics under `gapless/check/<random>/` are used, and left clean; so is the session.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time as _time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from gapless.errors import ConfigError
from gapless.link.channel import (
    AddressInfo,
    Channel,
    connect_tcp,
    open_websocket,
    resolve,
    start_channel,
)
from gapless.link.connection import Connection
from gapless.link.errors import LinkError, VersionRefused
from gapless.link.options import LinkOptions
from gapless.link.probe import Probe
from gapless.link.strangers import find_out
from gapless.mqtt import Connect, Properties, ProtocolVersion, Publish

_SOON_DAYS = 14
_SESSION_SECONDS = 60  # for which the check's session is kept by an MQTT 5 broker


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a check.

    Attributes:
        name: `dns`, `tcp`, `tls`, `websocket`, `connect`, `limits`, `subscribe`, `qos0`, `qos1`,
            `qos2`, `retained`, `session` or `strangers`.
        ok: whether it succeeded.
        detail: what was found, or what failed, in one line.
        hint: how to mend it; on success, something to know, mostly empty.
        seconds: how long it took.
        warning: it succeeded, and found something that should not be so.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""
    seconds: float = 0.0
    warning: bool = False


async def check_broker(
    options: LinkOptions, *, timeout: float = 10.0, prefix: str = "gapless/check"
) -> AsyncIterator[Step]:
    """Check a broker, yielding each step as it is done. Ends after the first that stops the others.

    Args:
        options: the broker's URL, credentials and certificates; `client_id` and `protocol` count too.
        timeout: seconds for each answer.
        prefix: topics are `<prefix>/<random>/…`.
    """
    check = _Check(options, timeout=timeout, prefix=prefix)
    try:
        for name, run, needed in check.plan():
            step = await _timed(name, run, timeout)
            yield replace(step, warning=check.warning)
            if not step.ok and needed:
                return
    finally:
        check.close()


_Run = Callable[[], Awaitable[tuple[str, str]]]


async def _timed(name: str, run: _Run, timeout: float) -> Step:
    began = _time.perf_counter()
    try:
        detail, hint = await run()
        ok = True
    except (LinkError, ConfigError) as error:
        ok, detail, hint = False, error.message, error.hint
    except TimeoutError:
        ok, detail, hint = False, f"nothing came back within {timeout:g} s", "look at the broker's log"
    return Step(name, ok, detail, hint, _time.perf_counter() - began)


class _Check:
    """What one check knows so far."""

    def __init__(self, options: LinkOptions, *, timeout: float, prefix: str) -> None:
        token = secrets.token_hex(6)
        self._options = options
        self._address = options.address
        self._timeout = timeout
        self._topic = f"{prefix}/{token}"
        self._client_id = options.client_id or f"gapless-check-{token}"
        self._version = ProtocolVersion.V311 if options.protocol == "3.1.1" else ProtocolVersion.V5
        self._infos: list[AddressInfo] = []
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._channel: Channel | None = None
        self._probe = Probe(timeout=timeout)
        self._connection: Connection | None = None
        self._open: list[Connection] = []
        self.warning = False

    def plan(self) -> list[tuple[str, _Run, bool]]:
        """Names, steps, and whether the others need them."""
        steps: list[tuple[str, _Run, bool]] = [("dns", self.dns, True), ("tcp", self.tcp, True)]
        if self._address.tls:
            steps.append(("tls", self.tls, True))
        if self._address.websocket:
            steps.append(("websocket", self.websocket, True))
        steps += [("connect", self.connect, True), ("limits", self.limits, True), ("subscribe", self.subscribe, True)]
        steps += [(f"qos{qos}", self._round_trip_at(qos), False) for qos in (0, 1, 2)]
        steps += [("retained", self.retained, False), ("session", self.session, False)]
        steps.append(("strangers", self.strangers, False))
        return steps

    def close(self) -> None:
        """Close what is open."""
        for connection in self._open:
            if not connection.closed:
                connection.disconnect()
        if self._channel is not None and not self._open:
            self._channel.abort()
        elif self._channel is None and self._socket is not None:
            self._socket.close()

    async def dns(self) -> tuple[str, str]:
        self._infos = await resolve(self._address, timeout=self._timeout)
        found = list(dict.fromkeys(str(info[4][0]) for info in self._infos))
        return f"{self._address.host} is {', '.join(found[:4])}", ""

    async def tcp(self) -> tuple[str, str]:
        self._socket = await connect_tcp(self._address, self._infos, timeout=self._timeout)
        peer = self._socket.getpeername()
        if not self._address.tls:
            await self._start()
        return f"connected to {peer[0]}, port {peer[1]}", ""

    async def tls(self) -> tuple[str, str]:
        self._tls = await asyncio.to_thread(self._options.tls_context)
        await self._start()
        assert self._channel is not None
        transport = self._channel.transport
        certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
        session = transport.get_extra_info("ssl_object")
        version = session.version() if session is not None else "TLS"
        days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - _time.time()) // 86400)
        detail = f"{version}, certificate of {_name(certificate, 'subject')} by {_name(certificate, 'issuer')}"
        hint = f"the certificate ends in {days} days: renew it" if days < _SOON_DAYS else ""
        return f"{detail}, valid for {days} more days", hint

    async def _start(self) -> None:
        assert self._socket is not None
        self._connection = self._new_connection(self._version, clean=True)
        self._channel = await start_channel(
            self._address, self._socket, self._tls, self._connection, timeout=self._timeout
        )

    async def websocket(self) -> tuple[str, str]:
        assert self._channel is not None
        await open_websocket(self._address, self._channel, timeout=self._timeout)
        return f"upgraded at {self._address.path.partition('?')[0]}, subprotocol mqtt", ""

    async def connect(self) -> tuple[str, str]:
        assert self._connection is not None
        assert self._channel is not None
        note = ""
        try:
            await self._connection.shake_hands(self._channel, timeout=self._timeout)
        except VersionRefused as refusal:
            if self._options.protocol != "auto":
                raise
            self._version = ProtocolVersion.V311
            try:
                self._connection = self._new_connection(self._version, clean=True)
                await self._connection.open(self._tls, timeout=self._timeout)
            except VersionRefused:
                raise refusal from None
            note = " (it refused MQTT 5)"
        self._open.append(self._connection)
        self._probe.use(self._connection)
        user = self._options.credentials[0]
        who = f"user {user!r}" if user else "no user name"
        return f"MQTT {'5' if self._version is ProtocolVersion.V5 else '3.1.1'}{note}, {who}", ""

    async def limits(self) -> tuple[str, str]:
        """What CONNACK says (MQTT 5 §3.2.2.3)."""
        if self._version is not ProtocolVersion.V5:
            return "3.1.1 brokers do not tell theirs", ""
        found = self._probe.connection.properties
        parts = [
            f"receive maximum {found.receive_maximum or 65_535}",
            f"largest packet {found.maximum_packet_size or 'not limited'}",
            f"QoS up to {2 if found.maximum_qos is None else found.maximum_qos}",
            f"retained messages {_yes(found.retain_available)}",
            f"wildcards {_yes(found.wildcard_subscription_available)}",
            f"shared subscriptions {_yes(found.shared_subscription_available)}",
        ]
        if found.server_keep_alive is not None:
            parts.append(f"keepalive {found.server_keep_alive} s")
        missing = []
        if found.wildcard_subscription_available is False:
            missing.append("without wildcards, list every topic in link.subscribe")
        if found.retain_available is False:
            missing.append("without retained messages, set link.status_topic to nothing")
        return ", ".join(parts), "; ".join(missing)

    async def subscribe(self) -> tuple[str, str]:
        granted = await self._probe.subscribe(f"{self._topic}/#", qos=2)
        hint = "" if granted == 2 else f"messages come at QoS {granted} at most"
        return f"{self._topic}/# at QoS {granted}", hint

    def _round_trip_at(self, qos: int) -> _Run:
        async def run() -> tuple[str, str]:
            return await self.round_trip(qos)

        return run

    async def round_trip(self, qos: int) -> tuple[str, str]:
        """Publish, and hear it."""
        highest = self._probe.connection.properties.maximum_qos
        if highest is not None and qos > highest:
            return f"the broker offers QoS {highest} at most", "the link keeps to that"
        topic, payload = f"{self._topic}/qos{qos}", secrets.token_bytes(16)
        began = _time.perf_counter()
        await self._probe.publish(topic, payload, qos=qos)
        try:
            message = await self._probe.wait(Publish, lambda p: p.topic == topic and p.payload == payload)
        except TimeoutError as error:
            raise LinkError(
                "session",
                f"the message on {topic!r} did not come back",
                hint="this user may not be allowed to publish to it: brokers drop such messages in silence",
            ) from error
        milliseconds = (_time.perf_counter() - began) * 1000
        return f"there and back in {milliseconds:.1f} ms, at QoS {message.qos}", ""

    async def retained(self) -> tuple[str, str]:
        """Set, read back, clear, and see that it is gone (MQTT 5 §3.3.1.3)."""
        probe, topic = self._probe, f"{self._topic}/retained"
        if probe.connection.properties.retain_available is False:
            return "the broker keeps no retained messages", ""
        await probe.publish(topic, b"kept", qos=1, retain=True)
        try:
            await probe.subscribe(topic, qos=1)
            await probe.wait(Publish, lambda p: p.topic == topic and p.retain)
        except TimeoutError as error:
            raise LinkError(
                "session", "a retained message was not kept", hint="does the broker (or this user's role) allow them?"
            ) from error
        finally:
            await probe.publish(topic, b"", qos=1, retain=True)
        marker = f"{self._topic}/marker"
        await probe.wait(Publish, lambda p: p.topic == topic and p.payload == b"")
        probe.drop(topic)
        await probe.subscribe(f"{self._topic}/+", qos=1)
        await probe.publish(marker, b"", qos=1)
        await probe.wait(Publish, lambda p: p.topic == marker)
        if probe.drop(topic):
            raise LinkError("session", "a retained message could not be cleared", hint="look at the broker's log")
        return "set, read back and cleared", ""

    async def session(self) -> tuple[str, str]:
        """Leave, let a message come, return (MQTT 5 §4.1): it must be waiting."""
        first = await self._client(clean=False, kept=True)
        await first.subscribe(f"{self._topic}/away", qos=1)
        first.connection.disconnect()
        await self._probe.publish(f"{self._topic}/away", b"while you were away", qos=1)
        second = await self._client(clean=False, kept=True)
        present = second.connection.connack.session_present
        try:
            if not present:
                raise LinkError(
                    "session",
                    "the broker did not keep the session",
                    hint="allow persistent sessions: without them messages are lost while the gateway restarts",
                )
            await second.wait(Publish, lambda p: p.topic.endswith("/away"))
        except TimeoutError as error:
            raise LinkError(
                "session", "the session was kept, but not its message", hint="look at the broker's queue limits"
            ) from error
        finally:
            second.connection.disconnect()
            last = await self._client(clean=True, kept=False)
            last.connection.disconnect()
        return "kept over a reconnect, with the message that came meanwhile", ""

    async def strangers(self) -> tuple[str, str]:
        """What somebody without an account may do here."""
        found = await find_out(
            self._address, self._tls, self._version, friend=self._probe, topic=self._topic, timeout=self._timeout
        )
        self.warning = found.connects
        return found.say()

    async def _client(self, *, clean: bool, kept: bool) -> Probe:
        probe = Probe(timeout=self._timeout)
        name = f"{self._client_id}-session"
        connection = Connection(self._address, self._packet(name, self._version, clean=clean, kept=kept), probe)
        await connection.open(self._tls, timeout=self._timeout)
        self._open.append(connection)
        probe.use(connection)
        return probe

    def _new_connection(self, version: ProtocolVersion, *, clean: bool) -> Connection:
        return Connection(self._address, self._packet(self._client_id, version, clean=clean, kept=False), self._probe)

    def _packet(self, client_id: str, version: ProtocolVersion, *, clean: bool, kept: bool) -> Connect:
        username, password = self._options.credentials
        return Connect(
            client_id,
            version,
            clean_start=clean,
            keep_alive=30,
            username=username if username is not None or password is None else "",
            password=None if password is None else password.encode(),
            properties=Properties(session_expiry_interval=_SESSION_SECONDS)
            if kept and version is ProtocolVersion.V5
            else None,
        )


def _name(certificate: dict[str, Any], field: str) -> str:
    """The common name, or what comes closest."""
    names = {key: value for part in certificate.get(field, ()) for key, value in part}
    found = names.get("commonName") or names.get("organizationName")
    if found is None and field == "subject":
        found = next((value for _, value in certificate.get("subjectAltName", ())), None)
    return repr(str(found)) if found else "no name"


def _yes(available: bool | None) -> str:
    return "no" if available is False else "yes"
