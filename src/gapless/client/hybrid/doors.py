"""Connections as the machine wants them: a task that listens, and tells."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from gapless.client.connect import TransportName
from gapless.client.hybrid.errors import cause_of
from gapless.client.hybrid.process import Later
from gapless.client.hybrid.rooms import RoomDescription
from gapless.client.hybrid.world import Listener, Offer, Opened
from gapless.client.model import (
    Alive,
    ClientEvent,
    Connection,
    Heard,
    Hole,
    Moved,
    PresenceTold,
    Revoked,
    Subscribed,
    Target,
)
from gapless.errors import GaplessError

if TYPE_CHECKING:
    from gapless.client.mqtt import MqttConnection
    from gapless.client.socketio import SocketIoConnection

logger = logging.getLogger("gapless.client")

Start = Callable[[Coroutine[Any, Any, Any], str], Later]
"""Runs a coroutine as a named task; the `Later` is its outcome, and abandoning it cancels the task."""

_OFFERS = {"socketio": ("socketio",), "mqtt": ("mqtt-websocket", "mqtt"), "sse": ("sse",), "poll": ("poll",)}
_HEARTBEATS = {"sse": 15.0, "poll": 30.0}


def offer_of(transport: TransportName, offers: Sequence[Offer], *, secure: bool) -> Offer | None:
    """What is on offer for a transport; a client that came by TLS shows its token in the clear nowhere."""
    for name in _OFFERS[transport]:
        for offer in offers:
            if offer.name == name and not (secure and offer.url.startswith(("http:", "ws:", "mqtt:"))):
                return offer
    return None


class ListeningDoor:
    """One connection: `world.Door`.

    Args:
        url: the gateway's.
        mqtt_url: the MQTT server, for `mqtt`.
        start: see `Start`.
        settled: called after it told something.
    """

    def __init__(
        self,
        transport: TransportName,
        *,
        url: str,
        mqtt_url: str,
        token: str | None,
        tls: ssl.SSLContext | None,
        listener: Listener,
        start: Start,
        settled: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._url = url
        self._mqtt_url = mqtt_url
        self._token = token
        self._tls = tls
        self._listener = listener
        self._start = start
        self._settled = settled
        self._connection: Connection
        self._listening: Later | None = None
        self._is_closed = False

    def open(self, rooms: Sequence[RoomDescription], after: str) -> Later:
        """See `Door`."""
        opened = Later(on_abandon=self.close)
        self._connection = self._connect(rooms)
        self._hears = bool(rooms)
        self._listening = self._start(self._listen(after, opened), f"gapless-{self._transport}")
        return opened

    def _connect(self, rooms: Sequence[RoomDescription]) -> Connection:
        names = tuple(room.room for room in rooms)
        target = Target(url=self._url, rooms=names, token=self._token, tls=self._tls)
        match self._transport:
            case "socketio":
                from gapless.client.socketio import SocketIoConnection

                return SocketIoConnection(target)
            case "mqtt":
                from gapless.client.mqtt import MqttConnection

                filters = _filters(rooms)
                target = Target(url=self._mqtt_url, filters=filters, token=self._token, tls=self._tls)
                return MqttConnection(target, retained=False)
            case "sse":
                from gapless.client.sse import SseConnection

                return SseConnection(target)
            case "poll":
                from gapless.client.polling import PollConnection

                return PollConnection(target)

    async def _listen(self, after: str, opened: Later) -> None:
        try:
            async with aclosing(self._connection.listen(after)) as signals:
                async for signal in signals:
                    # Up to Python 3.11 `wait_for`, of which the libraries make use, loses a cancellation
                    # that comes together with what it waits for.
                    if self._is_closed:
                        return
                    if isinstance(signal, Subscribed):
                        opened.resolve(self._opened())
                    else:
                        self._tell(signal)
                    self._settled()
        except Exception as error:
            cause = cause_of(error)
            opened.fail(cause)  # does nothing where it was opened
            self._listener.down(cause)
            self._settled()
            if not isinstance(error, GaplessError | OSError):
                logger.warning("the %s connection failed unexpectedly", self._transport, exc_info=error)

    def _opened(self) -> Opened:
        match self._transport:
            case "socketio":
                return Opened(self._socketio.heartbeat, is_live=True, renews=True, tells_presence=True)
            case "mqtt":
                return Opened(self._mqtt.heartbeat, is_live=True)
            case name:
                return Opened(_HEARTBEATS[name] if self._hears else math.inf)

    def _tell(self, signal: Heard) -> None:
        listener = self._listener
        match signal:
            case ClientEvent():
                listener.event(signal)
            case Moved():
                listener.moved(signal.position)
            case Hole():
                listener.gap(signal.position)
            case PresenceTold():
                listener.presence(signal.event, signal.document)
            case Revoked():
                listener.revoked(signal.rooms)
            case Alive() | Subscribed():
                listener.alive()

    @property
    def _socketio(self) -> SocketIoConnection:
        return self._connection  # type: ignore[return-value]

    @property
    def _mqtt(self) -> MqttConnection:
        return self._connection  # type: ignore[return-value]

    def join(self, rooms: Sequence[RoomDescription]) -> Later:
        """See `Door`."""
        if self._transport == "mqtt":
            return self._start(self._mqtt.join(_filters(rooms)), "gapless-join")
        return self._start(self._socketio.join([room.room for room in rooms]), "gapless-join")

    def leave(self, rooms: Sequence[RoomDescription], kept: Sequence[RoomDescription]) -> Later:
        """See `Door`."""
        if self._transport == "mqtt":
            gone = [each for each in _filters(rooms) if each not in _filters(kept)]
            return self._start(self._mqtt.leave(gone or ["gapless/ping"]), "gapless-leave")
        return self._start(self._socketio.leave([room.room for room in rooms]), "gapless-leave")

    def ping(self) -> Later:
        """See `Door`."""
        return self._start((self._mqtt if self._transport == "mqtt" else self._socketio).ping(), "gapless-ping")

    def presence(self, room: str, *, live: bool) -> Later:
        """See `Door`."""
        return self._start(self._socketio.presence(room, live=live), "gapless-presence")

    def renew(self, token: str) -> Later:
        """See `Door`."""
        return self._start(self._socketio.renew(token), "gapless-renew")

    def close(self) -> None:
        """See `Door`."""
        self._is_closed = True
        if self._listening is not None:
            self._listening.cancel()


def _filters(rooms: Sequence[RoomDescription]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for room in rooms for each in room.heard_by))
