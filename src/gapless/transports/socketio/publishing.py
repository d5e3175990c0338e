"""Publishing over Socket.IO: the request's handler, and its short way for a client on a WebSocket.

The library makes a task of each event that a client sends, and four calls of coroutines to its handler. A
publication that needs nobody to be asked needs none of this: it is read, checked and handed in by calls, and
those that are stored together are acknowledged in one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from gapless.auth import Gate
from gapless.envelope import MAX_DEPTH, MAX_NODES, Envelope, read_envelope
from gapless.errors import GaplessError, InvalidRequest, NotDecided
from gapless.event import Event, Origin, Record
from gapless.ingress import Ingress, Publication, Reply, answer_of
from gapless.transports.socketio.access import Access
from gapless.transports.socketio.client import Client
from gapless.transports.socketio.outgoing import EncodedMessage

logger = logging.getLogger("gapless.socketio")

PUBLISH = "publish"

_BEGINNING = f'["{PUBLISH}",'
_LONGEST_ID = 10
_decode_json = msgspec.json.Decoder(list).decode
_encode_json = msgspec.json.Encoder().encode


class Publishing:
    """What clients publish.

    Args:
        clients: those connected, by session id.

    Attributes:
        ingress: where it goes.
    """

    def __init__(self, *, ingress: Ingress, gate: Gate, access: Access, clients: Mapping[str, Client]) -> None:
        self.ingress = ingress
        self._gate = gate
        self._access = access
        self._clients = clients
        self._due: dict[Client, list[EncodedMessage]] = {}

    async def request(self, client: Client, document: dict[str, Any]) -> dict[str, Any]:
        """The request `publish`, answered once the event is durable.

        Raises:
            GaplessError: nothing was accepted.
        """
        publication = self._publication(client, document)
        submitted = await self._access.decided(
            client, lambda: self.ingress.submit(publication), topics=(self.ingress.topic_of(publication),)
        )
        return {"ok": True, **msgspec.structs.asdict(await submitted)}

    def at_once(self, sid: str, packet: str) -> bool:
        """Take in one packet, where it is a publication that needs nobody to be asked.

        Args:
            packet: a whole Socket.IO packet in the main namespace.

        Returns:
            Whether it was taken in or refused, and was or will be acknowledged. If not, nothing happened.
        """
        start = packet.find("[", 1, _LONGEST_ID + 2)
        if start < 0 or packet[0] != "2" or not packet.startswith(_BEGINNING, start):
            return False
        if len(packet) > MAX_NODES or packet.count("[") + packet.count("{") > MAX_DEPTH:
            return False  # perhaps too complex: looked at there
        wanted = packet[1:start]
        client = self._clients.get(sid)
        if client is None or not client.started or client.waiting or (wanted and not _is_number(wanted)):
            return False
        try:
            document = _decode_json(packet[start:])[1]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        if not isinstance(document, dict):
            return False
        return self._publish(client, document, int(wanted) if wanted else None)

    def _publish(self, client: Client, document: dict[str, Any], wanted: int | None) -> bool:
        try:
            self._access.check(client)
            client.visit.check()
        except GaplessError as error:
            self.acknowledge(client, wanted, refusal(error, client.sid))
            return True
        try:
            event, ephemeral = self.ingress.make_event(self._publication(client, document))
            self.ingress.hand_in(event, _Acknowledgement(self, client, wanted, event), ephemeral=ephemeral)
        except NotDecided:
            return False
        except Exception as error:
            self.acknowledge(client, wanted, refusal(error, client.sid))
        client.visit.spend(1)
        return True

    def acknowledge(self, client: Client, wanted: int | None, answer: dict[str, Any]) -> None:
        """Send an acknowledgement (Socket.IO 5, exchange protocol) where one is wanted, by the end of this step."""
        if wanted is None:
            return
        if not self._due:
            asyncio.get_running_loop().call_soon(self._flush)
        self._due.setdefault(client, []).append(EncodedMessage.of(b"43%d[%b]" % (wanted, _encode_json(answer))))

    def _flush(self) -> None:
        due, self._due = self._due, {}
        for client, messages in due.items():
            if client.started:  # else it is gone
                client.queue.send(EncodedMessage.joined(messages))

    def _publication(self, client: Client, document: dict[str, Any]) -> Publication:
        envelope = _envelope(document)
        identity = client.identity
        return Publication(
            envelope=envelope,
            origin=Origin("socketio", client.sid),
            qos=_qos(document.get("qos")),
            retain=_retain(document.get("retain")),
            user_id=identity.speaker(envelope.user_id),
            nobody=identity.user_id is None and not identity.service,
            allow=lambda topic: self._gate.check_publish(identity, topic),
        )


class _Acknowledgement(Reply):
    """Says what became of one publication."""

    __slots__ = ("_client", "_event", "_publishing", "_wanted")

    def __init__(self, publishing: Publishing, client: Client, wanted: int | None, event: Event) -> None:
        self.ingress = publishing.ingress
        self._publishing = publishing
        self._client = client
        self._wanted = wanted
        self._event = event

    def accepted(self, record: Record, *, duplicate: bool) -> None:
        """See `Reply`."""
        accepted = answer_of(self._event, record, duplicate=duplicate)
        self._publishing.acknowledge(self._client, self._wanted, {"ok": True, **msgspec.structs.asdict(accepted)})

    def refused(self, error: BaseException) -> None:
        """See `Reply`."""
        self._publishing.acknowledge(self._client, self._wanted, refusal(error, self._client.sid))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def refusal(error: BaseException, sid: str) -> dict[str, Any]:
    """The answer to a request that failed."""
    if not isinstance(error, GaplessError):
        logger.error("a request of client %s failed", sid, exc_info=error)
        error = GaplessError("the gateway failed; its log says why")
    return {"ok": False, "error": error.to_wire()}


def _envelope(document: dict[str, Any]) -> Envelope:
    data = document.get("data")
    if not isinstance(data, bytes | bytearray):
        return read_envelope(document)
    envelope = read_envelope({key: value for key, value in document.items() if key != "data"})
    envelope.data, envelope.decoded, envelope.binary = bytes(data), None, True
    return envelope


def _qos(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or value not in (0, 1, 2):
        raise InvalidRequest("qos is not 0, 1 or 2", hint="leave it out for the topic map's")
    return int(str(value))


def _retain(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest("retain is not true or false", hint="leave it out for the topic map's")
