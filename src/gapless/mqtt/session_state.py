"""A persistent session as bytes, versioned, and back.

QoS 2 identifiers that were received are not among them: each is a value of its own, stored in
one transaction with its event (`received_key`), so that a failed append leaves nothing behind.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gapless.errors import LogCorrupt
from gapless.mqtt.session import DeliveredWindow, Sent, Session, Subscription, WillMessage

VERSION: Final = 1
_SESSION_PREFIX: Final = "s"


class StoredSession(msgspec.Struct, array_like=True):
    """The stored form. New fields go to the end and have a default.

    Attributes:
        version: of this form.
        epoch: the log's epoch that offsets refer to.
        connected: whether the client was connected; after a crash, "until the restart".
        ended_at: when the connection ended, in seconds since the Unix epoch.
        inflight: packet identifier and message, None after its PUBREC, in the order of sending.
    """

    version: int
    epoch: str
    client_id: str
    expiry: int
    position: int
    last_packet_id: int
    connected: bool
    ended_at: float
    subscriptions: list[Subscription]
    inflight: list[tuple[int, Sent | None]]
    windows: list[DeliveredWindow] = []
    will: WillMessage | None = None
    hole: str | None = None
    owner: str = ""

    def restore(self) -> Session:
        """The session as it was stored, its received identifiers empty."""
        session = Session(self.client_id, position=self.position, expiry=self.expiry)
        session.subscriptions = {sub.filter: sub for sub in self.subscriptions}
        session.inflight = dict(self.inflight)
        session.windows = list(self.windows)
        session.will = self.will
        session.hole = self.hole
        session.last_packet_id = self.last_packet_id
        session.owner = self.owner
        return session


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(StoredSession)


def encode_session(session: Session, *, epoch: str, connected: bool, ended_at: float = 0.0) -> bytes:
    """The session as bytes, at its `position`."""
    return _encode(
        StoredSession(
            version=VERSION,
            epoch=epoch,
            client_id=session.client_id,
            expiry=session.expiry,
            position=session.position,
            last_packet_id=session.last_packet_id,
            connected=connected,
            ended_at=ended_at,
            subscriptions=list(session.subscriptions.values()),
            inflight=list(session.inflight.items()),
            windows=session.windows,
            will=session.will,
            hole=session.hole,
            owner=session.owner,
        )
    )


def decode_session(data: bytes) -> StoredSession:
    """Read a stored session.

    Raises:
        LogCorrupt: not a stored session, or one of a newer version of this program.
    """
    try:
        version = msgspec.msgpack.decode(data)[0]
        if version == VERSION:
            return _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, TypeError, IndexError) as error:
        raise LogCorrupt("a stored MQTT session cannot be read", hint="run 'gapless check' on the data") from error
    raise LogCorrupt(
        f"a stored MQTT session has version {version!r}", hint="a newer Gapless wrote it: use that one", version=version
    )


def session_key(client_id: str) -> str:
    """The key under which a session is stored."""
    return f"{_SESSION_PREFIX}/{client_id}"


def received_key(client_id: str, packet_id: int) -> str:
    """The key under which a received QoS 2 identifier is stored."""
    return f"{packet_id}/{client_id}"


def split_key(key: str) -> tuple[str, int | None]:
    """Client identifier, and the received identifier where the key is one of `received_key`."""
    what, _, client_id = key.partition("/")
    return client_id, None if what == _SESSION_PREFIX else int(what)
