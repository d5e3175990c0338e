"""One client's connection: from CONNECT to its end, over any writer (TCP, WebSocket).

Whatever a client does wrong ends its own connection, with the reason the standard gives, and
touches nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from gapless.auth import Credentials, Identity, Lease
from gapless.envelope import read_payload
from gapless.errors import Forbidden, InvalidRequest, LogError, NotDecided, Overloaded, RateLimited, Unauthorized
from gapless.limits import FREE, Visit
from gapless.mqtt import (
    Auth,
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MqttProtocolError,
    Packet,
    Pingreq,
    Properties,
    ProtocolVersion,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    ReasonCode,
    Subscribe,
    Unsubscribe,
    connect_return_code,
    encode,
)
from gapless.mqtt.session import Session
from gapless.transports.mqtt.access import (
    ATTEMPTS,
    METHOD,
    REVOKED,
    decide,
    end_access,
    may_hear_again,
    reauthenticate,
    review_connection,
    review_session,
    session_name,
)
from gapless.transports.mqtt.inbound import Inbound, reason_of, refuse_another_user
from gapless.transports.mqtt.output import Output, Writer, encode_fitting
from gapless.transports.mqtt.reader import Reader
from gapless.transports.mqtt.sessions import FOREVER
from gapless.transports.mqtt.subscribing import subscribe, unsubscribe, wants_bare
from gapless.transports.mqtt.wills import keep_will, sign_will
from gapless.transports.tls import peer_certificate

if TYPE_CHECKING:
    from gapless.transports.mqtt.edge import MqttEdge

logger = logging.getLogger("gapless.mqtt")

_V5 = ProtocolVersion.V5
_NO_LIMIT = 0xFFFFFFF
_CLIENT_ID_BYTES = 1024
_ACKNOWLEDGEMENT = 0x40
"""The first two bits of PUBACK, PUBREC, PUBREL and PUBCOMP."""
_PINGRESP = b"\xd0\x00"
_REQUESTS = (Publish, Pingreq, Auth)
"""What counts as a request of the client; of SUBSCRIBE and UNSUBSCRIBE each filter does."""
_PATIENCE = 60.0
"""Seconds that a client which sent too much is made to wait at most; one that would wait longer is disconnected."""


class _Refused(Exception):
    """A CONNECT is answered with a failure."""

    def __init__(self, reason: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Connection:
    """The state machine of one network connection. See `Writer` for who calls what.

    Args:
        peer: address and port for the log.
        address: where the client is: its network address.
        visit: what it counts as; the writer ends that.
    """

    __slots__ = (
        "_attempts",
        "_connect",
        "_connecting",
        "_deciding",
        "_decoder",
        "_early",
        "_full",
        "_keep_alive",
        "_last_heard",
        "_lease",
        "_loop",
        "_open",
        "_parked",
        "_timer",
        "_whole",
        "address",
        "authenticating",
        "bare",
        "client_id",
        "edge",
        "explain",
        "identity",
        "inbound",
        "lost",
        "method",
        "output",
        "peer",
        "reader",
        "reviewing",
        "rooms",
        "version",
        "visit",
    )

    reader: Reader
    inbound: Inbound

    def __init__(
        self, edge: MqttEdge, writer: Writer, *, peer: str, address: str | None = None, visit: Visit = FREE
    ) -> None:
        self.edge = edge
        self.peer = peer
        self.address = address
        self.visit = visit
        self.output = Output(writer, edge.flusher, limit=edge.options.high_water)
        self.version = ProtocolVersion.V311
        self.client_id = ""
        self.identity = Identity()
        self.bare = False
        self.rooms: frozenset[str] = frozenset()
        self.explain = True
        self.lost = False
        self.method: str | None = None
        self.authenticating = False
        self.reviewing = False
        self._lease: Lease | None = None
        self._deciding = False
        self._attempts = 0
        self._parked: list[Packet] = []  # packets on which the application decides now, and those behind
        self._open = False
        self._full = False
        self._whole = True  # no packet is incomplete
        self._connecting = False
        self._early: list[Packet] = []
        self._connect: Connect | None = None
        self._decoder = Decoder(max_packet_size=edge.max_packet_size, max_list_items=edge.max_list_items)
        self._loop = asyncio.get_running_loop()
        self._last_heard = self._loop.time()
        self._keep_alive = 0.0
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(
            edge.options.connect_timeout, self._connect_timed_out
        )

    def __repr__(self) -> str:
        return f"Connection({self.client_id!r}, {self.peer})"

    # From the writer

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._last_heard = self._loop.time()
        if self._open and self._whole and data and data[0] & 0xC0 == _ACKNOWLEDGEMENT:
            taken = self.reader.acknowledged(data)
            if taken == len(data):
                return
            data = data[taken:]
        if self.output.closed:
            return
        if self._full and self.output.held > 2 * self.edge.options.high_water:
            # It asks, and does not read the answers: let it wait until it does.
            self.output.hold_reading("answers")
        try:
            packets = self._decoder.feed(data)
            self._whole = not self._decoder.buffered
        except MqttProtocolError as error:
            self._handle_all(error.packets_before)
            self._violated(error)
            return
        self._handle_all(packets)
        if self.visit.limited:
            self._pay(len(data), packets)

    def _pay(self, size: int, packets: list[Packet]) -> None:
        """Hold the client to its rates: what came was taken in, and nothing more is read until that is paid for.

        Only a client that is minutes ahead, as one with many connections may be, is disconnected.
        """
        wait = self.visit.spend(sum(map(_requests_of, packets)), size)
        if not wait or self.output.closed:
            return
        if wait > _PATIENCE:
            self._fail(ReasonCode.MESSAGE_RATE_TOO_HIGH, "far more was sent than the limits allow")
        else:
            self.output.hold_reading("rate")
            self._loop.call_later(wait, self.output.release_reading, "rate")

    def writer_paused(self) -> None:
        """The socket's buffer is full."""
        self._full = True
        if self._open:
            self.reader.pause()

    def writer_resumed(self) -> None:
        """It has drained."""
        self._full = False
        self.output.release_reading("answers")
        if self._open and not self.reviewing:
            self.reader.resume()

    def connection_lost(self) -> None:
        """The network connection is gone."""
        self.lost = True
        self.output.closed = True
        self._end(will=True)

    # Packets

    def _handle_all(self, packets: list[Packet]) -> None:
        if not self._open:
            if not packets:
                return
            first = packets[0]
            if isinstance(first, Connect):  # the decoder sees to it that it is the first, and the only one
                self._begin(first)
                packets = packets[1:]
            self._early.extend(packets)
            return
        if self._deciding:
            self._parked += packets
            return
        try:
            for number, packet in enumerate(packets):
                try:
                    self._handle(packet)
                except NotDecided:  # nothing of the packet has taken effect
                    self._park(packets[number:])
                    break
                if self.output.closed:
                    return
            self.reader.end_of_batch()
        except MqttProtocolError as error:
            self._violated(error)
        except Exception as error:  # a defect must harm this connection alone
            self._broken(error)

    def _park(self, packets: list[Packet]) -> None:
        """Let the application decide on the first of them; all wait, and nothing more is read meanwhile."""
        self._parked = packets
        self._deciding = True
        self.output.hold_reading("gate")
        self.edge.tasks.spawn(self._decide(), "mqtt-decide")

    async def _decide(self) -> None:
        """Ask, then take the packets. What has no answer after some attempts is refused."""
        first = self._parked[0]
        try:
            await decide(self, self._parked)
        except Exception as error:  # a defect must harm this connection alone
            self._broken(error)
            return
        packets, self._parked, self._deciding = self._parked, [], False
        if not self._open:
            return
        self._attempts += 1
        self.inbound.final = self._attempts >= ATTEMPTS
        self._handle_all(packets)
        self.inbound.final = False
        if not self._parked:
            self.output.release_reading("gate")
        if not self._parked or self._parked[0] is not first:
            self._attempts = 0

    def _handle(self, packet: Packet) -> None:
        match packet:
            case Publish():
                self.inbound.publish(packet)
            case Puback():
                self._expected(self.reader.puback(packet.packet_id, packet.reason_code))
            case Pubrec():
                self._expected(self.reader.pubrec(packet.packet_id, packet.reason_code))
            case Pubrel():
                self._expected(self.inbound.pubrel(packet.packet_id, self.edge.write_durably))
            case Pubcomp():
                self._expected(self.reader.pubcomp(packet.packet_id))
            case Pingreq():
                self.output.send(_PINGRESP)
            case Subscribe():
                subscribe(self, packet)
            case Unsubscribe():
                unsubscribe(self, packet)
            case Disconnect():
                self._disconnected(packet)
            case Auth():
                reauthenticate(self, packet)
            case _:
                raise MqttProtocolError(ReasonCode.PROTOCOL_ERROR, f"{type(packet).__name__} goes the other way")

    def _expected(self, known: bool) -> None:
        """Count an acknowledgement as a request where it answers nothing: else those were free, however many."""
        if not known:
            self.visit.spend(1)

    def _disconnected(self, packet: Disconnect) -> None:
        session = self.reader.session
        expiry = packet.properties.session_expiry_interval if packet.properties is not None else None
        if expiry is not None:
            if expiry and not session.persistent:
                raise MqttProtocolError(
                    ReasonCode.PROTOCOL_ERROR, "a session that ends with its connection cannot be prolonged"
                )
            session.expiry = self.edge.limit_expiry(expiry)
        self._end(will=packet.reason_code is not ReasonCode.SUCCESS)
        self.output.close()

    # CONNECT

    def _begin(self, connect: Connect) -> None:
        self._connect = connect
        self._connecting = True
        self.version = connect.version
        self.output.hold_reading("connect")
        self.edge.tasks.spawn(self._admit(connect), "mqtt-connect")

    async def _admit(self, connect: Connect) -> None:
        edge = self.edge
        properties = connect.properties or Properties()
        self.explain = properties.request_problem_information is not False
        try:
            client_id = self._check(connect, properties)
            self._admit_address()
            self.method = properties.authentication_method
            self.identity = await edge.gate.authenticate(self.credentials(properties.authentication_data))
            self.visit.stay(self.identity.user_id)
            name = session_name(self.identity, client_id)
            self._check_capacity(name)
            await self._check_will(connect)
            answer = self._connack_properties(connect, properties, client_id)
            async with edge.sessions.claim(name):
                if self.output.closed:
                    return
                if edge.stopping:
                    raise _Refused(ReasonCode.SERVER_UNAVAILABLE, "the server is shutting down")
                edge.take_over(name)
                lost: list[str] = []

                async def look(session: Session) -> None:
                    lost.extend(await review_session(edge, self.identity, session))

                session, present = await edge.sessions.open(
                    name,
                    clean=connect.clean_start,
                    expiry=self._expiry(connect, properties),
                    will=None if connect.will is None else keep_will(connect.will, self.identity),
                    owner=edge.sessions.shares.owner(self.identity.user_id, self.address),
                    review=look,
                )
                if lost and answer is not None:
                    answer = self._tell_lost(answer, lost)
                self._start(connect, properties, session, answer, present=present)
        except _Refused as refused:
            self._refuse(refused.reason, refused.text)
        except Unauthorized as error:
            anonymous = connect.password is None and connect.username is None
            self._refuse(
                ReasonCode.NOT_AUTHORIZED if anonymous else ReasonCode.BAD_USER_NAME_OR_PASSWORD, error.message
            )
        except RateLimited as error:
            self._refuse(ReasonCode.QUOTA_EXCEEDED, error.message)
        except (LogError, Overloaded) as error:
            self._refuse(ReasonCode.SERVER_UNAVAILABLE, error.message)
        except Exception as error:  # a defect must harm this connection alone
            self._broken(error)
            return
        self._go_on_after_connect()

    def _admit_address(self) -> None:
        try:
            self.visit.admit()
        except RateLimited as error:
            raise _Refused(ReasonCode.CONNECTION_RATE_EXCEEDED, error.message) from error

    def credentials(self, data: bytes | None = None) -> Credentials:
        """What the client shows: its password, or the authentication data of the agreed method."""
        connect = self._connect
        assert connect is not None
        secret = connect.password if self.method is None else data
        return Credentials(
            token=None if secret is None else secret.decode("utf-8", "surrogateescape"),
            username=connect.username,
            certificate=peer_certificate(self.output.writer.transport),
            client_id=connect.client_id,
            address=self.address,
            door="mqtt",
            connection=self.peer,
        )

    def _check(self, connect: Connect, properties: Properties) -> str:
        if properties.authentication_method not in (None, METHOD):
            raise _Refused(ReasonCode.BAD_AUTHENTICATION_METHOD, f"the only authentication method is {METHOD}")
        if len(connect.client_id.encode()) > _CLIENT_ID_BYTES:
            raise _Refused(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "the client identifier is too long")
        return connect.client_id or f"auto-{secrets.token_hex(12)}"

    def _check_capacity(self, name: str) -> None:
        edge = self.edge
        if len(edge.connected) >= edge.options.max_clients and name not in edge.connected:
            raise _Refused(ReasonCode.SERVER_BUSY, "too many clients are connected")

    async def _check_will(self, connect: Connect) -> None:
        will = connect.will
        if will is None:
            return
        try:
            self.edge.ingress.topic_map.admit(will.topic)
            await self.edge.gate.prepare(self.identity, topics=(will.topic,))
            self.edge.gate.check_publish(self.identity, will.topic)
            refuse_another_user(read_payload(will.payload), self.identity.speaker)
        except Forbidden as error:
            raise _Refused(ReasonCode.NOT_AUTHORIZED, error.message) from error
        except InvalidRequest as error:
            raise _Refused(reason_of(error), error.message) from error

    def _tell_lost(self, answer: Properties, lost: list[str]) -> Properties:
        """Name the filters that the session has lost, where the client can take as much."""
        pairs = [*answer.user_properties, *((REVOKED, name) for name in lost)]
        told = msgspec.structs.replace(answer, user_properties=pairs)
        packets = [Connack(ReasonCode.SUCCESS, True, told)] if self.explain else []
        return told if encode_fitting(packets, _V5, self._client_limit) else answer

    def _expiry(self, connect: Connect, properties: Properties) -> int:
        if connect.version is _V5:
            return self.edge.limit_expiry(properties.session_expiry_interval or 0)
        return 0 if connect.clean_start else self.edge.options.max_session_expiry

    def _start(
        self, connect: Connect, properties: Properties, session: Session, answer: Properties | None, *, present: bool
    ) -> None:
        """The session is there: answer, and begin to serve."""
        edge, options = self.edge, self.edge.options
        v5 = connect.version is _V5
        self.client_id = session.client_id
        self.bare = wants_bare(connect.properties)
        if connect.clean_start:
            edge.recent.new_session(session.client_id)
        window = min(properties.receive_maximum or 65535, options.inflight_max) if v5 else options.inflight_311
        self.reader = Reader(
            session,
            self.output,
            version=connect.version,
            window=window,
            max_packet=self._client_limit,
            keeper=edge.sessions,
            feeder=edge.feeder,
            stats=edge.stats,
            fail=self._cannot_store,
            may_hear=partial(may_hear_again, self),
        )
        self.inbound = Inbound(
            session,
            self.output,
            version=connect.version,
            identity=self.identity,
            ingress=edge.ingress,
            gate=edge.gate,
            options=options,
            stats=edge.stats,
            recent=edge.recent,
            explain=self.explain,
            max_packet=self._client_limit,
            fail=self._fail,
        )
        self._open = True
        self._lease = edge.gate.hold(self.identity, self)
        self.visit.hold(len(session.subscriptions), force=True)  # granted when they were made
        edge.attach(self)
        edge.stats.accepted += 1
        edge.stats.resumed += present
        if self.output.closed:  # lost meanwhile: never told that it is accepted
            self._end(will=False)
            return
        self.output.send(encode(Connack(ReasonCode.SUCCESS, present, answer), connect.version))
        self._arm_keep_alive(self._agree_keep_alive(connect))
        if present:  # rights may have changed while it was taken up
            review_connection(self)
        if self._open:
            self.reader.begin()

    def _agree_keep_alive(self, connect: Connect) -> int:
        longest = self.edge.options.keepalive_max
        asked = connect.keep_alive
        if longest and connect.version is _V5 and (asked == 0 or asked > longest):
            return longest
        return asked

    def _connack_properties(self, connect: Connect, properties: Properties, client_id: str) -> Properties | None:
        """What differs from the defaults, or from what the client asked for (MQTT 5 §3.2.2.3).

        Raises:
            _Refused: a CONNACK with all that the client must know is larger than it takes.
        """
        if connect.version is not _V5:
            return None
        options = self.edge.options
        asked = properties.session_expiry_interval or 0
        expiry, keep_alive = self._expiry(connect, properties), self._agree_keep_alive(connect)
        answer = Properties(
            session_expiry_interval=expiry if expiry != asked else None,
            receive_maximum=options.receive_maximum if options.receive_maximum != 65535 else None,
            maximum_packet_size=self.edge.max_packet_size,
            assigned_client_identifier=None if connect.client_id else client_id,
            topic_alias_maximum=options.topic_alias_maximum or None,
            server_keep_alive=keep_alive if keep_alive != connect.keep_alive else None,
            authentication_method=self.method,
        )
        # A client that is not told may set no topic alias. All else changes what it must or may do.
        for each in (answer, msgspec.structs.replace(answer, topic_alias_maximum=None)):
            if encode_fitting([Connack(ReasonCode.SUCCESS, False, each)], _V5, self._client_limit):
                return each
        raise _Refused(ReasonCode.PACKET_TOO_LARGE, "the client's Maximum Packet Size is too small for a CONNACK")

    def _go_on_after_connect(self) -> None:
        self._connecting = False
        if self._open:
            early, self._early = self._early, []
            self._handle_all(early)
            self.output.release_reading("connect")

    def _refuse(self, reason: ReasonCode, text: str) -> None:
        """CONNACK with a failure, then close [MQTT-3.2.2-7]."""
        self.edge.stats.refused += 1
        logger.info("a CONNECT from %s was refused: %s", self.peer, text)
        answer = b""
        if self.version is _V5:
            answers = [Connack(reason, False, Properties(reason_string=text[:500]))] if self.explain else []
            answer = encode_fitting([*answers, Connack(reason)], _V5, self._client_limit)  # [MQTT-3.2.2-19]
        elif connect_return_code(reason) is not None:
            answer = encode(Connack(reason), self.version)
        self._close(answer)

    @property
    def _client_limit(self) -> int:
        """The Maximum Packet Size that the client's CONNECT says."""
        properties = self._connect.properties if self._connect is not None else None
        return (properties.maximum_packet_size if properties is not None else None) or _NO_LIMIT

    # Time

    def _connect_timed_out(self) -> None:
        self.edge.stats.timeouts += 1
        logger.info("no CONNECT came from %s, or it took too long", self.peer)
        self._timer = None
        self._close()

    def _arm_keep_alive(self, seconds: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._keep_alive = seconds * 1.5
        if seconds:
            self._timer = self._loop.call_later(self._keep_alive, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        """Close after one and a half times the keep alive without a packet [MQTT-3.1.2-22]."""
        silent = self._loop.time() - self._last_heard
        if silent + 0.001 < self._keep_alive:
            self._timer = self._loop.call_later(self._keep_alive - silent, self._check_keep_alive)
            return
        self._timer = None
        if self.output.reading_held:
            # It is we who do not read: silence says nothing of the client.
            self._timer = self._loop.call_later(self._keep_alive, self._check_keep_alive)
            return
        self.edge.stats.timeouts += 1
        logger.info("client %r (%s) was silent for %.0f s", self.client_id, self.peer, silent)
        self.close_with(ReasonCode.KEEP_ALIVE_TIMEOUT)

    # Access

    @property
    def is_open(self) -> bool:
        """Whether the client is connected, and served."""
        return self._open

    def access_ended(self, error: Unauthorized) -> None:
        """See `gapless.auth.Holder`."""
        end_access(self, error)

    def access_changed(self) -> None:
        """See `gapless.auth.Holder`."""
        review_connection(self)

    def review_passed(self) -> None:
        """The application has answered, and nothing was lost: go on."""
        if not self._full:
            self.reader.resume()

    def renew(self, identity: Identity) -> None:
        """Go on with a fresh token.

        Raises:
            Forbidden: it is another user's.
        """
        assert self._lease is not None
        self._lease.renew(identity)
        self.identity = self.inbound.identity = identity
        session = self.reader.session
        if session.will is not None:
            session.will = sign_will(session.will, identity)
            self.edge.sessions.touch(self.reader)

    # Ends

    def end(
        self, reason: ReasonCode, text: str, user_properties: list[tuple[str, str]] | None = None, *, will: bool = True
    ) -> None:
        """Close with an explanation; the session stays.

        A client that has not read what it was sent is cut off: what waits for it may be what it may not hear.
        """
        if self.output.writer.held:
            self._end(will=will)
            self.output.abort()
            return
        if user_properties and self.explain and self.version is _V5:
            properties = Properties(reason_string=text, user_properties=user_properties)
            answer = encode_fitting([Disconnect(reason, properties)], _V5, self.reader.max_packet)
            if answer:
                self._end(will=will)
                self._close(answer)
                return
        self.close_with(reason, text, will=will)

    def close_with(self, reason: ReasonCode, text: str = "", *, will: bool = True, defer: bool = False) -> None:
        """Close from our side: DISCONNECT with the reason in MQTT 5, then the connection.

        Args:
            will: whether the will is published.
            defer: the server stops; the will is kept for its next start.
        """
        answer = b""
        if self._open and self.version is _V5:
            answers = [Disconnect(reason, Properties(reason_string=text[:500]))] if text and self.explain else []
            answer = encode_fitting([*answers, Disconnect(reason)], _V5, self.reader.max_packet)
        self._end(will=will, defer=defer)
        self._close(answer)

    def _violated(self, error: MqttProtocolError) -> None:
        self.edge.stats.protocol_errors += 1
        logger.info("client %r (%s) broke the protocol: %s", self.client_id, self.peer, error)
        if self._open:
            self.close_with(error.reason_code, error.message)
        else:
            self._close(error.answer if self._connect is None else b"")

    def _fail(self, reason: ReasonCode, text: str) -> None:
        logger.info("client %r (%s) is disconnected: %s", self.client_id, self.peer, text)
        self.close_with(reason, text)

    def _cannot_store(self, error: BaseException) -> None:
        logger.warning("client %r: its session cannot be stored: %s", self.client_id, error)
        self.close_with(ReasonCode.SERVER_BUSY, "the session cannot be stored")

    def _broken(self, error: Exception) -> None:
        self.edge.stats.failures += 1
        logger.error("serving client %r (%s) failed", self.client_id, self.peer, exc_info=error)
        self.close_with(ReasonCode.UNSPECIFIED_ERROR)

    def _close(self, answer: bytes = b"") -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.output.close(answer)

    def _end(self, *, will: bool, defer: bool = False) -> None:
        """The session is served no more by this connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._open:
            return
        self._open = False
        self.inbound.closed = True
        if self._lease is not None:
            self._lease.release()
        self.edge.detach(self)
        if defer:
            self.edge.sessions.defer(self.reader)
        else:
            self.edge.sessions.detach(self.reader, will=will)


def _requests_of(packet: Packet) -> int:
    """As how many requests a packet counts. An acknowledgement is none, where it answers anything."""
    match packet:
        case Subscribe():
            return len(packet.subscriptions)
        case Unsubscribe():
            return len(packet.filters)
        case _:
            return isinstance(packet, _REQUESTS)


def effective_expiry(asked: int, longest: int) -> int:
    """The session expiry that is granted: what was asked, up to the option's bound."""
    return asked if longest == FOREVER else min(asked, longest)
