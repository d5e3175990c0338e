"""All settings of a link to an external broker, checked when they are made."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

import msgspec

from gapless.errors import ConfigError, InvalidTopic
from gapless.link.address import BrokerAddress, parse_address
from gapless.mqtt import matches, validate_filter, validate_topic


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link. Times are in seconds.

    Attributes:
        url: `mqtt://`, `mqtts://`, `ws://` or `wss://`, may hold user and password.
        name: names the link in the log's state; keep it, or the link begins anew.
        username, password: go before those in the URL.
        ca_file: PEM file of the authorities to trust; default: the system's.
        cert_file, key_file: PEM files of a client certificate and its key.
        client_id: keep it stable: the broker holds our session under it. Default: made from
            the log's epoch, so it changes when the log is lost.
        protocol: `auto` tries MQTT 5, then 3.1.1.
        subscribe: topic filters to take in; default: all topics of the topic map.
        publish: topic filters of events to publish; default: all topics of the topic map.
        subscribe_qos: highest QoS of messages taken in. (At 0 the broker keeps nothing for us.)
        publish_qos: highest QoS used for publishing, 1 or 2.
        publish_qos_least: lowest QoS used for publishing; 2 makes every event exactly once on its
            way to the broker, whatever QoS it came with, for two more packets each.
        keepalive: of MQTT §3.1.2.10; a dead connection is noticed within about 1.5 of it.
        window: most messages published and not acknowledged yet.
        receive_maximum: most messages that an MQTT 5 broker sends unacknowledged (§3.1.2.11.3).
        session_expiry: how long an MQTT 5 broker keeps our session while we are away.
        status_topic: where `online` and, as last will, `offline` are published; None for neither.
        heartbeat: every so often the link tells the last position of each room in use, so that clients notice
            within that time what the broker dropped.
        heartbeat_topic: where it does so; None for nowhere.
        publish_as: roles under which messages of the broker come in, for the rules of the topic map
            (`publish = ["role:LINK"]`); an empty list: as a back end, which may everything by default.
        believe_users: whether messages may name the `userId` of their event. Whoever may publish at the broker
            can then claim to be anybody.
        history_topic: where clients of the broker ask for events that they missed; None for nowhere.
        history_replies: a filter that the topics of answers must match.
        history_rate: most requests answered in a second; others wait.
        connect_timeout: for each of DNS, TCP, TLS, WebSocket and CONNECT.
        reconnect_min, reconnect_max: bounds of the back-off; each wait is random between 0 and
            the bound, which doubles from the first to the second.
        stable_after: a connection this old counts as stable, and the back-off starts again.

    Raises:
        ConfigError: naming the option and the fix.
    """

    url: str
    name: str = "broker"
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    client_id: str | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    subscribe: tuple[str, ...] | None = None
    publish: tuple[str, ...] | None = None
    subscribe_qos: int = 2
    publish_qos: int = 2
    publish_qos_least: int = 1
    keepalive: int = 30
    window: int = 100
    receive_maximum: int = 1000
    session_expiry: int = 7 * 86400
    status_topic: str | None = "crm/system/backend/status"
    heartbeat: float = 30.0
    heartbeat_topic: str | None = "gapless/heartbeat"
    publish_as: tuple[str, ...] = ("LINK",)
    believe_users: bool = True
    history_topic: str | None = "gapless/history"
    history_replies: str = "gapless/replies/#"
    history_rate: int = 200
    connect_timeout: float = 10.0
    reconnect_min: float = 0.5
    reconnect_max: float = 30.0
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        address = self.address
        if (self.cert_file is None) != (self.key_file is None):
            raise _wrong("cert_file and key_file", "belong together", "give both, or neither")
        if (self.ca_file or self.cert_file) and not address.tls:
            raise _wrong("ca_file and cert_file", f"have no use with {address.scheme}://", "use mqtts:// or wss://")
        if not self.name or "/" in self.name:
            raise _wrong("name", "must be text without '/'", "for instance 'broker'")
        for option, value, low, high in (
            ("subscribe_qos", self.subscribe_qos, 0, 2),
            ("publish_qos", self.publish_qos, 1, 2),
            ("publish_qos_least", self.publish_qos_least, 1, self.publish_qos),
            ("keepalive", self.keepalive, 1, 65535),
            ("window", self.window, 1, 10_000),
            ("receive_maximum", self.receive_maximum, 1, 65535),
            ("session_expiry", self.session_expiry, 0, 0xFFFFFFFF),
            ("heartbeat", self.heartbeat, 0.1, 86400),
            ("history_rate", self.history_rate, 1, 100_000),
            ("connect_timeout", self.connect_timeout, 0.1, 600),
            ("reconnect_min", self.reconnect_min, 0, self.reconnect_max),
            ("reconnect_max", self.reconnect_max, 0, 3600),
        ):
            if not low <= value <= high:
                raise _wrong(option, f"is {value}", f"use {low} to {high}")
        self._check_topics()

    def _check_topics(self) -> None:
        try:
            for pattern in (*(self.subscribe or ()), *(self.publish or ())):
                validate_filter(pattern)
            validate_filter(self.history_replies)
            own = [t for t in (self.status_topic, self.heartbeat_topic, self.history_topic) if t is not None]
            for topic in own:
                validate_topic(topic)
        except InvalidTopic as error:
            option = "subscribe, publish, status_topic, heartbeat_topic, history_topic or history_replies"
            raise _wrong(option, f"is wrong: {error.message}", error.hint or "see MQTT 5 §4.7") from error
        if len(set(own)) < len(own) or any(matches(self.history_replies, topic) for topic in own):
            raise _wrong("status_topic, heartbeat_topic, history_topic and history_replies", "overlap", "separate them")

    @property
    def address(self) -> BrokerAddress:
        """The URL, taken apart."""
        return parse_address(self.url)

    @property
    def credentials(self) -> tuple[str | None, str | None]:
        """User name and password: the options', else the URL's."""
        address = self.address
        return (
            address.username if self.username is None else self.username,
            address.password if self.password is None else self.password,
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS trusts and shows; None for a plain connection. Reads files: call it off the loop.

        Raises:
            ConfigError: a file cannot be read or holds no certificate or key.
        """
        if not self.address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise _wrong("ca_file", f"({self.ca_file}) cannot be used: {_why(error)}", "give a PEM file") from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except (OSError, ValueError) as error:
                raise _wrong(
                    "cert_file or key_file",
                    f"({self.cert_file}, {self.key_file}) cannot be used: {_why(error)}",
                    "give PEM files that belong together, the key without a password",
                ) from error
        return context

    def __repr__(self) -> str:
        user, password = self.credentials
        shown = "".join((", username=" + repr(user) if user else "", ", password='***'" if password else ""))
        return f"LinkOptions({str(self.address)!r}, name={self.name!r}{shown})"


def _no_password() -> str:
    """Asked for where the key is encrypted; without it OpenSSL would ask on the terminal."""
    return ""


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _wrong(option: str, problem: str, hint: str) -> ConfigError:
    return ConfigError(f"link: {option} {problem}", hint=hint)
