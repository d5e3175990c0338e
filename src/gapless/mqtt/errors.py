"""The two errors of the codec: what a peer did wrong, and what we tried to send wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gapless.errors import GaplessError
from gapless.mqtt.codes import ProtocolVersion, ReasonCode

if TYPE_CHECKING:
    from gapless.mqtt.packets import Packet


class MqttProtocolError(GaplessError):
    """The peer broke the standard or a limit; the connection must be closed (MQTT 5 §4.13).

    Attributes:
        reason_code: the MQTT 5 reason code for it, also where the peer speaks 3.1.1.
        version: the peer's protocol version, None while unknown.
        packets_before: packets of the same `Decoder.feed` call that came before the bad one,
            complete and valid; they are to be processed before the connection is closed.
        answer: the bytes to send before closing, possibly none: a CONNACK where the CONNECT was
            wrong, a DISCONNECT on a later violation in MQTT 5, nothing where the standard has no
            word for it (3.1.1 after CONNECT, a peer that speaks no MQTT).
    """

    code: ClassVar[str] = "mqtt_protocol_error"
    http_status: ClassVar[int] = 400

    def __init__(self, reason_code: ReasonCode, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.reason_code = reason_code
        self.version: ProtocolVersion | None = None
        self.packets_before: list[Packet] = []
        self.answer = b""

    def __str__(self) -> str:
        return f"{self.message} (0x{self.reason_code:02X} {self.reason_code.name})"


class MqttEncodeError(GaplessError):
    """A packet given to the encoder cannot be said on the wire: a fault of the caller.

    A string over 65,535 bytes, a packet id out of range, a property on a packet that has none
    of that name, a CONNACK reason that 3.1.1 has no return code for.
    """

    code: ClassVar[str] = "mqtt_encode_error"
