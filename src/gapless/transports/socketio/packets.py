"""Packets of Engine.IO 4 and Socket.IO 5, read strictly: what is no packet is refused, not guessed at."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from engineio import packet as eio
from socketio import packet as sio

from gapless.envelope import MAX_DEPTH, MAX_NODES, check_depth, check_nodes
from gapless.errors import TooComplex

SEPARATOR = "\x1e"
"""Between the packets of one polling request or response (Engine.IO 4, packet encoding, HTTP long-polling)."""

MAX_ATTACHMENTS = 10
"""Binary attachments of one Socket.IO packet: they are held until the last one has come."""

_PACKET_DEPTH = MAX_DEPTH + 2  # the data of an event lies in an object, in the list of the packet's arguments

RESERVED_EVENTS = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Events that the server itself raises; a client that could send them would pretend to be it."""

# <type>[<attachments>-][<namespace>,][<acknowledgement id>] (Socket.IO 5, packet encoding, format)
_HEADER = re.compile(r"([0-6])(?:(\d+)-)?(?:(/[^,]*),?)?(\d*)", re.ASCII)


def decode_engine_packet(encoded: str | bytes) -> Any:
    """One Engine.IO packet (Engine.IO 4, packet encoding). A payload stays the text or bytes that it is.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(encoded, str):
        return eio.Packet(eio.MESSAGE, bytes(encoded))
    kind = encoded[:1]
    if kind == "b":
        return eio.Packet(eio.MESSAGE, b64decode(encoded[1:], validate=True))
    if kind not in tuple("0123456"):
        raise ValueError("not a packet of Engine.IO")
    return eio.Packet(int(kind), encoded[1:])


def decode_payload(encoded: bytes) -> list[Any]:
    """The Engine.IO packets of a POST (Engine.IO 4, packet encoding, HTTP long-polling).

    Raises:
        ValueError: one of them is none, or it is not UTF-8.
    """
    return [decode_engine_packet(part) for part in encoded.decode().split(SEPARATOR)]


def encode_payload(packets: Iterable[Any]) -> bytes:
    """The response to a poll; binary payloads in base64."""
    # A packet keeps what it was first encoded to, and binary ones are encoded otherwise on WebSocket.
    parts = ("b" + b64encode(packet.data).decode() if packet.binary else packet.encode() for packet in packets)
    return SEPARATOR.join(parts).encode()


def decode_socketio_packet(encoded: str | bytes) -> Packet:
    """One Socket.IO packet without its attachments, of which it tells the number.

    Raises:
        ValueError: it is none, or none that a client may send.
    """
    if not encoded or not isinstance(encoded, str):
        raise ValueError("no packet, or binary data that no packet announced")
    return Packet(encoded_packet=encoded)


class Packet(sio.Packet):  # type: ignore[misc]
    """The library's Socket.IO packet, refusing what Socket.IO 5 does not know.

    Attributes:
        refused: why the payload of an event was left unread: too many values, or nested too deep.
    """

    refused: TooComplex | None = None

    def decode(self, encoded_packet: str) -> int:
        """Read a packet (Socket.IO 5, packet encoding); how many attachments follow it.

        Raises:
            ValueError: see `decode_socketio_packet`.
        """
        header = _HEADER.match(encoded_packet)
        if header is None:
            raise ValueError("an unknown packet type")
        kind, attachments, namespace, identifier = header.groups()
        self.packet_type = int(kind)
        self.namespace = namespace and namespace.partition("?")[0]
        self.id = int(identifier) if identifier else None
        rest = encoded_packet[header.end() :]
        try:
            self.data = self._read(rest) if rest else None
        except TooComplex as error:
            if self.packet_type not in (sio.EVENT, sio.BINARY_EVENT):
                raise ValueError(error.message) from error
            self.refused, self.data = error, []
        else:
            self._check_payload()
        return self._check_attachments(attachments)

    def _read(self, text: str) -> Any:
        """The payload, within the bounds that every door has for JSON.

        Raises:
            TooComplex: it is not.
            ValueError: it is no JSON.
        """
        if len(text) > MAX_NODES:  # less cannot be too many values
            check_nodes(text.encode(errors="replace"))
        try:
            data = self.json.loads(text)
        except RecursionError as error:
            raise TooComplex("the payload is nested too deep", hint="flatten it", limit=MAX_DEPTH) from error
        if text.count("[") + text.count("{") > _PACKET_DEPTH:  # else it cannot be nested deeper
            check_depth(data, _PACKET_DEPTH)
        return data

    def _check_payload(self) -> None:
        data: Any = self.data
        match self.packet_type:
            case sio.CONNECT:
                valid = data is None or isinstance(data, dict)
            case sio.DISCONNECT:
                valid = data is None
            case sio.EVENT | sio.BINARY_EVENT:
                valid = isinstance(data, list) and bool(data) and _is_event_name(data[0])
            case sio.ACK | sio.BINARY_ACK:
                valid = isinstance(data, list) and self.id is not None
            case _:
                valid = False  # CONNECT_ERROR is the server's
        if not valid:
            raise ValueError("a payload that does not fit the packet type")
        if self.packet_type in (sio.EVENT, sio.BINARY_EVENT):
            data[0] = str(data[0])  # a number too names an event, which JavaScript's emitters know by its text

    def _check_attachments(self, count: str | None) -> int:
        binary = self.packet_type in (sio.BINARY_EVENT, sio.BINARY_ACK)
        if (count is not None) != binary:
            raise ValueError("attachments where none may be, or none announced")
        attachments = int(count or 0)
        if attachments > MAX_ATTACHMENTS:
            raise ValueError("too many attachments")
        return attachments

    def add_attachment(self, attachment: str | bytes) -> bool:
        """Take the next attachment; whether it was the last.

        Raises:
            ValueError: it is text, or the payload has a placeholder for none of them.
        """
        if isinstance(attachment, str):
            raise ValueError("text where an attachment was announced")
        return bool(super().add_attachment(attachment))

    @classmethod
    def _reconstruct_binary_internal(cls, data: Any, attachments: list[bytes]) -> Any:
        if isinstance(data, dict) and data.get("_placeholder"):
            number = data.get("num")
            if not isinstance(number, int) or not 0 <= number < len(attachments):
                raise ValueError("a placeholder for no attachment")
        return super()._reconstruct_binary_internal(data, attachments)


def _is_event_name(name: object) -> bool:
    if isinstance(name, str):
        return name not in RESERVED_EVENTS
    return isinstance(name, int) and not isinstance(name, bool)
