"""One MQTT connection as a client: from CONNECT to its end, whatever the broker does."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from gapless.link.address import BrokerAddress
from gapless.link.channel import Channel, open_channel
from gapless.link.errors import LinkError, Stage, disconnected, not_mqtt, refused, silent_close, tls_failed
from gapless.mqtt import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MqttProtocolError,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    ProtocolVersion,
    ReasonCode,
    encode,
)
from gapless.mqtt.codes import REASON_OF_RETURN_CODE_311

_MAX_PACKET = 268_435_460  # bytes: what the standard allows (§2.1.4)
_ANSWER_BYTES = 4  # enough of the answer to CONNECT to know what speaks
_FLUSH_AT = 64 * 1024  # bytes
_CLOSE_WITHIN = 5.0  # seconds for a peer to take DISCONNECT
_PING_PATIENCE = 10.0  # seconds for PINGRESP, unless the keepalive is shorter


class Handler(Protocol):
    """Who gets a connection's packets; called in the event loop's thread, in order."""

    def on_packet(self, packet: Packet) -> None:
        """A packet has come, after CONNACK. What it raises closes the connection."""

    def on_writable(self) -> None:
        """The socket takes data again."""

    def on_closed(self, error: LinkError) -> None:
        """The connection has ended, once. Not called after `Connection.detach`."""


class Connection:
    """A client's side of one connection.

    Packets that come after CONNACK are held, and reading is paused, until `start`.

    Attributes:
        version: of the protocol, as in `connect`.
        connack: the broker's answer, once `open` returned.
    """

    def __init__(self, address: BrokerAddress, connect: Connect, handler: Handler) -> None:
        self.address = address
        self.version: ProtocolVersion = connect.version
        self.connack = Connack()
        self._connect = connect
        self._handler: Handler | None = handler
        self._channel: Channel | None = None
        self._decoder = Decoder("client", version=connect.version, max_packet_size=_MAX_PACKET, max_topic_levels=65_536)
        self._first: bytearray | None = bytearray()
        self._answer: asyncio.Future[Connack] = asyncio.get_running_loop().create_future()
        self._started = False
        self._paused = False
        self._held: deque[Packet] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._error: LinkError | None = None
        self._loop = asyncio.get_running_loop()
        self._keepalive = float(connect.keep_alive)
        self._sent_at = self._received_at = self._loop.time()
        self._ping_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def properties(self) -> Properties:
        """CONNACK's properties; all absent in 3.1.1."""
        return self.connack.properties or Properties()

    @property
    def writable(self) -> bool:
        """Whether it is open and the socket takes data."""
        channel = self._channel
        return channel is not None and self._error is None and channel.writable

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._error is not None

    async def open(
        self,
        tls: ssl.SSLContext | None,
        *,
        timeout: float,
        before_connect: Callable[[], Awaitable[None]] | None = None,
    ) -> Connack:
        """Open the channel, send CONNECT, wait for CONNACK; `timeout` seconds for each.

        Cancellation closes what was opened, and so does what `before_connect` raises.

        Args:
            before_connect: awaited once there is a channel, before anything is said.

        Raises:
            LinkError: no connection; `VersionRefused` where another version may be tried.
        """
        channel = await open_channel(self.address, tls, self, timeout=timeout)
        if before_connect is not None:
            try:
                await before_connect()
            except BaseException:
                channel.abort()
                raise
        return await self.shake_hands(channel, timeout=timeout)

    async def shake_hands(self, channel: Channel, *, timeout: float) -> Connack:
        """CONNECT and CONNACK on a channel whose receiver is this connection.

        Raises:
            LinkError: as `open`.
        """
        self._channel = channel
        channel.write(encode(self._connect, self.version))
        try:
            async with asyncio.timeout(timeout):
                self.connack = await self._answer
        except TimeoutError as error:
            self.abort()
            raise LinkError(
                "connect", "no answer to CONNECT in time", hint="does the port speak MQTT? (WebSocket ports do not)"
            ) from error
        except BaseException:
            self.abort()
            raise
        if self.properties.server_keep_alive is not None:  # [MQTT-3.1.2-21]
            self._keepalive = float(self.properties.server_keep_alive)
        return self.connack

    def start(self) -> None:
        """Hand packets to the handler from now on, first those that were held."""
        self._started = True
        self.resume()  # before what is delivered may pause it
        self._deliver()
        if self._error is None:
            self._set_timer()

    def send(self, packet: Packet) -> None:
        """Write a packet; nothing after the end."""
        self.write(encode(packet, self.version))

    def write(self, data: bytes) -> None:
        """Write an encoded packet; nothing after the end.

        What is written in one step of the event loop goes out together, at the step's end.
        """
        if self._channel is None or self._error is not None:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= _FLUSH_AT:
            self._flush()

    def _flush(self) -> None:
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        if self._channel is not None:
            self._sent_at = self._loop.time()
            self._channel.write(data)

    def pause(self) -> None:
        """Take nothing in, until `resume`: TCP then holds the broker up."""
        self._paused = True
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._received_at = self._loop.time()
        if self._channel is not None and self._started:
            self._channel.resume()

    def disconnect(self) -> None:
        """Send DISCONNECT, so that the broker publishes no will (§3.14), and close."""
        self.send(Disconnect())
        self._flush()
        self._finish(LinkError("session", "we closed the connection"), tell=False)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            self._loop.call_later(_CLOSE_WITHIN, channel.abort)

    def abort(self, error: LinkError | None = None) -> None:
        """Close at once, without DISCONNECT; the handler is told where an error is given."""
        self._flush()
        self._finish(error or LinkError("session", "we closed the connection"), tell=error is not None)
        if self._channel is not None:
            self._channel.abort()

    def detach(self) -> None:
        """Call the handler no more."""
        self._handler = None

    # What the channel calls (its Receiver)

    def received(self, data: bytes) -> None:
        """Bytes have come from the channel."""
        if self._error is not None:
            return
        self._received_at = self._loop.time()
        if self._first is not None:
            self._first += data
            if len(self._first) < _ANSWER_BYTES and self._first[:1] == b"\x20":
                return
            data, self._first = bytes(self._first), None
            if (error := self._check_first(data)) is not None:
                self.abort(error)
                return
        try:
            packets = self._decoder.feed(data)
        except MqttProtocolError as error:
            self._held.extend(error.packets_before)
            self._deliver()
            self.write(error.answer)
            stage: Stage = "session" if self._answer.done() else "connect"
            self.abort(LinkError(stage, f"the broker broke the protocol: {error}"))
            return
        self._held.extend(packets)
        self._deliver()

    def drained(self) -> None:
        """The channel is writable again."""
        if self._handler is not None and self._started:
            self._handler.on_writable()

    def ended(self, error: Exception | None) -> None:
        """The channel has ended, and nobody announced it."""
        if self._answer.done():
            failure = LinkError("session", "the connection to the broker was lost")
        elif isinstance(error, ssl.SSLError):
            failure = tls_failed(self.address, error)
        else:
            failure = silent_close(self.address)
        failure.__cause__ = error
        self._finish(failure, tell=True)

    def _check_first(self, data: bytes) -> LinkError | None:
        """What is wrong with the first bytes; a 3.1.1 refusal of MQTT 5 is not decodable as MQTT 5."""
        if (error := not_mqtt(self.address, data)) is not None:
            return error
        if self.version is ProtocolVersion.V5 and data[:3] == b"\x20\x02\x00" and data[3] != 0:
            code = ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
            return refused(REASON_OF_RETURN_CODE_311.get(data[3], code))
        return None

    def _deliver(self) -> None:
        while self._held and self._error is None:
            if self._answer.done() and not self._started and not isinstance(self._held[0], Disconnect):
                return
            self._take(self._held.popleft())

    def _take(self, packet: Packet) -> None:
        match packet:
            case Connack():
                self._take_connack(packet)
            case Pingresp():
                self._ping_at = None
            case Disconnect():
                properties = packet.properties or Properties()
                self.abort(
                    disconnected(
                        packet.reason_code,
                        reason_string=properties.reason_string,
                        reference=properties.server_reference,
                    )
                )
            case _:
                self._hand_over(packet)

    def _hand_over(self, packet: Packet) -> None:
        if self._handler is None:
            return
        try:
            self._handler.on_packet(packet)
        except LinkError as error:
            self.abort(error)

    def _take_connack(self, packet: Connack) -> None:
        if packet.reason_code.is_failure:
            properties = packet.properties or Properties()
            error = refused(
                packet.reason_code, reason_string=properties.reason_string, reference=properties.server_reference
            )
            self.abort(error)
            return
        if not self._answer.done():
            self._answer.set_result(packet)
            self.pause()

    def _finish(self, error: LinkError, *, tell: bool) -> None:
        if self._error is not None:
            return
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # perhaps nobody waits any more
        elif tell and self._handler is not None:
            self._handler.on_closed(error)

    # Keep alive (§3.1.2.10)

    def _set_timer(self) -> None:
        if self._keepalive > 0 and self._error is None:
            self._timer = self._loop.call_later(min(self._keepalive / 4, _PING_PATIENCE / 2), self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._ping_at is not None and self._received_at >= self._ping_at:
            self._ping_at = None
        patience = min(self._keepalive, _PING_PATIENCE)
        if self._ping_at is not None and not self._paused and now - self._ping_at > patience:
            self.abort(LinkError("session", "the broker does not answer any more (no PINGRESP)"))
            return
        quiet = self._keepalive / 2
        if now - self._sent_at >= quiet or (self._ping_at is None and now - self._received_at >= quiet):
            self._ping_at = self._ping_at or now
            self.send(Pingreq())
        self._set_timer()
