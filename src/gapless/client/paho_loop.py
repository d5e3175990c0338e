"""The stock paho-mqtt client, driven by the event loop instead of a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gapless.client.http import CONNECT_TIMEOUT
from gapless.client.model import ConnectionLost, Refused

T = TypeVar("T")
_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_ANSWER_TIMEOUT = 30.0
_NOT_AUTHORIZED = 0x87

# Reason codes of CONNACK after which the same attempt, later, may succeed (MQTT 5 §3.2.2.2).
_CREDENTIALS = {0x86, 0x87}
_RETRYABLE = {0x80, 0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F}


class PahoSession:
    """One connection of a paho client, MQTT 5, clean, on the running event loop.

    Args:
        url: `mqtt://`, `mqtts://`, `ws://` or `wss://`; it may hold a user and a password.
        token: shown as password.
        on_message: called for each message, in order.
        on_read: called whenever something was received.
        keepalive: seconds (MQTT 5 §3.1.2.10).
        tls: the context for `mqtts` and `wss`; default: the system's authorities.

    Attributes:
        lost: resolves with the reason when the connection ends by itself.
        lost_code: the reason code of the server's DISCONNECT, where it sent one.
        receive_maximum: how many QoS 1 and 2 messages the server takes at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        on_message: Callable[[MQTTMessage], None] | None = None,
        on_read: Callable[[], None] | None = None,
        client_id: str = "",
        keepalive: int = 30,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise Refused(f"{url!r} is not the URL of an MQTT server", hint="use mqtt://, mqtts://, ws:// or wss://")
        self._host = parts.hostname
        self._port = parts.port or _PORTS[parts.scheme]
        self.where = f"{parts.scheme}://{self._host}:{self._port}"
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.lost_code: int | None = None
        self.receive_maximum = 65535
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[tuple[list[ReasonCode], Properties | None]]] = {}
        self._unsubacks: dict[int, asyncio.Future[None]] = {}
        self._pubacks: dict[int, asyncio.Future[ReasonCode]] = {}
        self._on_message = on_message
        self._on_read = on_read
        self._misc: asyncio.Task[None] | None = None
        self._fd = -1
        self._paused = False
        self.client = self._make_client(parts.scheme, client_id)
        if parts.scheme in ("ws", "wss"):
            self.client.ws_set_options(path=parts.path or "/mqtt")
        if parts.scheme in ("mqtts", "wss"):
            self.client.tls_set_context(tls or ssl.create_default_context())
        if token is not None or parts.username:
            password = token if token is not None else unquote(parts.password or "")
            self.client.username_pw_set(unquote(parts.username or ""), password)

    def _make_client(self, scheme: str, client_id: str) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="websockets" if scheme in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages = 65535  # the window is ours: what the server allows
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_unsubscribe = self._unsubscribed
        client.on_publish = self._published
        client.on_message = self._message
        return client

    # --- connecting

    async def connect(self) -> None:
        """Connect, and wait for CONNACK.

        Raises:
            ConnectionLost: the server cannot be reached, or did not answer.
            Refused: its CONNACK says no.
        """
        # Name resolution, TCP, TLS and the WebSocket handshake block: in a thread.
        connecting = self._loop.run_in_executor(
            None, lambda: self.client.connect(self._host, self._port, self._keepalive, clean_start=True)
        )
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._abandon)  # a thread cannot be stopped
            raise
        except (OSError, ssl.SSLError, ValueError) as error:  # paho's WebSocket errors are OSError or ValueError
            raise ConnectionLost(f"{self.where}: {error}") from error
        self._attach()
        code = await self._answer(self._connack, "CONNECT", timeout=CONNECT_TIMEOUT)
        if code.value >= 0x80:
            text = f"{self.where} refused the connection: {code}"
            if code.value in _RETRYABLE:
                raise ConnectionLost(text)
            details = {"code": "unauthorized"} if code.value in _CREDENTIALS else {}
            raise Refused(text, hint=_connack_hint(code.value), reason_code=code.value, **details)

    def _abandon(self, connecting: asyncio.Future[MQTTErrorCode]) -> None:
        if connecting.cancelled() or connecting.exception() is not None:
            return
        self.client.disconnect()
        self.client.loop_read()

    def _attach(self) -> None:
        sock = self.client.socket()
        if sock is None:
            return
        self._fd = sock.fileno()
        self.client.on_socket_close = lambda *_: self._detach()
        self.client.on_socket_register_write = lambda *_: self._want_write(wanted=True)
        self.client.on_socket_unregister_write = lambda *_: self._want_write(wanted=False)
        self._loop.add_reader(self._fd, self._readable)
        if self.client.want_write():
            self._want_write(wanted=True)
        self._misc = asyncio.create_task(self._keep_alive(), name=f"mqtt-keepalive-{self._fd}")

    def _want_write(self, *, wanted: bool) -> None:
        if self._fd < 0:
            return
        if wanted:
            self._loop.add_writer(self._fd, self.client.loop_write)
        else:
            self._loop.remove_writer(self._fd)

    def _detach(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        self.client.loop_read()
        # TLS may hold decrypted bytes that the kernel no longer shows as readable.
        while (sock := self.client.socket()) is not None and _pending(sock) and not self._paused:
            self.client.loop_read()
        if self._on_read is not None:
            self._on_read()

    async def _keep_alive(self) -> None:
        while self.client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 a timer, not a wait
            await asyncio.sleep(1)

    def pause(self) -> None:
        """Read no more: TCP tells the server."""
        if not self._paused and self._fd >= 0:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if self._fd >= 0:
                self._loop.add_reader(self._fd, self._readable)
                self._loop.call_soon(self._readable)

    async def close(self) -> None:
        """Say DISCONNECT and close. Safe to call twice."""
        if not self.lost.done():
            self.lost.set_result("closed")
        self.client.disconnect()
        if self.client.socket() is not None:
            self.client.loop_write()
        self._detach()
        if self._misc is not None:
            self._misc.cancel()
            await asyncio.gather(self._misc, return_exceptions=True)
            self._misc = None
        if self.client.socket() is not None:
            self.client.loop_read()  # notices the end, and closes the socket

    # --- requests

    async def subscribe(self, filters: list[tuple[str, Any]], properties: Properties | None) -> dict[str, str]:
        """Subscribe; returns SUBACK's user properties.

        Raises:
            Refused: one filter was not granted.
        """
        code, mid = self.client.subscribe(filters, properties=properties)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionLost(f"{self.where}: SUBSCRIBE could not be sent")
        granted: asyncio.Future[tuple[list[ReasonCode], Properties | None]] = self._loop.create_future()
        self._subacks[mid] = granted
        codes, told = await self._answer(granted, "SUBSCRIBE")
        for (topic_filter, _), reason in zip(filters, codes, strict=False):
            if reason.value >= 0x80:
                details = {"code": "forbidden"} if reason.value == _NOT_AUTHORIZED else {}
                raise Refused(
                    f"{self.where} refused the filter {topic_filter!r}: {reason}",
                    hint=getattr(told, "ReasonString", ""),
                    reason_code=reason.value,
                    **details,
                )
        return user_properties(told)

    async def unsubscribe(self, filters: list[str]) -> None:
        """Unsubscribe, and wait for UNSUBACK."""
        code, mid = self.client.unsubscribe(filters)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise ConnectionLost(f"{self.where}: UNSUBSCRIBE could not be sent")
        done: asyncio.Future[None] = self._loop.create_future()
        self._unsubacks[mid] = done
        await self._answer(done, "UNSUBSCRIBE")

    def loss(self) -> ConnectionLost | Refused:
        """Why the connection ended."""
        text = f"{self.where}: {self.lost.result()}"
        if self.lost_code == _NOT_AUTHORIZED:
            return Refused(text, hint="the token has ended", code="unauthorized")
        return ConnectionLost(text)

    def send(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, properties: Properties | None
    ) -> asyncio.Future[ReasonCode] | None:
        """Publish; the future resolves when the server acknowledged, None at QoS 0."""
        info = self.client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ConnectionLost(f"{self.where}: PUBLISH could not be sent")
        if qos == 0:
            return None
        answer: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._pubacks[info.mid] = answer
        return answer

    async def acknowledged(self, answer: asyncio.Future[ReasonCode]) -> ReasonCode:
        """Wait for a PUBACK or PUBCOMP.

        Raises:
            ConnectionLost: the connection ended before.
        """
        return await self._answer(answer, "PUBLISH")

    async def _answer(self, answer: asyncio.Future[T], what: str, *, timeout: float = _ANSWER_TIMEOUT) -> T:
        either: set[asyncio.Future[Any]] = {answer, self.lost}
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        reason = self.lost.result() if self.lost.done() else f"the server did not answer to {what}"
        raise ConnectionLost(f"{self.where}: {reason}")

    # --- paho's callbacks, all in the event loop's thread

    def _connected(
        self, client: Client, userdata: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        maximum = getattr(properties, "ReceiveMaximum", None)
        if maximum is not None:
            self.receive_maximum = int(maximum)
        if not self._connack.done():
            self._connack.set_result(code)

    def _disconnected(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not self.lost.done():
            self.lost_code = code.value if flags.is_disconnect_packet_from_server else None
            who = "the server disconnected us" if flags.is_disconnect_packet_from_server else "the connection was lost"
            self.lost.set_result(f"{who}: {code}")

    def _subscribed(
        self, client: Client, userdata: object, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        waiting = self._subacks.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result((codes, properties))

    def _unsubscribed(
        self, client: Client, userdata: object, mid: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        waiting = self._unsubacks.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _published(
        self, client: Client, userdata: object, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        waiting = self._pubacks.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(code)

    def _message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        if self._on_message is not None:
            self._on_message(message)


def user_properties(properties: Properties | None) -> dict[str, str]:
    """The user properties of a packet; of a repeated name the last one."""
    return dict(getattr(properties, "UserProperty", None) or [])


def properties_for(packet_type: int, **user: str) -> Properties:
    """Properties of a packet, with user properties (`_` in a name stands for `-`)."""
    properties: Properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    if user:
        properties.UserProperty = [(name.replace("_", "-"), value) for name, value in user.items()]
    return properties


SUBSCRIBE = PacketTypes.SUBSCRIBE
PUBLISH = PacketTypes.PUBLISH


def _pending(sock: Any) -> int:
    pending = getattr(sock, "pending", None)
    return int(pending()) if pending is not None else 0


def _connack_hint(code: int) -> str:
    match code:
        case 0x84:
            return "the server speaks no MQTT 5"
        case 0x86 | 0x87 | 0x85:
            return "check --token, or the user and the password in the URL"
        case _:
            return ""
