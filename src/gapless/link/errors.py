"""What can go wrong with an external broker, said so that a person can mend it."""

from __future__ import annotations

import socket
import ssl
from typing import Any, ClassVar, Literal

from websockets.exceptions import InvalidStatus, WebSocketException

from gapless.errors import GaplessError
from gapless.link.address import BrokerAddress
from gapless.mqtt import ReasonCode

Stage = Literal["dns", "tcp", "tls", "websocket", "connect", "subscribe", "session"]
"""How far a connection had come when it failed."""


class LinkError(GaplessError):
    """A connection to the broker could not be made, or ended.

    Attributes:
        stage: how far it had come.
        reason: the broker's reason code, where it gave one; 3.1.1 return codes are translated.
    """

    code: ClassVar[str] = "link_failed"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    def __init__(
        self, stage: Stage, message: str, *, hint: str = "", reason: ReasonCode | None = None, **details: Any
    ) -> None:
        super().__init__(message, hint=hint, stage=stage, **details)
        self.stage: Stage = stage
        self.reason = reason


class VersionRefused(LinkError):
    """The broker does not speak this version of MQTT, or says nothing and closes, as old ones do."""


def dns_failed(address: BrokerAddress, error: OSError) -> LinkError:
    """The host name was not found."""
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        hint = "the name service does not answer: check this machine's network"
    else:
        hint = f"check the host name {address.host!r} for typing errors"
    return LinkError("dns", f"{address.host} was not found: {error.strerror or error}", hint=hint)


def tcp_failed(address: BrokerAddress, error: OSError) -> LinkError:
    """No TCP connection was made."""
    where = f"{address.host}:{address.port}"
    if isinstance(error, ConnectionRefusedError):
        return LinkError(
            "tcp",
            f"{where} refused the connection: nothing listens on that port",
            hint=f"is the broker running, and is {address.port} its port for {address.scheme}? "
            "(usual: 1883 mqtt, 8883 mqtts, 8080 or 9001 ws, 443 wss)",
        )
    if isinstance(error, TimeoutError):
        return LinkError(
            "tcp", f"{where} did not answer in time", hint="a firewall may drop the packets, or the host is down"
        )
    return LinkError("tcp", f"no connection to {where}: {error.strerror or error}", hint="check host, port and network")


def tls_failed(address: BrokerAddress, error: Exception) -> LinkError:
    """The TLS handshake failed."""
    message = f"TLS with {address.host}:{address.port} failed: {_plain(error)}"
    return LinkError("tls", message, hint=_tls_hint(address, error))


def _tls_hint(address: BrokerAddress, error: Exception) -> str:
    plain = "mqtt" if address.scheme == "mqtts" else "ws"
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's X509_V_ERR_*: 10 expired, 18 and 19 self-signed, 20 and 21 no issuer, 62 and 64 name, address
        match error.verify_code:
            case 10:
                return "the broker's certificate has expired: renew it"
            case 9:
                return "the broker's certificate is not valid yet: compare the clocks"
            case 18 | 19 | 20 | 21:
                return "the certificate's authority is not known here: give its file as ca_file (--broker-ca)"
            case 62 | 64:
                return f"the certificate is for another name than {address.host!r}: use the name it was made for"
            case _:
                return "the broker's certificate is not trusted"
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
        return f"the port does not speak TLS: try {plain}:// or the broker's TLS port"
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text or "BAD_CERTIFICATE" in text:
        return "the broker may want a client certificate: give cert_file and key_file"
    if isinstance(error, TimeoutError):
        return f"the port accepts connections but does not answer TLS: try {plain}://"
    if isinstance(error, ConnectionError | ssl.SSLEOFError) or "EOF" in text:
        return f"the broker closed the connection: the port may not speak TLS (try {plain}://)"
    return "check the certificates on both sides"


def websocket_failed(address: BrokerAddress, error: Exception) -> LinkError:
    """The WebSocket handshake failed (RFC 6455 §4)."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        message = f"HTTP status {status} instead of a WebSocket at {address.path}"
        match status:
            case 404:
                hint = "check the path in the URL: /mqtt is usual, / and /ws occur"
            case 401 | 403:
                hint = "the server refuses the upgrade: a proxy may want credentials of its own"
            case 301 | 302 | 307 | 308:
                hint = "the server redirects: use the address it redirects to"
            case _:
                hint = "is this the broker's WebSocket port and path?"
        return LinkError("websocket", message, hint=hint)
    if isinstance(error, TimeoutError):
        return LinkError(
            "websocket",
            "no answer to the WebSocket handshake",
            hint=f"the port may speak plain MQTT: try {'mqtts' if address.tls else 'mqtt'}://",
        )
    if isinstance(error, WebSocketException):
        message = f"the WebSocket handshake failed: {_plain(error)}"
        return LinkError("websocket", message, hint="is this the broker's WebSocket port?")
    message = f"the connection ended in the WebSocket handshake: {_plain(error)}"
    return LinkError("websocket", message, hint=f"does {address.host}:{address.port} speak WebSocket (or TLS)?")


_REFUSED: dict[ReasonCode, tuple[str, str]] = {
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: ("it does not speak this version of MQTT", "leave protocol = 'auto'"),
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: ("it does not accept the client id", "set client_id to one it allows"),
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: (
        "user name or password is wrong",
        "check them; in a URL, characters such as @ : / must be percent-encoded",
    ),
    ReasonCode.NOT_AUTHORIZED: (
        "it does not let this client in",
        "it may want a user name and password, or this user may not connect with this client id",
    ),
    ReasonCode.SERVER_UNAVAILABLE: ("it is not available now", "try again later"),
    ReasonCode.SERVER_BUSY: ("it is busy", "try again later"),
    ReasonCode.BANNED: ("this client is banned", "ask whoever runs the broker"),
    ReasonCode.QUOTA_EXCEEDED: ("a quota is exceeded", "ask whoever runs the broker"),
    ReasonCode.CONNECTION_RATE_EXCEEDED: ("too many connections a second", "try again later"),
    ReasonCode.BAD_AUTHENTICATION_METHOD: ("it wants another authentication", "use user name and password"),
    ReasonCode.USE_ANOTHER_SERVER: ("it sends us to another server", "put that server's address into the URL"),
    ReasonCode.SERVER_MOVED: ("it has moved", "put the new address into the URL"),
    ReasonCode.RETAIN_NOT_SUPPORTED: ("it keeps no retained messages", "set status_topic to nothing"),
    ReasonCode.QOS_NOT_SUPPORTED: ("it has no such quality of service for the will", "set status_topic to nothing"),
    ReasonCode.TOPIC_NAME_INVALID: ("it refuses the topic of the will", "set status_topic to one it allows"),
    ReasonCode.SESSION_TAKEN_OVER: (
        "another client with the same client id has connected",
        "give each gateway a client_id of its own",
    ),
    ReasonCode.KEEP_ALIVE_TIMEOUT: ("it heard nothing from us for too long", ""),
    ReasonCode.SERVER_SHUTTING_DOWN: ("it is shutting down", ""),
    ReasonCode.ADMINISTRATIVE_ACTION: ("it was told to end the connection", "ask whoever runs the broker"),
    ReasonCode.PACKET_TOO_LARGE: ("a message was larger than it takes", "raise its maximum packet size"),
}


def refused(reason: ReasonCode, *, reason_string: str | None = None, reference: str | None = None) -> LinkError:
    """CONNACK said no (MQTT 5 §3.2.2.2, 3.1.1 §3.2.2.3)."""
    text, hint = _meaning(reason)
    more = "".join(f" ({what[:200]})" for what in (reason_string, reference) if what)
    kind = VersionRefused if reason is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION else LinkError
    return kind("connect", f"the broker refused the connection: {text}{more}", hint=hint, reason=reason)


def disconnected(reason: ReasonCode, *, reason_string: str | None = None, reference: str | None = None) -> LinkError:
    """The broker sent DISCONNECT (MQTT 5 §3.14)."""
    text, hint = _meaning(reason)
    more = "".join(f" ({what[:200]})" for what in (reason_string, reference) if what)
    return LinkError("session", f"the broker ended the connection: {text}{more}", hint=hint, reason=reason)


def silent_close(address: BrokerAddress) -> VersionRefused:
    """The peer closed instead of answering CONNECT."""
    if address.tls:  # TLS 1.3 tells of a missing client certificate only now, and not always
        other = "; it may want a client certificate (cert_file, key_file)"
    else:
        other = f"; if the port wants TLS, use {address.scheme}s://"
    return VersionRefused(
        "connect",
        "the broker closed the connection instead of answering CONNECT",
        hint=f"does the port speak MQTT? user name, password and client id may be refused this way too{other}",
    )


def not_mqtt(address: BrokerAddress, first: bytes) -> LinkError | None:
    """What speaks where the first bytes are not an MQTT answer; None where they may be one."""
    if first[:1] == b"\x20":
        return None
    if first.startswith(b"HTTP"):
        hint = f"the port speaks HTTP: try {'wss' if address.tls else 'ws'}://{address.host}:{address.port}/mqtt"
        return LinkError("connect", "the answer to CONNECT is HTTP, not MQTT", hint=hint)
    if first[:2] in (b"\x15\x03", b"\x16\x03"):
        hint = f"the port speaks TLS: try {'mqtts' if address.scheme == 'mqtt' else 'wss'}://"
        return LinkError("connect", "the answer to CONNECT is TLS, not MQTT", hint=hint)
    if first.startswith(b"SSH-"):
        return LinkError("connect", "an SSH server answers on this port", hint="check the port")
    return None


def subscribe_refused(topic_filter: str, reason: ReasonCode) -> LinkError:
    """SUBACK said no to a filter (MQTT 5 §3.9.3)."""
    hint = {
        ReasonCode.NOT_AUTHORIZED: "this user may not subscribe to it: add it to the broker's access list",
        ReasonCode.TOPIC_FILTER_INVALID: "the broker does not accept the filter",
        ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: "the broker has no wildcards: list topics in subscribe",
        ReasonCode.QUOTA_EXCEEDED: "the broker allows fewer subscriptions: shorten the list in subscribe",
    }.get(reason, "this user may not be allowed to subscribe to it: look at the broker's access list and log")
    return LinkError("subscribe", f"the broker refused the subscription {topic_filter!r}", hint=hint, reason=reason)


def _meaning(reason: ReasonCode) -> tuple[str, str]:
    return _REFUSED.get(reason, (f"reason 0x{reason:02X} {reason.name.lower().replace('_', ' ')}", ""))


def _plain(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
